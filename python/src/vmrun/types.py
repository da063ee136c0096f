# Made by python/generate from proto/io.vmrun.Machine.varlink: change that, then run `make python`.
"""The records of the protocol. Fields that this version does not know are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Literal, Optional

from ._json import from_base64, maybe, optional, required

# What the machine does now.
#   starting   QEMU is up, the guest's processors have not run yet
#   running    the guest runs
#   paused     stopped by a client (`Pause`), by a migration or a debugger
#   io_error   stopped because a disk's host storage failed or is full; `Resume` tries again
#   suspended  the guest put itself to sleep
#   panicked   the guest's kernel has panicked and the machine was kept
#   stopping   a shutdown is under way
#   ended      QEMU is gone; `outcome` says how
State = Literal["starting", "running", "paused", "io_error", "suspended", "panicked", "stopping", "ended"]


@dataclass(frozen=True)
class Outcome:
    """How a machine ended. `exit_code` is what `vmrun qemu` exits with.
      guest_off     the guest switched itself off
      asked_agent   it followed the guest agent's shutdown
      asked_acpi    it followed the power button
      quit          it did not follow in time, or was not asked: QEMU was told to quit
      killed        QEMU did not even quit: SIGKILL
      guest_reset   the guest reset and the machine was started with `-no-reboot`
      panicked      the guest's kernel panicked
      host_signal   another process sent QEMU a signal that ends it
      too_many_resets  the guest reset more often than `--max-resets` allows
      unknown       QEMU ended while its supervisor was dead
      crashed       QEMU crashed or was killed by another process

    `message`: one sentence for people
    `after_ms`: from the request to the end, where a client asked for it
    `stderr`: the last lines that QEMU wrote to stderr, where it crashed
    """

    ending: Literal["guest_off", "asked_agent", "asked_acpi", "quit", "killed", "guest_reset", "panicked", "host_signal", "crashed", "too_many_resets", "saved", "unknown"]
    exit_code: int
    message: str
    after_ms: Optional[int]
    stderr: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Outcome:
        return cls(
            ending=required(data, "ending"),
            exit_code=required(data, "exit_code"),
            message=required(data, "message"),
            after_ms=optional(data, "after_ms"),
            stderr=optional(data, "stderr"),
        )


@dataclass(frozen=True)
class Share:
    """A folder of the host that the guest can mount by its tag: `mount -t virtiofs TAG DIR`."""

    directory: str
    tag: str

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Share:
        return cls(
            directory=required(data, "directory"),
            tag=required(data, "tag"),
        )


@dataclass(frozen=True)
class Forward:
    """A host port that leads to a guest port."""

    address: str
    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"]
    nic: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Forward:
        return cls(
            address=required(data, "address"),
            host_port=required(data, "host_port"),
            guest_port=required(data, "guest_port"),
            protocol=required(data, "protocol"),
            nic=optional(data, "nic"),
        )


@dataclass(frozen=True)
class Usb:
    """A USB device in the machine. `phase` as in `Disk`.

    `driver`: QEMU's name of the device model, e.g. `usb-kbd`, `usb-host`, `usb-storage`
    `taken`: as in `Disk`
    """

    id: str
    driver: str
    description: str
    phase: Literal["adding", "present", "removing"]
    taken: Optional[bool]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Usb:
        return cls(
            id=required(data, "id"),
            driver=required(data, "driver"),
            description=required(data, "description"),
            phase=required(data, "phase"),
            taken=optional(data, "taken"),
        )


@dataclass(frozen=True)
class Disk:
    """A disk or CD-ROM drive of the machine.
      phase removing: the guest was asked to release it and has not done so yet

    `file`: absent: a drive without a medium
    `slot`: the slot that it is plugged into
    `taken`: false: it is plugged, but the guest has not taken it: the guest's kernel has no PCI hot-plug, no driver for it, or does not run
      yet. (What tells is that a driver switches on the regions of the PCI device, or of its controller.)
      absent: that is not known, or it was there from the start
    `limits`: absent: as much as it can
    `cache`: These are as they were asked for (see `AddDisk`), or what follows from it; absent: nothing was said, and it is as QEMU has it.
    """

    id: str
    file: Optional[str]
    format: Optional[str]
    bus: Literal["virtio", "scsi", "sata", "usb", "nvme"]
    size_bytes: Optional[int]
    readonly: bool
    removable: bool
    serial: Optional[str]
    slot: Optional[str]
    phase: Literal["adding", "present", "removing"]
    taken: Optional[bool]
    limits: Optional[Limits]
    cache: Optional[str]
    aio: Optional[str]
    discard: Optional[str]
    detect_zeroes: Optional[str]
    logical_block_size: Optional[int]
    iothread: Optional[bool]
    boot: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Disk:
        return cls(
            id=required(data, "id"),
            file=optional(data, "file"),
            format=optional(data, "format"),
            bus=required(data, "bus"),
            size_bytes=optional(data, "size_bytes"),
            readonly=required(data, "readonly"),
            removable=required(data, "removable"),
            serial=optional(data, "serial"),
            slot=optional(data, "slot"),
            phase=required(data, "phase"),
            taken=optional(data, "taken"),
            limits=maybe(optional(data, "limits"), Limits.from_json),
            cache=optional(data, "cache"),
            aio=optional(data, "aio"),
            discard=optional(data, "discard"),
            detect_zeroes=optional(data, "detect_zeroes"),
            logical_block_size=optional(data, "logical_block_size"),
            iothread=optional(data, "iothread"),
            boot=optional(data, "boot"),
        )


@dataclass(frozen=True)
class Limits:
    """What a disk may do per second. For operations, and for bytes, there is a limit on reads and writes together, or limits of their own."""

    iops: Optional[int]
    iops_read: Optional[int]
    iops_write: Optional[int]
    bytes_per_s: Optional[int]
    bytes_per_s_read: Optional[int]
    bytes_per_s_write: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Limits:
        return cls(
            iops=optional(data, "iops"),
            iops_read=optional(data, "iops_read"),
            iops_write=optional(data, "iops_write"),
            bytes_per_s=optional(data, "bytes_per_s"),
            bytes_per_s_read=optional(data, "bytes_per_s_read"),
            bytes_per_s_write=optional(data, "bytes_per_s_write"),
        )


@dataclass(frozen=True)
class Nic:
    """A network card of the machine. `phase` as in `Disk`.

    `driver`: QEMU's name of the device model, e.g. `virtio-net-pci`
    `network`: `user`, `tap,NAME`, `bridge,NAME`, or `other` for what was made by hand in QEMU's monitor
    `interface`: the host's interface behind it, where it is known
    `link_up`: its cable is plugged
    `taken`: as in `Disk`
    `net`: Of user networking: its network, such as `10.0.2.0/24`, and what was said besides. `restrict`: the guest reaches nothing but what
      is forwarded to it. Of a card that vmrun has not made, QEMU tells the network's first address alone; it is taken for a /24.
    """

    id: str
    driver: str
    network: str
    interface: Optional[str]
    mac: Optional[str]
    link_up: bool
    slot: Optional[str]
    phase: Literal["adding", "present", "removing"]
    taken: Optional[bool]
    net: Optional[str]
    dns: Optional[str]
    hostname: Optional[str]
    restrict: Optional[bool]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Nic:
        return cls(
            id=required(data, "id"),
            driver=required(data, "driver"),
            network=required(data, "network"),
            interface=optional(data, "interface"),
            mac=optional(data, "mac"),
            link_up=required(data, "link_up"),
            slot=optional(data, "slot"),
            phase=required(data, "phase"),
            taken=optional(data, "taken"),
            net=optional(data, "net"),
            dns=optional(data, "dns"),
            hostname=optional(data, "hostname"),
            restrict=optional(data, "restrict"),
        )


@dataclass(frozen=True)
class Device:
    """Any other device that was plugged by `AddDevice` or given at the start.
    `taken` as in `Disk`.
    """

    id: str
    driver: str
    slot: Optional[str]
    phase: Literal["adding", "present", "removing"]
    taken: Optional[bool]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Device:
        return cls(
            id=required(data, "id"),
            driver=required(data, "driver"),
            slot=optional(data, "slot"),
            phase=required(data, "phase"),
            taken=optional(data, "taken"),
        )


@dataclass(frozen=True)
class Slot:
    """A place that a device can be plugged into while the machine runs."""

    name: str
    device: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Slot:
        return cls(
            name=required(data, "name"),
            device=optional(data, "device"),
        )


@dataclass(frozen=True)
class Status:
    """`reason`: why it is in this state, where that is not obvious (e.g. which disk is full)
    `ended_unix_ms`: of a machine that has ended, from its record: when, in milliseconds after the Unix epoch
    `accel`: the accelerator in use and why it was chosen
    `sandbox`: QEMU's seccomp sandbox is on
    `wrapped`: the user's own command line started it, under `vmrun wrap`
    `supervisor_pid`: 0: it has ended, and this comes from its record
    `template`: the folder of the template that it is a fork of, and how many other machines use that template's memory now (absent: it is not shared)
    `nics`: absent: a supervisor of an older version
    `shares`: the shared folders; absent: there are none
    """

    name: str
    state: State
    reason: Optional[str]
    outcome: Optional[Outcome]
    ended_unix_ms: Optional[int]
    uptime_ms: int
    uuid: str
    arch: str
    machine: str
    cpus: int
    memory_bytes: int
    accel: str
    accel_reason: str
    sandbox: bool
    wrapped: Optional[bool]
    qemu_version: str
    qemu_pid: int
    supervisor_pid: int
    supervisor_version: str
    detached: bool
    run_directory: str
    state_directory: str
    template: Optional[str]
    siblings: Optional[int]
    networking: str
    mac: str
    usb: List[Usb]
    disks: List[Disk]
    forwards: List[Forward]
    devices: List[Device]
    nics: Optional[List[Nic]]
    shares: Optional[List[Share]]
    slots_total: int
    slots_used: int
    slots: List[Slot]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Status:
        return cls(
            name=required(data, "name"),
            state=required(data, "state"),
            reason=optional(data, "reason"),
            outcome=maybe(optional(data, "outcome"), Outcome.from_json),
            ended_unix_ms=optional(data, "ended_unix_ms"),
            uptime_ms=required(data, "uptime_ms"),
            uuid=required(data, "uuid"),
            arch=required(data, "arch"),
            machine=required(data, "machine"),
            cpus=required(data, "cpus"),
            memory_bytes=required(data, "memory_bytes"),
            accel=required(data, "accel"),
            accel_reason=required(data, "accel_reason"),
            sandbox=required(data, "sandbox"),
            wrapped=optional(data, "wrapped"),
            qemu_version=required(data, "qemu_version"),
            qemu_pid=required(data, "qemu_pid"),
            supervisor_pid=required(data, "supervisor_pid"),
            supervisor_version=required(data, "supervisor_version"),
            detached=required(data, "detached"),
            run_directory=required(data, "run_directory"),
            state_directory=required(data, "state_directory"),
            template=optional(data, "template"),
            siblings=optional(data, "siblings"),
            networking=required(data, "networking"),
            mac=required(data, "mac"),
            usb=[Usb.from_json(item) for item in required(data, "usb") or []],
            disks=[Disk.from_json(item) for item in required(data, "disks") or []],
            forwards=[Forward.from_json(item) for item in required(data, "forwards") or []],
            devices=[Device.from_json(item) for item in required(data, "devices") or []],
            nics=maybe(optional(data, "nics"), lambda items: [Nic.from_json(item) for item in items]),
            shares=maybe(optional(data, "shares"), lambda items: [Share.from_json(item) for item in items]),
            slots_total=required(data, "slots_total"),
            slots_used=required(data, "slots_used"),
            slots=[Slot.from_json(item) for item in required(data, "slots") or []],
        )


@dataclass(frozen=True)
class RemoveDiskReply:
    """The reply of `remove_disk`."""

    removed: bool
    unchecked: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> RemoveDiskReply:
        return cls(
            removed=required(data, "removed"),
            unchecked=optional(data, "unchecked"),
        )


@dataclass(frozen=True)
class RemoveDeviceReply:
    """The reply of `remove_device`."""

    removed: bool
    unchecked: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> RemoveDeviceReply:
        return cls(
            removed=required(data, "removed"),
            unchecked=optional(data, "unchecked"),
        )


@dataclass(frozen=True)
class SaveReply:
    """One of the replies of `save`."""

    done_bytes: Optional[int]
    total_bytes: Optional[int]
    outcome: Optional[Outcome]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> SaveReply:
        return cls(
            done_bytes=optional(data, "done_bytes"),
            total_bytes=optional(data, "total_bytes"),
            outcome=maybe(optional(data, "outcome"), Outcome.from_json),
        )


@dataclass(frozen=True)
class FreezeReply:
    """One of the replies of `freeze`."""

    done_bytes: Optional[int]
    total_bytes: Optional[int]
    outcome: Optional[Outcome]
    paused_ms: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> FreezeReply:
        return cls(
            done_bytes=optional(data, "done_bytes"),
            total_bytes=optional(data, "total_bytes"),
            outcome=maybe(optional(data, "outcome"), Outcome.from_json),
            paused_ms=optional(data, "paused_ms"),
        )


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of the machine, in its disks' qcow2 images. `id`: its number in the first disk's image; `vm_clock_ms`: how long the
    guest had run; `state_bytes`: size of memory and devices (0 = made without them, e.g. by qemu-img); `disks` have it, `missing`
    are writable and do not. `loadable`: it has the state, and all disks have it.
    """

    name: str
    id: str
    created_unix_ms: int
    vm_clock_ms: int
    state_bytes: int
    disks: List[str]
    missing: List[str]
    loadable: bool

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Snapshot:
        return cls(
            name=required(data, "name"),
            id=required(data, "id"),
            created_unix_ms=required(data, "created_unix_ms"),
            vm_clock_ms=required(data, "vm_clock_ms"),
            state_bytes=required(data, "state_bytes"),
            disks=required(data, "disks"),
            missing=required(data, "missing"),
            loadable=required(data, "loadable"),
        )


@dataclass(frozen=True)
class SaveSnapshotReply:
    """One of the replies of `save_snapshot`."""

    done_bytes: Optional[int]
    total_bytes: Optional[int]
    snapshot: Optional[Snapshot]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> SaveSnapshotReply:
        return cls(
            done_bytes=optional(data, "done_bytes"),
            total_bytes=optional(data, "total_bytes"),
            snapshot=maybe(optional(data, "snapshot"), Snapshot.from_json),
        )


@dataclass(frozen=True)
class Stats:
    """One look at everything that is counted. Counters begin at QEMU's start, or when a device was plugged.

    `cpu_time_ms`: processor time of QEMU's process, all of its threads
    `resident_bytes`: memory of QEMU's process that is resident on the host
    `shared_bytes`: of a fork: what of that it shares with its template and the other forks of it, and what is its own
    `memory_bytes`: the guest's memory
    `balloon_bytes`: what a balloon leaves of it; absent: there is no balloon
    """

    time_unix_ms: int
    uptime_ms: int
    cpu_time_ms: int
    resident_bytes: int
    shared_bytes: Optional[int]
    own_bytes: Optional[int]
    memory_bytes: int
    balloon_bytes: Optional[int]
    vcpus: List[VcpuStats]
    disks: List[DiskStats]
    nics: List[NicStats]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Stats:
        return cls(
            time_unix_ms=required(data, "time_unix_ms"),
            uptime_ms=required(data, "uptime_ms"),
            cpu_time_ms=required(data, "cpu_time_ms"),
            resident_bytes=required(data, "resident_bytes"),
            shared_bytes=optional(data, "shared_bytes"),
            own_bytes=optional(data, "own_bytes"),
            memory_bytes=required(data, "memory_bytes"),
            balloon_bytes=optional(data, "balloon_bytes"),
            vcpus=[VcpuStats.from_json(item) for item in required(data, "vcpus") or []],
            disks=[DiskStats.from_json(item) for item in required(data, "disks") or []],
            nics=[NicStats.from_json(item) for item in required(data, "nics") or []],
        )


@dataclass(frozen=True)
class VcpuStats:
    """A processor of the guest, which is a thread of QEMU."""

    number: int
    thread_id: int
    cpu_time_ms: int

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> VcpuStats:
        return cls(
            number=required(data, "number"),
            thread_id=required(data, "thread_id"),
            cpu_time_ms=required(data, "cpu_time_ms"),
        )


@dataclass(frozen=True)
class DiskStats:
    """What a disk did; the times are those of all requests together."""

    id: str
    read_bytes: int
    read_operations: int
    read_time_ms: int
    read_errors: int
    write_bytes: int
    write_operations: int
    write_time_ms: int
    write_errors: int
    flush_operations: int
    flush_time_ms: int
    flush_errors: int

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> DiskStats:
        return cls(
            id=required(data, "id"),
            read_bytes=required(data, "read_bytes"),
            read_operations=required(data, "read_operations"),
            read_time_ms=required(data, "read_time_ms"),
            read_errors=required(data, "read_errors"),
            write_bytes=required(data, "write_bytes"),
            write_operations=required(data, "write_operations"),
            write_time_ms=required(data, "write_time_ms"),
            write_errors=required(data, "write_errors"),
            flush_operations=required(data, "flush_operations"),
            flush_time_ms=required(data, "flush_time_ms"),
            flush_errors=required(data, "flush_errors"),
        )


@dataclass(frozen=True)
class NicStats:
    """What went through a network card, as the guest sees it. QEMU does not count: `source` says who did.
      host   the host's interface behind a tap device
      agent  the guest, through its agent
    absent: nobody; `reason` says why, and there are no counters.
    """

    id: str
    source: Optional[Literal["host", "agent"]]
    reason: Optional[str]
    rx_bytes: Optional[int]
    rx_packets: Optional[int]
    rx_errors: Optional[int]
    rx_dropped: Optional[int]
    tx_bytes: Optional[int]
    tx_packets: Optional[int]
    tx_errors: Optional[int]
    tx_dropped: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> NicStats:
        return cls(
            id=required(data, "id"),
            source=optional(data, "source"),
            reason=optional(data, "reason"),
            rx_bytes=optional(data, "rx_bytes"),
            rx_packets=optional(data, "rx_packets"),
            rx_errors=optional(data, "rx_errors"),
            rx_dropped=optional(data, "rx_dropped"),
            tx_bytes=optional(data, "tx_bytes"),
            tx_packets=optional(data, "tx_packets"),
            tx_errors=optional(data, "tx_errors"),
            tx_dropped=optional(data, "tx_dropped"),
        )


@dataclass(frozen=True)
class WatchStatsReply:
    """One of the replies of `watch_stats`."""

    stats: Stats

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> WatchStatsReply:
        return cls(
            stats=Stats.from_json(required(data, "stats")),
        )


@dataclass(frozen=True)
class CameTrue:
    """A condition of `Wait` that came true.

    `details`: e.g. the matching `line`, its `groups` and whether it had `ended` (a prompt has not), the `event` and its `data`, the `outcome`
    """

    condition: str
    after_ms: int
    details: Any

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> CameTrue:
        return cls(
            condition=required(data, "condition"),
            after_ms=required(data, "after_ms"),
            details=required(data, "details"),
        )


@dataclass(frozen=True)
class EventsReply:
    """One of the replies of `events`."""

    event: Optional[Event]
    lost: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> EventsReply:
        return cls(
            event=maybe(optional(data, "event"), Event.from_json),
            lost=optional(data, "lost"),
        )


@dataclass(frozen=True)
class Event:
    sequence: int
    time_unix_ms: int
    name: str
    data: Any

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Event:
        return cls(
            sequence=required(data, "sequence"),
            time_unix_ms=required(data, "time_unix_ms"),
            name=required(data, "name"),
            data=required(data, "data"),
        )


@dataclass(frozen=True)
class ReadConsoleReply:
    """One of the replies of `read_console`."""

    data: bytes
    skipped: int
    text: Optional[str]
    earlier: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> ReadConsoleReply:
        return cls(
            data=from_base64(required(data, "data")),
            skipped=required(data, "skipped"),
            text=optional(data, "text"),
            earlier=optional(data, "earlier"),
        )


@dataclass(frozen=True)
class SetTimeReply:
    """The reply of `set_time`."""

    behind_ms: int
    set: bool

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> SetTimeReply:
        return cls(
            behind_ms=required(data, "behind_ms"),
            set=required(data, "set"),
        )


@dataclass(frozen=True)
class RebootReply:
    """The reply of `reboot`."""

    reset_after_ms: int
    condition: Optional[str]
    up_after_ms: Optional[int]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> RebootReply:
        return cls(
            reset_after_ms=required(data, "reset_after_ms"),
            condition=optional(data, "condition"),
            up_after_ms=optional(data, "up_after_ms"),
        )


@dataclass(frozen=True)
class ExecReply:
    """One of the replies of `exec`.

    `stdout_text`: without `more`, where the stream is UTF-8
    """

    pid: Optional[int]
    input: Optional[int]
    stdout: Optional[bytes]
    stderr: Optional[bytes]
    exit_code: Optional[int]
    signal: Optional[int]
    truncated: Optional[bool]
    stdout_text: Optional[str]
    stderr_text: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> ExecReply:
        return cls(
            pid=optional(data, "pid"),
            input=optional(data, "input"),
            stdout=maybe(optional(data, "stdout"), from_base64),
            stderr=maybe(optional(data, "stderr"), from_base64),
            exit_code=optional(data, "exit_code"),
            signal=optional(data, "signal"),
            truncated=optional(data, "truncated"),
            stdout_text=optional(data, "stdout_text"),
            stderr_text=optional(data, "stderr_text"),
        )


@dataclass(frozen=True)
class StartGuestFileReply:
    """The reply of `start_guest_file`."""

    handle: int
    path: str

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> StartGuestFileReply:
        return cls(
            handle=required(data, "handle"),
            path=required(data, "path"),
        )


@dataclass(frozen=True)
class ReadGuestFileReply:
    """One of the replies of `read_guest_file`."""

    size_bytes: Optional[int]
    mode: Optional[int]
    data: Optional[bytes]
    sha256: Optional[str]
    text: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> ReadGuestFileReply:
        return cls(
            size_bytes=optional(data, "size_bytes"),
            mode=optional(data, "mode"),
            data=maybe(optional(data, "data"), from_base64),
            sha256=optional(data, "sha256"),
            text=optional(data, "text"),
        )


@dataclass(frozen=True)
class ScreenshotReply:
    """The reply of `screenshot`."""

    png: bytes
    width: int
    height: int

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> ScreenshotReply:
        return cls(
            png=from_base64(required(data, "png")),
            width=required(data, "width"),
            height=required(data, "height"),
        )


__all__ = [
    "CameTrue",
    "Device",
    "Disk",
    "DiskStats",
    "Event",
    "EventsReply",
    "ExecReply",
    "Forward",
    "FreezeReply",
    "Limits",
    "Nic",
    "NicStats",
    "Outcome",
    "ReadConsoleReply",
    "ReadGuestFileReply",
    "RebootReply",
    "RemoveDeviceReply",
    "RemoveDiskReply",
    "SaveReply",
    "SaveSnapshotReply",
    "ScreenshotReply",
    "SetTimeReply",
    "Share",
    "Slot",
    "Snapshot",
    "StartGuestFileReply",
    "State",
    "Stats",
    "Status",
    "Usb",
    "VcpuStats",
    "WatchStatsReply",
]
