"""A VM's supervisor as a child of this process, which ends with it however it ends."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import threading
from concurrent.futures import Future
from typing import List, Optional

from . import _program
from ._error import ProgramNotFound

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

# How much of the end of the console and of the supervisor's own messages is kept.
CONSOLE_TAIL = 256 << 10
MESSAGES_TAIL = 64 << 10
# sd_notify(3): the message of a VM that is ready has its name.
READY = "READY=1"
STATUS = "STATUS="
RUNS = " is running"
# struct ucred
CREDENTIALS = struct.Struct("3i")


class Supervisor:
    """`vmrun qemu …` in the foreground.

    A thread reads what it writes and hears when the VM is ready. The child watches this process (`--die-with-parent`), so that the
    VM ends with it: after a `kill -9` just as well.
    """

    def __init__(self, arguments: List[str]) -> None:
        self.arguments = arguments
        # the VM's name, or the error of its start
        self.ready: "Future[str]" = Future()
        # its exit code
        self.ended: "Future[int]" = Future()
        self._lock = threading.Lock()
        self._console = bytearray()
        self._messages = bytearray()
        self._process: Optional["subprocess.Popen[bytes]"] = None
        threading.Thread(target=self._run, name="vmrun", daemon=True).start()

    @property
    def console(self) -> bytes:
        """The end of what the guest printed."""
        with self._lock:
            return bytes(self._console)

    @property
    def messages(self) -> bytes:
        with self._lock:
            return bytes(self._messages)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and not self.ended.done():
            self._process.send_signal(number)

    def _run(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
                notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                # a socket without a file: nothing of it can be left behind
                address = "vmrun-python-" + secrets.token_hex(16)
                notified.bind("\0" + address)
                with self._start(address) as process:
                    self._process = process
                    self._follow(process, notified)
                    code = process.wait()
        except BaseException as error:
            for future in (self.ready, self.ended):
                if not future.done():
                    future.set_exception(error)
            return
        # before `ended`: who waits for that finds the error
        if not self.ready.done():
            self.ready.set_exception(_program.launch_error(code, self.messages, text(self.console)))
        self.ended.set_result(code)

    def _start(self, address: str) -> "subprocess.Popen[bytes]":
        path = _program.program()
        try:
            return subprocess.Popen(
                [path, *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**_program.environment(), "NOTIFY_SOCKET": "@" + address},
                # Ctrl-C is for this process, which then decides
                start_new_session=True,
            )
        except OSError as error:
            raise ProgramNotFound(f"{path} cannot be started: {error.strerror}") from error

    def _follow(self, process: "subprocess.Popen[bytes]", notified: socket.socket) -> None:
        """Reads until the child has ended."""
        assert process.stdout is not None and process.stderr is not None
        child = os.pidfd_open(process.pid)
        outputs = {process.stdout.fileno(): self._console, process.stderr.fileno(): self._messages}
        poll = select.poll()
        for descriptor in (child, notified.fileno(), *outputs):
            poll.register(descriptor, select.POLLIN)
        has_ended = False
        try:
            while True:
                # what it has written is there when it has ended; a helper that holds the pipe is not waited for
                events = [descriptor for descriptor, _ in poll.poll(0 if has_ended else None)]
                if has_ended and not any(descriptor in outputs for descriptor in events):
                    return
                for descriptor in events:
                    if descriptor == child:
                        has_ended = True
                        poll.unregister(child)
                    elif descriptor == notified.fileno():
                        self._hear(notified)
                    elif not self._read(descriptor, outputs[descriptor]):
                        poll.unregister(descriptor)
        finally:
            os.close(child)

    def _read(self, descriptor: int, kept: bytearray) -> bool:
        data = os.read(descriptor, 64 << 10)
        with self._lock:
            kept += data
            del kept[: -(CONSOLE_TAIL if kept is self._console else MESSAGES_TAIL)]
        return bool(data)

    def _hear(self, notified: socket.socket) -> None:
        message, ancillary, _, _ = notified.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        users = [
            CREDENTIALS.unpack(data)[1]
            for level, kind, data in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ]
        lines = message.decode("utf-8", "replace").splitlines()
        if users != [os.geteuid()] or READY not in lines or self.ready.done():
            return
        for line in lines:
            if line.startswith(STATUS) and line.endswith(RUNS):
                self.ready.set_result(line[len(STATUS) : -len(RUNS)])


def text(data: bytes) -> str:
    """Of a console, for people."""
    return data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
