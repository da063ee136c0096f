//! `media-change`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::control::{verbs, wire};
use crate::machine;
use crate::spec::MediumSpec;

use super::super::failure::Failure;
use super::verb::{Context, Verb};

#[derive(Debug, Args)]
pub(super) struct MediaChange {
    /// Drive id, as printed by disk-list
    id: String,
    /// Image: [file=]PATH[,format=raw|qcow2|…]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text: OsString| MediumSpec::parse(&text)))]
    path: MediumSpec,
    /// File, or folder of files, that the image may refer to, besides its own folder; repeatable
    #[arg(long, value_name = "PATH")]
    allow_backing: Vec<PathBuf>,
}

impl Verb for MediaChange {
    const ABOUT: &'static str = "Put another image into a CD-ROM drive";

    fn run(self, context: &mut Context) -> Result<u8, Failure> {
        let allow_backing = machine::allowed(&self.allow_backing)?;
        let file = machine::absolute_text(&self.path.file)?;
        let format = self.path.format.map(|format| format.as_str().to_owned());
        let call = verbs::ChangeMedia { id: self.id, file, allow_backing, format };
        let wire::DiskReply { disk } = context.call(call)?;
        context
            .output
            .print(&disk, || format!("{} has {} now", disk.id, disk.file.clone().unwrap_or_default()))
    }
}
