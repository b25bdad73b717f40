//! Watching function folders: which functions may have changed.

use std::ffi::OsString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use litemap::LiteMap;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::function::layer;
use crate::io::reactor::Interest;
use crate::io::{Io, Reactor};
use crate::limits::WATCHES_MAX;

/// Watches on a directory of function folders, all the way down.
pub struct Watch {
    inotify: Io<OwnedFd>,
    root: PathBuf,
    /// What each watch is for: one directory may be watched for several functions.
    watches: LiteMap<i32, Vec<For>>,
    full: bool,
}

/// What a directory is watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum For {
    /// It is the root: its directories are functions.
    Functions,
    /// All of it is this function's.
    All(String),
    /// This function needs the file or directory of this name in it.
    File(String, OsString),
}

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These functions.
    pub names: Vec<String>,
    /// More than could be told: look at everything.
    pub all: bool,
}

impl Watch {
    /// Watches `root`, and nothing below it yet.
    pub fn new(reactor: &Rc<Reactor>, root: &Path) -> std::io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let inotify = Io::new(reactor, inotify)?;
        let mut watch =
            Watch { inotify, root: root.to_owned(), watches: LiteMap::new(), full: false };
        watch.add(root, For::Functions)?;
        Ok(watch)
    }

    fn add(&mut self, directory: &Path, wanted: For) -> std::io::Result<()> {
        if self.watches.len() >= WATCHES_MAX {
            if !std::mem::replace(&mut self.full, true) {
                let root = self.root.display();
                log::warn!(
                    "watch {root}: too many directories, send SIGHUP after changes below them"
                );
            }
            return Ok(());
        }
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let number = inotify::add_watch(self.inotify.get(), directory, flags)?;
        let all = self.watches.entry(number).or_default();
        if !all.contains(&wanted) {
            all.push(wanted);
        }
        Ok(())
    }

    /// Watches a function's folder and every directory in it, also where links lead out of it, and
    /// the same of its layers.
    pub fn add_function(&mut self, name: &str) {
        let folder = self.root.join(name);
        self.add_tree(&folder, name);
        for layer in layer::folders(&folder) {
            self.add_place(&layer, name);
            self.add_tree(&layer, name);
        }
    }

    /// Watches for the coming and going of a directory outside of the function's folder.
    fn add_place(&mut self, path: &Path, name: &str) {
        for path in path.ancestors() {
            let (Some(parent), Some(file)) = (path.parent(), path.file_name()) else { return };
            if parent.is_dir() {
                let wanted = For::File(name.to_owned(), file.to_owned());
                if let Err(error) = self.add(parent, wanted) {
                    log::debug!("watch {}: {error}", parent.display());
                }
                return;
            }
        }
    }

    fn add_tree(&mut self, tree: &Path, name: &str) {
        let mut directories = vec![tree.to_owned()];
        let real = fs::canonicalize(tree).unwrap_or_else(|_| tree.to_owned());
        while !self.full
            && let Some(directory) = directories.pop()
        {
            if let Err(error) = self.add(&directory, For::All(name.to_owned())) {
                log::debug!("watch {}: {error}", directory.display());
                continue;
            }
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() && entry.file_name() != ".git" {
                    directories.push(entry.path());
                } else if kind.is_symlink()
                    && let Ok(target) = fs::read_link(entry.path())
                    && let Some(parent) = directory.join(target).parent()
                    && let Ok(parent) = fs::canonicalize(parent)
                    && !parent.starts_with(&real)
                    && let Err(error) = self.add(&parent, For::All(name.to_owned()))
                {
                    // What it leads to need not be there yet: then its coming is seen.
                    log::debug!("watch {}: {error}", parent.display());
                }
            }
        }
    }

    /// Waits until something may have changed and nothing has for a moment, so that a folder that
    /// is being copied is looked at once it is whole.
    pub async fn changed(&mut self, quiet_ms: u32, at_most_ms: u32) -> Changes {
        let mut changes = Changes::default();
        self.inotify.ready(Interest::Read).await;
        let reactor = Rc::clone(self.inotify.reactor());
        let end = reactor.now().after_ms(at_most_ms);
        loop {
            self.collect(&mut changes);
            let quiet = reactor.now().after_ms(quiet_ms).min(end);
            let more = reactor.by(quiet, self.inotify.ready(Interest::Read)).await;
            if more.is_none() || reactor.now() >= end {
                return changes;
            }
        }
    }

    fn collect(&mut self, changes: &mut Changes) {
        let mut space = [MaybeUninit::<u8>::uninit(); 4096];
        loop {
            let watches = &mut self.watches;
            let read = self.inotify.attempt(Interest::Read, |fd| {
                let mut reader = inotify::Reader::new(fd, &mut space);
                // The first call reads a buffer full of events, the others take them from there.
                loop {
                    let event = reader.next()?;
                    note(watches, changes, event.wd(), event.events(), event.file_name());
                    if reader.is_buffer_empty() {
                        return Ok(());
                    }
                }
            });
            match read {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return,
                Err(error) => {
                    log::warn!("watch function folders: {error}");
                    changes.all = true;
                    return;
                }
            }
        }
    }
}

fn note(
    watches: &mut LiteMap<i32, Vec<For>>,
    changes: &mut Changes,
    watch: i32,
    events: ReadFlags,
    file: Option<&std::ffi::CStr>,
) {
    if events.contains(ReadFlags::QUEUE_OVERFLOW) {
        changes.all = true;
        return;
    }
    if events.contains(ReadFlags::IGNORED) {
        watches.remove(&watch);
        return;
    }
    for wanted in watches.get(&watch).into_iter().flatten() {
        let name = match (wanted, file) {
            (For::All(name), _) => Some(name.as_str()),
            (For::Functions, Some(file)) => file.to_str().ok(),
            (For::File(name, wanted), Some(file)) => {
                (wanted.as_bytes() == file.to_bytes()).then_some(name.as_str())
            }
            (For::Functions | For::File(..), None) => None,
        };
        if let Some(name) = name
            && !changes.names.iter().any(|known| known == name)
        {
            changes.names.push(name.to_owned());
        }
    }
}
