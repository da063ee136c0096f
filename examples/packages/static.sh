#!/usr/bin/env bash
# Builds a program that needs no library of the system, as TARGET/static/vmrun, and prints its path: with musl where the Rust toolchain
# has it (`rustup target add`), else with glibc.
#
#   examples/packages/static.sh target
set -euo pipefail

target=${1:?which target folder?}
cargo=${CARGO:-cargo}
# More would no longer be a file to carry around.
most=$((8 << 20))

host=$(rustc -vV | sed -n 's/^host: //p')
musl=${host%-*}-musl
if [ -d "$(rustc --print sysroot)/lib/rustlib/$musl" ]; then triple=$musl; else triple=$host; fi
# glibc: a program of its own triple, so that build scripts are not built statically
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" "$cargo" build --release --locked --target "$triple" --target-dir "$target/static-build" >&2

program=$target/static-build/$triple/release/vmrun
if readelf --program-headers "$program" | grep -q INTERP; then
    echo "static: $program has a dynamic linker" >&2
    exit 1
fi
size=$(stat -c %s "$program")
if [ "$size" -gt "$most" ]; then
    echo "static: $program has $size bytes, more than $most" >&2
    exit 1
fi
mkdir -p "$target/static"
cp "$program" "$target/static/vmrun"
echo "$target/static/vmrun"
