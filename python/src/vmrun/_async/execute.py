"""Commands in the guest."""

from __future__ import annotations

import shlex
from typing import Dict, Mapping, Optional, Sequence, Union

from .._error import CommandFailed, ConnectionLost, Error
from .._executed import Executed
from .._json import strings
from ..errors import NoSuchThing
from ..types import ExecReply
from . import wire
from .connection import Stream
from .methods import Methods

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

# The most that goes into a call, and into a message of 1 MiB.
PIECE = 512 << 10


class Execute(Methods):
    """Runs commands in the guest, through its agent."""

    async def exec(
        self,
        command: Union[str, Sequence[str]],
        *,
        input: Union[None, bytes, str] = None,
        env: Optional[Mapping[str, str]] = None,
        check: bool = False,
        timeout_ms: Optional[int] = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> Executed:
        """Runs a program with its arguments, and returns when it has ended, with all that it wrote.

        No shell looks at it; `shell` runs a line of one. `input` is what it can read, of any length. With `env` it gets these variables
        and a PATH, and nothing else. `check`: raises `CommandFailed` unless it exits with 0.
        After `timeout_ms` it is killed with its descendants (`TimedOut`).
        """
        arguments = strings(command) or []
        data = input.encode() if isinstance(input, str) else input
        large = data is not None and len(data) > PIECE
        replies = self.exec_stream(
            arguments,
            env=None if env is None else [f"{name}={value}" for name, value in env.items()],
            stdin=None if large else data,
            input=True if large else None,
            timeout_ms=timeout_ms,
            agent_timeout_ms=agent_timeout_ms,
        )
        executed = await self._collect(replies, data if large else None)
        if check and not executed.ok:
            raise CommandFailed(shlex.join(arguments), executed)
        return executed

    async def shell(
        self,
        line: str,
        *,
        input: Union[None, bytes, str] = None,
        env: Optional[Mapping[str, str]] = None,
        check: bool = False,
        timeout_ms: Optional[int] = None,
        agent_timeout_ms: Optional[int] = None,
    ) -> Executed:
        """Runs a line of the guest's shell, as `exec`."""
        return await self.exec(
            ["sh", "-c", line],
            input=input,
            env=env,
            check=check,
            timeout_ms=timeout_ms,
            agent_timeout_ms=agent_timeout_ms,
        )

    async def _collect(self, replies: Stream[ExecReply], data: Optional[bytes]) -> Executed:
        outputs: Dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        last: Optional[ExecReply] = None
        feeder: Optional[wire.Feeder] = None
        async with replies:
            try:
                async for reply in replies:
                    outputs["stdout"] += reply.stdout or b""
                    outputs["stderr"] += reply.stderr or b""
                    if reply.input is not None and data is not None:
                        feeder = self._feed(reply.input, data)
                    if reply.exit_code is not None or reply.signal is not None:
                        last = reply
            except BaseException:
                if feeder is not None:
                    await feeder.cancel()
                raise
        if feeder is not None:
            await feeder.end()
        if last is None:
            raise ConnectionLost("the command's end was not told")
        return Executed(
            exit_code=last.exit_code,
            signal=last.signal,
            stdout_bytes=bytes(outputs["stdout"]),
            stderr_bytes=bytes(outputs["stderr"]),
            truncated=bool(last.truncated),
        )

    def _feed(self, handle: int, data: bytes) -> wire.Feeder:
        """Passes input while output is read: a command may write before it has read all."""

        async def work() -> None:
            try:
                for at in range(0, len(data), PIECE):
                    await self.write_exec_input(handle, data=data[at : at + PIECE])
                await self.write_exec_input(handle, end=True)
            except NoSuchThing:
                # it has ended without reading all of it, as it may
                pass
            except Error as error:
                # the VM's end is told by the command's replies
                if getattr(error, "outcome", None) is None:
                    raise

        return wire.Feeder(work)
