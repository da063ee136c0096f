"""VMs are started, found and ended; nothing is left of them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import List

import pytest

import vmrun
from vmrun import _program
from vmrun.errors import AlreadyThere, NotRunning, TimedOut

GREETS = "console=greetings"


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def await_end(*pids: int) -> None:
    """Of processes that are no children of ours: the kernel tells."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([descriptor], [], [], 60)
        os.close(descriptor)
        assert ended, f"process {pid} still runs"


def test_a_vm_ends_with_its_block(boot_sector: Path, runtime: Path) -> None:
    with vmrun.launch(boot_sector, ephemeral=True, wait=GREETS) as vm:
        status = vm.get_status()
        assert status.state == "running" and is_alive(status.qemu_pid)
        assert [listed.name for listed in vmrun.list()] == [vm.name]
    assert not is_alive(status.qemu_pid) and not is_alive(status.supervisor_pid)
    assert vm.outcome().ending == "quit"
    assert vmrun.list() == [] and not os.path.exists(status.run_directory)


def test_an_exception_ends_it_too(boot_sector: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with vmrun.launch(boot_sector, ephemeral=True) as vm:
            pid = vm.get_status().qemu_pid
            1 / 0
    assert not is_alive(pid)


def test_a_thread_that_launches_may_end(boot_sector: Path) -> None:
    launched: List[vmrun.Machine] = []
    thread = threading.Thread(target=lambda: launched.append(vmrun.launch(boot_sector, ephemeral=True)))
    thread.start()
    thread.join()
    with launched[0] as vm:
        # a death signal of the thread would have ended it by then
        vm.wait(GREETS, timeout_ms=60_000)
        assert vm.get_status().state == "running"


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "sys.exit()", "os._exit(3)", "raise KeyboardInterrupt"])
def test_nothing_outlives_the_process(boot_sector: Path, runtime: Path, end: str) -> None:
    script = (
        "import os, sys, vmrun\n"
        f"vm = vmrun.launch({str(boot_sector)!r}, ephemeral=True)\n"
        "status = vm.get_status()\n"
        "print(status.qemu_pid, status.supervisor_pid, status.run_directory, status.state_directory, flush=True)\n"
        f"{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    qemu, supervisor, run_directory, state_directory = done.stdout.split()
    await_end(int(qemu), int(supervisor))
    assert not os.path.exists(run_directory) and not os.path.exists(state_directory)


def test_not_even_the_vm_that_is_booted_for_a_template(guest: str, runtime: Path, tmp_path: Path) -> None:
    script = f"import vmrun; vmrun.launch({guest!r}, mem=256, warm='console=never')"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    booted: List[int] = []
    while not booted:
        assert process.poll() is None
        booted = [pid for vm in vmrun.list() for pid in (vm.qemu_pid, vm.supervisor_pid) if pid is not None]
    process.kill()
    process.wait()
    await_end(*booted)
    assert list(runtime.iterdir()) == []


def test_a_kept_vm_outlives_it(boot_sector: Path) -> None:
    script = f"import vmrun; print(vmrun.launch({str(boot_sector)!r}, ephemeral=True, keep=True).name)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    name = done.stdout.strip()
    with vmrun.attach(name) as vm:
        assert vm.get_status().detached
    # leaving the block of an attached VM leaves it alone
    with vmrun.attach() as vm:
        assert vm.stop(force=True).ending == "quit"
    with pytest.raises(NotRunning) as caught:
        vmrun.attach(name)
    assert caught.value.code == 3


def test_a_start_that_fails_says_why(boot_sector: Path) -> None:
    with pytest.raises(vmrun.LaunchError) as caught:
        vmrun.launch("/nosuch.qcow2")
    assert "/nosuch.qcow2" in caught.value.message and caught.value.hint and "hint: " in str(caught.value)
    with pytest.raises(vmrun.LaunchError) as caught:
        vmrun.launch(boot_sector, mem="much")
    assert caught.value.code == 2
    with pytest.raises(TypeError, match="meant 'mem'"):
        vmrun.launch(boot_sector, memm=3)  # type: ignore[call-arg]


def test_one_that_is_never_ready_shows_its_console(boot_sector: Path) -> None:
    with pytest.raises(vmrun.LaunchError) as caught:
        vmrun.launch(boot_sector, ephemeral=True, wait=[GREETS, "console=never"], wait_timeout_ms=3000)
    assert caught.value.code == TimedOut.code
    assert "greetings from the boot sector" in str(caught.value)
    assert vmrun.list() == []


def test_a_program_that_is_no_vmrun_is_named(boot_sector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMRUN", "/nosuch/vmrun")
    with pytest.raises(vmrun.ProgramNotFound, match="/nosuch/vmrun"):
        vmrun.launch(boot_sector)
    monkeypatch.delenv("VMRUN")
    monkeypatch.setenv("PATH", "")
    # of the wheel
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/nosuch")
    with pytest.raises(vmrun.ProgramNotFound, match="VMRUN"):
        vmrun.list()


def test_options_are_flags(tmp_path: Path) -> None:
    arguments = _program.arguments_of(
        "-image", {"mem": 512, "publish": ["0:22", "0:80"], "ephemeral": True, "usb": False, "from_": tmp_path, "qemu_args": ["-S"]}
    )
    expected = ["--mem=512", "--publish=0:22", "--publish=0:80", "--ephemeral", f"--from={tmp_path}", "./-image", "--", "-S"]
    assert arguments == expected


def test_the_end_of_a_vm_is_told_by_its_next_call(boot_sector: Path) -> None:
    with vmrun.launch(boot_sector, ephemeral=True, wait=GREETS) as vm:
        os.kill(vm.get_status().qemu_pid, signal.SIGKILL)
        with pytest.raises(NotRunning) as caught:
            while True:
                vm.add_usb("usb-kbd")
        assert caught.value.outcome is not None and caught.value.outcome.ending == "crashed"
        # its console is kept, although its state directory is gone
        assert "greetings" in vm.console_text()
    assert vm.outcome().exit_code == 11


def test_another_vm_of_the_same_name_is_not_touched(boot_sector: Path) -> None:
    first = vmrun.launch(boot_sector, ephemeral=True, name="twin")
    first._hang_up()
    os.kill(first.get_status().qemu_pid, signal.SIGKILL)
    assert first._supervisor is not None
    first._supervisor.ended.result(60)
    with vmrun.launch(boot_sector, ephemeral=True, name="twin") as second:
        first._hang_up()
        with pytest.raises(NotRunning):
            first.pause()
        assert first.stop().ending == "crashed"
        assert second.get_status().state == "running"


def test_a_detached_vm_gets_a_new_supervisor(boot_sector: Path) -> None:
    with vmrun.launch(boot_sector, ephemeral=True, keep=True) as vm:
        status = vm.get_status()
        os.kill(status.supervisor_pid, signal.SIGKILL)
        await_end(status.supervisor_pid)
        again = vm.get_status()
        assert again.supervisor_pid != status.supervisor_pid and again.qemu_pid == status.qemu_pid
        vm.stop(force=True)


def test_errors_are_types(boot_sector: Path) -> None:
    with vmrun.launch(boot_sector, ephemeral=True) as vm:
        assert vm.add_usb("usb-kbd", id="keys").phase == "present"
        with pytest.raises(AlreadyThere) as caught:
            vm.add_usb("usb-mouse", id="keys")
        assert caught.value.id == "keys" and caught.value.code == 4
        vm.remove_usb("keys")
        assert vm.list_usb() == []


def test_paths_are_those_of_this_process(boot_sector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vmrun.launch(boot_sector, ephemeral=True) as vm:
        other = boot_sector.parent / "elsewhere"
        other.mkdir()
        monkeypatch.chdir(other)
        disk = vm.add_disk("data.qcow2", size_bytes=1 << 20)
        assert disk.file == str(other / "data.qcow2") and Path(disk.file).exists()


def test_events_and_console_are_iterators(boot_sector: Path) -> None:
    with vmrun.launch(boot_sector, ephemeral=True, wait=GREETS) as vm:
        seen: List[str] = []
        with vm.events(["STOP", "RESUME"]) as events:
            vm.pause()
            seen.append(next(events).name)
            vm.resume()
            seen.append(next(events).name)
        assert seen == ["STOP", "RESUME"]
        text = b""
        with vm.console() as output:
            for piece in output:
                text += piece
                if b"greetings from the boot sector" in text:
                    break
        assert b"".join(vm.console(follow=False)).decode().replace("\r\n", "\n") == vm.console_text()
        with vm.events() as events:
            vm.stop()
            # ends with the VM
            names = [event.name for event in events]
        assert "VMRUN_OUTCOME" in names


def test_threads_share_a_vm(boot_sector: Path) -> None:
    with vmrun.launch(boot_sector, ephemeral=True) as vm:
        waited: List[Exception] = []

        def wait() -> None:
            try:
                vm.wait("console=never", timeout_ms=60_000)
            except vmrun.Error as error:
                waited.append(error)

        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        # does not wait for them
        assert vm.get_status().state == "running"
        vm.stop()
        for thread in threads:
            thread.join(60)
        assert len(waited) == 8 and all(isinstance(error, NotRunning) for error in waited)


def test_the_users_configuration_is_not_read(
    boot_sector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "config" / "vmrun"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[qemu]\ncpus = 3\nnonsense = 1\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent))
    monkeypatch.setenv("VMRUN_QEMU_MEM", "80M")
    with vmrun.launch(boot_sector, ephemeral=True) as vm:
        status = vm.get_status()
        assert (status.cpus, status.memory_bytes) == (1, 80 << 20)
    # unless it is named
    monkeypatch.setenv("VMRUN_CONFIG", str(folder / "config.toml"))
    with pytest.raises(vmrun.Error, match="config.toml:3: there is no key qemu.nonsense"):
        vmrun.launch(boot_sector, ephemeral=True)
