"""Files of the guest."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from contextlib import suppress
from typing import BinaryIO, Optional

from .._error import Error
from .._executed import Copied
from .._json import StrPath, to_base64
from .connection import Stream
from ..types import ReadGuestFileReply
from .execute import PIECE, Execute

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

# The bits of a file's mode that are copied.
PERMISSIONS = 0o777
# The most that is read of a file whose size the guest does not know, such as those in /proc.
WITHOUT_SIZE = 64 << 20


class Files(Execute):
    """Copies files into the guest and out of it, through its agent: whole or not at all."""

    async def copy_to(
        self, source: StrPath, destination: str, *, agent_timeout_ms: Optional[int] = None
    ) -> Copied:
        """Copies a file of this host to a path of the guest, or into a directory of it."""
        with open(source, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & PERMISSIONS
            name = os.path.basename(os.fspath(source))
            return await self._write(file, destination, name, mode, agent_timeout_ms)

    async def write_file(
        self, path: str, data: "bytes | str", *, mode: Optional[int] = None, agent_timeout_ms: Optional[int] = None
    ) -> Copied:
        """Writes a file of the guest."""
        content = data.encode() if isinstance(data, str) else data
        return await self._write(io.BytesIO(content), path, None, mode, agent_timeout_ms)

    async def _write(
        self, file: BinaryIO, path: str, name: Optional[str], mode: Optional[int], agent_timeout_ms: Optional[int]
    ) -> Copied:
        # the file belongs to the connection: if that ends too early, nothing stays in the guest
        connection = await self._connect()
        try:
            begun = await self._call_on(
                connection, "StartGuestFile", {"path": path, "name": name, "agent_timeout_ms": agent_timeout_ms}
            )
            checksum, size = hashlib.sha256(), 0
            while piece := file.read(PIECE):
                checksum.update(piece)
                size += len(piece)
                await self._call_on(
                    connection, "WriteGuestFile", {"handle": begun["handle"], "data": to_base64(piece)}
                )
            end = {"handle": begun["handle"], "mode": mode, "sha256": checksum.hexdigest()}
            finished = await self._call_on(connection, "FinishGuestFile", end)
            return Copied(begun["path"], size, finished["checked"])
        finally:
            connection.hang_up()

    async def copy_from(
        self, source: str, destination: StrPath, *, agent_timeout_ms: Optional[int] = None
    ) -> Copied:
        """Copies a file of the guest to a path of this host, or into a directory of it."""
        target = os.fspath(destination)
        if os.path.isdir(target):
            target = os.path.join(target, os.path.basename(source))
        # a link leads to the file that is replaced
        target = os.path.realpath(target)
        descriptor, beside = tempfile.mkstemp(prefix=".vmrun-", dir=os.path.dirname(target))
        try:
            with os.fdopen(descriptor, "wb") as file:
                copied, mode = await self._read(source, file, agent_timeout_ms)
                umask = os.umask(0o077)
                os.umask(umask)
                os.fchmod(file.fileno(), (0o666 if mode is None else mode & PERMISSIONS) & ~umask)
            if os.path.exists(target) and not os.path.isfile(target):
                # a device or a pipe is written to, not replaced
                with open(beside, "rb") as whole, open(target, "wb") as device:
                    shutil.copyfileobj(whole, device)
            else:
                os.replace(beside, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside)
        return Copied(target, copied.size_bytes, copied.checked)

    async def read_file(self, path: str, *, agent_timeout_ms: Optional[int] = None) -> bytes:
        """The content of a file of the guest."""
        content = io.BytesIO()
        await self._read(path, content, agent_timeout_ms)
        return content.getvalue()

    async def _read(
        self, path: str, file: BinaryIO, agent_timeout_ms: Optional[int]
    ) -> "tuple[Copied, Optional[int]]":
        """The guest's agent is not trusted: it may send what it announced, and no more."""
        checksum, size = hashlib.sha256(), 0
        announced: Optional[int] = None
        mode: Optional[int] = None
        theirs: Optional[str] = None
        replies: Stream[ReadGuestFileReply] = self.read_guest_file_stream(path, agent_timeout_ms=agent_timeout_ms)
        async with replies:
            async for reply in replies:
                announced = reply.size_bytes if reply.size_bytes is not None else announced
                mode = reply.mode if reply.mode is not None else mode
                theirs = reply.sha256 or theirs
                if reply.data:
                    size += len(reply.data)
                    if size > (announced or WITHOUT_SIZE):
                        raise Error(f"{path}: the guest sent more than the {announced or WITHOUT_SIZE} bytes of the file")
                    checksum.update(reply.data)
                    file.write(reply.data)
        if announced and size != announced:
            raise Error(f"{path}: {size} of {announced} bytes arrived")
        if theirs is not None and theirs != checksum.hexdigest():
            raise Error(f"{path}: what arrived has another checksum than the guest's file", "it may have changed meanwhile")
        return Copied(path, size, "size" if theirs is None else "sha256"), mode
