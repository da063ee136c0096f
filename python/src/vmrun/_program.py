"""The program `vmrun`: where it is, and what is asked of it rather than of a VM."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import errors
from ._error import Error, LaunchError, ProgramNotFound
from ._options import NAMES
from .types import Forward, Outcome

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

# Names the program, in place of the one that is installed.
VARIABLE = "VMRUN"


def program() -> str:
    """The program of `$VMRUN`, else the one that came with this package, else the first in `PATH`."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    installed = os.path.join(sysconfig.get_path("scripts"), "vmrun")
    if os.access(installed, os.X_OK):
        return installed
    found = shutil.which("vmrun")
    if found is None:
        hint = f"install the wheel of vmrun, put vmrun into PATH, or name it in the environment variable {VARIABLE}"
        raise ProgramNotFound("there is no program vmrun", hint)
    return found


def environment() -> Dict[str, str]:
    """What vmrun runs with. A program says what it means: the user's configuration file is read only if $VMRUN_CONFIG names one."""
    return {"VMRUN_CONFIG": "", **os.environ}


def run(arguments: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    path = program()
    try:
        return subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False, env=environment()
        )
    except OSError as error:
        raise ProgramNotFound(f"{path} cannot be started: {error.strerror}") from error


def message_and_hint(stderr: bytes) -> Tuple[str, Optional[str]]:
    """Of an error that the program printed: the last one, since warnings come before it."""
    message, hint = "", None
    for line in stderr.decode("utf-8", "backslashreplace").splitlines():
        if line.startswith("hint: "):
            hint = line[len("hint: ") :]
        elif line.startswith("vmrun: "):
            message, hint = line[len("vmrun: ") :], None
        elif line.strip():
            message = f"{message}\n{line}" if message else line
    return message or "vmrun said nothing about it", hint


def launch_error(code: int, stderr: bytes, console: str = "") -> LaunchError:
    message, hint = message_and_hint(stderr)
    return LaunchError(message, hint, code, console)


def arguments_of(image: Any, options: Dict[str, Any]) -> List[str]:
    """The command line of a start."""
    arguments: List[str] = []
    for name, value in options.items():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            raise TypeError(f"no option '{name}'" + (f"; meant '{near[0]}'?" if near else ""))
        if name == "qemu_args":
            continue
        flag = "--" + name.rstrip("_").replace("_", "-")
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is True:
                arguments.append(flag)
            elif one is not None and one is not False:
                arguments.append(f"{flag}={os.fspath(one) if isinstance(one, os.PathLike) else one}")
    if image is not None:
        path = os.fspath(image)
        arguments.append("./" + path if path.startswith("-") else path)
    extra = options.get("qemu_args")
    return arguments + (["--", *extra] if extra else [])


@dataclass(frozen=True)
class Listed:
    """A VM of `vmrun.list()`."""

    name: str
    # "not answering" if its supervisor does not reply
    state: str
    uptime_ms: Optional[int]
    qemu_pid: Optional[int]
    supervisor_pid: Optional[int]
    detached: Optional[bool]
    template: Optional[str]
    forwards: Tuple[Forward, ...]
    # of a VM that has ended
    outcome: Optional[Outcome]
    ended_unix_ms: Optional[int]
    run: Optional[str]

    @classmethod
    def from_json(cls, data: Dict[str, Any]) -> Listed:
        outcome = data.get("outcome")
        return cls(
            name=data["name"],
            state=data["state"],
            uptime_ms=data.get("uptime_ms"),
            qemu_pid=data.get("qemu_pid"),
            supervisor_pid=data.get("supervisor_pid"),
            detached=data.get("detached"),
            template=data.get("template"),
            forwards=tuple(Forward.from_json(item) for item in data.get("forwards") or []),
            outcome=None if outcome is None else Outcome.from_json(outcome),
            ended_unix_ms=data.get("ended_unix_ms"),
            run=data.get("run"),
        )


def listed(all: bool = False) -> List[Listed]:
    """The VMs of this user; with `all` those that have ended, too. VMs without a supervisor get one."""
    done = run(["ls", "--json"] + (["--all"] if all else []))
    if done.returncode:
        raise error_of(done)
    return [Listed.from_json(item) for item in json.loads(done.stdout)]


def error_of(done: "subprocess.CompletedProcess[bytes]") -> Error:
    """The error of a command with `--json`."""
    for line in reversed(done.stderr.decode("utf-8", "backslashreplace").splitlines()):
        try:
            said = json.loads(line)["error"]
            message, hint = said["message"], said.get("hint")
            break
        except (ValueError, KeyError, TypeError):
            continue
    else:
        message, hint = message_and_hint(done.stderr)
    error = errors.NotRunning(message, hint) if done.returncode == errors.NotRunning.code else Error(message, hint)
    error.code = done.returncode
    return error


def status(name: Optional[str]) -> Dict[str, Any]:
    """The status of a VM, or of the only one. Gives it a supervisor if it has none."""
    done = run(["ctl", "--json"] + ([] if name is None else ["--vm", name]) + ["status"])
    if done.returncode:
        raise error_of(done)
    told: Dict[str, Any] = json.loads(done.stdout)
    return told


@dataclass(frozen=True)
class Place:
    """Where a VM is. `run` is unlike that of every other run, also of the same name."""

    name: str
    directory: str
    run: Optional[str]

    @property
    def socket(self) -> str:
        return os.path.join(self.directory, "control")

    def is_this_run(self) -> bool:
        return self.run is None or read_run(self.directory) == self.run


def read_run(directory: str) -> Optional[str]:
    try:
        with open(os.path.join(directory, "run"), encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None


def place(name: Optional[str]) -> Place:
    """Of a running VM."""
    told = status(name)
    if told["state"] == "ended":
        outcome = Outcome.from_json(told["outcome"])
        raise errors.NotRunning(f"VM '{told['name']}' has ended: {outcome.message}", None, told)
    return Place(told["name"], told["run_directory"], read_run(told["run_directory"]))


def outcome_of(place: Place) -> Optional[Outcome]:
    """How this run ended; `None` if it has not, or nobody knows. Gives a VM that has lost its supervisor a new one."""
    for entry in listed(all=True):
        if entry.outcome is not None and entry.run == place.run and entry.name == place.name:
            return entry.outcome
    return None
