# Made by python/generate from docs/reference/qemu.md: change that, then run `make python`.
"""The options of `launch`: the flags of `vmrun qemu`, with underscores."""

from __future__ import annotations

import os
from typing import Sequence, TypedDict, Union

# A path is taken as it is; a number is written out. `True` gives a flag without a value.
Value = Union[str, int, "os.PathLike[str]"]


class Options(TypedDict, total=False):
    """Flags of `vmrun qemu`. A list gives a flag several times."""

    # Restore a VM that `ctl save` has saved to this file, instead of starting one
    restore: Value
    # Start as a fork of the template that `ctl freeze` has put into this folder: in a moment, with disks and memory
    # of its own
    from_: Value
    # Without FILE: IMAGE is the prefix of a kernel, an initrd and a command line. =FILE (or, beside --initrd,
    # FILE): boot this kernel; IMAGE, if given, is a disk
    kernel: Union[bool, Value]
    # Initial RAM disk for --kernel=FILE
    initrd: Value
    # Text to append to the kernel's command line
    append: Value
    # IMAGE is a CD image
    iso: bool
    # IMAGE is the prefix of a kernel, a squashfs root and a command line
    squashfs: bool
    # Boot with UEFI firmware; its variables are kept in the state directory
    uefi: bool
    # Firmware to use instead of the detected one
    fw: Value
    # Boot order of the firmware: net, disk, cdrom [default: an ISO, then the first disk; without IMAGE the disks,
    # then the network]
    boot: Value
    # Behave exactly like `linuxkit run qemu`: SATA disks (/dev/sda), qcow2 for new ones, its file names, --publish
    # on all addresses
    linuxkit: bool
    # Guest architecture: x86_64, aarch64, s390x, riscv64 [default: this host's]
    arch: Value
    # Accelerators in order of preference, e.g. kvm:tcg [default: those that work here]
    accel: Value
    # Number of processors [default: 1]
    cpus: Value
    # Memory, e.g. 2G; a plain number is MB [default: 1G]
    mem: Value
    # Processor model [default: host with KVM, max without]
    cpu: Value
    # Machine type, e.g. q35, pc, microvm, virt
    machine: Value
    # UUID of the machine, now and in later runs [default: generated in the first run]
    uuid: Value
    # QEMU program [default: qemu-system-<arch> from PATH]
    qemu: Value
    # Action when the guest's kernel panics: poweroff, pause or reset [default: poweroff]
    on_panic: Value
    # End the VM when the guest resets
    no_reboot: bool
    # Start without running the guest; `vmrun ctl resume` runs it
    paused: bool
    # End the VM, with exit code 13, after more resets by the guest than this
    max_resets: Value
    # Run QEMU without its seccomp sandbox
    no_sandbox: bool
    # [file=]PATH[,size=1G[,grow=on]][,format=qcow2][,bus=virtio|scsi|sata|usb|nvme][,readonly=on][,serial=S][,id=ID
    # ] [,cache=none|writeback|writethrough|directsync|unsafe][,aio=threads|native|io_uring][,discard=unmap|ignore]
    # [,detect-zeroes=off|on|unmap][,logical-block-size=512|4096][,iothread=on][,boot=N]; a plain size is GB;
    # without a path disk.img, disk1.img, ... in the state directory; repeatable
    disk: Union[Value, Sequence[Value]]
    # Unpack a compressed IMAGE (.xz, .gz, .zst, .bz2, ...), or the first image of an archive (.ova, .tar, .zip),
    # into the state directory; later runs use the unpacked image
    unpack: bool
    # File, or folder of files, that the images may refer to as backing or data files, besides their own folders;
    # repeatable
    allow_backing: Union[Value, Sequence[Value]]
    # Metadata for the guest
    data: Value
    # File with metadata for the guest
    data_file: Value
    # Discard everything that is written when the VM ends
    ephemeral: bool
    # State directory [default: <image>-state]
    state: Value
    # default, user[,net=10.0.3.0/24][,dns=ADDRESS][,hostname=NAME][,restrict=on], bridge,NAME, tap,NAME or none
    # [default: default]
    networking: Value
    # Further network card: user[,net=...][,dns=...][,hostname=...][,restrict=on], tap,NAME or bridge,NAME, then
    # [,mac=ADDRESS][,model=virtio|e1000|e1000e|rtl8139|vmxnet3][,id=ID]; repeatable
    nic: Union[Value, Sequence[Value]]
    # Port forward [ADDR:]HOST:GUEST[/tcp|udp]; host port 0 takes any free one; repeatable
    publish: Union[Value, Sequence[Value]]
    # Add a USB controller from the start
    usb: bool
    # Device DRIVER[,PROP=VALUE...] as for QEMU's -device; repeatable
    device: Union[Value, Sequence[Value]]
    # Shared folder: DIR[,tag=T]; repeatable
    virtiofs: Union[Value, Sequence[Value]]
    # virtiofsd program
    virtiofsd: Value
    # Open a window instead of the serial console; its close button does nothing, its menu has Power Down
    gui: bool
    # none, gui, gtk or sdl[,OPTION=VALUE...] as for QEMU, vnc=unix:PATH or vnc=[ADDR]:DISPLAY, spice=unix:PATH or
    # spice=[ADDR]:PORT (ADDR on this host only), or headless: a video device without a window
    display: Value
    # Number of spare slots for devices that are plugged while the VM runs [default: 8]
    hotplug_slots: Value
    # VM name [default: from the image's name]
    name: Value
    # Start as a fork of a VM that has met this condition (as for ctl wait), in a moment: the first start boots and
    # freezes it into the cache. Implies --ephemeral
    warm: Value
    # The VM can be frozen into a template and forked: its memory is a file
    forkable: bool
    # Leave the guest's clock as it was when the VM was saved
    no_time_sync: bool
    # How long to ask the guest on a signal before QEMU quits [default: 30s]
    stop_timeout: Value
    # Maximum size of the console's log on disk [default: 16M]
    log_size: Value
    # Keep the console's log and the outcome in DIR/NAME (NAME.1, …) when the VM ends
    keep_logs: Value
    # Path of a second, separate QMP socket for your own tools
    qmp: Value
    # Write all QMP messages to this file, one JSON object a line
    qmp_log: Value
    # Shut the VM down when it has run for this time
    max_lifetime: Value
    # Arguments that are passed to QEMU unchanged.
    qemu_args: Sequence[str]


NAMES = frozenset((
    "restore",
    "from_",
    "kernel",
    "initrd",
    "append",
    "iso",
    "squashfs",
    "uefi",
    "fw",
    "boot",
    "linuxkit",
    "arch",
    "accel",
    "cpus",
    "mem",
    "cpu",
    "machine",
    "uuid",
    "qemu",
    "on_panic",
    "no_reboot",
    "paused",
    "max_resets",
    "no_sandbox",
    "disk",
    "unpack",
    "allow_backing",
    "data",
    "data_file",
    "ephemeral",
    "state",
    "networking",
    "nic",
    "publish",
    "usb",
    "device",
    "virtiofs",
    "virtiofsd",
    "gui",
    "display",
    "hotplug_slots",
    "name",
    "warm",
    "forkable",
    "no_time_sync",
    "stop_timeout",
    "log_size",
    "keep_logs",
    "qmp",
    "qmp_log",
    "max_lifetime",
    "qemu_args",
))
