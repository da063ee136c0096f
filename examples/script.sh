#!/usr/bin/env bash
# A test of something in a VM, as a script: start, wait, drive, shut down. Whatever goes wrong on the way,
# no VM is left behind. `vmrun` must be in PATH.
#
#     examples/script.sh IMAGE [OPTIONS OF vmrun qemu...]
#
# WAIT_FOR says when the guest is up (see `vmrun ctl wait --help`).
set -euo pipefail

image=${1:?'which image?'}
shift

# Detached, so that this script goes on; it prints the VM's name, which is made unique if it is taken.
vm=$(vmrun qemu "$image" --detached "$@")
trap 'vmrun ctl --vm "$vm" shutdown --force > /dev/null 2>&1 || true' EXIT

# No sleep and no polling: this ends as soon as it is true, at once if the guest panics or ends instead
# (its exit code tells which), and after two minutes at most.
vmrun ctl --vm "$vm" wait "${WAIT_FOR:-port=22}" --timeout 2m

# Change it. What is added is printed: the port that was found to be free, the id of a device.
port=$(vmrun ctl --vm "$vm" port-add 0:22)
keyboard=$(vmrun ctl --vm "$vm" usb-add usb-kbd)
echo "guest port 22 is port $port here; $keyboard is plugged in"

# Here the script would run what it came for, such as: ssh -p "$port" root@127.0.0.1 make check

vmrun ctl --vm "$vm" usb-remove "$keyboard"
vmrun ctl --vm "$vm" port-remove "$port"

# Ask the guest to shut down; 0 if it followed, 12 if it had to be forced off. Either way it is off now.
code=0
vmrun ctl --vm "$vm" shutdown --timeout 1m || code=$?
trap - EXIT
exit "$code"
