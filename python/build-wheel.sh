#!/usr/bin/env bash
# Builds the wheel with the program into $TARGET/wheels and prints its path.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${TARGET:-$(cd "$here/.." && pwd)/target}
cache=${VMRUN_GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmrun}
environment=$cache/wheel-$(sha256sum < "$here/wheel-requirements.txt" | cut -c1-16)

if [ ! -e "$environment/complete" ]; then
    mkdir -p "$cache"
    exec 9> "$cache/wheel.lock"
    flock 9
    if [ ! -e "$environment/complete" ]; then
        rm -rf "$environment"
        python3 -m venv "$environment" >&2
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/wheel-requirements.txt" >&2
        touch "$environment/complete"
    fi
    exec 9>&-
fi

rm -f "$target"/wheels/vmrun-*.whl
# the oldest glibc with all that is used, such as renameat2 and memfd_create: Debian 10, Ubuntu 20.04, RHEL 8
cd "$here"
PATH="$environment/bin:$PATH" VMRUN_PORTABLE=1 CARGO_TARGET_DIR="$target/portable" \
    "$environment/bin/maturin" build --release --locked --zig --compatibility manylinux_2_28 --out "$target/wheels" >&2
ls "$target"/wheels/vmrun-*.whl
