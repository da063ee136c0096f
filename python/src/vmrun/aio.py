"""The same as `vmrun`, for asyncio.

async with await vmrun.aio.launch("debian.qcow2", warm="agent") as vm:
    print((await vm.exec(["uname", "-r"])).stdout)
"""

from __future__ import annotations

from ._async.connection import Stream
from ._async.launch import attach, launch, list
from ._async.machine import Machine

__all__ = ["Machine", "Stream", "attach", "launch", "list"]
