//! A test-suite's own test that boots a VM: `cargo test --example rust_test`.
//!
//! `VMRUN_TEST_GUEST` names the image, here the prefix of a kernel, an initrd and a command line. Its guest agent runs,
//! and a web server listens on its port 80.
//!
//! In another project: `cargo add --dev vmrun` and `cargo add --dev tokio --features macros,rt`.

#[allow(clippy::print_stderr)]
fn main() {
    eprintln!("this is a test: run it with `cargo test --example rust_test`");
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use vmrun::{Error, Machine};

    const SOON: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn a_disk_that_is_plugged_in_can_be_used() -> Result<(), Error> {
        let image = std::env::var("VMRUN_TEST_GUEST").expect("VMRUN_TEST_GUEST names the image");
        let folder = tempfile::tempdir().expect("a folder for the disk");
        let disk = folder.path().join("data.qcow2");

        // Nothing of the VM outlives this test, whether it passes or panics.
        let vm = Machine::builder(image).ephemeral().launch().await?;
        vm.wait("agent", SOON).await?;

        vm.add_disk(&format!("{},size=64M", disk.display())).await?;
        let read = vm.exec(["sh", "-c", "echo hello > /dev/vda; sync; head -n 1 /dev/vda"]).await?;
        assert_eq!(read.stdout_text(), "hello\n", "{read}");

        // The guest accepts on its port 80, which is more than that QEMU listens for it.
        let forward = vm.add_forward("0:80").await?;
        vm.wait("port=80", SOON).await?;
        let mut page = String::new();
        let mut web = TcpStream::connect(("127.0.0.1", forward.host_port)).expect("the guest's web server");
        web.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
        web.read_to_string(&mut page).expect("a reply");
        assert!(page.starts_with("HTTP/1."), "{page}");

        let outcome = vm.shutdown(SOON).await?;
        assert_eq!(outcome.exit_code, 0, "{outcome}");
        Ok(())
    }
}
