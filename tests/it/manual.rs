//! The reference and the man pages are what the program prints, and the README leads to them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::sandbox::Sandbox;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages(sandbox: &Sandbox, arguments: &[&str]) -> Vec<String> {
    let listed = sandbox.run(["manual", "--list"].iter().chain(arguments)).ok().stdout;
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn the_reference_is_what_the_program_prints() {
    let sandbox = Sandbox::new();
    let folder = root().join("docs/reference");
    let mut expected = Vec::new();
    for page in pages(&sandbox, &["--markdown"]) {
        let printed = sandbox.run(["manual", "--markdown", &page]).ok().stdout;
        let file = format!("{page}.md");
        let kept = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(kept == printed, "docs/reference/{file} is out of date: run `make reference`");
        expected.push(file);
    }
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    expected.sort_unstable();
    assert_eq!(files, expected);
}

#[test]
fn every_command_has_a_man_page_that_man_can_show() {
    let sandbox = Sandbox::new();
    let names = pages(&sandbox, &[]);
    for name in ["vmrun", "vmrun-qemu", "vmrun-ctl", "vmrun-ctl-usb-add", "vmrun-ls"] {
        assert!(names.iter().any(|page| page == name), "{names:?}");
    }
    for name in &names {
        let page = sandbox.run(["manual", name]).ok().stdout;
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    sandbox.run(["manual", "vmrun-ctl-nonsense"]).fails(2, &["vmrun-ctl-nonsense", "--list"]);
}

/// A reader who follows a link in the documentation must find a file.
#[test]
fn links_between_the_pages_lead_somewhere() {
    let mut pages = vec!["README.md".into(), "CONTRIBUTING.md".into(), "SECURITY.md".into()];
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    pages.extend(docs.map(|entry| Path::new("docs").join(entry.unwrap().file_name())));
    let mut links = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            let path = root().join(page).parent().unwrap().join(file);
            assert!(path.exists(), "{}: there is no {target}", page.display());
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

#[test]
fn every_error_of_the_protocol_is_explained() {
    let interface = std::fs::read_to_string(root().join("proto/io.vmrun.Machine.varlink")).unwrap();
    let page = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let errors: Vec<&str> =
        interface.lines().filter_map(|line| line.strip_prefix("error ")?.split_whitespace().next()).collect();
    assert!(errors.len() > 10, "{errors:?}");
    for error in errors {
        assert!(page.contains(&format!("`{error}`")), "docs/protocol.md does not name {error}");
    }
}

/// What a newcomer types first.
#[test]
fn the_flags_of_the_readme_exist() {
    let sandbox = Sandbox::new();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let help = |arguments: &[&str]| sandbox.run(arguments.iter().chain(&["--help"])).ok().stdout;
    let qemu = help(&["qemu"]);
    for line in readme.lines().filter_map(|line| line.strip_prefix("    vmrun ")) {
        let line = line.split('#').next().unwrap();
        let mut words = line.split_whitespace();
        let known = match words.next().unwrap() {
            "qemu" => qemu.clone(),
            "ctl" => {
                let command = words.find(|word| !word.starts_with(['-', '"'])).unwrap();
                help(&["ctl", command])
            }
            other => help(&[other]),
        };
        for flag in words.filter(|word| word.starts_with("--") && word.len() > 2) {
            let flag = flag.split('=').next().unwrap();
            assert!(known.contains(flag), "{line}: {flag}");
        }
    }
    let version = Command::new(env!("CARGO_BIN_EXE_vmrun")).arg("--version").stdout(Stdio::piped()).output();
    assert!(version.unwrap().stdout.starts_with(b"vmrun "));
}
