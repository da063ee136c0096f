"""The client against a scripted supervisor: what is newer, older or broken on the other side."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

import vmrun
from vmrun import _program, errors
from vmrun._sync.machine import Machine

ROOT = Path(__file__).resolve().parent.parent


class Supervisor:
    """Answers each call with the next of its replies; a reply of `None` hangs up."""

    def __init__(self, folder: Path, replies: List[Any]) -> None:
        self.calls: List[Dict[str, Any]] = []
        self._replies = replies
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "control"))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as reader:
                message = b""
                while byte := reader.read(1):
                    message += byte
                    if byte != b"\0":
                        continue
                    self.calls.append(json.loads(message[:-1]))
                    message = b""
                    reply = self._replies.pop(0)
                    if reply is None:
                        break
                    for part in reply if isinstance(reply, list) else [reply]:
                        connection.sendall(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\0")


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(_program, "outcome_of", lambda place: None)

    def make(*replies: Any) -> "tuple[Machine, Supervisor]":
        supervisor = Supervisor(tmp_path, list(replies))
        return Machine(_program.Place("scripted", str(tmp_path), None)), supervisor

    yield make


def test_what_is_not_given_is_not_sent(scripted: Any) -> None:
    vm, supervisor = scripted({"parameters": {"usb": {"id": "a", "driver": "d", "description": "", "phase": "present", "later": 1}}})
    usb = vm.add_usb("usb-kbd")
    assert supervisor.calls == [{"method": "io.vmrun.Machine.AddUsb", "parameters": {"selector": "usb-kbd"}}]
    # a field that came later is left out, one that is missing is None
    assert usb.id == "a" and usb.taken is None


def test_every_error_has_its_class(scripted: Any) -> None:
    parameters = {"message": "why", "hint": "do", "later": 1}
    names = list(errors.BY_NAME)
    vm, _ = scripted(*({"error": f"io.vmrun.Machine.{name}", "parameters": parameters} for name in names))
    for name in names:
        with pytest.raises(errors.BY_NAME[name]) as caught:
            vm.pause()
        assert str(caught.value) == "why\nhint: do" and isinstance(caught.value, vmrun.Error)


def test_errors_of_later_versions_and_of_varlink_are_told(scripted: Any) -> None:
    vm, _ = scripted(
        {"error": "io.vmrun.Machine.Later", "parameters": {"message": "why"}},
        {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": "io.vmrun.Machine.Pause"}},
        b"nonsense\0",
        {"parameters": {}},
    )
    with pytest.raises(vmrun.Error, match="Later: why"):
        vm.pause()
    with pytest.raises(vmrun.ProtocolError, match="Pause") as caught:
        vm.pause()
    assert caught.value.hint
    with pytest.raises(vmrun.ProtocolError, match="JSON"):
        vm.pause()
    with pytest.raises(vmrun.ProtocolError, match="'usb'"):
        vm.list_usb()


def test_a_supervisor_that_hangs_up_is_told(scripted: Any) -> None:
    vm, supervisor = scripted({"parameters": {}}, None, {"parameters": {}})
    vm.pause()
    with pytest.raises(vmrun.ConnectionLost):
        vm.pause()
    # a call that may have been carried out is not made again, and the next one gets a connection of its own
    vm.pause()
    assert len(supervisor.calls) == 3


def test_a_stream_ends_with_its_last_reply(scripted: Any) -> None:
    more = {"parameters": {"done_bytes": 1}, "continues": True}
    vm, supervisor = scripted([more, more, {"parameters": {}}], [more, None], [more, {"error": "io.vmrun.Machine.TimedOut", "parameters": {"message": "late"}}])
    assert [reply.done_bytes for reply in vm.save_stream("/x")] == [1, 1]
    assert supervisor.calls[0]["more"] is True


def test_what_is_generated_is_what_would_be_generated() -> None:
    done = subprocess.run([sys.executable, ROOT / "generate", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_method_is_there_in_both() -> None:
    import vmrun.aio

    text = (ROOT.parent / "proto/io.vmrun.Machine.varlink").read_text()
    names = [line.split("(")[0].split()[1] for line in text.splitlines() if line.startswith("method ")]
    streams = {
        word.strip(";,").split(",")[0]
        for line in (ROOT.parent / "src/control/verbs/mod.rs").read_text().splitlines()
        for before, word in zip(line.split(), line.split()[1:])
        if before == "stream"
    }
    assert len(names) > 50 and len(streams) >= 8
    for name in names:
        snake = "".join("_" + char.lower() if char.isupper() else char for char in name).lstrip("_")
        snake += "_stream" if name in streams else ""
        for machine in (vmrun.Machine, vmrun.aio.Machine):
            assert callable(getattr(machine, snake, None)), f"{machine} has no {snake}"
