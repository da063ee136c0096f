//! What `media-change` puts into a drive.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::disk::{DiskError, ImageFormat};
use super::options;

const KNOWN: &[&str] = &["file", "format"];

/// An image for a CD-ROM drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumSpec {
    /// The image.
    pub file: PathBuf,
    /// Its format, where that is not to be found out.
    pub format: Option<ImageFormat>,
}

impl MediumSpec {
    /// Reads `[file=]PATH[,format=FORMAT]`, in the grammar of `--disk`. A text that does not begin with `file=` and has no `format=` is a
    /// path as it is, commas and all.
    ///
    /// # Errors
    /// The format is none that vmrun knows, or the path is empty.
    pub fn parse(text: &OsStr) -> Result<Self, DiskError> {
        if text.is_empty() {
            return Err(DiskError::Empty);
        }
        let says_format = text.as_encoded_bytes().windows(8).any(|bytes| bytes == b",format=");
        if !says_format && !text.as_encoded_bytes().starts_with(b"file=") {
            return Ok(Self { file: text.into(), format: None });
        }
        let (mut file, mut format) = (None, None);
        for (name, value) in options::read(text, "file", KNOWN)? {
            match name {
                "file" => file = Some(options::path(name, value)?),
                _ => format = Some(options::text(name, value.as_deref())?.parse()?),
            }
        }
        Ok(Self { file: file.ok_or(DiskError::Empty)?, format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_a_path_and_a_format_can_be_said() {
        let read = |text: &str| MediumSpec::parse(text.as_ref());
        for (text, file, format) in [
            ("a.iso", "a.iso", None),
            ("a,b.iso", "a,b.iso", None),
            ("a,,b.iso", "a,,b.iso", None),
            ("/x=y.iso", "/x=y.iso", None),
            ("a.iso,format=raw", "a.iso", Some(ImageFormat::Raw)),
            ("file=a.qcow2,format=qcow2", "a.qcow2", Some(ImageFormat::Qcow2)),
            ("format=raw,file=a,,b", "a,b", Some(ImageFormat::Raw)),
            ("file=a,,b", "a,b", None),
        ] {
            let read = read(text);
            match text.starts_with("format=") {
                // as a path: nothing before it says otherwise
                true => assert_eq!(read, Ok(MediumSpec { file: text.into(), format: None })),
                false => assert_eq!(read, Ok(MediumSpec { file: file.into(), format }), "{text}"),
            }
        }
        for wrong in
            ["", "file=", "a.iso,format=iso", "a.iso,format=raw,size=1G", "file=a,format=raw,format=raw"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
