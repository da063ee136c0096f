"""Varlink's messages: a JSON object and a byte 0."""

from __future__ import annotations

import json
from typing import Any, Dict

from . import errors
from ._error import Error, ProtocolError

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

INTERFACE = "io.vmrun.Machine."
# More than any reply, and a bound for a peer that sends no end.
MAX_REPLY = 1 << 30


def call(method: str, parameters: Dict[str, Any], more: bool) -> bytes:
    """A message that calls a method of the interface; what is `None` is left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    message: Dict[str, Any] = {"method": INTERFACE + method, "parameters": given}
    if more:
        message["more"] = True
    return json.dumps(message).encode() + b"\0"


def reply(frame: bytes) -> Dict[str, Any]:
    """The object of a reply; raises its error."""
    try:
        message = json.loads(frame)
    except ValueError:
        raise ProtocolError("the supervisor's reply is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("the supervisor's reply is not an object")
    if "error" in message:
        raise error_of(message["error"], message.get("parameters") or {})
    return message


def error_of(name: str, parameters: Dict[str, Any]) -> Error:
    if not name.startswith(INTERFACE):
        about = ", ".join(f"{key} '{value}'" for key, value in parameters.items())
        hint = "the VM's supervisor may be older than this package" if name.endswith("NotFound") else None
        return ProtocolError(f"{name}: {about}" if about else name, hint)
    message = parameters.get("message") or name
    kind = errors.BY_NAME.get(name[len(INTERFACE) :])
    if kind is None:
        # one that came later
        return Error(f"{name[len(INTERFACE):]}: {message}", parameters.get("hint"))
    return kind.from_reply(message, parameters.get("hint"), parameters)
