"""Starts QEMU virtual machines, and changes them while they run.

    import vmrun

    with vmrun.launch("debian.qcow2", ephemeral=True, mem="2G", wait="agent") as vm:
        vm.add_disk("data.qcow2", size_bytes=1 << 30)
        assert vm.exec(["lsblk"]).ok

`vmrun.aio` is the same for asyncio; the fixtures `vm`, `vm_factory` and `vm_session` of pytest come with this package.
"""

from __future__ import annotations

from . import errors, types
from ._error import CommandFailed, ConnectionLost, Error, LaunchError, ProgramNotFound, ProtocolError
from ._executed import Copied, Executed
from ._options import Options
from ._program import Listed
from ._sync.connection import Stream
from ._sync.launch import attach, launch, list
from ._sync.machine import Machine
from .types import Event, Forward, Outcome, Status

__all__ = [
    "CommandFailed",
    "ConnectionLost",
    "Copied",
    "Error",
    "Event",
    "Executed",
    "Forward",
    "LaunchError",
    "Listed",
    "Machine",
    "Options",
    "Outcome",
    "ProgramNotFound",
    "ProtocolError",
    "Status",
    "Stream",
    "attach",
    "errors",
    "launch",
    "list",
    "types",
]
