//! Decides how to boot from the files that exist.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::host::image::{self, ImageError};
use crate::host::{accel, files};
use crate::spec::{Arch, Boot, BootMode, Request};

use super::kernel_image::KernelImage;
use super::unpacked::Packed;
use crate::vm::start_error::StartError;

/// The most bytes of a `-cmdline` file. Kernels take 2 KiB on x86, 4 KiB elsewhere (`COMMAND_LINE_SIZE`); this detects a wrong
/// file.
const MAX_CMDLINE: u64 = 64 << 10;

/// How the request's VM boots, with absolute paths. With [`Boot::Disk`] the image itself is a disk.
pub(super) fn find(
    request: &Request,
    packed: Option<&Packed>,
    kernel_image: Option<&KernelImage>,
) -> Result<Boot, StartError> {
    let append = request.append.as_deref().unwrap_or_default().trim();
    let absolute = |path: &PathBuf| files::absolute(path).map_err(|error| file("file", path, &error));
    let initrd = request.initrd.as_ref().map(absolute).transpose()?;
    if let Some(kernel) = &request.kernel {
        return Ok(Boot::Kernel {
            kernel: readable("kernel", absolute(kernel)?)?,
            initrd: initrd.map(|initrd| readable("initrd", initrd)).transpose()?,
            cmdline: append.to_owned(),
        });
    }
    if let (Some(kernel), Some(image)) = (kernel_image, &request.image) {
        let own = kernel.cmdline(image)?;
        return Ok(Boot::Kernel {
            kernel: readable("kernel", absolute(image)?)?,
            initrd: initrd.map(|initrd| readable("initrd", initrd)).transpose()?,
            cmdline: format!("{own} {append}").trim().to_owned(),
        });
    }
    if request.initrd.is_some() {
        return Err(StartError::Usage {
            message: "--initrd goes with a kernel that is a file".to_owned(),
            hint: Some("say which: --kernel=FILE".to_owned()),
        });
    }
    let Some(image) = &request.image else { return without_image(request) };
    let made = request.image_options.size.is_some() && image.symlink_metadata().is_err();
    if made && request.boot == BootMode::Auto && request.append.is_none() {
        return Ok(Boot::Disk);
    }
    let found = match packed {
        Some(packed) if packed.is_iso() => Boot::Iso { path: absolute(image)? },
        Some(_) => Boot::Disk,
        None => find_by_image(request.boot, image, request.linuxkit)?,
    };
    match found {
        Boot::Kernel { kernel, initrd, cmdline } => {
            let cmdline = format!("{cmdline} {append}").trim().to_owned();
            Ok(Boot::Kernel { kernel, initrd, cmdline })
        }
        Boot::Squashfs { kernel, squashfs, cmdline, .. } => Ok(Boot::Squashfs {
            kernel,
            squashfs,
            cmdline,
            append: append.to_owned(),
            sata: request.linuxkit && has_linuxkits_disks(request),
        }),
        Boot::Disk | Boot::Firmware | Boot::Iso { .. } if request.append.is_some() => {
            Err(StartError::Usage {
                message: "--append goes with a kernel that QEMU loads, and this image boots by itself"
                    .to_owned(),
                hint: Some("boot a kernel beside it with --kernel=FILE".to_owned()),
            })
        }
        boot => Ok(boot),
    }
}

/// Without image or kernel: the firmware searches the disks and the network.
fn without_image(request: &Request) -> Result<Boot, StartError> {
    let needs_it = match request.boot {
        BootMode::Kernel => Some("--kernel without a file"),
        BootMode::Iso => Some("--iso"),
        BootMode::Squashfs => Some("--squashfs"),
        // linuxkit has no VM without an image
        BootMode::Auto if request.linuxkit => Some("--linuxkit"),
        BootMode::Auto => None,
    };
    match (needs_it, &request.append) {
        (Some(flag), _) => Err(StartError::Usage {
            message: format!("which image is to be booted? {flag} needs one"),
            hint: Some("vmrun qemu IMAGE: a disk image, an ISO, or a prefix of -kernel".to_owned()),
        }),
        (None, Some(_)) => Err(StartError::Usage {
            message: "--append goes with a kernel that QEMU loads, and there is none".to_owned(),
            hint: Some("boot a kernel with --kernel=FILE".to_owned()),
        }),
        (None, None) => Ok(Boot::Firmware),
    }
}

/// Whether linuxkit's `-drive` is a SATA disk, `/dev/sda`, on this machine; elsewhere it is a virtio disk.
pub(super) fn has_linuxkits_disks(request: &Request) -> bool {
    let arch = request.arch.or_else(|| accel::Machine::here().map(|machine| machine.arch));
    let microvm = request.machine.as_deref().is_some_and(|machine| machine.starts_with("microvm"));
    arch == Some(Arch::X86_64) && !microvm
}

/// How the image boots by default, or as the mode says. linuxkit prefers differently where all files exist.
fn find_by_image(mode: BootMode, image: &Path, linuxkit: bool) -> Result<Boot, StartError> {
    let typed = image;
    let image = files::absolute(typed).map_err(|error| file("image", typed, &error))?;
    match mode {
        BootMode::Kernel => kernel(&image),
        BootMode::Squashfs => squashfs(&image),
        BootMode::Iso => iso(image),
        BootMode::Auto if exists(&image) => match is_iso(&image) {
            true => iso(image),
            false => Ok(Boot::Disk),
        },
        BootMode::Auto if exists(&with_suffix(&image, "-kernel")) => {
            let has_initrd = exists(&with_suffix(&image, "-initrd.img"));
            let has_squashfs = exists(&with_suffix(&image, "-squashfs.img"));
            if has_squashfs && (linuxkit || !has_initrd) { squashfs(&image) } else { kernel(&image) }
        }
        BootMode::Auto if is_url(typed) => Err(StartError::Usage {
            message: format!("image {}: vmrun does not download images", typed.display()),
            hint: Some(format!("`curl -LO {}` first, then give the file's name", typed.display())),
        }),
        BootMode::Auto => Err(StartError::File {
            what: "image",
            why: "there is no such file".to_owned(),
            hint: Some(format!(
                "nor is it a prefix: there is no {} either",
                with_suffix(&image, "-kernel").display()
            )),
            path: image,
        }),
    }
}

/// Whether a name of no file is that of something on the network.
fn is_url(name: &Path) -> bool {
    const SCHEMES: [&str; 7] = ["http://", "https://", "ftp://", "docker://", "oci://", "s3://", "git://"];
    let name = name.to_string_lossy().to_lowercase();
    SCHEMES.iter().any(|scheme| name.starts_with(scheme))
}

/// Whether the image is a disk of the VM.
pub(super) fn image_is_disk(request: &Request, boot: &Boot) -> bool {
    *boot == Boot::Disk || (request.kernel.is_some() && request.image.is_some())
}

fn kernel(prefix: &Path) -> Result<Boot, StartError> {
    let initrd = with_suffix(prefix, "-initrd.img");
    let initrd = exists(&initrd).then(|| readable("initrd", initrd)).transpose()?;
    Ok(Boot::Kernel {
        kernel: readable("kernel", with_suffix(prefix, "-kernel"))?,
        initrd,
        cmdline: cmdline(prefix)?,
    })
}

fn squashfs(prefix: &Path) -> Result<Boot, StartError> {
    Ok(Boot::Squashfs {
        kernel: readable("kernel", with_suffix(prefix, "-kernel"))?,
        squashfs: readable("squashfs image", with_suffix(prefix, "-squashfs.img"))?,
        cmdline: cmdline(prefix)?,
        append: String::new(),
        sata: false,
    })
}

fn iso(path: PathBuf) -> Result<Boot, StartError> {
    let path = readable("ISO", path)?;
    match image::inspect(&path) {
        Err(ImageError::Foreign { foreign, .. }) => {
            let hint = Some(foreign.help(&path));
            Err(StartError::File { what: "ISO", path, why: format!("it is {}", foreign.what), hint })
        }
        // a CD is opened as raw, whatever else its content looks like
        _ => Ok(Boot::Iso { path }),
    }
}

/// The text of the `-cmdline` file; empty if there is none.
fn cmdline(prefix: &Path) -> Result<String, StartError> {
    let path = with_suffix(prefix, "-cmdline");
    if !exists(&path) {
        return Ok(String::new());
    }
    let mut text = String::new();
    let (opened, _) = files::open(&path).map_err(|error| file("kernel command line", &path, &error))?;
    opened
        .take(MAX_CMDLINE)
        .read_to_string(&mut text)
        .map_err(|error| file("kernel command line", &path, &error))?;
    Ok(text.trim().to_owned())
}

fn readable(what: &'static str, path: PathBuf) -> Result<PathBuf, StartError> {
    let (_, facts) = files::open(&path).map_err(|error| file(what, &path, &error))?;
    if facts.is_file() && facts.len() == 0 {
        return Err(StartError::File { what, path, why: "it is empty".to_owned(), hint: None });
    }
    Ok(path)
}

fn file(what: &'static str, path: &Path, error: &std::io::Error) -> StartError {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "there is no permission to read it".to_owned(),
        _ => error.to_string(),
    };
    StartError::File { what, path: path.to_owned(), why, hint: None }
}

fn exists(path: &Path) -> bool {
    std::fs::metadata(path).is_ok()
}

pub(super) fn is_iso(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("iso"))
}

/// `prefix` with text appended.
fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(prefix);
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "quiet x=1\n").unwrap();
        }
        folder
    }

    #[test]
    fn what_exists_decides() {
        let all = ["a.img", "b.ISO", "k-kernel", "k-initrd.img", "k-cmdline", "s-kernel", "s-squashfs.img"];
        let folder = folder(&all);
        let find = |name: &str| find_by_image(BootMode::Auto, &folder.path().join(name), false);
        assert_eq!(find("a.img").unwrap(), Boot::Disk);
        assert!(matches!(find("b.ISO").unwrap(), Boot::Iso { .. }));
        assert!(
            matches!(find("k").unwrap(), Boot::Kernel { initrd: Some(_), cmdline, .. } if cmdline == "quiet x=1")
        );
        assert!(matches!(find("s").unwrap(), Boot::Squashfs { cmdline, .. } if cmdline.is_empty()));
        let error = find("none").unwrap_err();
        assert!(error.to_string().ends_with("none: there is no such file"), "{error}");
        assert!(error.hint().unwrap().contains("none-kernel"));
    }

    #[test]
    fn a_forced_mode_needs_its_files() {
        let folder = folder(&["a.img", "k-kernel"]);
        let image = folder.path().join("a.img");
        assert!(matches!(find_by_image(BootMode::Iso, &image, false).unwrap(), Boot::Iso { .. }));
        let error = find_by_image(BootMode::Kernel, &image, false).unwrap_err();
        assert!(
            error.to_string().contains("kernel ") && error.to_string().contains("a.img-kernel"),
            "{error}"
        );
        let squashfs = find_by_image(BootMode::Squashfs, &folder.path().join("k"), false).unwrap_err();
        assert!(squashfs.to_string().contains("k-squashfs.img"), "{squashfs}");
    }

    #[test]
    fn a_kernel_that_is_a_file_has_its_initrd_and_command_line() {
        let folder = folder(&["vmlinuz", "initrd", "a.img", "k-kernel", "k-cmdline"]);
        let at = |name: &str| Some(folder.path().join(name));
        let request = Request {
            kernel: at("vmlinuz"),
            initrd: at("initrd"),
            append: Some("root=/dev/vda".to_owned()),
            image: at("a.img"),
            ..Request::default()
        };
        let boot = find(&request, None, None).unwrap();
        assert!(
            matches!(&boot, Boot::Kernel { initrd: Some(_), cmdline, .. } if cmdline == "root=/dev/vda"),
            "{boot:?}"
        );
        assert!(image_is_disk(&request, &boot));
        let prefix = Request { append: Some(" y=2 ".to_owned()), image: at("k"), ..Request::default() };
        let boot = find(&prefix, None, None).unwrap();
        assert!(matches!(&boot, Boot::Kernel { cmdline, .. } if cmdline == "quiet x=1 y=2"), "{boot:?}");
        assert!(!image_is_disk(&prefix, &boot));
        let error = find(&Request { image: at("a.img"), ..prefix }, None, None).unwrap_err();
        assert!(error.to_string().contains("boots by itself") && error.is_usage(), "{error}");
        let error = find(&Request { kernel: None, image: at("k"), ..request }, None, None).unwrap_err();
        assert!(error.to_string().contains("--initrd") && error.is_usage(), "{error}");
    }

    #[test]
    fn linuxkit_prefers_a_squashfs() {
        let folder = folder(&["k-kernel", "k-initrd.img", "k-squashfs.img"]);
        let find = |linuxkit| find_by_image(BootMode::Auto, &folder.path().join("k"), linuxkit).unwrap();
        assert!(matches!(find(false), Boot::Kernel { .. }));
        assert!(matches!(find(true), Boot::Squashfs { .. }));
    }
}
