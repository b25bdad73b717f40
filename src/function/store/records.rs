//! What is kept of functions and of published layers: a directory for each, with one file for what
//! may change and one for each version, which never does.
//!
//! A version is written before the file that counts it, and that file is replaced as a whole: a
//! power cut leaves what was there before or what is there after. A directory without it holds
//! nothing yet.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Content, Found, Store, is_unfinished, write_whole};
use crate::function::name::is_name;
use crate::function::record::FunctionRecord;
use crate::function::tree;
use crate::limits::RECORD_BYTES_MAX;

/// What records are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Functions, and their published versions.
    Functions,
    /// Layers, and their versions.
    Layers,
}

impl Part {
    pub(super) const ALL: [Part; 2] = [Part::Functions, Part::Layers];

    /// The directory's name, which is also how helpers are told.
    pub fn directory(self) -> &'static str {
        match self {
            Part::Functions => "functions",
            Part::Layers => "published",
        }
    }

    /// The part whose directory has this name.
    pub fn parse(directory: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.directory() == directory)
    }

    fn main(self) -> &'static str {
        match self {
            Part::Functions => "function.json",
            Part::Layers => "layer.json",
        }
    }
}

impl Store {
    fn place(&self, part: Part, name: &str) -> PathBuf {
        self.data.join(part.directory()).join(name)
    }

    /// The names of all that has a record, in order.
    pub fn names(&self, part: Part) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.data.join(part.directory()))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.') && entry.path().join(part.main()).exists() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// What may change of it; `None` if there is no such thing.
    pub fn record<T: DeserializeOwned>(&self, part: Part, name: &str) -> io::Result<Option<T>> {
        read(&self.place(part, name).join(part.main()))
    }

    /// One of its versions; `None` if there is no such thing.
    pub fn version<T: DeserializeOwned>(
        &self,
        part: Part,
        name: &str,
        number: u32,
    ) -> io::Result<Option<T>> {
        read(&self.place(part, name).join(format!("{number}.json")))
    }

    /// The numbers of its versions, in order. One that `next` does not count was never finished.
    pub fn versions(&self, part: Part, name: &str, next: u32) -> io::Result<Vec<u32>> {
        let entries = match fs::read_dir(self.place(part, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json"));
            numbers.extend(number.and_then(|n| n.parse::<u32>().ok()).filter(|n| *n < next));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Writes a record where it can be committed from. It is not on the disk yet.
    pub fn stage(&self, serial: u128, record: &impl Serialize) -> io::Result<PathBuf> {
        let path = self.incoming(serial);
        let text = serde_json::to_vec(record)?;
        if text.len() as u64 > RECORD_BYTES_MAX {
            let message = format!("a record of more than {RECORD_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        File::create_new(&path)?.write_all(&text)?;
        Ok(path)
    }

    /// Puts staged records in force, for good: first the version, if there is one.
    pub fn commit(
        &self,
        part: Part,
        name: &str,
        record: &Path,
        version: Option<(u32, &Path)>,
    ) -> io::Result<()> {
        let place = self.place(part, name);
        if !place.is_dir() {
            fs::create_dir(&place)?;
            File::open(self.data.join(part.directory()))?.sync_all()?;
        }
        if let Some((number, version)) = version {
            write_whole(&place.join(format!("{number}.json")), &fs::read(version)?)?;
            fs::remove_file(version)?;
        }
        write_whole(&place.join(part.main()), &fs::read(record)?)?;
        fs::remove_file(record)
    }

    /// Forgets all of it. Nothing is done if there is nothing.
    pub fn forget(&self, part: Part, name: &str) -> io::Result<()> {
        let all = self.data.join(part.directory());
        // Under this name it is gone, whatever is left of it.
        let gone = all.join(format!(".{name}.gone"));
        tree::remove(&gone)?;
        match fs::rename(self.place(part, name), &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        File::open(&all)?.sync_all()?;
        tree::remove(&gone)
    }

    /// Forgets one of its versions.
    pub fn forget_version(&self, part: Part, name: &str, number: u32) -> io::Result<()> {
        let place = self.place(part, name);
        match fs::remove_file(place.join(format!("{number}.json"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| File::open(&place)?.sync_all()),
        }
    }

    /// The functions that have no folder, as a scan tells them.
    pub(super) fn pushed(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for name in self.names(Part::Functions)?.into_iter().filter(|name| is_name(name)) {
            let record = self.record::<FunctionRecord>(Part::Functions, &name);
            let latest = match record {
                Ok(record) => match record.and_then(|record| record.latest) {
                    Some(latest) => latest,
                    None => continue,
                },
                Err(error) => {
                    let content = Err(format!("its record cannot be read: {error}"));
                    found.push(Found { name, pushed: true, content });
                    continue;
                }
            };
            let content = Content { code: latest.code.digest, layers: latest.opt };
            let is_there = self.code(&content.code).is_dir()
                && content.layers.iter().all(|digest| self.layers(digest).is_dir());
            let missing = format!("its code {} is missing", content.code);
            let content = if is_there { Ok(content) } else { Err(missing) };
            found.push(Found { name, pushed: true, content });
        }
        Ok(found)
    }

    /// Shows every file of every record to `visit`, and removes what was never finished.
    pub(super) fn visit_records(
        &self,
        visit: &mut dyn FnMut(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        for part in Part::ALL {
            for entry in fs::read_dir(self.data.join(part.directory()))? {
                let entry = entry?;
                if is_unfinished(&entry.file_name()) {
                    tree::remove(&entry.path())?;
                    continue;
                }
                if !entry.path().is_dir() {
                    continue;
                }
                for file in fs::read_dir(entry.path())? {
                    let path = file?.path();
                    match path.file_name().is_some_and(is_unfinished) {
                        true => fs::remove_file(&path)?,
                        false => visit(&path)?,
                    }
                }
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(serde_json::from_slice(&text)?))
}
