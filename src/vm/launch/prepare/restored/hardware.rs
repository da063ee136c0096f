//! Which parts of a saved VM's description are the guest's hardware, and which the command line decides.

use std::path::Path;

use crate::host::dirs::StateDir;
use crate::host::files;
use crate::host::firmware::{self, FirmwareSources, FoundFirmware, VARS_FILE};
use crate::qemu::quote;
use crate::spec::{Boot, Display, Firmware, Request, Share, VmSpec};

use super::super::shares;
use super::{cards, nonsense, refused};
use crate::vm::start_error::{StartError, system};

/// The same limits of processors and spare slots as on the command line.
const MAX_CPUS: u32 = 4096;
const MAX_SLOTS: u8 = 64;

/// The machine to restore. Disks and firmware are the file's, and not checked as images yet.
///
/// Every field is named, so that a new field of a description must be assigned to the guest's hardware or to the host here.
pub(super) fn spec(saved: &VmSpec, request: &Request) -> Result<VmSpec, StartError> {
    let VmSpec {
        name,
        uuid,
        layout,
        arch,
        machine,
        cpu,
        cpus,
        memory,
        boot,
        firmware,
        display,
        disks,
        metadata,
        networking,
        mac,
        nics,
        boot_order,
        // host addresses
        publish: _,
        usb,
        devices,
        shares,
        hotplug_slots,
        forkable,
        // how vmrun handles the guest
        on_panic: _,
        no_reboot: _,
        // how QEMU runs
        sandbox: _,
        extra: _,
    } = saved.clone();
    check_machine(machine.as_deref())?;
    check_text("processor model", cpu.as_deref())?;
    if !(1..=MAX_CPUS).contains(&cpus) || hotplug_slots > MAX_SLOTS {
        return Err(nonsense(format!("it has {cpus} processors and {hotplug_slots} spare slots")));
    }
    check_paths(&boot, metadata.as_deref())?;
    let networking = cards::network(networking, request.networking.as_ref())?;
    let nics = cards::further(nics, &request.nics)?;
    let spec = VmSpec {
        name: request.name.clone().unwrap_or(name),
        uuid,
        layout,
        arch,
        machine,
        cpu,
        cpus,
        memory,
        boot,
        firmware,
        display: screen(&display, &request.display)?,
        disks,
        metadata,
        mac,
        publish: request.publish.clone(),
        usb,
        devices,
        shares: folders(&shares, request)?,
        hotplug_slots,
        forkable,
        on_panic: request.on_panic,
        no_reboot: request.no_reboot,
        sandbox: request.sandbox,
        extra: request.extra.clone(),
        networking,
        nics,
        boot_order,
    };
    // as at a start: the bridge helper gains no privileges under any filter
    Ok(VmSpec { sandbox: spec.sandbox && !spec.uses_bridge(), ..spec })
}

/// Machine options may name files (`kernel=`, `dtb=`, `dumpdtb=`) and back-ends: only switches and numbers count as hardware.
fn check_machine(machine: Option<&str>) -> Result<(), StartError> {
    const FILES: [&str; 6] = ["append", "dtb", "dumpdtb", "firmware", "initrd", "kernel"];
    check_text("machine type", machine)?;
    let mut parts = machine.unwrap_or_default().split(',');
    let is_name =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let is_switch = |option: &str| {
        let (name, value) = option.split_once('=').unwrap_or((option, "on"));
        let value = matches!(value, "on" | "off" | "auto") || value.bytes().all(|byte| byte.is_ascii_digit());
        value && is_name(name) && !FILES.contains(&name)
    };
    if is_name(parts.next().unwrap_or_default()) && parts.all(is_switch) {
        return Ok(());
    }
    let machine = quote::word(machine.unwrap_or_default().as_ref());
    let message = format!("the saved VM's machine has options that a file does not decide: {machine}");
    Err(refused(message, "start the VM again from its image"))
}

fn check_text(what: &str, text: Option<&str>) -> Result<(), StartError> {
    match text {
        Some(text) if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(nonsense(format!("its {what} is {}", quote::word(text.as_ref()))))
        }
        _ => Ok(()),
    }
}

fn check_paths(boot: &Boot, metadata: Option<&Path>) -> Result<(), StartError> {
    let paths: Vec<&Path> = match boot {
        Boot::Disk | Boot::Firmware => Vec::new(),
        Boot::Iso { path } => vec![path],
        Boot::Kernel { kernel, initrd, .. } => {
            std::iter::once(kernel).chain(initrd).map(|path| path.as_path()).collect()
        }
        Boot::Squashfs { kernel, squashfs, .. } => vec![kernel, squashfs],
    };
    match paths.into_iter().chain(metadata).find(|path| !path.is_absolute()) {
        Some(path) => Err(nonsense(format!("{} is no absolute path", quote::word(path.as_os_str())))),
        None => Ok(()),
    }
}

/// The video device is hardware; the way it is shown is not.
fn screen(saved: &Display, asked: &Display) -> Result<Display, StartError> {
    match (saved.has_screen(), asked) {
        (false, Display::None) => Ok(Display::None),
        (false, asked) => {
            Err(StartError::usage(format!("--display {asked}: the saved VM has no video device")))
        }
        (true, Display::None) => Ok(Display::Headless),
        (true, asked) => super::super::screen::resolve(asked),
    }
}

/// The tags are hardware; the folders are not.
fn folders(saved: &[Share], request: &Request) -> Result<Vec<Share>, StartError> {
    shares::check(request)?;
    let given = shares::resolve(request)?;
    let tags = |shares: &[Share]| shares.iter().map(|share| share.tag.clone()).collect::<Vec<_>>();
    if tags(saved) == tags(&given) {
        return Ok(given);
    }
    let words: Vec<String> = saved
        .iter()
        .map(|share| {
            let mut word = share.directory.clone().into_os_string();
            word.push(format!(",tag={}", share.tag));
            format!("--virtiofs {}", quote::word(&word))
        })
        .collect();
    let message = format!(
        "the saved VM has {} shared folders, and their tags are not those of --virtiofs",
        saved.len()
    );
    Err(match words.is_empty() {
        true => refused(message, "leave out --virtiofs"),
        false => {
            refused(message, format!("a saved VM's file cannot choose folders: add {}", words.join(" ")))
        }
    })
}

/// The firmware of this host, or of `--fw`; the file only says that it must be the same.
pub(super) fn firmware(
    saved: &VmSpec,
    request: &Request,
    state: &StateDir,
    of_template: bool,
) -> Result<Option<Firmware>, StartError> {
    let Some(saved_firmware) = &saved.firmware else {
        return match &request.firmware {
            Some(_) => Err(StartError::usage("--fw: the saved VM has no firmware of its own")),
            None => Ok(None),
        };
    };
    let found = match &request.firmware {
        Some(path) => {
            let path = std::path::absolute(path).map_err(system("the working directory"))?;
            firmware::given(saved.arch, &path)?
        }
        None => firmware::find(saved.arch, saved.machine.as_deref(), &FirmwareSources::from_env())?,
    };
    // each fork has variables of its own
    if let (true, Firmware::Flash { vars: Some(vars), .. }) = (of_template, saved_firmware) {
        let copied = files::open(vars)
            .and_then(|(mut from, _)| state.replace(VARS_FILE, |to| std::io::copy(&mut from, to).map(drop)));
        copied.map_err(system("the template's firmware variables"))?;
    }
    // nothing is made yet
    let same = match (&found.clone().in_folder(state.path()), saved_firmware) {
        (Firmware::Bios { path }, Firmware::Bios { path: saved }) => path == saved,
        (Firmware::Flash { code, vars, .. }, Firmware::Flash { code: saved_code, vars: saved_vars, .. }) => {
            if code == saved_code && vars != saved_vars && !of_template {
                let folder = saved_vars.as_deref().and_then(Path::parent).unwrap_or(Path::new("/"));
                return Err(refused(
                    format!(
                        "the firmware's variables of the saved VM are not in {}",
                        quote::word(state.path().as_os_str())
                    ),
                    format!(
                        "a saved VM's file cannot choose folders: add --state {}",
                        quote::word(folder.as_os_str())
                    ),
                ));
            }
            code == saved_code
        }
        _ => false,
    };
    if !same {
        let (Firmware::Bios { path: was } | Firmware::Flash { code: was, .. }) = saved_firmware;
        let (FoundFirmware::Bios(is) | FoundFirmware::Flash { code: is, .. }) = &found;
        return Err(refused(
            format!("the saved VM's firmware is not {}, which is used here", quote::word(is.as_os_str())),
            format!(
                "a saved VM's file cannot choose the firmware: add --fw {}",
                quote::word(was.as_os_str())
            ),
        ));
    }
    Ok(Some(firmware::prepare(found, state)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_switches_and_no_files() {
        for machine in ["pc-q35-7.2", "q35,hpet=off,smm=auto", "virt,gic-version=3", "pc,usb"] {
            check_machine(Some(machine)).unwrap();
        }
        for machine in [
            "q35,kernel=/etc/shadow",
            "q35,dumpdtb=on",
            "q35,x=../a",
            "q35,memory-backend=m",
            "q35 -S",
            "",
            "q35\n",
            "q35,kernel",
        ] {
            check_machine(Some(machine)).unwrap_err();
        }
    }

    #[test]
    fn a_file_opens_no_window() {
        assert_eq!(screen(&Display::Gui, &Display::None).unwrap(), Display::Headless);
        assert_eq!(screen(&Display::Headless, &Display::Gui).unwrap(), Display::Gui);
        screen(&Display::None, &Display::Gui).unwrap_err();
    }
}
