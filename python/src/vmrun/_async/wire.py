"""What differs between the asyncio and the blocking twin: sockets, threads and tasks. The rest of `_async` is the source of both."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Awaitable, Callable, Optional, TypeVar

from .._frames import MAX_REPLY
from .._socket import connected

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

Value = TypeVar("Value")


class Wire:
    """A connection that messages go over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: str) -> Wire:
        socket = connected(path)
        socket.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=socket, limit=MAX_REPLY))

    async def send(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()

    async def receive(self) -> Optional[bytes]:
        """The next message; `None` when the peer has hung up."""
        try:
            return (await self._reader.readuntil(b"\0"))[:-1]
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def is_stale(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    def hang_up(self) -> None:
        # its loop may be closed
        with suppress(RuntimeError):
            self._writer.close()


class Feeder:
    """Something that is done meanwhile."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.ensure_future(work())

    async def end(self) -> None:
        await self._task

    async def cancel(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task


async def in_thread(work: Callable[..., Value], *arguments: Any) -> Value:
    """Calls what blocks."""
    return await asyncio.to_thread(work, *arguments)


async def result(future: "Future[Value]", timeout: Optional[float] = None) -> Value:
    # shielded: who gives up waiting does not cancel it
    return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), timeout)


# What `result` raises when the time is over.
TimeIsOver = asyncio.TimeoutError
