# Made by python/generate from proto/io.vmrun.Machine.varlink: change that, then run `make python`.
"""The errors of the protocol, each a class of its own."""

from __future__ import annotations

from typing import Any, Dict, Optional, Type

from ._error import Error
from ._json import maybe, optional
from .types import Outcome


class NotRunning(Error):
    """The machine has ended, or its QEMU no longer answers; `outcome` says how it ended."""

    code = 3

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.outcome: Optional[Outcome] = maybe(optional(data, "outcome"), Outcome.from_json)

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class InvalidArgument(Error):
    """A parameter makes no sense; `parameter` names it."""

    code = 2

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.parameter: Optional[str] = optional(data, "parameter")

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class NoSuchThing(Error):
    """There is nothing of this id (or no such forward)."""

    code = 4

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.id: Optional[str] = optional(data, "id")

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class AlreadyThere(Error):
    """The id, file or forward is in use already."""

    code = 4

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.id: Optional[str] = optional(data, "id")

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class NoFreeSlot(Error):
    """Every slot is taken, or the machine has none."""

    code = 4


class NotNow(Error):
    """Not in this state, or not while something else is going on; `crowded`: as many clients wait, or as many changes are under way, as can."""

    code = 4

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.state: Optional[str] = optional(data, "state")

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class NotSupported(Error):
    """This machine cannot do it at all."""

    code = 4


class RefusedByQemu(Error):
    """QEMU answered with an error; `class` is QMP's."""

    code = 4

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.class_: Optional[str] = optional(data, "class")

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class RefusedByGuest(Error):
    """The guest was asked and said no."""

    code = 4

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.id: Optional[str] = optional(data, "id")

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class NoGuestAgent(Error):
    """No guest agent answers."""

    code = 4


class GuestPanicked(Error):
    """The guest's kernel panicked while something else was waited for; with an `outcome`, the machine has ended of it."""

    code = 10

    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message, hint)
        data = data or {}
        self.outcome: Optional[Outcome] = maybe(optional(data, "outcome"), Outcome.from_json)

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        return cls(message, hint, data)


class TimedOut(Error):
    """It did not happen in time."""

    code = 5


class HostProblem(Error):
    """Something on the host is in the way: a file, a port, a device, a permission."""

    code = 1


BY_NAME: Dict[str, Type[Error]] = {
    "NotRunning": NotRunning,
    "InvalidArgument": InvalidArgument,
    "NoSuchThing": NoSuchThing,
    "AlreadyThere": AlreadyThere,
    "NoFreeSlot": NoFreeSlot,
    "NotNow": NotNow,
    "NotSupported": NotSupported,
    "RefusedByQemu": RefusedByQemu,
    "RefusedByGuest": RefusedByGuest,
    "NoGuestAgent": NoGuestAgent,
    "GuestPanicked": GuestPanicked,
    "TimedOut": TimedOut,
    "HostProblem": HostProblem,
}

__all__ = [
    "NotRunning",
    "InvalidArgument",
    "NoSuchThing",
    "AlreadyThere",
    "NoFreeSlot",
    "NotNow",
    "NotSupported",
    "RefusedByQemu",
    "RefusedByGuest",
    "NoGuestAgent",
    "GuestPanicked",
    "TimedOut",
    "HostProblem",
]
