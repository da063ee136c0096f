"""The plug-in of pytest, in projects of its users."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

import vmrun
from test_launch import await_end

FAILS = "import os\ndef test_it(vm):\n    vm.exec('true', check=True)\n    {}\n    assert vm.exec('false').ok\n"


@pytest.fixture
def project(pytester: pytest.Pytester, guest: str) -> pytest.Pytester:
    pytester.makepyprojecttoml(
        f'[tool.pytest.ini_options]\nvm_image = "{guest}"\nvm_options = ["mem=256", "display=headless", "warm=agent"]\n'
    )
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=120)


def artefacts(project: pytest.Pytester, test: str) -> Path:
    [folder] = (project.path / "vm-artefacts" / test).iterdir()
    return folder


def test_each_test_has_a_pristine_vm(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_pristine(vm, number):
            assert not vm.shell("test -e /tmp/mark").ok
            vm.write_file("/tmp/mark", "")

        def test_several(vm_factory):
            first, second = vm_factory(), vm_factory()
            assert first.name != second.name and second.exec("true").ok

        @pytest.mark.vm(name="marked")
        class TestMarked:
            def test_of_the_class(self, vm):
                assert vm.name == "marked"

            @pytest.mark.vm(warm=None, paused=True)
            def test_of_its_own(self, vm):
                assert vm.get_status().state in ("starting", "paused")

        def test_shared(vm_session):
            vm_session.write_file("/tmp/mark", "")

        def test_shared_too(vm_session):
            assert vm_session.exec(["test", "-e", "/tmp/mark"]).ok
        """
    )
    run(project).assert_outcomes(passed=8)
    assert not (project.path / "vm-artefacts").exists()


def test_a_failed_test_keeps_what_its_vm_said(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_kept="""
        import os, pytest

        def test_fails(vm):
            vm.pause()
            assert vm.get_status().state == "running"

        def test_crashes(vm):
            os.kill(vm.get_status().qemu_pid, 9)
            vm.wait("port=9")

        @pytest.mark.vm(warm=None, wait="console=never", wait_timeout_ms=4000)
        def test_never_ready(vm):
            pass
        """
    )
    result = run(project)
    result.assert_outcomes(failed=2, errors=1)
    result.stdout.fnmatch_lines(["*vm 'guest*", "it is paused", "artefacts: *test_fails*", "*vmrun-guest: ready*"])
    result.stdout.fnmatch_lines(["it has ended: QEMU was ended by SIGKILL"])
    # the reports show lines of the tests, none of the package's
    assert "_sync/" not in result.stdout.str()
    folder = artefacts(project, "test_kept.py--test_fails")
    assert json.loads((folder / "status.json").read_text())["state"] == "paused"
    assert json.loads((folder / "outcome.json").read_text())["ending"] == "quit"
    assert (folder / "screenshot.png").read_bytes().startswith(b"\x89PNG")
    assert "vmrun-guest: ready" in (folder / "console.log").read_text()
    events = [json.loads(line)["name"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert "STOP" in events
    folder = artefacts(project, "test_kept.py--test_crashes")
    assert json.loads((folder / "outcome.json").read_text())["ending"] == "crashed"
    assert "vmrun-guest: ready" in (folder / "console.log").read_text()
    assert "VMRUN_OUTCOME" in (folder / "events.jsonl").read_text()
    # one file of a boot that was cut off, whatever it had printed by then
    never = project.path / "vm-artefacts/test_kept.py--test_never_ready"
    assert not never.exists() or [path.name for path in never.iterdir()] == ["console.log"]


def test_without_an_image_it_says_where_to_name_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(vm): pass")
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*vm_image*--vm-image*@pytest.mark.vm(image=*"])


def test_workers_of_xdist_have_vms_of_their_own(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(vm, number):
            assert vm.shell(f"echo {number}").stdout == f"{number}\\n"
            assert number != 5
        """
    )
    result = run(project, "-n", "4")
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(["*vm 'guest*", "*vmrun-guest: ready*"])
    assert [path.name for path in (project.path / "vm-artefacts").iterdir()] == [
        "test_workers_of_xdist_have_vms_of_their_own.py--test_it[5]"
    ]


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_kill_9_leaves_nothing(project: pytest.Pytester, runtime: Path, arguments: List[str]) -> None:
    project.makepyfile(
        """
        import os, time

        def test_it(vm):
            status = vm.get_status()
            with open("fifo", "w") as fifo:
                fifo.write(f"{status.qemu_pid} {status.supervisor_pid} {status.state_directory}")
            time.sleep(600)
        """
    )
    os.mkfifo(project.path / "fifo")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    process = subprocess.Popen(command, cwd=project.path, stdout=subprocess.DEVNULL)
    # open for writing, too: it is no end if pytest dies before it writes
    descriptor = os.open(project.path / "fifo", os.O_RDWR)
    ready, _, _ = select.select([descriptor], [], [], 120)
    assert ready, "the test did not begin"
    qemu, supervisor, state_directory = os.read(descriptor, 4096).decode().split()
    os.close(descriptor)
    process.send_signal(signal.SIGKILL)
    process.wait()
    await_end(int(qemu), int(supervisor))
    assert list(runtime.iterdir()) == [] and not os.path.exists(state_directory)


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_keep_leaves_the_vm_of_a_failed_test(project: pytest.Pytester, arguments: List[str]) -> None:
    project.makepyfile("def test_passes(vm): pass\n\ndef test_fails(vm):\n    assert vm.exec('false').ok\n")
    result = run(project, "--vm-keep", *arguments)
    result.assert_outcomes(passed=1, failed=1)
    [left] = vmrun.list()
    result.stdout.fnmatch_lines([f"VM '{left.name}' was left running:", f"  vmrun console {left.name}"])
    with vmrun.attach(left.name) as vm:
        assert vm.exec("true").ok
        vm.stop(force=True)
