#!/bin/sh
# Builds s3s-fs, an S3 server that verifies what ministack does not, into .toolchain. Does nothing if it is there.
set -eu
cd "$(dirname "$0")/.."

version=0.14.1
root=.toolchain/s3s-fs

if [ -x "$root/bin/s3s-fs" ] && "$root/bin/s3s-fs" --version | grep -qF "$version"; then
    exit 0
fi
echo "Building s3s-fs $version into $root"
build/with-rust.sh cargo install s3s-fs --version "$version" --features binary --debug --locked --quiet --root "$root"
