//! What is wrong by itself: exit code 2, before anything is looked at.

use serde_json::Value;

use super::Bad;

#[test]
fn values_that_make_no_sense() {
    let bad = Bad::new();
    let long_name = "a".repeat(300);
    for (flags, words) in [
        (["--disk", "x,formt=raw"], &["--disk x,formt=raw", "unknown option 'formt'", "'format'"][..]),
        (["--disk", "x,size=0"], &["--disk x,size=0", "more than 0"]),
        (["--disk", "x,size=-1G"], &["size '-1G' is negative"]),
        (["--disk", "x,size=8192P"], &["'8192P' is too large"]),
        (["--disk", "x,size=1X"], &["unknown unit 'X'", "K, M, G"]),
        (["--disk", "x,bus=ide"], &["'ide'", "virtio, scsi, sata"]),
        (["--disk", "x,id=1"], &["id '1' must start with a letter"]),
        (["--disk", ""], &["--disk", "needs a path"]),
        (["--publish", "99999:1"], &["--publish", "host port 99999 is above 65535"]),
        (["--publish", "a:b"], &["host port 'a' is not a number"]),
        (["--publish", "80"], &["'80' needs two ports"]),
        (["--publish", "1:0"], &["guest port may not be 0"]),
        (["--publish", "::1:80:80"], &["::1"]),
        (["--networking", "bridge"], &["bridge networking needs a name"]),
        (["--networking", "tap,"], &["tap networking needs a name"]),
        (["--networking", "nat"], &["'nat'", "known: default, user"]),
        (["--name", "../x"], &["--name", "'../x'"]),
        (["--name", &long_name], &["--name", "64 characters", "300"]),
        (["--name", ""], &["--name", "empty"]),
        (["--arch", "m68k"], &["'m68k'", "x86_64, aarch64, s390x, riscv64"]),
        (["--accel", "nonsense"], &["'nonsense'", "kvm, tcg"]),
        (["--accel", "kvm,tcg"], &["kvm:tcg"]),
        (["--mem", "0"], &["--mem 0", "more than 0"]),
        (["--mem", "much"], &["'much'"]),
        (["--cpus", "0"], &["--cpus 0"]),
        (["--display", "x"], &["'x'", "none, gui, headless"]),
        (["--stop-timeout", "soon"], &["'soon' is not a duration"]),
        (["--hotplug-slots", "65"], &["--hotplug-slots 65"]),
        (["--kernel", "--iso"], &["'--kernel[=<FILE>]'", "'--iso'"]),
    ] {
        let done = bad.start(&flags, 2, words);
        assert!(done.stderr.len() < 500, "{done:#?}");
    }
}

#[test]
fn names_that_no_snapshot_can_have() {
    let bad = Bad::new();
    for command in ["snapshot-save", "snapshot-load", "snapshot-delete"] {
        for (name, words) in [
            ("", &["may not be empty"][..]),
            // qcow2 would take it for the number of another one
            ("1", &["'1' must start with a letter"]),
            ("a/b", &["'/'", "only letters"]),
            ("a b", &["' '", "only letters"]),
        ] {
            bad.refused(&["ctl", command, name], 2, words);
        }
        bad.refused(&["ctl", command], 2, &["NAME"]);
    }
}

#[test]
fn what_contradicts_itself() {
    let bad = Bad::new();
    let twice = ["--publish", "8080:80", "--publish", "8080:81"];
    bad.start(&twice, 2, &["127.0.0.1:8080:81/tcp collides with --publish 127.0.0.1:8080:80/tcp"]);
    bad.start(&["--publish", "0.0.0.0:8080:80", "--publish", "8080:81"], 2, &["collides"]);
    for mode in ["none", "tap,t0", "bridge,br0"] {
        bad.start(&["--networking", mode, "--publish", "0:80"], 2, &["user networking", mode, "hint: "]);
    }
    bad.refused(&["qemu", "--iso"], 2, &["which image", "hint: vmrun qemu IMAGE"]);
    bad.refused(&["qemu", "a.img", "b.img"], 2, &["'b.img'", "hint: usage: vmrun qemu"]);
    let both = ["--data", "x", "--data-file", "guest.img"];
    bad.start(&both, 2, &["--data", "--data-file"]);
}

#[test]
fn commands_that_are_none() {
    let bad = Bad::new();
    bad.refused(&["nonsense"], 2, &["'nonsense'", "hint: usage: vmrun <COMMAND>"]);
    bad.refused(&["qemu", "--nonsense"], 2, &["'--nonsense'", "hint: usage: vmrun qemu"]);
    bad.refused(&["qemu", "--dsk", "x"], 2, &["'--dsk'", "hint: a similar argument exists: '--disk'"]);
    bad.ctl(&["usb-ad"], 2, &["'usb-ad'", "hint: did you mean `vmrun ctl usb-add`"]);
    bad.ctl(&["disk-resize", "a"], 2, &["<SIZE>", "hint: usage: vmrun ctl disk-resize <ID> <SIZE>"]);
    bad.ctl(&["--vm", "../x", "status"], 2, &["--vm", "'../x'"]);
    bad.refused(&["completions", "tcsh"], 2, &["'tcsh'", "bash, elvish, fish"]);
}

/// None of these looks for a VM: there is none, and that would be exit code 3.
#[test]
fn bad_syntax_is_found_before_any_vm() {
    let bad = Bad::new();
    for (arguments, words) in [
        (&["usb-add", "zz:1"][..], &["vendor 'zz' is not hexadecimal"][..]),
        (&["usb-add", "1234"], &["'1234'", "VENDOR:PRODUCT"]),
        (&["usb-add", ""], &["SELECTOR", "empty"]),
        (&["usb-add"], &["<SELECTOR>", "hint: usage"]),
        (&["usb-add", "usb-kbd", "--id", "1"], &["--id", "must start with a letter"]),
        (&["usb-add", "usb-kbd", "--id", "a b"], &["' '"]),
        (&["disk-add", ""], &["DISK", "needs a path"]),
        (&["disk-add", "x,size=0"], &["more than 0"]),
        (&["disk-resize", "disk0", "-1"], &["-1"]),
        (&["port-add", "80"], &["'80' needs two ports"]),
        (&["port-add", "99999:1"], &["99999"]),
        (&["port-remove", "nonsense"], &["FORWARD", "'nonsense'"]),
        (&["port-remove", "99999"], &["'99999'"]),
        (&["qmp", "not json"], &["not JSON", "hint: ", "query-block"]),
        (&["qmp", "[1]"], &["'execute'", "hint: "]),
        (&["qmp", "{\"execute\": 1}"], &["string 'execute'"]),
        (&["qmp", ""], &["not JSON"]),
        (&["device-add", ""], &["DEVICE"]),
        (&["shutdown", "--timeout", "soon"], &["'soon' is not a duration"]),
    ] {
        bad.ctl(arguments, 2, words);
    }
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let bad = Bad::running();
    for (arguments, code, word) in [
        (&["nonsense"][..], 2, "usage"),
        (&["usb-ad"], 2, "usage"),
        (&["usb-add", "zz:1"], 2, "usage"),
        (&["qmp", "x y"], 2, "usage"),
        (&["--vm", "none", "status"], 3, "not-running"),
        (&["usb-remove", "none"], 4, "no-such-thing"),
        (&["disk-add", "guest.img"], 4, "already-there"),
        (&["disk-resize", "disk0", "1K"], 2, "invalid-argument"),
    ] {
        let done = bad.refused(&[&["ctl", "--json"], arguments].concat(), code, &[]);
        let value: Value =
            serde_json::from_str(&done.stderr).unwrap_or_else(|error| panic!("{error}: {done:#?}"));
        let error = value["error"].as_object().unwrap();
        assert_eq!(error["code"], word, "{done:#?}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{done:#?}");
        assert!(error["hint"].is_string() || error["hint"].is_null(), "{done:#?}");
        assert_eq!((value.as_object().unwrap().len(), error.len()), (1, 3), "{done:#?}");
    }
    bad.refused(&["ls", "--json", "--nonsense"], 2, &["{\"error\":"]);
}
