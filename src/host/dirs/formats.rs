//! The formats that images were once found to have, in a state directory (`formats.json`): what versions before the user's store
//! (see `raw_images`) wrote, and where that store cannot be written to.

use std::collections::BTreeMap;

use crate::host::image::ImageIdentity;
use crate::spec::ImageFormat;

/// More images than anybody attaches to one VM; beyond, one goes for each that comes, and such as are not raw first.
const MAX_IMAGES: usize = 1000;

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Formats(BTreeMap<String, ImageFormat>);

impl Formats {
    pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    pub(super) fn get(&self, image: &ImageIdentity) -> Option<ImageFormat> {
        self.0.get(image.as_str()).copied()
    }

    /// Whether that changed anything.
    pub(super) fn set(&mut self, image: &ImageIdentity, format: ImageFormat) -> bool {
        if self.0.len() >= MAX_IMAGES && !self.0.contains_key(image.as_str()) {
            let other = self.0.iter().find(|(_, format)| **format != ImageFormat::Raw);
            if let Some(key) = other.or(self.0.iter().next()).map(|(key, _)| key.clone()) {
                self.0.remove(&key);
            }
        }
        self.0.insert(image.as_str().to_owned(), format) != Some(format)
    }

    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }
}
