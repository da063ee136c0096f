#!/usr/bin/env python3
"""Drives a running VM from Python, with nothing of vmrun but its socket: pip install varlink

    vmrun qemu debian.qcow2 --detached --name test
    python3 examples/python.py unix:/run/vmrun/test/control

The folder of the socket is the "run directory" of `vmrun ctl status`.
"""

import sys

import varlink


def main(address):
    with varlink.Client(address) as client, client.open("io.vmrun.Machine") as vm:
        status = vm.GetStatus()["status"]
        print(f"{status['name']} is {status['state']} on QEMU {status['qemu_version']}")

        keyboard = vm.AddUsb(selector="usb-kbd", id="keyboard")["usb"]
        print(f"plugged {keyboard['id']}, a {keyboard['driver']}")

        # Every refusal is an error with a name for programs and a message for people.
        try:
            vm.AddUsb(selector="usb-mouse", id="keyboard")
        except varlink.VarlinkError as error:
            print(f"refused with {error.error()}: {error.parameters()['message']}")

        vm.RemoveUsb(id="keyboard")
        print(f"USB devices left: {len(vm.ListUsb()['usb'])}")

        # Answers when QEMU has ended: within a minute, or when it had to be told to quit.
        outcome = vm.Shutdown(timeout_ms=60_000)["outcome"]
        print(f"{outcome['ending']}: {outcome['message']}")
        return outcome["exit_code"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} ADDRESS, such as unix:/run/vmrun/NAME/control")
    sys.exit(main(sys.argv[1]))
