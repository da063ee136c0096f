"""Tests of a guest: each has a VM of its own, as it was right after the boot."""

import urllib.request

import pytest


def test_a_command_runs(vm):
    assert vm.exec(["uname", "-s"]).stdout == "Linux\n"


def test_what_a_test_writes_is_its_own(vm):
    assert not vm.shell("test -e /tmp/mine").ok
    vm.write_file("/tmp/mine", "hello")


def test_and_no_other_test_sees_it(vm):
    assert not vm.shell("test -e /tmp/mine").ok


def test_a_disk_that_is_plugged_in_can_be_used(vm, tmp_path):
    vm.add_disk(tmp_path / "data.qcow2", size_bytes=64 << 20, id="data")
    vm.shell("echo hello > /dev/vda && sync", check=True)
    assert vm.shell("head -n 1 /dev/vda").stdout == "hello\n"


def test_the_web_server_answers(vm):
    port = vm.add_forward(0, 80).host_port
    vm.wait("port=80", timeout_ms=60_000)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
        assert page.status == 200


@pytest.mark.vm(publish="0:80")
def test_a_marker_changes_the_vm(vm):
    assert vm.list_forwards()[0].guest_port == 80


def test_two_vms(vm_factory):
    first, second = vm_factory(), vm_factory()
    first.write_file("/tmp/mine", "")
    assert not second.shell("test -e /tmp/mine").ok


def test_the_guest_can_be_switched_off(vm):
    assert vm.stop(force=False, timeout_ms=60_000).ending in ("asked_agent", "asked_acpi")
