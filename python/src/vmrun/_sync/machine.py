# Made by python/generate from _async/machine.py: change that, then run `make python`.
"""A running VM."""

from __future__ import annotations

import signal
from typing import Optional, Sequence, TypeVar, Union

from .. import _program
from .._error import ConnectionLost
from .._json import StrPath
from .._process import Supervisor, text
from ..errors import GuestPanicked, NotRunning
from ..types import Event, EventsReply, Outcome, ReadConsoleReply, Snapshot
from . import wire
from .connection import Stream
from .files import Files

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

MachineType = TypeVar("MachineType", bound="Machine")

# Seconds for a supervisor that was told to end its VM at once.
PATIENCE = 20.0


class Machine(Files):
    """A running VM, from `launch` or `attach`.

    As a context manager it ends a VM that `launch` started (unless `keep`), and leaves one alone that it was attached to.
    """

    def __init__(
        self, place: _program.Place, supervisor: Optional[Supervisor] = None, disposable: bool = False
    ) -> None:
        super().__init__(place)
        self._supervisor = supervisor
        self._disposable = disposable

    def __repr__(self) -> str:
        return f"<vmrun VM {self.name!r}>"

    @property
    def name(self) -> str:
        return self._place.name

    @property
    def run_directory(self) -> str:
        return self._place.directory

    @property
    def qmp_socket(self) -> str:
        """A socket that speaks plain QMP, to any number of clients."""
        return f"{self._place.directory}/qmp-shared"

    def __enter__(self: MachineType) -> MachineType:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the VM if it belongs to this object, and hangs up."""
        try:
            if self._supervisor is not None:
                self.stop()
        finally:
            self._hang_up()

    def stop(self, *, timeout_ms: Optional[int] = None, force: Optional[bool] = None) -> Outcome:
        """Shuts the VM down, and tells how it ended; also of one that has ended already.

        `force` does not ask the guest: that is so unless given for VMs that keep nothing (`ephemeral`, `warm`, `from_`).
        """
        forced = self._disposable if force is None else force
        try:
            self._outcome = self.shutdown(timeout_ms=timeout_ms, force=forced)
        except (NotRunning, GuestPanicked) as error:
            if error.outcome is None:
                raise
            self._outcome = error.outcome
        except ConnectionLost:
            if self._supervisor is None:
                raise
        if self._supervisor is not None:
            self._reap(self._supervisor)
        return self.outcome()

    def _reap(self, supervisor: Supervisor) -> None:
        """The child is not left as a zombie, nor behind."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                supervisor.signal(number)
            try:
                wire.result(supervisor.ended, PATIENCE)
                return
            except wire.TimeIsOver:
                continue

    def outcome(self) -> Outcome:
        """How the VM ended; `wait("exit")` waits for that."""
        if self._outcome is None:
            self._outcome = wire.in_thread(_program.outcome_of, self._place)
        if self._outcome is None:
            raise LookupError(f"VM '{self.name}' has not ended, or nobody knows how")
        return self._outcome

    def events(
        self, names: Union[None, str, Sequence[str]] = None, *, since: Optional[int] = None
    ) -> Stream[Event]:
        """Events as they come, until the VM ends. Entered (`with`), none from then on is missed.

        If this program reads too slowly, an event `VMRUN_EVENTS_LOST` says how many it has missed (`count`).
        """
        names = [names] if isinstance(names, str) else names
        parameters = {"names": None if names is None else list(names), "since": since}
        return Subscription(self, "Events", parameters, event_of)

    def console(self, *, from_: Optional[str] = None, follow: Optional[bool] = None) -> Stream[bytes]:
        """What the guest prints, as it comes, until the VM ends.

        `from_`: "start" (unless given), "recent" or "now". `follow=False` ends with what is there.
        """
        parameters = {"from": from_ or "start", "follow": follow}
        return self._stream("ReadConsole", parameters, lambda data: ReadConsoleReply.from_json(data).data)

    def console_text(self) -> str:
        """All that the guest has printed so far; of a VM that was launched here and has ended, the end of it."""
        pieces = bytearray()
        try:
            with self.console(follow=False) as output:
                for piece in output:
                    pieces += piece
        except (NotRunning, GuestPanicked):
            if self._supervisor is None:
                raise
            pieces = bytearray(self._supervisor.console)
        return text(bytes(pieces))

    def save(self, file: StrPath) -> Outcome:
        """Puts the whole VM into a file, and ends it; `launch(restore=file)` goes on from there."""
        for reply in self.save_stream(file):
            self._outcome = reply.outcome or self._outcome
        return self.outcome()

    def freeze(
        self, folder: StrPath, *, keep_running: Optional[bool] = None, until_unused: Optional[bool] = None
    ) -> Optional[Outcome]:
        """Freezes the VM, which was started as `forkable`, into a template for `launch(from_=folder)`, and ends it unless told not to.

        `until_unused`: the template is removed with the last VM that uses it.
        """
        for reply in self.freeze_stream(folder, keep_running=keep_running, until_unused=until_unused):
            self._outcome = reply.outcome or self._outcome
        return self._outcome

    def save_snapshot(self, name: str, *, overwrite: Optional[bool] = None) -> Snapshot:
        """Makes a snapshot of memory, devices and disks."""
        made: Optional[Snapshot] = None
        for reply in self.save_snapshot_stream(name, overwrite=overwrite):
            made = reply.snapshot or made
        if made is None:
            raise ConnectionLost("the snapshot's end was not told")
        return made


class Subscription(Stream[Event]):
    """The first reply says that the subscription stands."""

    def _begin(self) -> None:
        if self._connection is not None or self._has_ended:
            return
        super()._begin()
        connection = self._connection
        if connection is not None and connection.receive() is None:
            self.close()
            raise self._caller._hung_up()


def event_of(data: "dict[str, object]") -> Optional[Event]:
    reply = EventsReply.from_json(data)
    if reply.lost:
        return Event(sequence=0, time_unix_ms=0, name="VMRUN_EVENTS_LOST", data={"count": reply.lost})
    return reply.event
