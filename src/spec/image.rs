//! Disk images as they are given to QEMU: every file that belongs to one is named, none is left for QEMU to find.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::ImageFormat;

/// Which file it is, whatever its name: good as long as the host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Device that it lies on; of a block device, the device that it is.
    pub device: u64,
    /// Inode; 0 of a block device, whose nodes may be many.
    pub inode: u64,
}

impl FileId {
    /// It is a block device.
    pub fn is_block_device(self) -> bool {
        self.inode == 0
    }
}

/// A file of the host that belongs to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFile {
    /// Absolute path.
    #[serde(with = "super::fields::path")]
    pub path: PathBuf,
    /// Which file was looked at there; none in a dry run, which looks at no file.
    #[serde(default)]
    pub identity: Option<FileId>,
}

/// An image, with everything that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Absolute path.
    #[serde(with = "super::fields::path")]
    pub file: PathBuf,
    /// Which file was looked at there; none in a dry run, which looks at no file.
    #[serde(default)]
    pub identity: Option<FileId>,
    /// Given to QEMU explicitly.
    pub format: ImageFormat,
    /// The external data file of a qcow2 image.
    #[serde(default)]
    pub data_file: Option<HostFile>,
    /// Files that QEMU's driver opens by itself: the extents of a vmdk description.
    #[serde(default)]
    pub extents: Vec<HostFile>,
    /// The image under it, which is only read.
    #[serde(default)]
    pub backing: Option<Box<Image>>,
}

impl Image {
    /// One that leads nowhere.
    pub fn alone(file: impl Into<PathBuf>, format: ImageFormat) -> Self {
        let file = file.into();
        Self { file, identity: None, format, data_file: None, extents: Vec::new(), backing: None }
    }

    /// It and the images under it, from the top.
    pub fn layers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |image| image.backing.as_deref())
    }

    /// It needs no other file.
    pub fn is_alone(&self) -> bool {
        self.data_file.is_none() && self.extents.is_empty() && self.backing.is_none()
    }

    /// Gives each file another path, or fails.
    ///
    /// # Errors
    /// The first that `path` gives.
    pub fn with_paths<E>(self, path: &mut impl FnMut(&Path) -> Result<PathBuf, E>) -> Result<Self, E> {
        let mut file = |file: HostFile| Ok(HostFile { path: path(&file.path)?, ..file });
        let data_file = self.data_file.map(&mut file).transpose()?;
        let extents = self.extents.into_iter().map(file).collect::<Result<_, E>>()?;
        let own = path(&self.file)?;
        let backing = self.backing.map(|backing| backing.with_paths(path).map(Box::new)).transpose()?;
        Ok(Self { file: own, data_file, extents, backing, ..self })
    }
}

impl From<Image> for HostFile {
    fn from(image: Image) -> Self {
        Self { path: image.file, identity: image.identity }
    }
}
