//! Functions on disk: code in directories named after their content, written once and never
//! changed, and one small file for each function that says which of them is its own.
//!
//! ```text
//! DATA/lock                 held by the server that uses this directory
//! DATA/code/DIGEST/         one function's files
//! DATA/code/.new-PID-N/     being written; what is left of it goes with unused code
//! DATA/layers/DIGEST/       a function's layers, merged; as with code
//! DATA/folders/NAME         what a folder and its layers looked like, the digest and size of the
//!                           code, the digest of the layers: unchanged folders are not read
//! DATA/functions/NAME/      what is kept of a function: function.json, and N.json for its
//!                           published version N
//! DATA/published/NAME/      the same of a layer: layer.json, and N.json for its version N
//! DATA/zips/SHA256.zip      zips as they came
//! DATA/caches/DIGEST/       what a runtime has made of that code, and can make again
//! DATA/incoming/            what is on its way in
//! DATA/buckets/BUCKET/KEY   S3's place: put there by the user
//! DATA/runtime/             the bundled runtimes, in the charge of `runtime::bundled`
//! ```
//!
//! Whatever takes long (hashing, copying, unpacking, waiting for the disk) is done by short-lived
//! helper processes, hob itself under a hidden verb, so the server neither waits nor grows.

mod layers;
mod records;
mod upload;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::layer::{self, Layer};
use super::tree::{self, Trouble};
use crate::function::record::CodeRecord;
use crate::limits::{CODE_BYTES_MAX, LOCK_LOOK_MS, LOCK_WAIT_MS};
pub use records::Part;
pub use upload::{Refused, Taken};

/// A data directory.
#[derive(Clone, Debug)]
pub struct Store {
    data: PathBuf,
}

/// What a scan found of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The function's name.
    pub name: String,
    /// It was pushed, and has no folder.
    pub pushed: bool,
    /// What is in the store of it, or what is wrong with its folder.
    pub content: Result<Content, String>,
}

/// What a function consists of, by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its own files.
    pub code: String,
    /// Its layers, merged, if it has any.
    pub layers: Option<String>,
}

/// What is known of a folder without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Bytes of its files.
    pub size: u64,
    /// Milliseconds of Unix time.
    pub modified_ms: u64,
}

/// Where directories named by digest are.
const CODE: &str = "code";
const LAYERS: &str = "layers";
const CACHES: &str = "caches";
const ZIPS: &str = "zips";
/// Digits of a SHA-256.
const DIGEST: usize = 64;

impl Store {
    /// The store in `data`, which need not exist yet.
    pub fn new(data: &Path) -> Store {
        Store { data: data.to_owned() }
    }

    /// Creates what is missing, and takes the lock that keeps other servers out. The lock holds
    /// as long as the file is open.
    pub fn open(&self) -> io::Result<File> {
        self.create()?;
        let lock = File::options().create(true).append(true).open(self.lock())?;
        // What a killed server was just about to start has its lock for another moment.
        for _ in 0..LOCK_WAIT_MS.div_ceil(LOCK_LOOK_MS) {
            match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(lock),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    std::thread::sleep(Duration::from_millis(LOCK_LOOK_MS));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another server uses it"))
    }

    /// The same with the lock of a server that hands over to this one: it is one lock.
    pub fn take_over(&self, lock: File) -> io::Result<File> {
        self.create()?;
        let (given, own) = (lock.metadata()?, fs::metadata(self.lock())?);
        if (given.dev(), given.ino()) != (own.dev(), own.ino()) {
            return Err(io::Error::other("the server before uses another one"));
        }
        Ok(lock)
    }

    fn create(&self) -> io::Result<()> {
        let records = Part::ALL.map(Part::directory);
        for part in [CODE, LAYERS, CACHES, ZIPS, "folders", "incoming"].into_iter().chain(records) {
            fs::create_dir_all(self.data.join(part))?;
        }
        Ok(())
    }

    fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// The directory itself.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where the code with this digest is.
    pub fn code(&self, digest: &str) -> PathBuf {
        self.data.join(CODE).join(digest)
    }

    /// Where the layers with this digest are.
    pub fn layers(&self, digest: &str) -> PathBuf {
        self.data.join(LAYERS).join(digest)
    }

    /// Where runtimes may keep what they make of code, by its digest.
    pub fn caches(&self) -> PathBuf {
        self.data.join(CACHES)
    }

    /// Where the zip with this SHA-256 is.
    pub fn zip(&self, sha256: &str) -> PathBuf {
        self.data.join(ZIPS).join(format!("{sha256}.zip"))
    }

    /// A path for something on its way in.
    pub fn incoming(&self, serial: u128) -> PathBuf {
        self.data.join("incoming").join(format!("{serial:032x}"))
    }

    /// Brings the code of function folders in: of all in `folders`, or only of the ones in
    /// `names`. Without names the pushed functions are told too.
    pub fn scan(&self, folders: Option<&Path>, names: &[String]) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        if let Some(folders) = folders {
            let mut candidates = Vec::new();
            for entry in fs::read_dir(folders)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let wanted = names.is_empty() || names.contains(&name);
                if wanted && entry.path().join("function.toml").exists() {
                    candidates.push((name, entry.path()));
                }
            }
            candidates.sort();
            for (name, folder) in candidates {
                let content = if super::name::is_name(&name) {
                    self.bring_in(&name, &folder).map_err(|trouble| trouble.to_string())
                } else {
                    let allowed = "letters, digits, - and _, at most 64";
                    Err(format!("{} is no function name, allowed: {allowed}", folder.display()))
                };
                found.push(Found { name, pushed: false, content });
            }
        }
        self.forget_folders(&found, names)?;
        if names.is_empty() {
            found.extend(self.pushed()?);
        }
        Ok(found)
    }

    /// The digests of a folder's files and layers, which are in the store when this returns.
    fn bring_in(&self, name: &str, folder: &Path) -> Result<Content, Trouble> {
        let note = self.data.join("folders").join(name);
        for _ in 0..3 {
            let layers = layer::of(folder, &|name| self.published(name));
            let look = look(folder, &layers)?;
            let before = self.noted(&note);
            if let Some((_, content)) = before.as_ref().filter(|(before, _)| *before == look) {
                return Ok(content.clone());
            }
            let mut bytes = 0;
            let code = self.add(CODE, |new| {
                let (digest, copied) = tree::copy(folder, new)?;
                bytes = copied;
                Ok(digest)
            })?;
            // The same layers as before are merged already, and one may have been deleted since.
            let merged = before.filter(|(before, _)| of_layers(before) == of_layers(&look));
            let merged = match (layers.as_slice(), merged.and_then(|(_, content)| content.layers)) {
                ([], _) => None,
                (_, Some(merged)) => {
                    self.check_fit(bytes, &[self.layers(&merged)])?;
                    Some(merged)
                }
                (layers, None) => Some(self.add(LAYERS, |new| layer::merge(layers, new, bytes))?),
            };
            // A file that changed while it was copied makes a mixture: once more.
            if self::look(folder, &layers)? == look {
                let content = Content { code, layers: merged };
                let layers = content.layers.as_deref().unwrap_or_default();
                let line = format!("{look} {} {bytes} {layers}", content.code);
                write_whole(&note, format!("{}\n", line.trim_end()).as_bytes())?;
                return Ok(content);
            }
        }
        Err(Trouble::Changing(folder.to_owned()))
    }

    /// The size of a folder's files, and when they were brought in.
    pub fn look_of(&self, name: &str) -> Look {
        let note = self.data.join("folders").join(name);
        let text = fs::read_to_string(&note).unwrap_or_default();
        let size = text.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        let modified = fs::metadata(&note).and_then(|metadata| metadata.modified()).ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
        Look { size: size.unwrap_or(0), modified_ms: modified_ms.unwrap_or(0) }
    }

    /// What a folder looked like, and what it is in the store if that is still there.
    fn noted(&self, note: &Path) -> Option<(String, Content)> {
        let text = fs::read_to_string(note).ok()?;
        let mut words = text.split_whitespace();
        let look = words.next()?.to_owned();
        let code = words.next()?.to_owned();
        let layers = words.nth(1).map(str::to_owned);
        let there =
            self.code(&code).is_dir() && layers.iter().all(|digest| self.layers(digest).is_dir());
        there.then_some((look, Content { code, layers }))
    }

    /// Takes a zip in: as it is, and unpacked. It is gone from where it was.
    pub fn unpack(&self, zip: &Path) -> Result<CodeRecord, Trouble> {
        let taken = self.unpack_and_keep(zip);
        if taken.is_err() {
            fs::remove_file(zip)?;
        }
        taken
    }

    fn unpack_and_keep(&self, zip: &Path) -> Result<CodeRecord, Trouble> {
        let (sha256, size) = tree::digest_of(zip)?;
        let digest = self.add(CODE, |new| super::package::unpack(zip, new, CODE_BYTES_MAX))?;
        File::open(zip)?.sync_all()?;
        fs::rename(zip, self.zip(&sha256))?;
        File::open(self.data.join(ZIPS))?.sync_all()?;
        Ok(CodeRecord { digest, zip: Some(sha256), size })
    }

    /// Adds a directory that `fill` makes, under the digest that it returns, to this part.
    fn add(
        &self,
        part: &str,
        fill: impl FnOnce(&Path) -> Result<String, Trouble>,
    ) -> Result<String, Trouble> {
        let all = self.data.join(part);
        let new = all.join(format!(".new-{}", std::process::id()));
        let made = tree::remove(&new).and_then(|()| fs::create_dir(&new)).map_err(Trouble::from);
        let digest = made.and_then(|()| fill(&new));
        let digest = match digest {
            Ok(digest) => digest,
            Err(trouble) => {
                tree::remove(&new)?;
                return Err(trouble);
            }
        };
        let place = all.join(&digest);
        if place.is_dir() {
            tree::remove(&new)?;
        } else {
            tree::sync_directories(&new)?;
            match fs::rename(&new, &place) {
                // Another helper was faster with the same content.
                Err(_) if place.is_dir() => tree::remove(&new)?,
                other => other?,
            }
            File::open(&all)?.sync_all()?;
        }
        Ok(digest)
    }

    /// The digests that functions have, and how their folders looked: every word of what is kept
    /// of them that may be one, also where the rest cannot be read.
    fn named(&self) -> io::Result<BTreeSet<String>> {
        let mut named = BTreeSet::new();
        let mut name_all = |path: &Path| -> io::Result<()> {
            let text = fs::read(path)?;
            let words = text.split(|b| !b.is_ascii_hexdigit()).filter(|word| word.len() == DIGEST);
            named.extend(words.map(|word| String::from_utf8_lossy(word).into_owned()));
            Ok(())
        };
        for entry in fs::read_dir(self.data.join("folders"))? {
            let path = entry?.path();
            match path.file_name().is_some_and(is_unfinished) {
                true => fs::remove_file(path)?,
                false => name_all(&path)?,
            }
        }
        self.visit_records(&mut name_all)?;
        Ok(named)
    }

    /// Removes code and layers that no function has and that are not among what is `running`, and
    /// what a cut-off helper left. Only while no other helper writes.
    pub fn discard(&self, running: &[&str]) -> io::Result<()> {
        let named = self.named()?;
        let parts = [CODE, LAYERS, CACHES, ZIPS].map(|part| fs::read_dir(self.data.join(part)));
        for entry in parts.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().map_or("", |name| name.strip_suffix(".zip").unwrap_or(name));
            if !named.contains(digest) && !running.contains(&digest) {
                tree::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes what nothing names, zips that came halfway too. Only while no function runs.
    pub fn clean(&self) -> io::Result<()> {
        self.discard(&[])?;
        for entry in fs::read_dir(self.data.join("incoming"))? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Forgets what folders that are gone looked like, of `names`, or of all.
    fn forget_folders(&self, found: &[Found], names: &[String]) -> io::Result<()> {
        let is_found = |name: &OsStr| found.iter().any(|found| *found.name == *name);
        let is_wanted =
            |name: &OsStr| names.is_empty() || names.iter().any(|wanted| **wanted == *name);
        for entry in fs::read_dir(self.data.join("folders"))? {
            let entry = entry?;
            let name = entry.file_name();
            if is_wanted(&name) && !is_found(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// What a folder and its layers look like from outside.
fn look(folder: &Path, layers: &[Layer]) -> Result<String, Trouble> {
    Ok(tree::fingerprint(folder)? + &layer::fingerprint(layers)?)
}

/// The part of a look that is the layers'.
fn of_layers(look: &str) -> Option<&str> {
    look.split_once('-').map(|(_, layers)| layers)
}

/// True for the name under which [`write_whole`] makes a file: functions have no dot.
fn is_unfinished(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Replaces a file by one with this content; a power cut leaves the old one or the new one.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let new = path.with_file_name(format!(".{}.new", name.display()));
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests;
