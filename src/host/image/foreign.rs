//! What people give as a disk and is none that vmrun takes: images of formats that QEMU knows and vmrun does not, and files that
//! have to be unpacked, booted or fetched again. As raw disks the guest would write over them.
//!
//! QEMU's own marks are those of its `*_probe` functions (`block/*.c`).

use std::path::Path;

use crate::host::unpack::Packing;

/// Something that is refused by name unless `format=raw` is said.
#[derive(Debug, PartialEq, Eq)]
pub struct Foreign {
    /// What it is, with its article.
    pub what: &'static str,
    /// What to do with it.
    help: Help,
}

#[derive(Debug, PartialEq, Eq)]
enum Help {
    /// QEMU's name of an image format.
    Convert(&'static str),
    /// It is packed.
    Unpack(Packing),
    /// A command in front of the file's name.
    Command(&'static str),
    /// A command in front of the file's name, which is all that is to do.
    Instead(&'static str),
    /// Anything else.
    Words(&'static str),
}

impl Foreign {
    /// The command, or the words, that help.
    pub fn help(&self, path: &Path) -> String {
        let file = format!("'{}'", path.display());
        match self.help {
            Help::Convert(format) => {
                let new = format!("'{}'", path.with_extension("qcow2").display());
                format!("`qemu-img convert -f {format} -O qcow2 {file} {new}` makes a disk image of it")
            }
            Help::Unpack(packing) => format!("`{} {file}` first", packing.command()),
            Help::Command(command) => format!("`{command} {file}` first"),
            Help::Instead(command) => format!("`{command} {file}` goes on with it"),
            Help::Words(words) => words.to_owned(),
        }
    }
}

impl Foreign {
    /// In what it is packed, if it is.
    pub fn packing(&self) -> Option<Packing> {
        match self.help {
            Help::Unpack(packing) => Some(packing),
            _ => None,
        }
    }

    /// Whether it boots as the kernel that QEMU loads.
    pub fn is_kernel(&self) -> bool {
        *self == KERNEL
    }

    /// Whether it is a program for UEFI firmware.
    pub fn is_efi(&self) -> bool {
        *self == EFI
    }
}

const PARALLELS: Foreign =
    Foreign { what: "an image of Parallels Desktop", help: Help::Convert("parallels") };
const BOCHS: Foreign = Foreign { what: "an image of Bochs", help: Help::Convert("bochs") };
const CLOOP: Foreign = Foreign { what: "a compressed loop image (cloop)", help: Help::Convert("cloop") };
const QCOW: Foreign = Foreign { what: "an image of the old format qcow", help: Help::Convert("qcow") };
const DMG: Foreign = Foreign { what: "an Apple disk image (dmg)", help: Help::Convert("dmg") };
const OVA: Foreign =
    Foreign { what: "an appliance (OVA), which is an archive with images", help: Help::Unpack(Packing::Tar) };
const TAR: Foreign = Foreign { what: "an archive (tar)", help: Help::Unpack(Packing::Tar) };
const KERNEL: Foreign = Foreign {
    what: "a Linux kernel",
    help: Help::Words(
        "name it PREFIX-kernel, beside PREFIX-initrd.img and PREFIX-cmdline, and give PREFIX as the image",
    ),
};
const EFI: Foreign = Foreign {
    what: "an EFI program (a unified kernel image, perhaps)",
    help: Help::Words(
        "it has to lie in the EFI system partition of a disk, as /EFI/BOOT/BOOTX64.EFI for example",
    ),
};
const WEB_PAGE: Foreign = Foreign {
    what: "a web page or an XML document",
    help: Help::Words("the download has failed, it seems: look into the file and fetch it again"),
};

/// Marks at the very beginning.
const AT_START: [(&[u8], Foreign); 23] = [
    (b"WithoutFreeSpace", PARALLELS),
    (b"WithouFreSpacExt", PARALLELS),
    (b"Bochs Virtual HD Image", BOCHS),
    (b"#!/bin/sh\n#V2.0 Format\n", CLOOP),
    (b"QFI\xfb\0\0\0\x01", QCOW),
    (b"\xfd7zXZ\0", Foreign { what: "compressed (xz)", help: Help::Unpack(Packing::Xz) }),
    (b"\x1f\x8b\x08", Foreign { what: "compressed (gzip)", help: Help::Unpack(Packing::Gzip) }),
    (b"\x28\xb5\x2f\xfd", Foreign { what: "compressed (zstd)", help: Help::Unpack(Packing::Zstd) }),
    (b"\x04\x22\x4d\x18", Foreign { what: "compressed (lz4)", help: Help::Unpack(Packing::Lz4) }),
    (b"LZIP\x01", Foreign { what: "compressed (lzip)", help: Help::Unpack(Packing::Lzip) }),
    (b"PK\x03\x04", Foreign { what: "an archive (zip)", help: Help::Unpack(Packing::Zip) }),
    (b"7z\xbc\xaf\x27\x1c", Foreign { what: "an archive (7z)", help: Help::Command("7z x") }),
    (b"Rar!\x1a\x07", Foreign { what: "an archive (rar)", help: Help::Command("unrar x") }),
    (b"\x3a\xff\x26\xed", Foreign { what: "a sparse image of Android", help: Help::Command("simg2img") }),
    (
        b"!<arch>\n",
        Foreign { what: "a Debian package or a static library", help: Help::Words("it holds no disk") },
    ),
    (b"\xed\xab\xee\xdb", Foreign { what: "an RPM package", help: Help::Words("it holds no disk") }),
    (b"MSWIM\0\0\0", Foreign { what: "a Windows image (WIM)", help: Help::Command("wimlib-imagex info") }),
    (
        b"\x7fELF",
        Foreign {
            what: "a program (ELF; an uncompressed kernel, perhaps)",
            help: Help::Words("kernels boot as PREFIX-kernel, with PREFIX as the image"),
        },
    ),
    (b"VMRUNVM\n", Foreign { what: "a saved VM", help: Help::Instead("vmrun qemu --restore") }),
    (b"QEVM", Foreign { what: "a migration stream of QEMU", help: Help::Words("it holds no disk") }),
    (
        b"version https://git-lfs.github.com/",
        Foreign {
            what: "a pointer of Git LFS in the place of a file",
            help: Help::Words("`git lfs pull` fetches the file itself"),
        },
    ),
    (b"#!", Foreign { what: "a script", help: Help::Words("it holds no disk") }),
    (b"%PDF-", Foreign { what: "a PDF document", help: Help::Words("it holds no disk") }),
];

/// Looks at an image's first bytes; QEMU's formats need 512 of them, the others 2 KiB.
pub(super) fn at_start(start: &[u8]) -> Option<&'static Foreign> {
    if let Some((_, foreign)) = AT_START.iter().find(|(mark, _)| start.starts_with(mark)) {
        return Some(foreign);
    }
    let at = |offset: usize, mark: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(mark));
    match start {
        // block size, then the number pi
        [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..] if rest.starts_with(b"1AY&SY") => {
            const BZIP2: Foreign = Foreign { what: "compressed (bzip2)", help: Help::Unpack(Packing::Bzip2) };
            Some(&BZIP2)
        }
        _ if at(257, b"ustar") => {
            // an OVA's first file has to be its description
            let name = start.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(if name.ends_with(b".ovf") { &OVA } else { &TAR })
        }
        // Documentation/arch/x86/boot.rst, arm64/booting.rst, riscv/boot-image-header.rst
        _ if at(0x202, b"HdrS") || at(0x38, b"ARM\x64") || at(0x38, b"RSC\x05") => Some(&KERNEL),
        _ if is_efi(start) => Some(&EFI),
        _ if is_markup(start) => Some(&WEB_PAGE),
        _ => None,
    }
}

/// Looks at the last 512 bytes of an image that shows nothing at its start; QEMU goes by the name.
pub(super) fn at_end(path: &Path, end: &[u8]) -> Option<&'static Foreign> {
    let named = path.as_os_str().as_encoded_bytes().ends_with(b".dmg");
    (named || end.starts_with(b"koly")).then_some(&DMG)
}

/// A PE file, whose header is where the old DOS header says.
fn is_efi(start: &[u8]) -> bool {
    let offset = start.get(0x3c..0x40).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let header = offset.and_then(|offset| start.get(usize::try_from(offset).ok()?..));
    start.starts_with(b"MZ") && header.is_some_and(|header| header.starts_with(b"PE\0\0"))
}

fn is_markup(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |word: &&[u8]| text.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word));
    [&b"<!doctype"[..], b"<html", b"<head", b"<?xml", b"<error"].iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(offset: usize, mark: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        bytes[offset..offset + mark.len()].copy_from_slice(mark);
        bytes
    }

    #[test]
    fn each_is_called_by_its_name_and_told_what_helps() {
        let ova = [&with(0, b"box.ovf")[..257], b"ustar", &[0; 300]].concat();
        let mut efi = with(0, b"MZ");
        efi[0x3c] = 0x80;
        efi[0x80..0x84].copy_from_slice(b"PE\0\0");
        for (bytes, what, help) in [
            (with(0, b"\xfd7zXZ\0"), "xz", "xz -dk 'a b.img'"),
            (with(0, b"\x1f\x8b\x08"), "gzip", "gunzip -k 'a b.img'"),
            (with(0, b"BZh91AY&SY"), "bzip2", "bunzip2 -k 'a b.img'"),
            (with(0, b"PK\x03\x04"), "zip", "unzip 'a b.img'"),
            (
                with(0, b"WithoutFreeSpace"),
                "Parallels",
                "convert -f parallels -O qcow2 'a b.img' 'a b.qcow2'",
            ),
            (with(257, b"ustar\x0000"), "archive (tar)", "tar -xf 'a b.img'"),
            (ova, "OVA", "tar -xf 'a b.img'"),
            (with(0x202, b"HdrS"), "kernel", "PREFIX-kernel"),
            (with(0x38, b"ARM\x64"), "kernel", "PREFIX-kernel"),
            (efi, "EFI", "EFI system partition"),
            (b"\xef\xbb\xbf\n <!DocType HTML>".to_vec(), "web page", "fetch it again"),
            (b"<?xml version=\"1.0\"?><Error>".to_vec(), "XML", "fetch it again"),
            (b"VMRUNVM\n".to_vec(), "saved VM", "--restore 'a b.img'"),
        ] {
            let found = at_start(&bytes).unwrap_or_else(|| panic!("{what} is not known"));
            assert!(found.what.contains(what), "{found:?}");
            let shown = found.help(Path::new("a b.img"));
            assert!(shown.contains(help), "{shown}");
        }
    }

    #[test]
    fn disks_are_not_among_them() {
        let mut boot_sector = with(0, b"\xeb\x63\x90");
        boot_sector[510..512].copy_from_slice(b"\x55\xaa");
        // a hybrid image of GRUB begins like a DOS program
        for bytes in
            [vec![], vec![0; 2048], boot_sector, with(0, b"MZ"), with(0, b"hsqs"), with(0, b"BZh9 x")]
        {
            assert_eq!(at_start(&bytes), None);
        }
        assert_eq!(at_end(Path::new("a.img"), &[0; 512]), None);
        assert_eq!(at_end(Path::new("a.dmg"), &[0; 512]), Some(&DMG));
        assert_eq!(at_end(Path::new("a"), &with(0, b"koly")), Some(&DMG));
    }
}
