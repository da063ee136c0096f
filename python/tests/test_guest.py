"""What goes through the guest's agent."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Iterator

import pytest

import vmrun
import vmrun.aio
from vmrun.errors import NoSuchThing, TimedOut


@pytest.fixture(scope="module")
def vm(guest: str) -> Iterator[vmrun.Machine]:
    with vmrun.launch(guest, warm="agent", mem=256, display="headless") as machine:
        yield machine


def test_a_command_has_code_and_output(vm: vmrun.Machine) -> None:
    done = vm.shell("echo out; echo error >&2; exit 3")
    assert (done.exit_code, done.stdout, done.stderr, done.ok) == (3, "out\n", "error\n", False)
    assert vm.exec(["sh", "-c", "kill -9 $$"]).signal == 9
    assert "A=b\n" in vm.exec("env", env={"A": "b"}).stdout
    assert vm.exec(["printf", "\\377"]).stdout == "\\xff" and vm.exec(["printf", "\\377"]).stdout_bytes == b"\xff"


def test_check_raises_with_what_it_said(vm: vmrun.Machine) -> None:
    with pytest.raises(vmrun.CommandFailed, match="no such luck") as caught:
        vm.shell("echo no such luck; false", check=True)
    assert caught.value.executed.exit_code == 1
    with pytest.raises(NoSuchThing):
        vm.exec("nosuchprogram")
    with pytest.raises(TimedOut):
        vm.exec(["sleep", "60"], timeout_ms=100)


def test_input_of_any_length_goes_in_while_output_comes(vm: vmrun.Machine) -> None:
    data = os.urandom(2 << 20)
    assert vm.exec("cat", input=data).stdout_bytes == data
    assert vm.exec("sha256sum", input=data).stdout.split()[0] == hashlib.sha256(data).hexdigest()
    # one that does not want all of it
    assert vm.exec(["head", "-c", "3"], input=data).stdout_bytes == data[:3]
    assert vm.exec("cat", input="text").stdout == "text"


def test_output_can_be_streamed(vm: vmrun.Machine) -> None:
    with vm.exec_stream(["sh", "-c", "echo first; read line; echo got $line"], input=True) as replies:
        first = next(replies)
        assert first.pid and first.input is not None
        assert next(replies).stdout == b"first\n"
        vm.write_exec_input(first.input, data=b"second\n")
        assert next(replies).stdout == b"got second\n"
        assert next(replies).exit_code == 0
        assert list(replies) == []


def test_files_go_in_and_out(vm: vmrun.Machine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1 << 20))
    source.chmod(0o750)
    copied = vm.copy_to(source, "/tmp")
    assert copied.path == "/tmp/source" and copied.checked == "sha256"
    assert vm.exec(["stat", "-c", "%a", "/tmp/source"]).stdout == "750\n"
    back = tmp_path / "back"
    back.mkdir()
    assert vm.copy_from("/tmp/source", back).path == str(back / "source")
    assert (back / "source").read_bytes() == source.read_bytes()
    vm.write_file("/tmp/text", "text")
    assert vm.read_file("/tmp/text") == b"text" and vm.read_file("/proc/version").startswith(b"Linux")
    with pytest.raises(NoSuchThing):
        vm.copy_from("/nosuch", tmp_path / "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]


def test_asyncio_has_the_same(guest: str) -> None:
    async def main() -> None:
        async with await vmrun.aio.launch(guest, warm="agent", mem=256, display="headless") as vm:
            assert [listed.name for listed in await vmrun.aio.list() if listed.name == vm.name] == [vm.name]
            done = await asyncio.gather(*(vm.shell(f"sleep 0.2; echo {number}") for number in range(5)))
            assert [one.stdout for one in done] == [f"{number}\n" for number in range(5)]
            data = os.urandom(1 << 20)
            assert (await vm.exec("cat", input=data)).stdout_bytes == data
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(vm.wait("port=99"), 0.2)
            async with vm.events("STOP") as events:
                await vm.pause()
                assert (await events.__anext__()).name == "STOP"
                await vm.resume()
            attached = await vmrun.aio.attach(vm.name)
            assert (await attached.get_status()).state == "running"
            await attached.close()
            pieces = [piece async for piece in vm.console(follow=False)]
            assert b"ready" in b"".join(pieces)
            with pytest.raises(vmrun.LaunchError):
                await vmrun.aio.launch("/nosuch")
        assert (await vm.outcome()).ending == "quit"

    asyncio.run(main())
