//! Functions on disk: code in directories named after their content, written once and never
//! changed, and one small file for each function that says which of them is its own.
//!
//! ```text
//! DATA/lock                 held by the server that uses this directory
//! DATA/code/DIGEST/         one function's files
//! DATA/code/.new-PID-N/     being written; what is left of it goes with unused code
//! DATA/layers/DIGEST/       a function's layers, merged; as with code
//! DATA/folders/NAME         what a folder and its layers looked like, and the digests of code and
//!                           layers: unchanged folders are not read
//! DATA/functions/NAME       the digest of a pushed function
//! DATA/caches/DIGEST/       what a runtime has made of that code, and can make again
//! DATA/incoming/            zips on their way in
//! DATA/runtime/             the bundled runtimes, in the charge of `runtime::bundled`
//! ```
//!
//! Whatever takes long (hashing, copying, unpacking, waiting for the disk) is done by short-lived
//! helper processes, hob itself under a hidden verb, so the server neither waits nor grows.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::layer::{self, Layer};
use super::tree::{self, Trouble};
use crate::limits::CODE_BYTES_MAX;

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

/// Where directories named by digest are.
const CODE: &str = "code";
const LAYERS: &str = "layers";
const CACHES: &str = "caches";

impl Store {
    /// The store in `data`, which need not exist yet.
    pub fn new(data: &Path) -> Store {
        Store { data: data.to_owned() }
    }

    /// Creates what is missing, and takes the lock that keeps other servers out. The lock holds
    /// as long as the file is open.
    pub fn open(&self) -> io::Result<File> {
        for part in [CODE, LAYERS, CACHES, "folders", "functions", "incoming"] {
            fs::create_dir_all(self.data.join(part))?;
        }
        let lock = File::options().create(true).append(true).open(self.data.join("lock"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another server uses it"))
            }
            Err(error) => Err(error.into()),
        }
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

    /// A path for a zip on its way in.
    pub fn incoming(&self, serial: u128) -> PathBuf {
        self.data.join("incoming").join(format!("{serial:032x}.zip"))
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

    fn pushed(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.data.join("functions"))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !super::name::is_name(&name) {
                continue;
            }
            let digest = fs::read_to_string(entry.path())?.trim().to_owned();
            let content = if self.code(&digest).is_dir() {
                Ok(Content { code: digest, layers: None })
            } else {
                Err(format!("its code {digest} is missing"))
            };
            found.push(Found { name, pushed: true, content });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The digests of a folder's files and layers, which are in the store when this returns.
    fn bring_in(&self, name: &str, folder: &Path) -> Result<Content, Trouble> {
        let note = self.data.join("folders").join(name);
        for _ in 0..3 {
            let layers = layer::of(folder);
            let look = look(folder, &layers)?;
            if let Some(content) = self.noted(&note, &look) {
                return Ok(content);
            }
            let mut bytes = 0;
            let code = self.add(CODE, |new| {
                let (digest, copied) = tree::copy(folder, new)?;
                bytes = copied;
                Ok(digest)
            })?;
            let merged = match layers.as_slice() {
                [] => None,
                layers => Some(self.add(LAYERS, |new| layer::merge(layers, new, bytes))?),
            };
            // A file that changed while it was copied makes a mixture: once more.
            if self::look(folder, &layers)? == look {
                let content = Content { code, layers: merged };
                let layers = content.layers.as_deref().unwrap_or_default();
                let line = format!("{look} {} {layers}", content.code);
                write_whole(&note, format!("{}\n", line.trim_end()).as_bytes())?;
                return Ok(content);
            }
        }
        Err(Trouble::Changing(folder.to_owned()))
    }

    /// What a folder that looks like this is in the store, if that is known and still there.
    fn noted(&self, note: &Path, look: &str) -> Option<Content> {
        let text = fs::read_to_string(note).ok()?;
        let mut words = text.split_whitespace();
        let before = words.next()?;
        let code = words.next()?.to_owned();
        let layers = words.next().map(str::to_owned);
        let there =
            self.code(&code).is_dir() && layers.iter().all(|digest| self.layers(digest).is_dir());
        (before == look && there).then_some(Content { code, layers })
    }

    /// Unpacks a zip, and removes it. Its digest.
    pub fn unpack(&self, zip: &Path) -> Result<String, Trouble> {
        let digest = self.add(CODE, |new| super::package::unpack(zip, new, CODE_BYTES_MAX));
        fs::remove_file(zip)?;
        digest
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

    /// Makes the code with this digest the pushed function `name`, for good.
    pub fn commit(&self, name: &str, digest: &str) -> io::Result<()> {
        write_whole(&self.data.join("functions").join(name), format!("{digest}\n").as_bytes())
    }

    /// Forgets a pushed function.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        let functions = self.data.join("functions");
        match fs::remove_file(functions.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => File::open(functions)?.sync_all(),
        }
    }

    /// The digests that functions have, and how their folders looked.
    fn named(&self) -> io::Result<Vec<String>> {
        let mut named = Vec::new();
        for part in ["functions", "folders"] {
            for entry in fs::read_dir(self.data.join(part))? {
                let entry = entry?;
                if is_unfinished(&entry.file_name()) {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                let text = fs::read_to_string(entry.path())?;
                named.extend(text.split_whitespace().map(str::to_owned));
            }
        }
        Ok(named)
    }

    /// Removes code and layers that no function has and that are not among what is `running`, and
    /// what a cut-off helper left. Only while no other helper writes.
    pub fn discard(&self, running: &[&str]) -> io::Result<()> {
        let named = self.named()?;
        let parts = [CODE, LAYERS, CACHES].map(|part| fs::read_dir(self.data.join(part)));
        for entry in parts.into_iter().collect::<io::Result<Vec<_>>>()?.into_iter().flatten() {
            let entry = entry?;
            let is = |digest: &str| *digest == *entry.file_name();
            if !named.iter().any(|digest| is(digest)) && !running.iter().any(|digest| is(digest)) {
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
mod tests {
    use super::*;

    fn function(root: &Path, name: &str, content: &str) {
        let folder = root.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("function.toml"), "runtime = \"exec\"").expect("written");
        fs::write(folder.join("run"), content).expect("written");
    }

    #[test]
    fn what_was_made_of_code_goes_with_the_code() {
        let data = tempfile::tempdir().expect("data");
        let store = Store::new(data.path());
        let _lock = store.open().expect("open");
        for digest in ["d1", "d2"] {
            fs::create_dir_all(store.code(digest)).expect("made");
            fs::create_dir_all(store.caches().join(digest)).expect("made");
        }
        store.discard(&["d1"]).expect("discarded");
        assert!(store.caches().join("d1").exists() && store.code("d1").exists());
        assert!(!store.caches().join("d2").exists() && !store.code("d2").exists());
    }

    #[test]
    fn folders_come_in_by_content_and_unchanged_ones_are_not_read_again() {
        let (data, root) = (tempfile::tempdir().expect("data"), tempfile::tempdir().expect("root"));
        let store = Store::new(data.path());
        let _lock = store.open().expect("open");
        function(root.path(), "one", "a");
        function(root.path(), "two", "a");
        function(root.path(), "bad name", "a");
        fs::create_dir(root.path().join("no-function")).expect("a folder");
        let found = store.scan(Some(root.path()), &[]).expect("scanned");
        let digest = |n: usize, found: &[Found]| found[n].content.clone().expect("good").code;
        assert_eq!(found.len(), 3);
        assert!(found[0].content.is_err(), "{found:?}");
        assert_eq!(digest(1, &found), digest(2, &found), "same content, same code");
        let code = store.code(&digest(1, &found));
        assert_eq!(fs::read_to_string(code.join("run")).expect("there"), "a");
        let note = fs::read(data.path().join("folders/one")).expect("a note");
        store.scan(Some(root.path()), &[]).expect("scanned");
        assert_eq!(fs::read(data.path().join("folders/one")).expect("a note"), note);
        function(root.path(), "one", "b");
        let again = store.scan(Some(root.path()), &["one".to_owned()]).expect("scanned");
        assert_ne!(digest(0, &again), digest(1, &found));
        assert!(code.is_dir(), "the old code stays for those that run it");
    }

    #[test]
    fn what_nothing_names_is_cleaned_and_the_rest_stays() {
        let (data, root) = (tempfile::tempdir().expect("data"), tempfile::tempdir().expect("root"));
        let store = Store::new(data.path());
        let _lock = store.open().expect("open");
        function(root.path(), "one", "a");
        let scan = || store.scan(Some(root.path()), &[]).expect("scanned")[0].content.clone();
        let old = scan().expect("good").code;
        function(root.path(), "one", "b");
        let new = scan().expect("good").code;
        fs::create_dir_all(data.path().join("code/.new-1/x")).expect("a rest");
        fs::write(store.incoming(1), "zip").expect("a rest");
        store.commit("pushed", &new).expect("committed");
        store.discard(&[&old]).expect("looked at");
        assert!(store.code(&new).is_dir(), "two functions have it");
        assert!(store.code(&old).is_dir(), "something runs it");
        assert!(store.incoming(1).exists(), "it may be on its way in");
        store.clean().expect("cleaned");
        assert!(!store.code(&old).exists());
        assert!(!store.incoming(1).exists());
        assert!(store.code(&new).is_dir());
        assert!(!data.path().join("code/.new-1").exists());
        let pushed = store.scan(None, &[]).expect("scanned");
        let content = Ok(Content { code: new, layers: None });
        assert_eq!(pushed, [Found { name: "pushed".into(), pushed: true, content }]);
        store.forget("pushed").expect("forgotten");
        store.forget("pushed").expect("twice is fine");
        assert!(store.scan(None, &[]).expect("scanned").is_empty());
    }

    #[test]
    fn folders_that_are_gone_are_forgotten_with_their_code() {
        let (data, root) = (tempfile::tempdir().expect("data"), tempfile::tempdir().expect("root"));
        let store = Store::new(data.path());
        let _lock = store.open().expect("open");
        for name in ["one", "two", "three"] {
            function(root.path(), name, name);
        }
        store.scan(Some(root.path()), &[]).expect("scanned");
        let count = || {
            store.discard(&[]).expect("discarded");
            let count = |part: &str| fs::read_dir(data.path().join(part)).expect("there").count();
            (count("folders"), count(CODE))
        };
        assert_eq!(count(), (3, 3));
        fs::remove_dir_all(root.path().join("one")).expect("removed");
        fs::remove_dir_all(root.path().join("two")).expect("removed");
        store.scan(Some(root.path()), &["one".to_owned()]).expect("scanned");
        assert_eq!(count(), (2, 2), "only that one was looked at");
        fs::write(data.path().join("folders/.three.new"), "cut off").expect("a rest");
        store.scan(Some(root.path()), &[]).expect("scanned");
        assert_eq!(count(), (1, 1));
    }

    #[test]
    fn layers_come_in_merged_and_go_when_nothing_has_them() {
        let (data, root) = (tempfile::tempdir().expect("data"), tempfile::tempdir().expect("root"));
        let store = Store::new(data.path());
        let _lock = store.open().expect("open");
        function(root.path(), "one", "a");
        let toml = root.path().join("one/function.toml");
        let text = "runtime = \"exec\"\nhandler = \"run\"\nlayers = [\"../x/\", \"../y\"]\n";
        fs::write(toml, text).expect("written");
        let scan = || store.scan(Some(root.path()), &[]).expect("scanned")[0].content.clone();
        let refused = scan().expect_err("no layers yet");
        assert!(refused.contains("function.toml: layers: ../x/ is missing: no dir"), "{refused}");
        for (layer, content) in [("x", "1"), ("y", "2")] {
            fs::create_dir(root.path().join(layer)).expect("made");
            fs::write(root.path().join(layer).join("both"), content).expect("written");
            fs::write(root.path().join(layer).join(layer), content).expect("written");
        }
        let first = scan().expect("good");
        let merged = store.layers(first.layers.as_ref().expect("merged"));
        let read = |name: &str| fs::read_to_string(merged.join(name)).expect("there");
        assert_eq!((read("both"), read("x"), read("y")), ("2".into(), "1".into(), "2".into()));
        assert_eq!(scan(), Ok(first.clone()), "as noted");
        fs::write(root.path().join("x/x"), "3").expect("written");
        let second = scan().expect("good");
        assert_eq!(second.code, first.code);
        let digest = second.layers.expect("merged");
        store.discard(&[first.layers.as_deref().expect("merged")]).expect("discarded");
        assert!(merged.is_dir(), "something runs on it");
        store.discard(&[]).expect("discarded");
        assert!(!merged.exists() && store.layers(&digest).is_dir());
        fs::remove_dir_all(store.layers(&digest)).expect("lost");
        assert_eq!(scan().expect("good").layers, Some(digest), "brought in again");
    }

    #[test]
    fn one_server_at_a_time() {
        let data = tempfile::tempdir().expect("data");
        let store = Store::new(data.path());
        let lock = store.open().expect("open");
        let busy = store.open().expect_err("locked");
        assert!(busy.to_string().contains("another server"), "{busy}");
        drop(lock);
        store.open().expect("free again");
    }
}
