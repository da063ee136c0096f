#!/usr/bin/env bash
# Installs what the benchmarks compare with: libvirt's daemon and virsh. Without them `make bench` still runs, and says in
# its table what is not installed. Starts nothing: the benchmarks start private daemons of their own.
set -euo pipefail

say() { echo "bench-setup: $*" >&2; }

if command -v virsh > /dev/null && PATH=$PATH:/usr/sbin command -v libvirtd > /dev/null; then
    exit 0
fi
packages=(libvirt-daemon-system libvirt-clients)
if ! command -v apt-get > /dev/null; then
    say "to compare with libvirt, please install what Debian calls: ${packages[*]}"
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo > /dev/null; then
    as_root=(sudo)
else
    say "to compare with libvirt, run as root: apt-get install --no-install-recommends ${packages[*]}"
    exit 0
fi
say "installing ${packages[*]}"
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y install --no-install-recommends "${packages[@]}" > /dev/null
}
if ! install; then
    # old lists name versions that are no longer on offer
    "${as_root[@]}" apt-get -q update > /dev/null || true
    install || say "could not install ${packages[*]}; the table will say so"
fi
