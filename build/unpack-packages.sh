#!/usr/bin/env bash
# Downloads Debian packages and unpacks them under a directory of the project. Installs nothing and needs no privilege:
#
#   build/unpack-packages.sh [--with-dependencies] DIRECTORY PACKAGE… [-- TAR_OPTION…]
#
# With dependencies, those that this system lacks are unpacked too. The options are passed to tar for each package. The
# directory gets its name only when it is complete, so that a later run does not mistake an interrupted one for it.
set -euo pipefail
cd "$(dirname "$0")/.."

dependencies=
[[ $1 != --with-dependencies ]] || { dependencies=1; shift; }
readonly directory=$1
shift
packages=()
while (($#)) && [[ $1 != -- ]]; do
    packages+=("$1")
    shift
done
tar_options=("${@:2}")

say() { echo "unpack-packages: $*" >&2; }

for command in apt-get dpkg-deb; do
    command -v $command >/dev/null || { say "$command is not here"; exit 1; }
done

mkdir -p .toolchain
# Only one run at a time, so that an earlier, killed run's files can be removed.
exec 9>.toolchain/unpack.lock
flock 9
rm -rf "$directory".partial-*
work=$PWD/$directory.partial-$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{debs,root,lists/partial,cache/archives/partial}

apt_options=(-o Debug::NoLocking=true -o "APT::Sandbox::User=$(id -un)")

# The first simulates an installation, which installs nothing and lists the missing packages.
packages_to_unpack() {
    local simulation
    printf '%s\n' "${packages[@]}"
    [[ $dependencies ]] || return 0
    simulation=$(apt-get "${apt_options[@]}" install --simulate --no-install-recommends "${packages[@]}") || return
    awk '$1 == "Inst" { print $2 }' <<<"$simulation"
}

download() {
    local names
    names=$(packages_to_unpack) || return
    # shellcheck disable=SC2046 # package names, one word each
    (cd "$work/debs" && apt-get "${apt_options[@]}" download $(sort --unique <<<"$names"))
}

say "downloading ${packages[*]}"
if ! download >"$work/log" 2>&1; then
    # A fresh system has no package lists, or so old ones that their files are gone. Private lists need no privilege.
    apt_options+=(-o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
    if ! { apt-get "${apt_options[@]}" update && download; } >"$work/log" 2>&1; then
        cat "$work/log" >&2
        say "can't download ${packages[*]}"
        exit 1
    fi
fi

say "unpacking to $directory"
for deb in "$work"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" |
        tar --extract --directory "$work/root" --no-same-owner --no-wildcards-match-slash "${tar_options[@]}"
done
printf '%s\n' "${packages[@]}" >"$work/root/packages.txt"
rm -rf "$directory"
mv "$work/root" "$directory"
