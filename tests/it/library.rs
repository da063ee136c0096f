//! `vmrun::Machine`, the library that other people's tests use.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use vmrun::spec::{AccelList, Size};
use vmrun::vm::Ending;
use vmrun::{Error, Heard, Machine, Request, blocking};

use crate::support::boot_sector::Guest;
use crate::support::processes::{self, Process, qemu_of};
use crate::support::sandbox::{PATIENCE, Sandbox, linux_guest};

/// A request for the guest of a boot sector, in this sandbox and nowhere else.
fn request(sandbox: &Sandbox, guest: Guest) -> Request {
    Request {
        runtime: Some(sandbox.path().join("run")),
        state_home: Some(sandbox.state_home()),
        accel: Some("tcg".parse::<AccelList>().unwrap()),
        memory: "64M".parse::<Size>().unwrap(),
        ..Request::of(sandbox.boot_sector(guest))
    }
}

fn qemus(folder: &Path) -> usize {
    processes::of(folder).into_iter().filter(Process::is_qemu).count()
}

/// That the guest of this boot sector is up.
async fn greeted(vm: &Machine, guest: Guest) {
    let line = vm.wait(&format!("console={}", guest.greeting()), PATIENCE).await.unwrap();
    assert!(line.details["line"].as_str().unwrap().contains(guest.greeting()), "{line:?}");
}

#[tokio::test]
async fn a_test_launches_changes_and_ends_a_vm() {
    let sandbox = Sandbox::new();
    let vm = Machine::launch(request(&sandbox, Guest::ReactsToButton)).await.unwrap();
    let mut events = vm.events().await.unwrap();
    greeted(&vm, Guest::ReactsToButton).await;

    let keyboard = vm.add_usb("usb-kbd").await.unwrap();
    let forward = vm.add_forward("0:80").await.unwrap();
    assert_ne!(forward.host_port, 0);
    let disk = sandbox.file("data.qcow2");
    let disk = vm.add_disk(&format!("{},size=1M", disk.display())).await.unwrap();
    let mut status = vm.status().await.unwrap();
    // the supervisor may have looked at what the guest has taken since the answer
    status.usb.iter_mut().for_each(|usb| usb.taken = keyboard.taken);
    status.disks.iter_mut().filter(|other| other.id == disk.id).for_each(|other| other.taken = disk.taken);
    assert_eq!(status.usb, std::slice::from_ref(&keyboard));
    assert_eq!(status.forwards, std::slice::from_ref(&forward));
    assert!(status.disks.contains(&disk), "{status:#?}");

    // the command line sees the same VM
    let listed = sandbox.ctl_json(["--vm", vm.name(), "usb-list"]);
    assert_eq!(listed[0]["id"], keyboard.id);

    vm.remove_usb(&keyboard.id).await.unwrap();
    vm.remove_forward(&forward).await.unwrap();
    let again = vm.remove_usb(&keyboard.id).await.unwrap_err();
    assert_eq!(again.refusal().unwrap().name(), "NoSuchThing", "{again}");
    vm.pause().await.unwrap();
    assert_eq!(vm.status().await.unwrap().state, "paused");
    vm.resume().await.unwrap();
    let version = vm.qmp(serde_json::json!({ "execute": "query-version" })).await.unwrap();
    assert!(version["qemu"]["major"].is_u64(), "{version}");

    let outcome = vm.shutdown(PATIENCE).await.unwrap();
    assert_eq!((outcome.ending, outcome.exit_code), (Ending::AskedAcpi, 0), "{outcome}");
    let mut names = Vec::new();
    while let Some(heard) = events.next().await.unwrap() {
        let Heard::Event(event) = heard else { panic!("{heard:?}") };
        names.push(event.name);
    }
    for name in ["DEVICE_DELETED", "STOP", "RESUME", "POWERDOWN", "SHUTDOWN"] {
        assert!(names.iter().any(|heard| heard == name), "no {name} in {names:?}");
    }
    sandbox.is_clean();
}

#[tokio::test]
async fn nothing_is_left_of_a_vm_that_is_dropped() {
    let sandbox = Sandbox::new();
    let vm = Machine::launch(request(&sandbox, Guest::IgnoresButton)).await.unwrap();
    greeted(&vm, Guest::IgnoresButton).await;
    assert_eq!(qemus(sandbox.path()), 1);
    drop(vm);
    // not eventually: now
    assert_eq!(qemus(sandbox.path()), 0);
    assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_launch_that_is_given_up_leaves_nothing() {
    let sandbox = Sandbox::new();
    let launch = Machine::launch(request(&sandbox, Guest::IgnoresButton));
    // polled once: the thread is on its way
    let given_up = tokio::time::timeout(Duration::ZERO, launch).await;
    assert!(given_up.is_err());
    assert_eq!(qemus(sandbox.path()), 0);
    assert_eq!(std::fs::read_dir(sandbox.runtime()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let sandbox = Sandbox::new();
    let missing =
        Request { image: Some(sandbox.file("missing.img")), ..request(&sandbox, Guest::IgnoresButton) };
    let error = Machine::launch(missing).await.unwrap_err();
    assert!(error.to_string().contains("missing.img"), "{error}");
    let refused = Request {
        extra: vec!["-device".into(), "no-such-device".into()],
        ..request(&sandbox, Guest::IgnoresButton)
    };
    let error = Machine::launch(refused).await.unwrap_err();
    assert!(error.to_string().contains("no-such-device"), "{error}");
    assert_eq!(std::fs::read_dir(sandbox.runtime()).into_iter().flatten().count(), 0);
}

#[tokio::test]
async fn a_vm_of_another_process_lives_on_when_it_is_let_go() {
    let sandbox = Sandbox::new();
    let name = sandbox.detached([sandbox.boot_sector(Guest::ReactsToButton)]);
    let runtime = sandbox.path().join("run");
    assert_eq!(Machine::list_in(&runtime).unwrap(), [name.as_str()]);
    let vm = Machine::attach_in(&runtime, &name).unwrap();
    greeted(&vm, Guest::ReactsToButton).await;
    drop(vm);
    let vm = Machine::attach_in(&runtime, &name).unwrap();
    assert_eq!(vm.status().await.unwrap().state, "running");
    let other = Machine::attach_in(&runtime, &name).unwrap();
    assert_eq!(vm.kill().await.unwrap().exit_code, 12);
    let error = other.status().await.unwrap_err();
    assert!(error.is_gone(), "{error}");
    assert_eq!(Machine::list_in(&runtime).unwrap(), <[&str; 0]>::default());
    let error = Machine::attach_in(&runtime, &name).unwrap_err();
    assert!(error.to_string().contains("no VM"), "{error}");
}

#[tokio::test]
async fn a_vm_that_is_kept_lives_on_in_this_process() {
    let sandbox = Sandbox::new();
    let vm = Machine::launch(request(&sandbox, Guest::ReactsToButton)).await.unwrap();
    greeted(&vm, Guest::ReactsToButton).await;
    let name = vm.name().to_owned();
    vm.keep();
    sandbox.ctl(["--vm", &name, "status"]).ok();
    sandbox.ctl(["--vm", &name, "shutdown"]).ok();
    sandbox.is_clean();
}

#[tokio::test]
async fn what_is_awaited_ends_with_the_vm_and_with_its_time() {
    let sandbox = Sandbox::new();
    let vm = Machine::launch(request(&sandbox, Guest::IgnoresButton)).await.unwrap();
    let late = vm.wait("console=never", Duration::from_millis(50)).await.unwrap_err();
    assert!(late.is_timeout(), "{late}");
    let wrong = vm.wait("console=(", PATIENCE).await.unwrap_err();
    assert!(!wrong.is_timeout() && !wrong.is_gone(), "{wrong}");
    let waiting = vm.wait("console=never", PATIENCE);
    let killing = async {
        vm.wait("running", PATIENCE).await.unwrap();
        processes::send(qemu_of(sandbox.path()), Signal::SIGKILL);
    };
    let (ended, ()) = tokio::join!(waiting, killing);
    let ended = ended.unwrap_err();
    assert!(ended.is_gone(), "{ended}");
}

/// Twenty VMs of one image at once, nothing agreed between them.
#[tokio::test]
async fn twenty_at_once() {
    let sandbox = Sandbox::new();
    let guest = Guest::ReactsToButton;
    let request = Request { ephemeral: true, ..request(&sandbox, guest) };
    let before = std::fs::read(request.image.as_ref().unwrap()).unwrap();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let request = request.clone();
        tasks.spawn(async move {
            let vm = Machine::launch(request).await.unwrap();
            greeted(&vm, guest).await;
            let port = vm.add_forward("0:22").await.unwrap().host_port;
            let keyboard = vm.add_usb("usb-kbd").await.unwrap();
            let mut usb = vm.status().await.unwrap().usb;
            // the supervisor may have looked at what the guest has taken since the answer
            usb.iter_mut().for_each(|usb| usb.taken = keyboard.taken);
            assert_eq!(usb, [keyboard]);
            (vm, port)
        });
    }
    let all = tasks.join_all().await;
    println!("20 VMs up and changed after {} ms", started.elapsed().as_millis());
    let mut names: Vec<&str> = all.iter().map(|(vm, _)| vm.name()).collect();
    let mut ports: Vec<u16> = all.iter().map(|(_, port)| *port).collect();
    names.sort_unstable();
    names.dedup();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((names.len(), ports.len()), (20, 20), "{names:?} {ports:?}");
    assert_eq!(sandbox.run(["ls", "--json"]).json().as_array().unwrap().len(), 20);

    let mut endings = JoinSet::new();
    for (vm, _) in all {
        endings.spawn(async move { vm.shutdown(PATIENCE).await.unwrap() });
    }
    for outcome in endings.join_all().await {
        assert_eq!(outcome.exit_code, 0, "{outcome}");
    }
    sandbox.is_clean();
    assert_eq!(std::fs::read(sandbox.file("guest.img")).unwrap(), before);
}

#[tokio::test]
async fn forks_of_a_machine_are_machines() {
    let sandbox = Sandbox::new();
    let base = Request { forkable: true, ephemeral: true, ..request(&sandbox, Guest::Counts) };
    let vm = Machine::launch(base).await.unwrap();
    greeted(&vm, Guest::Counts).await;
    let forks = vm.fork(3).await.unwrap();
    for fork in &forks {
        assert_eq!(fork.status().await.unwrap().state, "running");
    }
    assert_eq!(qemus(sandbox.path()), 4);
    let template = forks[0].status().await.unwrap().template.unwrap();
    assert!(Path::new(&template).is_dir());
    drop(forks);
    assert!(!Path::new(&template).exists());
    assert_eq!((qemus(sandbox.path()), vm.status().await.unwrap().state.as_str()), (1, "running"));
}

#[tokio::test]
async fn an_error_that_a_test_prints_is_its_message_and_hint() {
    let sandbox = Sandbox::new();
    let error = Machine::attach_in(&sandbox.path().join("run"), "nosuch").unwrap_err();
    let printed = format!("{error:?}");
    let hint = error.hint().unwrap();
    assert_eq!(printed, format!("{error}\nhint: {hint}"));
    let plain = Error::Invalid("it is wrong".to_owned());
    assert_eq!(format!("{plain:?}"), "it is wrong");
    let typed = "two".parse::<Size>().unwrap_err();
    assert_eq!(format!("{typed:?}"), typed.to_string());
}

#[tokio::test]
async fn what_the_console_prints_is_read_as_text() {
    let sandbox = Sandbox::new();
    let guest = Guest::ReactsToButton;
    let vm = Machine::launch(request(&sandbox, guest)).await.unwrap();
    let mut console = vm.console().await.unwrap();
    let mut all = String::new();
    while !all.contains(guest.greeting()) {
        all += &console.next().await.unwrap().expect("the greeting comes before the end");
    }
    // it was printed before this call
    assert!(vm.console_so_far().await.unwrap().contains(guest.greeting()));
    vm.shutdown(PATIENCE).await.unwrap();
    while let Some(text) = console.next().await.unwrap() {
        all += &text;
    }
    assert_eq!((all.matches(guest.greeting()).count(), console.skipped()), (1, 0), "{all}");
}

#[tokio::test]
async fn network_cards_and_devices_are_removed() {
    let sandbox = Sandbox::new();
    let vm = Machine::launch(request(&sandbox, Guest::IgnoresButton)).await.unwrap();
    greeted(&vm, Guest::IgnoresButton).await;
    let device = vm.add_device("usb-mouse").await.unwrap();
    vm.remove_device(&device.id, PATIENCE).await.unwrap();
    let left =
        vm.qmp(serde_json::json!({ "execute": "qom-list", "arguments": { "path": "/machine/peripheral" } }));
    let left = left.await.unwrap().to_string();
    assert!(!left.contains(&format!("\"{}\"", device.id)), "{left}");

    // a boot sector does not release a card
    let card = vm.add_nic("user").await.unwrap();
    let late = vm.remove_nic(&card.id, Duration::from_millis(50)).await.unwrap_err();
    assert!(late.is_timeout() && late.to_string().contains(&card.id), "{late}");
    let wrong = vm.remove_nic("nosuch", PATIENCE).await.unwrap_err();
    assert_eq!(wrong.refusal().unwrap().name(), "NoSuchThing", "{wrong}");
}

#[tokio::test]
async fn a_machine_is_built_in_the_words_of_the_command_line() {
    let sandbox = Sandbox::new();
    let vm = Machine::builder(sandbox.boot_sector(Guest::ReactsToButton))
        .runtime(sandbox.path().join("run"))
        .with(|request| request.state_home = Some(sandbox.state_home()))
        .name("built")
        .accel("tcg")
        .mem("96M")
        .cpus(2)
        .ephemeral()
        .launch()
        .await
        .unwrap();
    assert_eq!(vm.name(), "built");
    let memory = vm.qmp(serde_json::json!({ "execute": "query-memory-size-summary" })).await.unwrap();
    assert_eq!(memory["base-memory"], 96 << 20);
    let cpus = vm.qmp(serde_json::json!({ "execute": "query-cpus-fast" })).await.unwrap();
    assert_eq!(cpus.as_array().unwrap().len(), 2);

    let before = qemus(sandbox.path());
    let wrong = Machine::builder("a.img").mem("much").launch().await.unwrap_err();
    assert!(wrong.to_string().starts_with("mem 'much': "), "{wrong}");
    assert_eq!(qemus(sandbox.path()), before);
}

/// No runtime here.
#[test]
fn a_machine_without_a_runtime_does_the_same() {
    let sandbox = Sandbox::new();
    let guest = Guest::ReactsToButton;
    let vm = blocking::Machine::launch(request(&sandbox, guest)).unwrap();
    let (console, events) = (vm.console().unwrap(), vm.events().unwrap());
    vm.wait(&format!("console={}", guest.greeting()), PATIENCE).unwrap();
    let keyboard = vm.add_usb("usb-kbd").unwrap();
    vm.remove_usb(&keyboard.id).unwrap();
    assert_eq!(vm.status().unwrap().state, "running");
    let other = blocking::Machine::attach_in(&sandbox.path().join("run"), vm.name()).unwrap();
    assert_eq!(vm.shutdown(PATIENCE).unwrap().exit_code, 0);
    assert!(other.pause().unwrap_err().is_gone());
    let text: String = console.map(Result::unwrap).collect();
    assert!(text.contains(guest.greeting()), "{text}");
    let heard: Vec<Heard> = events.map(Result::unwrap).collect();
    assert!(heard.iter().any(|heard| matches!(heard, Heard::Event(event) if event.name == "SHUTDOWN")));
    sandbox.is_clean();

    let vm = blocking::Machine::launch(request(&sandbox, guest)).unwrap();
    drop(vm);
    assert_eq!(qemus(sandbox.path()), 0);
}

/// By the sources: what is added to a machine is added to its twin.
#[test]
fn the_blocking_machine_has_every_method() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/machine");
    let names = |text: &str, before: &str| -> Vec<String> {
        let after = text.split(before).skip(1);
        after.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
    };
    let twin = names(&std::fs::read_to_string(folder.join("blocking.rs")).unwrap(), "fn ");
    let (mut missing, mut seen) = (Vec::new(), 0);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    for file in files.filter(|file| file.file_type().unwrap().is_file() && file.file_name() != "blocking.rs")
    {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let machine = text.split("impl Machine {").skip(1).collect::<String>();
        for name in names(&machine, "pub async fn ") {
            seen += 1;
            // its replies belong to a runtime: `call`, `events` and `console` are what there is without one
            if name != "stream" && !twin.contains(&name) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(seen > 35, "{seen} methods: where are they?");
}

#[tokio::test]
async fn files_of_the_guest_are_read_and_written() {
    let sandbox = Sandbox::new();
    let request = Request { image: Some(linux_guest()), ephemeral: true, ..request(&sandbox, Guest::Halted) };
    let vm = Machine::launch(Request { memory: Request::default().memory, ..request }).await.unwrap();
    vm.wait("agent", Duration::from_secs(120)).await.unwrap();

    // all bytes, more than one message
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    vm.write_file("/tmp/bytes", &bytes).await.unwrap();
    let size = vm.exec(["wc", "-c", "/tmp/bytes"]).await.unwrap();
    assert_eq!(size.stdout_text(), "300000 /tmp/bytes\n", "{size}");
    assert!(vm.read_file("/tmp/bytes").await.unwrap() == bytes);
    let why = vm.read_text("/tmp/bytes").await.unwrap_err();
    assert!(why.to_string().starts_with("/tmp/bytes: it is not text"), "{why}");

    vm.write_file("/tmp/text", "gr\u{fc}n\n").await.unwrap();
    assert_eq!(vm.read_text("/tmp/text").await.unwrap(), "gr\u{fc}n\n");
    // in the place of another; and a file of the kernel, which has no size
    vm.write_file("/tmp/text", "").await.unwrap();
    assert_eq!(vm.read_text("/tmp/text").await.unwrap(), "");
    assert!(vm.read_text("/proc/version").await.unwrap().starts_with("Linux version"));
    let missing = vm.read_file("/tmp/nosuch").await.unwrap_err();
    assert_eq!(missing.refusal().unwrap().name(), "NoSuchThing", "{missing}");
    let missing = vm.write_file("/nosuch/file", "x").await.unwrap_err();
    assert!(missing.to_string().contains("/nosuch"), "{missing}");
}

/// The test that fails, of which the next one reads what is printed.
#[tokio::test]
#[ignore = "fails on purpose: `a_test_that_fails_shows_the_console` runs it"]
async fn fails_on_purpose() {
    let sandbox = Sandbox::new();
    let ended = Request { name: Some("killed".parse().unwrap()), ..request(&sandbox, Guest::ReactsToButton) };
    let ended = Machine::launch(ended).await.unwrap();
    greeted(&ended, Guest::ReactsToButton).await;
    processes::send(qemu_of(sandbox.path()), Signal::SIGKILL);
    assert!(ended.wait("console=never", PATIENCE).await.unwrap_err().is_gone());

    let vm = Machine::launch(request(&sandbox, Guest::IgnoresButton)).await.unwrap();
    greeted(&vm, Guest::IgnoresButton).await;
    println!("the folder of this test is {}", sandbox.path().display());
    assert_eq!(vm.status().await.unwrap().state, "no such state");
}

#[test]
fn a_test_that_fails_shows_the_console() {
    let own = std::env::current_exe().unwrap();
    let test = ["--exact", "library::fails_on_purpose", "--include-ignored"];
    let failed = std::process::Command::new(own).args(test).output().unwrap();
    let said = String::from_utf8(failed.stdout).unwrap();
    assert!(!failed.status.success(), "{said}");
    // libtest has kept it for its report: it is shown with the test that it belongs to
    let report = said.split_once("---- library::fails_on_purpose stdout ----").expect(&said).1;
    assert!(report.contains("' is running; its console ends with"), "{said}");
    assert!(report.contains(Guest::IgnoresButton.greeting()), "{said}");
    // of one that has ended, its record tells
    let ended = report.split_once("VM 'killed' has ended: ").expect(&said).1;
    assert!(ended.contains("(exit code 11); its console ends with"), "{said}");
    assert!(ended.contains(Guest::ReactsToButton.greeting()), "{said}");
    let folder = report.split("the folder of this test is ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(qemus(Path::new(folder)), 0);
}
