#!/usr/bin/env bash
# Checks, before anything is built, that this system has the tools for building and testing, and installs the missing
# ones: system packages with apt-get, as root or with sudo, and a Rust under .toolchain. One message names everything
# that is missing. Fails without changes if there is no apt-get or this user may not use it.
#
#   build/requirements.sh [c++] [load] [clients]    with a C++ compiler, for fuzzing; with the bench's load generators;
#                                                   with the clients of the nightly tests that PyPI does not have
set -euo pipefail
cd "$(dirname "$0")/.."

# From `make test-install`, on two cores that were busy with other work too; docs/building.md has them in a table.
readonly first_demo="up to 25 minutes and 3 GB of disk for make demo" first_test="an hour and 6 GB for make test"
readonly python=${PYTHON:-python3}

say() { echo "requirements: $*" >&2; }

has_command() { command -v "$1" >/dev/null; }
has_rust() { build/rust-toolchain.sh --present >/dev/null; }
has_python() { "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
can_make_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
can_link() { has_command cc && echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; }
trusts_web_certificates() { [[ -e /etc/ssl/certs/ca-certificates.crt || -n ${SSL_CERT_FILE:-} ]]; }

# Descriptions of what is missing, and the system packages that provide it.
missing=()
packages=()
lacks() {
    missing+=("$1")
    packages+=("${@:2}")
}

check() {
    missing=()
    packages=()
    has_rust || lacks "$(build/rust-toolchain.sh --wanted)"
    can_link || lacks "a C compiler that links (gcc and libc6-dev)" gcc libc6-dev
    has_command wasm-opt || lacks "wasm-opt (binaryen)" binaryen
    has_command curl || lacks "curl" curl
    has_python || lacks "Python 3.11 or newer (as $python; set PYTHON to use another)" python3
    can_make_venv || lacks "Python's venv module (python3-venv)" python3-venv
    trusts_web_certificates || lacks "the web's CA certificates (ca-certificates)" ca-certificates
    local extra
    for extra in "$@"; do
        case $extra in
            c++) has_command c++ || lacks "a C++ compiler (g++)" g++ ;;
            load)
                has_command wrk || lacks "wrk" wrk
                has_command h2load || lacks "h2load" nghttp2-client
                ;;
            clients)
                has_command git || lacks "git" git
                has_command restic || lacks "restic" restic
                has_command node || lacks "Node.js 18 or newer (nodejs)" nodejs
                has_command javac || lacks "a JDK (default-jdk-headless)" default-jdk-headless
                ;;
            *)
                say "unknown requirement $extra: use c++, load or clients"
                exit 2
                ;;
        esac
    done
}

list_missing() { printf '  - %s\n' "${missing[@]}" >&2; }

# A sudo that asks for a password is only useful on a terminal.
may_use_sudo() {
    has_command sudo && { timeout 10 sudo -n true 2>/dev/null || { [[ -t 0 && -t 2 ]] && sudo -v; }; }
}

install_packages() {
    local as_root=() command
    command="apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ${packages[*]}"
    if ((EUID != 0)); then
        if ! may_use_sudo; then
            say "this user can't install packages: no sudo here that does without a password. As root, run:"
            echo "    $command" >&2
            exit 1
        fi
        as_root=(sudo -n)
    fi
    build/step.sh "install system packages" "${as_root[@]}" sh -c "$command" >&2
}

say_first_run() {
    local free
    free=$(df --human-readable --output=avail . | tail --lines=1 | tr --delete ' ')
    say "on two cores, a first run takes $first_demo, $first_test; here, ${free}B are free"
}

check "$@"
if ((${#missing[@]} == 0)); then
    [[ -d target/release ]] || say_first_run
    exit 0
fi
if ! has_command apt-get; then
    say "this system lacks the following and has no apt-get to get it with; install it, then run again:"
    list_missing
    exit 1
fi
say "missing here, and to be installed with apt-get or unpacked under .toolchain:"
list_missing
say_first_run
((${#packages[@]} == 0)) || install_packages
has_rust || build/step.sh "get Rust" build/rust-toolchain.sh >&2

check "$@"
if ((${#missing[@]})); then
    say "still missing:"
    list_missing
    exit 1
fi
