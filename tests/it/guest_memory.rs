//! Memory and processors that are plugged and unplugged while the guest runs: vmrun reports what QEMU has.

use crate::support::linux::Linux;
use crate::support::sandbox::{Sandbox, linux_guest};

const MIB: u64 = 1 << 20;

fn facts(vm: &Linux) -> (u64, u64) {
    let status = vm.status();
    let listed = vm.sandbox.run(["ls", "--json"]).json()[0].clone();
    for fact in ["memory_bytes", "cpus"] {
        assert_eq!(status[fact], listed[fact], "{status} {listed}");
    }
    (status["memory_bytes"].as_u64().unwrap() / MIB, status["cpus"].as_u64().unwrap())
}

#[test]
fn memory_and_processors_are_told_as_they_are() {
    let extra = ["-m", "320,slots=2,maxmem=1G", "-smp", "1,maxcpus=2"];
    let vm = Linux::boot_beside(Sandbox::new(), &linux_guest(), ["--cpus", "2"], extra);
    // what was said behind `--` counts
    assert_eq!(facts(&vm), (320, 1));
    let memory = r#"{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m1","size":134217728}}"#;
    vm.ctl(["qmp", memory]);
    vm.ctl(["device-add", "pc-dimm,memdev=m1,id=dimm1"]);
    assert_eq!(facts(&vm), (448, 1));
    let cpus = vm.sandbox.ctl_json(["qmp", r#"{"execute":"query-hotpluggable-cpus"}"#]);
    let free = cpus.as_array().unwrap().iter().find(|cpu| cpu["qom-path"].is_null()).unwrap();
    let props = free["props"].as_object().unwrap().iter().map(|(name, value)| format!(",{name}={value}"));
    vm.ctl([
        "device-add",
        &format!("{}{},id=cpu1", free["type"].as_str().unwrap(), props.collect::<String>()),
    ]);
    assert_eq!(facts(&vm), (448, 2));

    // pages that the kernel cannot move keep the memory there
    // (the kernel may switch it on by itself between a look and the write, which is refused then)
    let online = "state=/sys/bus/memory/devices/memory32/state; [ \"$(cat $state)\" = online ] || echo online_kernel > $state";
    vm.until("the guest uses it", |vm| vm.sh(online).0 == 0);
    vm.run("for n in $(seq 3000); do mkdir -p /run/full/$n/a/b/c; done");
    let done = vm.try_ctl(["device-remove", "dimm1", "--timeout", "60s"]);
    done.fails(4, &["the guest refused to release 'dimm1'"]);
    // it is asked anew, and says the same
    let again = vm.try_ctl(["device-remove", "dimm1", "--timeout", "60s"]);
    again.fails(4, &["the guest refused to release 'dimm1'"]);
    assert_eq!(facts(&vm).0, 448);

    vm.ctl(["device-add", "virtio-balloon-pci,id=balloon"]);
    vm.ctl(["hmp", "balloon", "300"]);
    vm.until("the guest gives memory back", |vm| vm.status()["memory_bytes"] == 300 * MIB);
    assert_eq!(facts(&vm), (300, 2));
    vm.quit();
}
