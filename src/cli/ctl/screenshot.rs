//! `screenshot`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Args;
use serde_json::json;

use crate::control::verbs;

use super::super::failure::Failure;
use super::super::output::{Output, Stdout};
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct Screenshot {
    /// PNG file to write; - for standard output
    file: PathBuf,
}

impl Verb for Screenshot {
    const ABOUT: &'static str = "Take a screenshot of the guest's display, as a PNG file";
    const WAITS_FOR: &'static str = "taking the picture";

    fn without_vm(&self, _: Output) -> Option<Result<u8, Failure>> {
        refused(&self.file).map(Err)
    }

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let shown = self.file.display();
        let verbs::ScreenshotReply { png, width, height } = context.call(verbs::Screenshot {})?;
        let png = BASE64.decode(png).map_err(Failure::other)?;
        if self.file.as_os_str() == "-" {
            let mut stdout = Stdout::default();
            stdout.raw(&png);
            return stdout.finish();
        }
        std::fs::write(&self.file, &png).map_err(|error| Failure::other(format!("{shown}: {error}")))?;
        let facts = json!({ "path": self.file, "width": width, "height": height, "size_bytes": png.len() });
        context.output.print(&facts, || format!("{shown}: {width} x {height}"))
    }
}

/// Why nothing could be written to this file.
fn refused(file: &Path) -> Option<Failure> {
    let shown = file.display();
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    if let Some(other) = extension.filter(|extension| extension != "png") {
        let failure = Failure::usage(format!("{shown}: a screenshot is a PNG file, and no .{other}"));
        return Some(failure.hint(Some(format!("name it {}", file.with_extension("png").display()))));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())?;
    Some(Failure::other(format!("{shown}: there is no directory {}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_png_files_in_folders_that_are_there_are_written() {
        for good in ["a.png", "a.PNG", "a", "-", "/dev/stdout", "/tmp/.hidden"] {
            assert!(refused(Path::new(good)).is_none(), "{good}");
        }
        let jpeg = refused(Path::new("a/b.jpg")).unwrap();
        assert_eq!((jpeg.exit_code, jpeg.hint.as_deref()), (2, Some("name it a/b.png")));
        assert!(
            refused(Path::new("/nosuch/b.png")).unwrap().message.ends_with("there is no directory /nosuch")
        );
    }
}
