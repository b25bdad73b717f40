//! Layers, folders or published: several trees merged into one, which functions find at `/opt`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::config::FunctionConfig;
use super::tree::{self, Node, Sum, Trouble};
use crate::limits::{CODE_BYTES_MAX, CODE_FILES_MAX, CONFIG_BYTES_MAX};

/// One of a function's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The file and key that name it, and how: complaints begin with this.
    named: String,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A folder of the user's, which may change.
    Folder(PathBuf),
    /// A version of a published layer: by its name, which never stands for anything else; where its
    /// files are, or why they are nowhere.
    Published(String, Result<PathBuf, String>),
}

/// True if this item of `layers` names a folder, and not a published layer.
pub fn is_folder(layer: &str) -> bool {
    layer.contains('/')
}

/// What `layers` of the function in `folder` names, and the file that does. None if its
/// configuration cannot be read: whoever puts the function in force says so.
fn names(folder: &Path) -> Option<(String, Vec<String>)> {
    let file = folder.join("function.toml");
    let mut text = String::new();
    // The server looks too, and must not wait for the other end of a pipe.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&file);
    opened.ok()?.take(CONFIG_BYTES_MAX).read_to_string(&mut text).ok()?;
    let file = file.display().to_string();
    let config = FunctionConfig::parse(&file, &text).ok()?;
    Some((file, config.layers))
}

/// The layers that are folders, of the function in `folder`.
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let (_, names) = names(folder).unwrap_or_default();
    names.iter().filter(|name| is_folder(name)).map(|name| folder.join(name)).collect()
}

/// The layers of the function in `folder`. Where the files of a published one are, or why they are
/// nowhere, is what `published` says.
pub fn of(folder: &Path, published: &dyn Fn(&str) -> Result<PathBuf, String>) -> Vec<Layer> {
    let (file, names) = names(folder).unwrap_or_default();
    let place = |name: String| match is_folder(&name) {
        true => Place::Folder(folder.join(name)),
        false => Place::Published(name.clone(), published(&name)),
    };
    let layer =
        |name: String| Layer { named: format!("{file}: layers: {name}"), place: place(name) };
    names.into_iter().map(layer).collect()
}

impl Layer {
    /// A published layer whose files are there.
    pub fn published(name: &str, files: PathBuf) -> Layer {
        Layer { named: name.to_owned(), place: Place::Published(name.to_owned(), Ok(files)) }
    }

    fn refuse(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Layer(format!("{} {what}", self.named))
    }

    /// Where it is. Refuses what is no directory in words.
    fn path(&self) -> Result<&Path, Trouble> {
        let path = match &self.place {
            Place::Folder(path) | Place::Published(_, Ok(path)) => path,
            Place::Published(_, Err(why)) => return Err(self.refuse(why)),
        };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(path),
            Ok(_) => Err(self.refuse("is not a directory")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                Err(self.refuse(format_args!("is missing: no directory {}", path.display())))
            }
            Err(error) => Err(self.refuse(format_args!("cannot be read: {error}"))),
        }
    }

    fn explain(&self, trouble: Trouble) -> Trouble {
        self.refuse(format_args!("is refused: {trouble}"))
    }
}

/// What layers look like from outside: folders as [`tree::fingerprint`] has it, published ones by
/// their names.
pub fn fingerprint(layers: &[Layer]) -> Result<String, Trouble> {
    let mut looks = String::new();
    for layer in layers {
        looks += "-";
        looks += &match &layer.place {
            Place::Folder(_) => {
                tree::fingerprint(layer.path()?).map_err(|trouble| layer.explain(trouble))?
            }
            Place::Published(name, _) => name.clone(),
        };
    }
    Ok(looks)
}

/// Copies layers into the empty directory `to`, later ones over earlier ones, and returns the
/// digest of what it holds then. All of them together may have as many bytes as `code` leaves.
pub fn merge(layers: &[Layer], to: &Path, code: u64) -> Result<String, Trouble> {
    let mut merged: BTreeMap<PathBuf, (PathBuf, Node)> = BTreeMap::new();
    let mut bytes = code;
    for layer in layers {
        let root = layer.path()?;
        let mut visit = |path: &Path, relative: &Path, node: Node| {
            if let Node::File(metadata) = &node {
                // What a later layer hides counts too, as on Lambda.
                bytes = bytes.saturating_add(metadata.len());
            }
            if bytes > CODE_BYTES_MAX {
                return Err(Trouble::TooLarge);
            }
            if !matches!(node, Node::Directory) {
                let is_below = |path: &PathBuf| path != relative && path.starts_with(relative);
                let from = relative.to_owned();
                let below = merged.range(from..).map(|(path, _)| path);
                let hidden: Vec<_> = below
                    .skip_while(|p| *p == relative)
                    .take_while(|p| is_below(p))
                    .cloned()
                    .collect();
                for path in hidden {
                    merged.remove(&path);
                }
            }
            merged.insert(relative.to_owned(), (path.to_owned(), node));
            if merged.len() > CODE_FILES_MAX { Err(Trouble::TooMany) } else { Ok(()) }
        };
        tree::walk(root, &mut visit).map_err(|trouble| layer.explain(trouble))?;
    }
    let mut sum = Sum::new(CODE_BYTES_MAX);
    for (relative, (path, node)) in &merged {
        sum.copy(path, relative, node, to)?;
    }
    Ok(sum.digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn layers(root: &Path, names: &[&str]) -> Vec<Layer> {
        let place = |name: &str| Place::Folder(root.join(name));
        let layer = |name: &&str| Layer { named: (*name).to_owned(), place: place(name) };
        names.iter().map(layer).collect()
    }

    fn file(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().expect("below something")).expect("made");
        fs::write(path, content).expect("written");
    }

    #[test]
    fn later_layers_win_whatever_is_in_their_way() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |path: &str| root.path().join(path);
        file(&at("one/lib/a"), "1");
        file(&at("one/lib/b/c"), "1");
        file(&at("one/lib-x"), "1");
        file(&at("one/plain"), "1");
        symlink("lib/a", at("one/link")).expect("a link");
        file(&at("two/lib/a"), "2");
        file(&at("two/lib/b"), "2, a file where a directory was");
        file(&at("two/plain/d"), "2, a directory where a file was");
        file(&at("two/link/e"), "2, a directory where a link was");
        let merged = |names: &[&str]| {
            let to = tempfile::tempdir().expect("a folder");
            let digest = merge(&layers(root.path(), names), to.path(), 0).expect("merged");
            (to, digest)
        };
        let (to, digest) = merged(&["one", "two"]);
        let read = |path: &str| fs::read_to_string(to.path().join(path)).expect(path);
        assert_eq!((read("lib/a"), read("lib-x")), ("2".into(), "1".into()));
        assert!(read("lib/b").starts_with('2') && read("plain/d").starts_with('2'));
        assert!(read("link/e").starts_with('2'));
        assert_eq!(merged(&["one", "two"]).1, digest);
        assert_ne!(merged(&["two", "one"]).1, digest);
        let (to, _) = merged(&["two", "one"]);
        assert!(to.path().join("lib/b/c").exists() && to.path().join("plain").is_file());
        assert!(to.path().join("link").is_symlink());
    }

    #[test]
    fn a_configuration_that_is_no_file_names_no_layers_and_holds_up_nobody() {
        let root = tempfile::tempdir().expect("a folder");
        let toml = root.path().join("function.toml");
        rustix::fs::mkfifoat(rustix::fs::CWD, &toml, 0o600.into()).expect("a pipe");
        let nothing = |_: &str| Err("is nowhere".to_owned());
        assert_eq!(of(root.path(), &nothing), []);
        fs::remove_file(&toml).expect("removed");
        symlink("/dev/zero", &toml).expect("a link");
        assert_eq!(of(root.path(), &nothing), []);
        fs::remove_file(&toml).expect("removed");
        fs::write(&toml, "runtime = \"provided\"\nlayers = [\"../a\", \"b:1\", \"/c\"]")
            .expect("ok");
        assert_eq!(folders(root.path()), [root.path().join("../a"), PathBuf::from("/c")]);
        let layers = of(root.path(), &nothing);
        assert_eq!(layers.len(), 3);
        let refused = layers[1].path().expect_err("nowhere").to_string();
        assert!(refused.ends_with("function.toml: layers: b:1 is nowhere"), "{refused}");
        let looks = fingerprint(&layers[1..2]).expect("a name looks always the same");
        assert_eq!(looks, "-b:1");
    }

    #[test]
    fn what_is_hidden_counts_and_complaints_name_the_layer() {
        let root = tempfile::tempdir().expect("a folder");
        for layer in ["one", "two"] {
            file(&root.path().join(layer).join("same"), "four");
        }
        file(&root.path().join("three"), "");
        let merged = |names: &[&str], code| {
            let to = tempfile::tempdir().expect("a folder");
            merge(&layers(root.path(), names), to.path(), code).map_err(|error| error.to_string())
        };
        assert!(merged(&["one", "two"], CODE_BYTES_MAX - 8).is_ok());
        let complaint = "two is refused: Unzipped size must be smaller than 262144000 bytes";
        assert_eq!(merged(&["one", "two"], CODE_BYTES_MAX - 7), Err(complaint.into()));
        assert_eq!(merged(&["one", "three"], 0), Err("three is not a directory".into()));
        assert!(merged(&["none"], 0).is_err_and(|error| error.starts_with("none is missing: ")));
    }
}
