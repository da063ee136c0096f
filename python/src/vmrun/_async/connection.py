"""Calls over any number of connections: one for each call that is under way, and one for each stream."""

from __future__ import annotations

from typing import Any, AsyncIterator, Callable, Dict, Generic, List, Optional, TypeVar

from .. import _frames, _program, errors
from .._error import ConnectionLost, Error
from ..types import Outcome
from . import wire

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

Reply = TypeVar("Reply")

# Connections that are kept for the next call.
IDLE = 4


class Caller:
    """A VM that methods are called of. May be used by several threads or tasks at once."""

    def __init__(self, place: _program.Place) -> None:
        self._place = place
        self._idle: List[wire.Wire] = []
        self._outcome: Optional[Outcome] = None

    async def _connect(self) -> wire.Wire:
        try:
            connection = await wire.Wire.open(self._place.socket)
        except OSError:
            # it has ended, or has lost its supervisor, and now has another
            await self._raise_if_ended()
            try:
                connection = await wire.Wire.open(self._place.socket)
            except OSError as error:
                await self._raise_if_ended()
                raise errors.NotRunning(
                    f"VM '{self._place.name}' is not running, and how it ended is not known ({error.strerror})"
                ) from error
        if not self._place.is_this_run():
            # another VM has got its name
            connection.hang_up()
            await self._raise_if_ended()
            raise errors.NotRunning(f"VM '{self._place.name}' has ended; another one of this name runs")
        return connection

    async def _raise_if_ended(self) -> None:
        if self._outcome is None:
            self._outcome = await wire.in_thread(_program.outcome_of, self._place)
        if self._outcome is None:
            return
        message = f"VM '{self._place.name}' has ended: {self._outcome.message}"
        kind = errors.GuestPanicked if self._outcome.ending == "panicked" else errors.NotRunning
        error = kind(message)
        error.outcome = self._outcome
        raise error

    async def _hung_up(self) -> Error:
        """The error of a call that got no reply."""
        try:
            await self._raise_if_ended()
        except Error as error:
            return error
        return ConnectionLost(f"the supervisor of VM '{self._place.name}' hung up before it replied")

    async def _borrow(self) -> wire.Wire:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.hang_up()
        return await self._connect()

    def _give_back(self, connection: wire.Wire) -> None:
        if len(self._idle) < IDLE:
            self._idle.append(connection)
        else:
            connection.hang_up()

    async def _call(self, method: str, parameters: Dict[str, Any]) -> Dict[str, Any]:
        connection = await self._borrow()
        try:
            reply = await self._call_on(connection, method, parameters)
        except Error as error:
            if isinstance(error, ConnectionLost) or getattr(error, "outcome", None) is not None:
                connection.hang_up()
            else:
                self._give_back(connection)
            raise
        except BaseException:
            # a reply may still come: this connection is of no use any more
            connection.hang_up()
            raise
        self._give_back(connection)
        return reply

    async def _call_on(self, connection: wire.Wire, method: str, parameters: Dict[str, Any]) -> Dict[str, Any]:
        try:
            await connection.send(_frames.call(method, parameters, more=False))
        except OSError:
            raise (await self._hung_up()) from None
        frame = await connection.receive()
        if frame is None:
            raise await self._hung_up()
        found: Dict[str, Any] = _frames.reply(frame).get("parameters") or {}
        return found

    def _stream(
        self, method: str, parameters: Dict[str, Any], decode: Callable[[Dict[str, Any]], Optional[Reply]]
    ) -> Stream[Reply]:
        return Stream(self, method, parameters, decode)

    def _hang_up(self) -> None:
        while self._idle:
            self._idle.pop().hang_up()


class Stream(Generic[Reply]):
    """Replies as they come. The call is made when it is entered or first read; closing it hangs up."""

    def __init__(
        self,
        caller: Caller,
        method: str,
        parameters: Dict[str, Any],
        decode: Callable[[Dict[str, Any]], Optional[Reply]],
    ) -> None:
        self._caller = caller
        self._frame = _frames.call(method, parameters, more=True)
        self._decode = decode
        self._connection: Optional[wire.Wire] = None
        self._has_ended = False

    async def __aenter__(self) -> Stream[Reply]:
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Reply]:
        return self

    async def _begin(self) -> None:
        if self._connection is None and not self._has_ended:
            self._connection = await self._caller._connect()
            try:
                await self._connection.send(self._frame)
            except OSError:
                raise (await self._caller._hung_up()) from None

    async def __anext__(self) -> Reply:
        await self._begin()
        while self._connection is not None:
            try:
                frame = await self._connection.receive()
                if frame is None:
                    raise await self._caller._hung_up()
                message = _frames.reply(frame)
            except BaseException:
                self.close()
                raise
            parameters = message.get("parameters") or {}
            is_last = not message.get("continues", False)
            if is_last:
                self.close()
            # the last one may be empty: then it only says that it is the last
            value = self._decode(parameters) if parameters or not is_last else None
            if value is not None:
                return value
        raise StopAsyncIteration

    def close(self) -> None:
        """Hangs up: the supervisor stops what it does for this call."""
        self._has_ended = True
        if self._connection is not None:
            self._connection.hang_up()
            self._connection = None
