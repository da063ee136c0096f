"""What differs between the blocking and the asyncio twin: sockets, threads and tasks. The rest is made from `_async`."""

from __future__ import annotations

import concurrent.futures
import select
import threading
from concurrent.futures import Future
from typing import Any, Callable, List, Optional, TypeVar

from .._frames import MAX_REPLY
from .._socket import connected

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

Value = TypeVar("Value")


class Wire:
    """A connection that messages go over."""

    def __init__(self, path: str) -> None:
        self._socket = connected(path)
        self._read: List[bytes] = []
        self._messages: List[bytes] = []

    @classmethod
    def open(cls, path: str) -> Wire:
        return cls(path)

    def send(self, frame: bytes) -> None:
        self._socket.sendall(frame)

    def receive(self) -> Optional[bytes]:
        """The next message; `None` when the peer has hung up."""
        length = 0
        while not self._messages:
            try:
                data = self._socket.recv(256 << 10)
            except ConnectionError:
                return None
            length += len(data)
            if not data or length > MAX_REPLY:
                return None
            *whole, rest = data.split(b"\0")
            if whole:
                whole[0] = b"".join(self._read) + whole[0]
                self._messages = whole[::-1]
                self._read = []
            self._read.append(rest)
        return self._messages.pop()

    def is_stale(self) -> bool:
        """Nothing is to come on an idle connection but its end."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        self._socket.close()


class Feeder:
    """Something that is done meanwhile."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._failed: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._run, args=(work,), name="vmrun input", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failed = error

    def end(self) -> None:
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def cancel(self) -> None:
        """It ends with the command that it feeds."""


def in_thread(work: Callable[..., Value], *arguments: Any) -> Value:
    """Calls what blocks."""
    return work(*arguments)


def result(future: "Future[Value]", timeout: Optional[float] = None) -> Value:
    return future.result(timeout)


# What `result` raises when the time is over.
TimeIsOver = concurrent.futures.TimeoutError
