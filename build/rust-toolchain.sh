#!/usr/bin/env bash
# Provides the Rust that builds everything here, native and wasm, and prints which one it is:
#
#   path     the Rust in PATH: as new as Cargo.toml asks for, with the target wasm32-unknown-unknown, which rustup fetches
#   debian   Debian's rustc-web, cargo-web and lld, and the standard library's source to compile for wasm, unpacked under
#            .toolchain/rustc-web: not installed, because those packages would remove Debian's own rustc
#
# The first needs no download and is preferred. The second needs nothing but apt-get. They are never mixed: a Rust in
# PATH that can't compile the filter is not used at all, so that one version compiles, tests and lints all code.
#
#   build/rust-toolchain.sh --present   does not download: fails if no such Rust is here yet
#   build/rust-toolchain.sh --wanted    describes what is missing, for messages
#
# RUST_TOOLCHAIN=path or =debian selects that one alone.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly target=wasm32-unknown-unknown
readonly prefix=.toolchain/rustc-web
readonly packages=(rustc-web libstd-rust-web-dev cargo-web rust-web-clippy rustfmt-web rust-web-src lld-22)
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
readonly needed
# Only the standard library of the compiler's source tree is needed.
readonly unwanted=(--exclude=./usr/share/{doc,man} --exclude=./usr/src/rustc-*/{compiler,src,tests,vendor})

say() { echo "rust-toolchain: $*" >&2; }

# rustup's proxies would otherwise try to download a toolchain, which takes minutes where its hosts can't be reached.
ask() { RUSTUP_AUTO_INSTALL=0 timeout 10 "$@" 2>/dev/null; }

version_of() { ask "$1" --version | awk 'NR == 1 { print $2 }'; }

is_new_enough() {
    [[ $1 ]] && printf '%s\n' "$needed" "$1" | sort --version-sort --check=quiet
}

path_is_new_enough() {
    is_new_enough "$(version_of rustc)" && is_new_enough "$(version_of cargo)"
}

path_has_target() {
    local libraries
    libraries=$(ask rustc --print target-libdir --target "$target") && compgen -G "$libraries/libstd-*.rlib" >/dev/null
}

describe_missing() {
    local found
    found=$(version_of rustc) || true
    if [[ ! $found ]]; then
        found="none is in PATH"
    elif path_is_new_enough; then
        found="$found in PATH lacks it: rustup target add $target"
    else
        found="$found is in PATH"
    fi
    echo "Rust $needed or newer, from https://rustup.rs, with the target $target ($found)"
}

# A blocked network must not delay the build for long: rustup's own timeouts and retries take minutes.
rustup_adds_target() {
    command -v rustup >/dev/null || return 1
    say "asking rustup for $target"
    RUST_BACKTRACE=0 timeout "${RUSTUP_TIMEOUT:-60}" rustup target add "$target" >&2 && path_has_target
}

debian_is_unpacked() { printf '%s\n' "${packages[@]}" | cmp --silent - $prefix/packages.txt; }

unpack_debian() {
    build/unpack-packages.sh --with-dependencies $prefix "${packages[@]}" -- "${unwanted[@]}" || {
        say "Debian 12 and its security updates have these packages; other systems get Rust $needed or newer from" \
            "https://rustup.rs"
        return 1
    }
    local version
    version=$(RUST_TOOLCHAIN=debian build/with-rust.sh rustc --version | awk '{ print $2 }')
    is_new_enough "$version" || {
        rm -rf $prefix
        say "apt's sources have rustc-web $version, and $needed or newer is needed: add Debian 12's security updates to" \
            "them, or install Rust from https://rustup.rs"
        return 1
    }
}

# Prints which Rust is present, without a download.
present() {
    case ${RUST_TOOLCHAIN:-} in
        '' | path | debian) ;;
        *)
            say "RUST_TOOLCHAIN=$RUST_TOOLCHAIN: use path or debian"
            exit 2
            ;;
    esac
    if [[ ${RUST_TOOLCHAIN:-} != debian ]] && path_is_new_enough && path_has_target; then
        echo path
    elif [[ ${RUST_TOOLCHAIN:-} != path ]] && debian_is_unpacked; then
        echo debian
    else
        return 1
    fi
}

provide() {
    if present; then
        return
    elif [[ ${RUST_TOOLCHAIN:-} != debian ]] && path_is_new_enough && rustup_adds_target; then
        echo path
    elif [[ ${RUST_TOOLCHAIN:-} != path ]]; then
        unpack_debian
        echo debian
    else
        say "RUST_TOOLCHAIN=path, but missing there is $(describe_missing)"
        return 1
    fi
}

case ${1:-} in
    '') provide ;;
    --present) present ;;
    --wanted) describe_missing ;;
    *)
        say "unknown option $1"
        exit 2
        ;;
esac
