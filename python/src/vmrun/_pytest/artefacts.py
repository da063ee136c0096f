"""What is kept of the VMs of a failed test."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, List, Optional

from .. import errors
from .._error import Error, LaunchError
from .._sync.machine import Machine
from ..types import Event, Outcome

# Lines of the console in a report, and events that are kept.
TAIL_LINES = 30
MOST_EVENTS = 10_000
# Seconds for the last events of a VM that has ended.
LAST_EVENTS = 2.0

CONSOLE, EVENTS, STATUS, OUTCOME, SCREENSHOT = (
    "console.log", "events.jsonl", "status.json", "outcome.json", "screenshot.png",
)  # fmt: skip


class Watched:
    """A test's VM, with its events from the start: after its end nobody could ask for them."""

    def __init__(self, vm: Machine) -> None:
        self.vm = vm
        self.events: Deque[Event] = deque(maxlen=MOST_EVENTS)
        self.folder: Optional[Path] = None
        self._stream = vm.events(since=0)
        self._thread = threading.Thread(target=self._watch, name=f"events of {vm.name}", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            for event in self._stream:
                self.events.append(event)
        except (Error, OSError):
            # the VM has ended; the others tell of that
            pass

    def ended(self) -> Optional[Outcome]:
        try:
            return self.vm.outcome()
        except (LookupError, Error):
            return None

    def keep(self, folder: Path) -> str:
        """Writes everything into a folder; returns what a report shows."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (CONSOLE, EVENTS, STATUS, OUTCOME, SCREENSHOT):
            # of an earlier run of this test
            (folder / name).unlink(missing_ok=True)
        console = self._kept(CONSOLE, lambda: self.vm.console_text())
        state = self._state()
        self._kept(SCREENSHOT, self._screenshot)
        if self.ended() is not None:
            self._thread.join(LAST_EVENTS)
        self._kept(EVENTS, self._events)
        tail = str(console or "").rstrip().splitlines()[-TAIL_LINES:]
        shown = "\n".join("  " + "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line) for line in tail)
        return f"{state}\nartefacts: {folder}\nthe end of its console:\n{shown}"

    def _state(self) -> str:
        outcome = self.ended()
        if outcome is not None:
            self.write_outcome(outcome)
            return f"it has ended: {outcome.message}"
        status = self._kept(STATUS, lambda: as_json(self.vm.get_status()))
        return f"it is {json.loads(status)['state']}" if isinstance(status, str) else "its state is not known"

    def write_outcome(self, outcome: Optional[Outcome]) -> None:
        if self.folder is not None and outcome is not None:
            (self.folder / OUTCOME).write_text(as_json(outcome))

    def _events(self) -> str:
        return "".join(json.dumps(dataclasses.asdict(event)) + "\n" for event in list(self.events))

    def _screenshot(self) -> Optional[bytes]:
        try:
            return self.vm.screenshot().png
        except errors.NotSupported:
            return None

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        """One of them may fail without the others."""
        assert self.folder is not None
        try:
            content = make()
        except (Error, OSError) as error:
            if self.ended() is None:
                (self.folder / f"{name}.error").write_text(f"{error}\n")
            return None
        if isinstance(content, bytes):
            (self.folder / name).write_bytes(content)
        elif content is not None:
            (self.folder / name).write_text(content)
        return content


def as_json(record: Any) -> str:
    return json.dumps(dataclasses.asdict(record), indent=2) + "\n"


def keep_launch_error(error: LaunchError, folder: Path) -> Optional[str]:
    """Of a VM that did not become ready."""
    if not error.console:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONSOLE).write_text(error.console)
    return f"artefacts: {folder}"


def ways_in(names: List[str]) -> List[str]:
    """How to get into VMs that were left."""
    lines = []
    for name in names:
        lines += [
            f"VM '{name}' was left running:",
            f"  vmrun console {name}",
            f"  vmrun ctl --vm {name} exec -- sh -c 'dmesg | tail'",
            f"  vmrun ctl --vm {name} shutdown --force",
        ]
    return lines
