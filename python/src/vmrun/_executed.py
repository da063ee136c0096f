"""What a command in the guest did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


def text_of(data: bytes) -> str:
    """Text for people: what is no UTF-8 is visible as `\\xff`."""
    return data.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Executed:
    """How a command in the guest ended, and what it wrote."""

    # absent: a signal ended it
    exit_code: Optional[int]
    signal: Optional[int]
    stdout_bytes: bytes
    stderr_bytes: bytes
    # there was more output than the guest agent keeps
    truncated: bool = False

    @property
    def stdout(self) -> str:
        return text_of(self.stdout_bytes)

    @property
    def stderr(self) -> str:
        return text_of(self.stderr_bytes)

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    def __str__(self) -> str:
        how = f"exit code {self.exit_code}" if self.signal is None else f"ended by signal {self.signal}"
        parts = [how] + [text.rstrip() for text in (self.stdout, self.stderr) if text.strip()]
        return "\n".join(parts)


@dataclass(frozen=True)
class Copied:
    """A file that was copied."""

    path: str
    size_bytes: int
    # how it was compared with the original: "sha256", or only "size" where the guest has no sha256sum
    checked: str
