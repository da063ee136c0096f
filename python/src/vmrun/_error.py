"""What all errors have, and those that are not the protocol's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional

if TYPE_CHECKING:
    from ._executed import Executed

# Lines of the console that an error shows.
SHOWN_LINES = 20


class Error(Exception):
    """Something did not work. `code` is the exit code that `vmrun` has for it."""

    code = 1

    def __init__(self, message: str, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @classmethod
    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:
        """From the parameters of a reply; what an error has besides these two, it takes from `data`."""
        return cls(message, hint)

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class LaunchError(Error):
    """A VM did not start, or did not become ready. `console` is the end of what its guest printed."""

    def __init__(self, message: str, hint: Optional[str] = None, code: int = 1, console: str = "") -> None:
        super().__init__(message, hint)
        self.code = code
        self.console = console

    def __str__(self) -> str:
        lines = self.console.rstrip().splitlines()[-SHOWN_LINES:]
        if not lines:
            return super().__str__()
        return super().__str__() + "\nthe end of its console:\n" + "\n".join("  " + line for line in lines)


class CommandFailed(Error):
    """A command in the guest that was to succeed (`check=True`) did not; `executed` is what it did."""

    def __init__(self, command: str, executed: "Executed") -> None:
        super().__init__(f"in the guest: {command}: {executed}")
        self.executed = executed


class ProgramNotFound(Error):
    """There is no program `vmrun`."""


class ProtocolError(Error):
    """The other side of the socket does not speak the protocol, or an older one."""


class ConnectionLost(Error):
    """The supervisor hung up before it replied, and the VM has not ended: whether the call was carried out is not known."""

    code = 5
