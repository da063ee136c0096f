//! Who a VM is, as its guest sees it: UUID, MAC address, metadata.

use crate::support::linux::{Linux, text};
use crate::support::sandbox::linux_guest;

const MAC: &str = "cat /sys/class/net/eth0/address";

#[test]
fn uuid_mac_and_metadata_reach_the_guest_and_uuid_and_mac_stay() {
    let data = "hostname: a\n# ünicode, a comma, a tab\t, $HOME `id` \"quoted\" 'x'\n";
    let vm = Linux::boot(["--name", "identity", "--data", data]);
    let status = vm.status();
    let uuid = text(&status["uuid"]);
    assert_eq!(vm.run("cat /sys/class/dmi/id/product_uuid"), uuid);

    let mac = text(&status["mac"]);
    assert_eq!(vm.run(MAC), mac);
    let first = u8::from_str_radix(&mac[..2], 16).unwrap();
    assert_eq!(first & 0b11, 0b10, "locally administered and unicast: {mac}");

    let found = vm.sees("vmrun-guest: metadata ");
    let names: Vec<&str> = found.split("metadata ").nth(1).unwrap().split(' ').collect();
    assert_eq!(names, ["sr0", "config", "meta-data", "user-data"]);
    // the volume's label, in the primary descriptor (sector 16, from byte 40 on)
    assert_eq!(vm.run("dd if=/dev/sr0 bs=1 skip=32808 count=32 2>/dev/null").trim_end(), "cidata");
    // `#` keeps the newline at the end
    for file in ["config", "user-data"] {
        assert_eq!(vm.run(&format!("cat /metadata/{file}; echo '#'")), format!("{data}#"));
    }
    // what cloud-init goes by: the same for the same machine and data
    let hash = vm.run("sha256sum < /metadata/user-data | head -c 16");
    assert_eq!(
        vm.run("cat /metadata/meta-data; echo '#'"),
        format!("instance-id: {uuid}-{hash}\nlocal-hostname: identity\n#")
    );
    assert_eq!(vm.sh("echo x > /metadata/config").0, 1, "it is read-only");
    let sandbox = vm.quit();

    let again = Linux::boot_in(sandbox, &linux_guest(), ["--name", "identity"]);
    let status = again.status();
    assert_eq!(text(&status["mac"]), mac);
    assert_eq!(again.run(MAC), mac);
    assert_eq!(again.run("cat /sys/class/dmi/id/product_uuid"), uuid);
    assert_eq!(again.run("ls /sys/block | grep -c '^sr'; true"), "0", "no metadata this time");
    again.quit();
}
