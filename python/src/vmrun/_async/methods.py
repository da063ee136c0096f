# Made by python/generate from proto/io.vmrun.Machine.varlink: change that, then run `make python`.
"""The methods of the protocol. Those with many replies are called `..._stream`."""

from __future__ import annotations

from typing import Any, List, Literal, Mapping, Optional, Sequence, Union

from .._json import (
    StrPath,
    absolute_path,
    absolute_paths,
    optional,
    required,
    strings,
    to_base64,
)
from ..types import (
    CameTrue,
    Device,
    Disk,
    EventsReply,
    ExecReply,
    Forward,
    FreezeReply,
    Nic,
    Outcome,
    ReadConsoleReply,
    ReadGuestFileReply,
    RebootReply,
    RemoveDeviceReply,
    RemoveDiskReply,
    SaveReply,
    SaveSnapshotReply,
    ScreenshotReply,
    SetTimeReply,
    Snapshot,
    StartGuestFileReply,
    Stats,
    Status,
    Usb,
    WatchStatsReply,
)
from .connection import Caller, Stream

# A failing test shows the line that called, not ours.
__tracebackhide__ = True


class Methods(Caller):
    """Every method of the protocol."""

    async def get_status(
        self,
    ) -> Status:
        """Everything that is known of the machine, answered from the supervisor's inventory."""
        data = await self._call("GetStatus", {})
        return Status.from_json(required(data, "status"))

    async def list_usb(
        self,
    ) -> List[Usb]:
        """Calls `ListUsb`."""
        data = await self._call("ListUsb", {})
        return [Usb.from_json(item) for item in required(data, "usb") or []]

    async def add_usb(
        self,
        selector: str,
        *,
        id: Optional[str] = None,
    ) -> Usb:
        """Plugs a USB device. `selector`: `vid:pid` (hexadecimal), `BUS.ADDR`, `BUS-PORT[.PORT...]` for a device of the
        host; `file=PATH` for a stick with this image; or a driver of QEMU (`usb-kbd[,prop=value...]`).
        Where the machine has no USB controller, one is plugged first.
        """
        data = await self._call("AddUsb", {
            "selector": selector,
            "id": id,
        })
        return Usb.from_json(required(data, "usb"))

    async def remove_usb(
        self,
        id: str,
    ) -> None:
        """Unplugs a USB device; QEMU does not ask the guest."""
        await self._call("RemoveUsb", {
            "id": id,
        })

    async def list_forwards(
        self,
    ) -> List[Forward]:
        """Calls `ListForwards`."""
        data = await self._call("ListForwards", {})
        return [Forward.from_json(item) for item in required(data, "forwards") or []]

    async def add_forward(
        self,
        host_port: int,
        guest_port: int,
        *,
        address: Optional[str] = None,
        protocol: Optional[str] = None,
        nic: Optional[str] = None,
    ) -> Forward:
        """Makes a forward to the network card `nic`, or to the first card with user networking (the one from the start, else the first by its id); `host_port` 0 takes any free port and the reply says which. `address` is 127.0.0.1 unless given."""
        data = await self._call("AddForward", {
            "host_port": host_port,
            "guest_port": guest_port,
            "address": address,
            "protocol": protocol,
            "nic": nic,
        })
        return Forward.from_json(required(data, "forward"))

    async def remove_forward(
        self,
        host_port: int,
        *,
        guest_port: Optional[int] = None,
        address: Optional[str] = None,
        protocol: Optional[str] = None,
    ) -> None:
        """Calls `RemoveForward`."""
        await self._call("RemoveForward", {
            "host_port": host_port,
            "guest_port": guest_port,
            "address": address,
            "protocol": protocol,
        })

    async def list_disks(
        self,
    ) -> List[Disk]:
        """Calls `ListDisks`."""
        data = await self._call("ListDisks", {})
        return [Disk.from_json(item) for item in required(data, "disks") or []]

    async def add_disk(
        self,
        file: StrPath,
        *,
        size_bytes: Optional[int] = None,
        grow: Optional[bool] = None,
        format: Optional[str] = None,
        bus: Optional[str] = None,
        readonly: Optional[bool] = None,
        serial: Optional[str] = None,
        id: Optional[str] = None,
        allow_backing: Optional[Union[StrPath, Sequence[StrPath]]] = None,
        cache: Optional[str] = None,
        aio: Optional[str] = None,
        discard: Optional[str] = None,
        detect_zeroes: Optional[str] = None,
        logical_block_size: Optional[int] = None,
        iothread: Optional[bool] = None,
        boot: Optional[int] = None,
    ) -> Disk:
        """Opens, and creates if it is absent and `size_bytes` is given, an image and plugs it as a disk: one change,
        undone whole if any part of it fails. Other files that the image leads to (backing and data files) must be in its own folder,
        or be or lie in one of `allow_backing`.
        On machines of the type `virt` the answer waits up to 3 s for the guest to take it (`taken`), as those of `AddUsb`, `AddNic` and
        `AddDevice` do: Linux on riscv64, for one, may have no PCI hot-plug.

        `grow`: an image that is there and smaller than `size_bytes` is made larger; the partitions in it stay as they are
        `cache`: how the host caches the image: none, writeback, writethrough, directsync or unsafe
        `aio`: how QEMU reads and writes the file: threads, native (with `cache` none or directsync alone) or io_uring
        `discard`: what becomes of blocks that the guest discards: unmap (freed in the file) or ignore
        `detect_zeroes`: what becomes of zeroes that the guest writes: off, on (noted) or unmap (freed; where `discard` is unmap it is, unless given)
        `logical_block_size`: the guest's blocks: 512 or 4096 bytes
        `iothread`: the disk has a thread of its own in QEMU (virtio alone)
        `boot`: its place in the boot order, 1 to 999: the firmware tries the lowest first, from the next reset on
        """
        data = await self._call("AddDisk", {
            "file": absolute_path(file),
            "size_bytes": size_bytes,
            "grow": grow,
            "format": format,
            "bus": bus,
            "readonly": readonly,
            "serial": serial,
            "id": id,
            "allow_backing": absolute_paths(allow_backing),
            "cache": cache,
            "aio": aio,
            "discard": discard,
            "detect_zeroes": detect_zeroes,
            "logical_block_size": logical_block_size,
            "iothread": iothread,
            "boot": boot,
        })
        return Disk.from_json(required(data, "disk"))

    async def remove_disk(
        self,
        id: str,
        *,
        timeout_ms: Optional[int] = None,
        force: Optional[bool] = None,
    ) -> RemoveDiskReply:
        """Unplugs a disk. The guest is asked to release it, and the call waits for that at most `timeout_ms` (30 s unless given).
        `removed` false: the guest has not answered in time (or is paused). The request stands: the disk goes as soon as the
        guest releases it, resets or is resumed, and the inventory follows then.

        A disk that the guest has mounted, as its agent tells, is refused with the mount points, unless `force` is true. `unchecked` says why
        that was not looked at (no agent answers, for example); absent: it was, or `force` was true.
        """
        data = await self._call("RemoveDisk", {
            "id": id,
            "timeout_ms": timeout_ms,
            "force": force,
        })
        return RemoveDiskReply.from_json(data)

    async def resize_disk(
        self,
        id: str,
        size_bytes: int,
    ) -> Disk:
        """Makes a disk's image, and what the guest sees of it, `size_bytes` large. Shrinking is refused."""
        data = await self._call("ResizeDisk", {
            "id": id,
            "size_bytes": size_bytes,
        })
        return Disk.from_json(required(data, "disk"))

    async def throttle_disk(
        self,
        id: str,
        *,
        iops: Optional[int] = None,
        iops_read: Optional[int] = None,
        iops_write: Optional[int] = None,
        bytes_per_s: Optional[int] = None,
        bytes_per_s_read: Optional[int] = None,
        bytes_per_s_write: Optional[int] = None,
        off: Optional[bool] = None,
    ) -> Disk:
        """Limits what a disk does per second, in place of the limits that it has on operations, or on bytes; those of the other kind stay.
        `off` takes all limits away. A limit is at least 1.
        """
        data = await self._call("ThrottleDisk", {
            "id": id,
            "iops": iops,
            "iops_read": iops_read,
            "iops_write": iops_write,
            "bytes_per_s": bytes_per_s,
            "bytes_per_s_read": bytes_per_s_read,
            "bytes_per_s_write": bytes_per_s_write,
            "off": off,
        })
        return Disk.from_json(required(data, "disk"))

    async def change_media(
        self,
        id: str,
        file: StrPath,
        *,
        allow_backing: Optional[Union[StrPath, Sequence[StrPath]]] = None,
        format: Optional[str] = None,
    ) -> Disk:
        """Puts another image into a CD-ROM drive; `allow_backing` and `format` as for AddDisk."""
        data = await self._call("ChangeMedia", {
            "id": id,
            "file": absolute_path(file),
            "allow_backing": absolute_paths(allow_backing),
            "format": format,
        })
        return Disk.from_json(required(data, "disk"))

    async def eject_media(
        self,
        id: str,
        *,
        force: Optional[bool] = None,
    ) -> Disk:
        """Takes the medium out of a CD-ROM drive; `force` does so even if the guest has locked it."""
        data = await self._call("EjectMedia", {
            "id": id,
            "force": force,
        })
        return Disk.from_json(required(data, "disk"))

    async def list_nics(
        self,
    ) -> List[Nic]:
        """Calls `ListNics`."""
        data = await self._call("ListNics", {})
        return [Nic.from_json(item) for item in required(data, "nics") or []]

    async def add_nic(
        self,
        network: str,
        *,
        mac: Optional[str] = None,
        model: Optional[str] = None,
        id: Optional[str] = None,
    ) -> Nic:
        """Plugs a network card. `network`: `user[,net=10.0.3.0/24][,dns=ADDRESS][,hostname=NAME][,restrict=on]`, by default in a network that no
        other card of the machine has, and never in one that overlaps another's; `tap,NAME`, a tap device of the host that is there already; or `bridge,NAME`, for which
        QEMU's bridge helper makes a tap device on that bridge. Without `mac` the card gets an address that stays the same for its id.
        `model`: virtio (unless given), e1000, e1000e, rtl8139 or vmxnet3.
        """
        data = await self._call("AddNic", {
            "network": network,
            "mac": mac,
            "model": model,
            "id": id,
        })
        return Nic.from_json(required(data, "nic"))

    async def remove_nic(
        self,
        id: str,
        *,
        timeout_ms: Optional[int] = None,
    ) -> bool:
        """Unplugs a network card, as `RemoveDisk`. Its forwards go with it."""
        data = await self._call("RemoveNic", {
            "id": id,
            "timeout_ms": timeout_ms,
        })
        result: bool = required(data, "removed")
        return result

    async def set_link(
        self,
        up: bool,
        *,
        nic: Optional[str] = None,
    ) -> Nic:
        """Plugs (`up`) or pulls the cable of a network card. `nic` may be left out where there is only one."""
        data = await self._call("SetLink", {
            "up": up,
            "nic": nic,
        })
        return Nic.from_json(required(data, "nic"))

    async def add_device(
        self,
        driver: str,
        *,
        properties: Optional[Mapping[str, str]] = None,
        id: Optional[str] = None,
    ) -> Device:
        """Plugs any device that QEMU can hot-plug. Property values are text as on QEMU's command line."""
        data = await self._call("AddDevice", {
            "driver": driver,
            "properties": properties,
            "id": id,
        })
        return Device.from_json(required(data, "device"))

    async def remove_device(
        self,
        id: str,
        *,
        timeout_ms: Optional[int] = None,
        force: Optional[bool] = None,
    ) -> RemoveDeviceReply:
        """Unplugs a device; as `RemoveDisk`."""
        data = await self._call("RemoveDevice", {
            "id": id,
            "timeout_ms": timeout_ms,
            "force": force,
        })
        return RemoveDeviceReply.from_json(data)

    def save_stream(
        self,
        file: StrPath,
    ) -> Stream[SaveReply]:
        """Puts the whole machine into a file, which must not be there yet, and ends it; `vmrun qemu --restore FILE` goes on from there. Call
        it with `more`: replies carry the bytes written so far and about the most that they can become, the last but the empty one the
        outcome (`saved`). The guest stands still meanwhile. If it fails (the disk is full, a device has no state that can be saved), the
        file is gone and the machine goes on as before; a shutdown ends it, too. The file fits only the images as they are then.
        """
        return self._stream("Save", {
            "file": absolute_path(file),
        }, SaveReply.from_json)

    def freeze_stream(
        self,
        folder: StrPath,
        *,
        keep_running: Optional[bool] = None,
        until_unused: Optional[bool] = None,
    ) -> Stream[FreezeReply]:
        """Freezes the machine into a template, a folder that must not be there yet, of which `vmrun qemu --from FOLDER` starts forks, and ends
        the machine, unless `keep_running`. The machine must have been started so that it can be forked. Call it with `more`: replies are as
        those of `Save`; if the machine goes on, none carries an outcome. If it fails, the folder is gone and the machine goes on as before.
        `paused_ms`: how long a guest that goes on was stopped for it; 0 if it did not run. With `until_unused` the template is removed when
        the last VM that uses it has ended.
        """
        return self._stream("Freeze", {
            "folder": absolute_path(folder),
            "keep_running": keep_running,
            "until_unused": until_unused,
        }, FreezeReply.from_json)

    def save_snapshot_stream(
        self,
        name: str,
        *,
        overwrite: Optional[bool] = None,
    ) -> Stream[SaveSnapshotReply]:
        """Makes a snapshot of memory, devices and all writable disks, which must be qcow2. Call it with `more`: replies carry the bytes
        written so far and the most that they can become (the size of the memory), the last but the empty one the snapshot. The guest
        stands still meanwhile, and QEMU's monitor is silent; then it goes on if it ran before. `overwrite` replaces one of the same name,
        which is deleted when the new one is whole, so there must be room for both; the images may then have the name with a `~` behind
        it. Without it that is `AlreadyThere`. Disks or devices that cannot be part of a snapshot are `NotSupported`. A caller that
        hangs up ends nothing.
        """
        return self._stream("SaveSnapshot", {
            "name": name,
            "overwrite": overwrite,
        }, SaveSnapshotReply.from_json)

    async def load_snapshot(
        self,
        name: str,
    ) -> Snapshot:
        """Goes back to a snapshot: memory, devices and disks. The machine then runs if it ran before this call. It must have the devices
        that it had when the snapshot was made, else this is `NotNow`. Forwards, media and devices stay as they are.
        """
        data = await self._call("LoadSnapshot", {
            "name": name,
        })
        return Snapshot.from_json(required(data, "snapshot"))

    async def delete_snapshot(
        self,
        name: str,
    ) -> Snapshot:
        """Deletes a snapshot from all disks that have it."""
        data = await self._call("DeleteSnapshot", {
            "name": name,
        })
        return Snapshot.from_json(required(data, "snapshot"))

    async def list_snapshots(
        self,
    ) -> List[Snapshot]:
        """The snapshots of all writable disks, oldest first."""
        data = await self._call("ListSnapshots", {})
        return [Snapshot.from_json(item) for item in required(data, "snapshots") or []]

    async def get_stats(
        self,
    ) -> Stats:
        """Calls `GetStats`."""
        data = await self._call("GetStats", {})
        return Stats.from_json(required(data, "stats"))

    def watch_stats_stream(
        self,
        *,
        interval_ms: Optional[int] = None,
    ) -> Stream[WatchStatsReply]:
        """Streams what `GetStats` tells, now and every `interval_ms` (1,000 unless given, at least 100). Call it with `more`. Ends with the machine."""
        return self._stream("WatchStats", {
            "interval_ms": interval_ms,
        }, WatchStatsReply.from_json)

    async def pause(
        self,
    ) -> None:
        """Stops the guest's processors."""
        await self._call("Pause", {})

    async def resume(
        self,
    ) -> None:
        """Lets the guest's processors run (again)."""
        await self._call("Resume", {})

    async def reset(
        self,
    ) -> None:
        """Resets the machine, without asking the guest."""
        await self._call("Reset", {})

    async def powerdown(
        self,
    ) -> None:
        """Presses the power button once, and answers when it is pressed."""
        await self._call("Powerdown", {})

    async def shutdown(
        self,
        *,
        timeout_ms: Optional[int] = None,
        force: Optional[bool] = None,
        no_repeat: Optional[bool] = None,
    ) -> Outcome:
        """Shuts the machine down and answers when QEMU has ended: asks the guest through its agent (if that has
        answered before) and through ACPI for `timeout_ms` (30 s unless given), then tells QEMU to quit, then kills it.
        `force` skips the asking. `no_repeat` presses the power button only once.
        """
        data = await self._call("Shutdown", {
            "timeout_ms": timeout_ms,
            "force": force,
            "no_repeat": no_repeat,
        })
        return Outcome.from_json(required(data, "outcome"))

    async def wait(
        self,
        conditions: Union[str, Sequence[str]],
        *,
        all: Optional[bool] = None,
        timeout_ms: Optional[int] = None,
        from_now: Optional[bool] = None,
    ) -> List[CameTrue]:
        """Waits until any of the conditions (at most 100; `all`: all of them) has come true, and tells which did, in their order:
          running, paused, exit, agent (the guest agent answers), ssh (an sshd that the agent starts in the guest greets),
          port=GUEST (the guest accepts TCP connections), console=REGEX (a line of the console matches, also one from before the call unless `from_now`),
          event=NAME (of QEMU or of vmrun, from now on).
        Ends early with `NotRunning` if the machine ends, `GuestPanicked` if the guest's kernel panics (unless that is waited for),
        `NotNow` if the firmware has found nothing to boot and what is waited for needs a guest (agent, ssh, port, console),
        `TimedOut` after `timeout_ms` (no limit unless given).
        """
        data = await self._call("Wait", {
            "conditions": strings(conditions),
            "all": all,
            "timeout_ms": timeout_ms,
            "from_now": from_now,
        })
        return [CameTrue.from_json(item) for item in required(data, "came_true") or []]

    def events_stream(
        self,
        *,
        names: Optional[Union[str, Sequence[str]]] = None,
        since: Optional[int] = None,
    ) -> Stream[EventsReply]:
        """Streams events: QEMU's under their own names, and vmrun's own (VMRUN_STATE, VMRUN_DEVICE_ADDED, VMRUN_DEVICE_REMOVED,
        VMRUN_FORWARD_ADDED, VMRUN_FORWARD_REMOVED, VMRUN_LINK, VMRUN_LADDER, VMRUN_EVENTS_LOST (`count` of QEMU's did not reach the
        supervisor), VMRUN_NOTHING_TO_BOOT, VMRUN_OUTCOME). Call it with `more`; the first reply has no event and says that the subscription stands. `names` leaves out all others; `since` first repeats those kept (1,000) after that
        sequence number. A subscriber that reads too slowly gets `lost` with how many it missed. Ends with the machine.
        """
        return self._stream("Events", {
            "names": strings(names),
            "since": since,
        }, EventsReply.from_json)

    def read_console_stream(
        self,
        *,
        from_: Optional[Literal["start", "recent", "now"]] = None,
        follow: Optional[bool] = None,
    ) -> Stream[ReadConsoleReply]:
        """Streams the console's output (base64). Call it with `more`. `from`: start (of this run, as far as the log has it), recent (the
        last 256 KiB), now. `skipped`: bytes before this piece that this reader was too slow for. With `follow` false it ends with what
        is there; else it ends with the machine. A call without `more` is answered once with what is there: at most its last 64 KiB, which
        are also in `text` where they are UTF-8. `earlier`, with `follow`: how many of the bytes, the first ones, the guest had printed
        before the call. A terminal must not get the queries in those: its answers would come too late, and could reach a shell.
        """
        return self._stream("ReadConsole", {
            "from": from_,
            "follow": follow,
        }, ReadConsoleReply.from_json)

    async def write_console(
        self,
        data: bytes,
    ) -> None:
        """Types into the console (base64)."""
        await self._call("WriteConsole", {
            "data": to_base64(data),
        })

    async def resize_console(
        self,
        rows: int,
        columns: int,
    ) -> Literal["agent", "typing"]:
        """Tells the guest how large its console is. `by`: its agent ran stty (`agent`), or the command was typed into the console (`typing`), since
        no agent answers; that is right where a shell waits for a command.
        """
        data = await self._call("ResizeConsole", {
            "rows": rows,
            "columns": columns,
        })
        result: Literal["agent", "typing"] = required(data, "by")
        return result

    async def set_time(
        self,
        *,
        agent_timeout_ms: Optional[int] = None,
    ) -> SetTimeReply:
        """Sets the guest's clock to the host's through its agent, unless it is right. It was `behind_ms` behind (negative: ahead). An agent that does
        not answer yet is waited for at most `agent_timeout_ms`; without it, one that has never answered is not waited for.
        """
        data = await self._call("SetTime", {
            "agent_timeout_ms": agent_timeout_ms,
        })
        return SetTimeReply.from_json(data)

    async def reboot(
        self,
        *,
        force: Optional[bool] = None,
        until: Optional[str] = None,
        timeout_ms: Optional[int] = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> RebootReply:
        """Lets the guest reboot, by its agent or, with `force`, by a reset of the machine, and waits until it is up again: until the condition
        `until` (as for `Wait`) comes true, or else the agent answers anew; after a reset of a machine whose agent has never answered there is
        nothing to wait for, and `up_after_ms` is missing. All of it may take `timeout_ms` (120000 unless given).
        """
        data = await self._call("Reboot", {
            "force": force,
            "until": until,
            "timeout_ms": timeout_ms,
            "agent_timeout_ms": agent_timeout_ms,
        })
        return RebootReply.from_json(data)

    async def freeze_filesystems(
        self,
        *,
        thaw_after_ms: Optional[int] = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> int:
        """Freezes the guest's file systems on disks, through its agent: they are consistent on the disks, and what writes to them stands still
        until `ThawFilesystems`, or for `thaw_after_ms` (10000 unless given). Meanwhile nothing else can be begun through the agent: `NotNow`
        with the state `frozen`. If the caller hangs up before the reply, they are thawed. `agent_timeout_ms` is as for `Exec`.
        """
        data = await self._call("FreezeFilesystems", {
            "thaw_after_ms": thaw_after_ms,
            "agent_timeout_ms": agent_timeout_ms,
        })
        result: int = required(data, "filesystems")
        return result

    async def thaw_filesystems(
        self,
        *,
        agent_timeout_ms: Optional[int] = None,
    ) -> int:
        """Thaws them, and tells how many were frozen. If they were thawed before because their time was over, that is `NotNow` (once)."""
        data = await self._call("ThawFilesystems", {
            "agent_timeout_ms": agent_timeout_ms,
        })
        result: int = required(data, "filesystems")
        return result

    async def agent_command(
        self,
        command: str,
        *,
        arguments: Any = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> Any:
        """Runs any command of the guest agent and returns what it answers, or null where a command has no answer when it works.
        `agent_timeout_ms` is as for `Exec`.
        """
        data = await self._call("AgentCommand", {
            "command": command,
            "arguments": arguments,
            "agent_timeout_ms": agent_timeout_ms,
        })
        return optional(data, "value")

    def exec_stream(
        self,
        command: Union[str, Sequence[str]],
        *,
        env: Optional[Union[str, Sequence[str]]] = None,
        stdin: Optional[bytes] = None,
        input: Optional[bool] = None,
        timeout_ms: Optional[int] = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> Stream[ExecReply]:
        """Runs a command in the guest, which its agent starts. Call it with `more`; a call without it is answered once, when the command has
        ended, with at most the first 64 KiB of each stream (`truncated`), also as text where they are UTF-8. With `more`, the first reply has `pid`, the guest's id of the
        process that runs it, where that is known before its end. Then come pieces of what it writes (base64), while it runs. The last
        reply but the empty one says how it ended: `exit_code`, or the `signal` that ended it.
        `command` is the program, found along the agent's PATH, and its arguments; no shell looks at them. With `env` (NAME=VALUE) the
        command gets these and a PATH and nothing else. `stdin` (base64, at most 512 KiB) is what it can read; with `input` it gets
        whatever `WriteExecInput` passes to the handle of that name in the first reply, too. After `timeout_ms` (no limit unless given),
        or if the caller hangs up, it is killed with its descendants. A program that is not there is `NoSuchThing`, one that cannot be
        started `RefusedByGuest`. An agent that does not answer yet is waited for at most `agent_timeout_ms` (10000 unless given), then
        it is `NoGuestAgent`.
        The streams are ports of the guest that exist while the command runs, so that they have no limit of size; until it has ended, no
        snapshot can be made, and the VM cannot be saved or frozen (`NotNow`). An exit code of 129 to 192 is told as a signal, as the
        guest's shell tells signals. What the command has left running is cut off from the streams when it ends. In a guest without a
        shell that finds the ports (not Linux, or no /sys), input and output go through the agent: output comes once the command has
        ended, at most 16 MiB of each stream (`truncated`), and it has at most 16 MiB of input.
        """
        return self._stream("Exec", {
            "command": strings(command),
            "env": strings(env),
            "stdin": to_base64(stdin),
            "input": input,
            "timeout_ms": timeout_ms,
            "agent_timeout_ms": agent_timeout_ms,
        }, ExecReply.from_json)

    async def write_exec_input(
        self,
        input: int,
        *,
        data: Optional[bytes] = None,
        end: Optional[bool] = None,
    ) -> None:
        """Writes the next piece (base64, at most 512 KiB) of the input of a command; returns when it has room. `end`: nothing comes after
        it. A command that has ended is `NoSuchThing`.
        """
        await self._call("WriteExecInput", {
            "input": input,
            "data": to_base64(data),
            "end": end,
        })

    async def start_guest_file(
        self,
        path: str,
        *,
        name: Optional[str] = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> StartGuestFileReply:
        """Begins to write a file of the guest, through its agent; if `path` is a directory, as `name` in it. The reply says where it is
        going to be. It is written beside that place under another name, and belongs to this connection: if that ends before
        `FinishGuestFile`, nothing stays. `agent_timeout_ms` is as for `Exec`.
        """
        data = await self._call("StartGuestFile", {
            "path": path,
            "name": name,
            "agent_timeout_ms": agent_timeout_ms,
        })
        return StartGuestFileReply.from_json(data)

    async def write_guest_file(
        self,
        handle: int,
        data: bytes,
    ) -> None:
        """Writes the next piece (base64, at most 512 KiB)."""
        await self._call("WriteGuestFile", {
            "handle": handle,
            "data": to_base64(data),
        })

    async def finish_guest_file(
        self,
        handle: int,
        *,
        mode: Optional[int] = None,
        sha256: Optional[str] = None,
    ) -> Literal["sha256", "size"]:
        """Puts the file in its place, with these permissions (such as 493, which is 0755; the guest's default is 0600), if `sha256`
        (hexadecimal) is that of what has arrived. `checked` says what was compared: where the guest has no sha256sum, or no sum was
        given, the size.
        """
        data = await self._call("FinishGuestFile", {
            "handle": handle,
            "mode": mode,
            "sha256": sha256,
        })
        result: Literal["sha256", "size"] = required(data, "checked")
        return result

    def read_guest_file_stream(
        self,
        path: str,
        *,
        agent_timeout_ms: Optional[int] = None,
    ) -> Stream[ReadGuestFileReply]:
        """Reads a file of the guest, through its agent. Call it with `more`: the first reply has the file's size and permissions as far as
        the guest can tell, then come pieces (base64), and last the checksum that the guest's own sha256sum makes, if it has that.
        A call without `more` is answered once, with all of these, of a file of at most 64 KiB (else it is `NotSupported`), which is also in
        `text` where it is UTF-8. `agent_timeout_ms` is as for `Exec`.
        """
        return self._stream("ReadGuestFile", {
            "path": path,
            "agent_timeout_ms": agent_timeout_ms,
        }, ReadGuestFileReply.from_json)

    async def screenshot(
        self,
    ) -> ScreenshotReply:
        """Takes a picture of the guest's display: a PNG file (base64) and its size in pixels. A machine without a display is `NotSupported`."""
        data = await self._call("Screenshot", {})
        return ScreenshotReply.from_json(data)

    async def send_keys(
        self,
        keys: Union[str, Sequence[str]],
        *,
        delay_ms: Optional[int] = None,
    ) -> None:
        """Presses keys one after the other, `delay_ms` apart (50 ms unless given): each one of QEMU's names, or several with hyphens
        between them that are pressed together (`ctrl-alt-delete`). Answers when the last has been released.
        """
        await self._call("SendKeys", {
            "keys": strings(keys),
            "delay_ms": delay_ms,
        })

    async def type_text(
        self,
        text: str,
        *,
        delay_ms: Optional[int] = None,
    ) -> None:
        """Types a text on a US keyboard; `\\n` presses Enter."""
        await self._call("TypeText", {
            "text": text,
            "delay_ms": delay_ms,
        })

    async def qmp(
        self,
        command: Any,
    ) -> Any:
        """Runs any QMP command, e.g. {"execute": "query-block"}, and returns its `return` value."""
        data = await self._call("Qmp", {
            "command": command,
        })
        return required(data, "value")

    async def hmp(
        self,
        line: str,
    ) -> str:
        """Runs a command of QEMU's human monitor and returns what it prints, which may be an error in words: QEMU marks none as such but
        a command that it does not know, which is `RefusedByQemu` with the class `CommandNotFound`.
        """
        data = await self._call("Hmp", {
            "line": line,
        })
        result: str = required(data, "text")
        return result
