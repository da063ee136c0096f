//! The content of files of the guest.

use std::io::{self, Write};
use std::path::Path;

use super::{Copied, Error, Machine, copy_from_to_stream, copy_to_from_stream, on_a_thread};

/// The largest file that is read into memory.
const MOST_BYTES: usize = 256 << 20;

impl Machine {
    /// The content of a file of the guest, of at most 256 MiB. Needs the guest agent. Its checksum is compared.
    ///
    /// # Errors
    /// There is no such file, or it is larger: [`Machine::copy_from`] copies files of any size.
    pub async fn read_file(&self, path: &str) -> Result<Vec<u8>, Error> {
        let (mut client, path) = (self.client()?, path.to_owned());
        on_a_thread(move || {
            let mut content = Bounded(Vec::new());
            copy_from_to_stream(&mut client, &path, (&mut content, Path::new(&path)), None, &mut |_, _| {})?;
            Ok(content.0)
        })
        .await
    }

    /// The same as text.
    ///
    /// # Errors
    /// Those of [`Machine::read_file`], and that it is not UTF-8.
    pub async fn read_text(&self, path: &str) -> Result<String, Error> {
        String::from_utf8(self.read_file(path).await?)
            .map_err(|error| Error::Invalid(format!("{path}: it is not text: {}", error.utf8_error())))
    }

    /// Writes a file of the guest, whole or not at all: a new one, which only its owner can read and write, or in the place of another.
    /// Needs the guest agent. Its checksum is compared.
    ///
    /// # Errors
    /// The guest refuses it.
    pub async fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<Copied, Error> {
        let (mut client, path) = (self.client()?, path.to_owned());
        let content = content.as_ref().to_vec();
        on_a_thread(move || {
            let source = (content.as_slice(), Path::new("the content"));
            copy_to_from_stream(&mut client, source, &path, None, &mut |_, _| {})
        })
        .await
    }
}

/// Bytes in memory, of which there are only so many.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::other(
                "it has more than 256 MiB: copy_from copies it to a file of the host",
            ));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
