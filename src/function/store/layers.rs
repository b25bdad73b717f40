//! Published layers: found by their names, and merged.

use std::io;
use std::path::PathBuf;

use super::{LAYERS, Part, Refused, Store, layer};
use crate::function::layer::Layer;
use crate::function::name::layer_version;
use crate::function::record::{LayerRecord, LayerVersionRecord};
use crate::function::tree::{self, Trouble};
use crate::limits::{ALLOWED_SHOWN_MAX, CODE_BYTES_MAX};

impl Store {
    /// A version of a layer; `None` if there is none.
    pub fn layer_version(&self, name: &str, number: u32) -> io::Result<Option<LayerVersionRecord>> {
        let record = self.record::<LayerRecord>(Part::Layers, name)?;
        match record.filter(|record| number < record.next_version) {
            Some(_) => self.version(Part::Layers, name, number),
            None => Ok(None),
        }
    }

    /// The numbers of a layer's versions, in order.
    pub fn layer_versions(&self, name: &str) -> io::Result<Vec<u32>> {
        match self.record::<LayerRecord>(Part::Layers, name)? {
            Some(record) => self.versions(Part::Layers, name, record.next_version),
            None => Ok(Vec::new()),
        }
    }

    /// Where the files of `name:version` are, or what is wrong with that, and what is allowed.
    pub(super) fn published(&self, text: &str) -> Result<PathBuf, String> {
        let unread = |error: io::Error| format!("cannot be read: {error}");
        let (name, number) = layer_version(text).unwrap_or((text, 0));
        if let Some(version) = self.layer_version(name, number).map_err(unread)? {
            return Ok(self.code(&version.code.digest));
        }
        let newest = self.newest_layers(name).map_err(unread)?.join(", ");
        Err(format!("is not published, allowed: folders, {newest}"))
    }

    /// What a user may name instead of a version that there is not: the newest of that layer, or
    /// else of all.
    pub fn newest_layers(&self, name: &str) -> io::Result<Vec<String>> {
        let mut newest: Vec<String> = Vec::new();
        let numbers = self.layer_versions(name)?;
        newest.extend(numbers.iter().rev().map(|number| format!("{name}:{number}")));
        if newest.is_empty() {
            for name in self.names(Part::Layers)? {
                let last = self.layer_versions(&name)?.pop();
                newest.extend(last.map(|number| format!("{name}:{number}")));
            }
        }
        newest.truncate(ALLOWED_SHOWN_MAX);
        if newest.is_empty() {
            newest.push("published layers (there are none yet)".to_owned());
        }
        Ok(newest)
    }

    /// Merges the files of published layers, by digest, for code that they fit beside; returns the
    /// digest of what comes out.
    pub fn merge(&self, code: &str, layers: &[&str]) -> Result<String, Refused> {
        let places: Vec<PathBuf> = layers.iter().map(|digest| self.code(digest)).collect();
        let code = tree::size(&self.code(code))?;
        self.check_fit(code, &places)?;
        let named = |(digest, files): (&&str, PathBuf)| Layer::published(digest, files);
        let layers: Vec<Layer> = layers.iter().zip(places).map(named).collect();
        Ok(self.add(LAYERS, |new| layer::merge(&layers, new, code))?)
    }

    /// Refuses code that does not fit beside layers that are merged.
    pub fn fit(&self, code: &str, merged: &str) -> Result<(), Refused> {
        Ok(self.check_fit(tree::size(&self.code(code))?, &[self.layers(merged)])?)
    }

    /// Refuses trees that have more bytes than `code` leaves.
    pub(super) fn check_fit(&self, code: u64, trees: &[PathBuf]) -> Result<(), Trouble> {
        let mut bytes = code;
        for tree in trees {
            bytes = bytes.saturating_add(tree::size(tree)?);
        }
        if bytes > CODE_BYTES_MAX { Err(Trouble::TooLarge) } else { Ok(()) }
    }
}
