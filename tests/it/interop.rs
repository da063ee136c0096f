//! Other people's clients: the PyPI packages `varlink` and `qemu.qmp`.

use std::process::{Command, Output};

use crate::support::boot_sector::Guest;
use crate::support::sandbox::{Sandbox, python};

#[track_caller]
fn runs(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn pypi_varlink_introspects_calls_and_gets_typed_errors() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let name = sandbox.detached([&image]);
    let address = format!("unix:{}", sandbox.runtime().join(&name).join("control").display());
    let script = r#"
import sys, varlink
with varlink.Client.new_with_address(sys.argv[1]) as client:
    interfaces = client.get_interfaces()
    assert "io.vmrun.Machine" in interfaces, interfaces
    with client.open("io.vmrun.Machine") as machine:
        status = machine.GetStatus()["status"]
        assert status["state"] == "running", status
        usb = machine.AddUsb("usb-kbd", "keys")["usb"]
        assert usb["id"] == "keys" and usb["phase"] == "present", usb
        for call, name, field in (
            (lambda: machine.AddUsb("usb-kbd", "keys"), "AlreadyThere", "id"),
            (lambda: machine.RemoveUsb("nothing"), "NoSuchThing", "id"),
            (lambda: machine.AddForward(99999, 80), "InvalidArgument", "parameter"),
        ):
            try:
                call()
            except varlink.VarlinkError as error:
                assert error.error() == "io.vmrun.Machine." + name, error
                assert error.parameters()[field] and error.parameters()["message"], error
            else:
                raise AssertionError(name)
        machine.RemoveUsb("keys")
        outcome = machine.Shutdown(force=True)["outcome"]
        assert outcome["ending"] == "quit", outcome
print("fine")
"#;
    let output = Command::new(python()).args(["-c", script, &address]).output().unwrap();
    assert_eq!(runs(output).trim(), "fine");
}

#[test]
fn pypi_qemu_qmp_has_a_monitor_of_its_own() {
    let sandbox = Sandbox::new();
    let image = sandbox.boot_sector(Guest::Halted);
    let socket = sandbox.file("own.qmp");
    sandbox.detached([image.as_os_str(), "--qmp".as_ref(), socket.as_os_str()]);
    let script = r#"
import asyncio, sys
from qemu.qmp import QMPClient
async def main():
    for _ in range(2):
        client = QMPClient("test")
        await client.connect(sys.argv[1])
        status = await client.execute("query-status")
        assert status["status"] == "running", status
        with client.listener("STOP") as stopped:
            await client.execute("stop")
            await asyncio.wait_for(stopped.get(), 30)
        await client.execute("cont")
        await client.disconnect()
asyncio.run(main())
print("fine")
"#;
    let output = Command::new(python()).args(["-c", script]).arg(&socket).output().unwrap();
    assert_eq!(runs(output).trim(), "fine");
    // the supervisor has got the events of what the tool did
    assert_eq!(sandbox.ctl_json(["status"])["state"], "running");
    sandbox.ctl(["shutdown", "--force"]);
    assert!(!socket.exists());
}
