//! Layers that are folders: several trees merged into one, which functions find at `/opt`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::config::FunctionConfig;
use super::tree::{self, Node, Sum, Trouble};
use crate::limits::{CODE_BYTES_MAX, CODE_FILES_MAX, CONFIG_BYTES_MAX};

/// A folder in a function's list of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The file and key that name it, and how: complaints begin with this.
    named: String,
    /// Where it is.
    pub path: PathBuf,
}

/// True if this item of `layers` names a folder, and not a published layer.
pub fn is_folder(layer: &str) -> bool {
    layer.contains('/')
}

/// The layers that are folders, of the function in `folder`. None if its configuration cannot be
/// read: whoever puts the function in force says so.
pub fn of(folder: &Path) -> Vec<Layer> {
    let file = folder.join("function.toml");
    let mut text = String::new();
    // The server looks too, and must not wait for the other end of a pipe.
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&file);
    let read = opened.and_then(|opened| opened.take(CONFIG_BYTES_MAX).read_to_string(&mut text));
    let file = file.display().to_string();
    let Some(config) = read.ok().and_then(|_| FunctionConfig::parse(&file, &text).ok()) else {
        return Vec::new();
    };
    let layer =
        |name: &String| Layer { named: format!("{file}: layers: {name}"), path: folder.join(name) };
    config.layers.iter().filter(|layer| is_folder(layer)).map(layer).collect()
}

impl Layer {
    fn refuse(&self, what: impl std::fmt::Display) -> Trouble {
        Trouble::Layer(format!("{} {what}", self.named))
    }

    /// Refuses what is no directory in words.
    fn check(&self) -> Result<(), Trouble> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(self.refuse("is not a directory")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
                Err(self.refuse(format_args!("is missing: no directory {}", path.display())))
            }
            Err(error) => Err(self.refuse(format_args!("cannot be read: {error}"))),
        }
    }

    fn explain(&self, trouble: Trouble) -> Trouble {
        self.refuse(format_args!("is refused: {trouble}"))
    }
}

/// What layers look like from outside, as [`tree::fingerprint`] has it.
pub fn fingerprint(layers: &[Layer]) -> Result<String, Trouble> {
    let mut looks = String::new();
    for layer in layers {
        layer.check()?;
        looks += "-";
        looks += &tree::fingerprint(&layer.path).map_err(|trouble| layer.explain(trouble))?;
    }
    Ok(looks)
}

/// Copies layers into the empty directory `to`, later ones over earlier ones, and returns the
/// digest of what it holds then. All of them together may have as many bytes as `code` leaves.
pub fn merge(layers: &[Layer], to: &Path, code: u64) -> Result<String, Trouble> {
    let mut merged: BTreeMap<PathBuf, (PathBuf, Node)> = BTreeMap::new();
    let mut bytes = code;
    for layer in layers {
        layer.check()?;
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
        tree::walk(&layer.path, &mut visit).map_err(|trouble| layer.explain(trouble))?;
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
        let layer = |name: &&str| Layer { named: (*name).to_owned(), path: root.join(name) };
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
        assert_eq!(of(root.path()), []);
        fs::remove_file(&toml).expect("removed");
        symlink("/dev/zero", &toml).expect("a link");
        assert_eq!(of(root.path()), []);
        fs::remove_file(&toml).expect("removed");
        fs::write(&toml, "runtime = \"provided\"\nlayers = [\"../a\", \"b:1\", \"/c\"]")
            .expect("ok");
        let paths: Vec<PathBuf> = of(root.path()).into_iter().map(|layer| layer.path).collect();
        assert_eq!(paths, [root.path().join("../a"), PathBuf::from("/c")]);
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
