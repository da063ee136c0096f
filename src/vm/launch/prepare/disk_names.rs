//! Names of disks without a path in the state directory: linuxkit's names `disk.img`, `disk1.img`, … by their position among the
//! requested disks; or, where an earlier vmrun has made them, their ids.

use std::path::{Path, PathBuf};

use crate::spec::{DeviceId, DiskSpec, ImageFormat};

/// The naming scheme of a VM's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    Linuxkit,
    /// `disk0.img` or `disk0.qcow2`; the boot image is counted.
    Ids,
}

impl Names {
    /// Looks for the first disk without a path. `images`: how many disks precede the requested ones.
    ///
    /// `disk1.img` alone does not decide: it is linuxkit's second disk, or the first one beside an image of an earlier vmrun.
    pub(super) fn look(disks: &[DiskSpec], images: usize, state: &Path) -> Self {
        let is_first = |disk: &&DiskSpec| disk.file.is_none() && disk.id.is_none();
        let Some((number, disk)) = disks.iter().enumerate().find(|(_, disk)| is_first(disk)) else {
            return Self::Linuxkit;
        };
        let by_id = state.join(by_id(disk, &format!("disk{}", images + number)));
        match state.join(linuxkits(number)).symlink_metadata().is_err() && by_id.symlink_metadata().is_ok() {
            true => Self::Ids,
            false => Self::Linuxkit,
        }
    }

    /// The path of a disk without one; `number`: its position among the requested disks.
    pub(super) fn path(self, disk: &DiskSpec, number: usize, id: &DeviceId, state: &Path) -> PathBuf {
        state.join(match self {
            Self::Linuxkit if disk.id.is_none() => linuxkits(number),
            _ => by_id(disk, id.as_str()),
        })
    }
}

fn linuxkits(number: usize) -> String {
    if number == 0 { "disk.img".to_owned() } else { format!("disk{number}.img") }
}

fn by_id(disk: &DiskSpec, id: &str) -> String {
    let format = disk.format.unwrap_or(ImageFormat::Raw);
    let extension = if format == ImageFormat::Raw { "img" } else { format.as_str() };
    format!("{id}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of disks that were requested with these words, where these files exist.
    fn names(images: usize, disks: &[&str], files: &[&str]) -> Vec<String> {
        let state = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(state.path().join(file), "").unwrap();
        }
        let disks: Vec<DiskSpec> = disks.iter().map(|disk| disk.parse().unwrap()).collect();
        let names = Names::look(&disks, images, state.path());
        let path = |(number, disk): (usize, &DiskSpec)| {
            let id = disk.id.clone().unwrap_or_else(|| format!("disk{}", images + number).parse().unwrap());
            names.path(disk, number, &id, state.path()).file_name().unwrap().to_str().unwrap().to_owned()
        };
        disks.iter().enumerate().filter(|(_, disk)| disk.file.is_none()).map(path).collect()
    }

    #[test]
    fn new_disks_are_called_as_linuxkit_calls_them() {
        assert_eq!(names(0, &["size=1G", "size=1G"], &[]), ["disk.img", "disk1.img"]);
        assert_eq!(names(1, &["size=1G", "x.img", "size=1G,format=qcow2"], &[]), ["disk.img", "disk2.img"]);
        assert_eq!(names(1, &["size=1G,id=data,format=qcow2", "size=1G"], &[]), ["data.qcow2", "disk1.img"]);
    }

    #[test]
    fn the_disks_of_linuxkit_are_found_and_those_of_an_earlier_vmrun() {
        let two = ["size=1G", "size=1G"];
        for images in [0, 1] {
            assert_eq!(names(images, &two, &["disk.img", "disk1.img"]), ["disk.img", "disk1.img"]);
            assert_eq!(names(images, &two[..1], &["disk.img", "disk1.img"]), ["disk.img"]);
        }
        assert_eq!(names(0, &two, &["disk0.img", "disk1.img"]), ["disk0.img", "disk1.img"]);
        assert_eq!(names(1, &two, &["disk1.img", "disk2.img"]), ["disk1.img", "disk2.img"]);
        // one disk more than before
        assert_eq!(names(1, &two, &["disk1.img"]), ["disk1.img", "disk2.img"]);
        assert_eq!(names(0, &["size=1G,format=qcow2"], &["disk0.qcow2"]), ["disk0.qcow2"]);
    }
}
