"""JSON to Python values and back, as the protocol has them."""

from __future__ import annotations

import base64
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar, Union

from ._error import ProtocolError

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

StrPath = Union[str, "os.PathLike[str]"]
Value = TypeVar("Value")


def required(data: Dict[str, Any], name: str) -> Any:
    """A member that the protocol promises."""
    try:
        return data[name]
    except (KeyError, TypeError):
        raise ProtocolError(f"the supervisor left out '{name}' in its reply") from None


def optional(data: Dict[str, Any], name: str) -> Any:
    return data.get(name)


def maybe(value: Any, convert: Callable[[Any], Value]) -> Optional[Value]:
    return None if value is None else convert(value)


def from_base64(text: str) -> bytes:
    return base64.b64decode(text)


def to_base64(data: Optional[bytes]) -> Optional[str]:
    return None if data is None else base64.b64encode(data).decode("ascii")


def strings(value: Union[None, str, Sequence[str]]) -> Optional[List[str]]:
    """One string is a list of one."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(value)


def absolute_path(path: StrPath) -> str:
    """The supervisor may have another working directory."""
    return os.path.abspath(os.fspath(path))


def absolute_paths(value: Union[None, StrPath, Sequence[StrPath]]) -> Optional[List[str]]:
    if value is None:
        return None
    paths = [value] if isinstance(value, (str, os.PathLike)) else value
    return [absolute_path(path) for path in paths]
