#!/usr/bin/env bash
# Prints which preconditions of tests hold on this machine, with commas in between: `make test` tells the build script by
# VMRUN_TEST_HAVE, and a test that lacks one is reported as ignored. With CI=true it runs, and fails, unless tests/setup/may-lack
# names what it lacks.
set -euo pipefail

have=()
root() { [ "$(id -u)" = 0 ]; }
mount_works() {
    local folder works=1
    folder=$(mktemp -d)
    if mount -t tmpfs none "$folder" 2> /dev/null; then
        umount "$folder"
        works=0
    fi
    rmdir "$folder"
    return $works
}
tap_works() {
    local name=vmrun$$
    ip tuntap add dev "$name" mode tap 2> /dev/null && ip link del "$name"
}

root && have+=(root)
mount_works && have+=(mount)
tap_works && have+=(tap)
for program in isoinfo systemd-analyze zsh fish rpmbuild; do
    command -v "$program" > /dev/null && have+=("$program")
done
# a guest for it, too, which `make` has built
for arch in aarch64 s390x riscv64; do
    guest=VMRUN_TEST_GUEST_${arch^^}
    [ -n "${!guest-}" ] && command -v "qemu-system-$arch" > /dev/null && have+=("qemu-system-$arch")
done
IFS=,
echo "${have[*]}"
