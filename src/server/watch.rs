//! Watching function folders: which functions may have changed.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::io::reactor::Interest;
use crate::io::{Io, Reactor};
use crate::limits::WATCHES_MAX;

/// Watches on a directory of function folders, all the way down.
pub struct Watch {
    inotify: Io<OwnedFd>,
    root: PathBuf,
    /// What each watch is on: the function whose folder it belongs to, or `None` for the root.
    watches: BTreeMap<i32, Option<String>>,
    full: bool,
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
            Watch { inotify, root: root.to_owned(), watches: BTreeMap::new(), full: false };
        watch.add(root, None)?;
        Ok(watch)
    }

    fn add(&mut self, directory: &Path, name: Option<&str>) -> std::io::Result<()> {
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
        self.watches.insert(number, name.map(str::to_owned));
        Ok(())
    }

    /// Watches a function's folder and every directory in it, also where links lead out of it.
    pub fn add_function(&mut self, name: &str) {
        let mut directories = vec![self.root.join(name)];
        while !self.full
            && let Some(directory) = directories.pop()
        {
            if let Err(error) = self.add(&directory, Some(name)) {
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
                    && !parent.starts_with(self.root.join(name))
                    && let Err(error) = self.add(&parent, Some(name))
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
    watches: &mut BTreeMap<i32, Option<String>>,
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
    let file = file.and_then(|name| name.to_str().ok());
    let name = match (watches.get(&watch), file) {
        (Some(Some(name)), _) => name.clone(),
        (Some(None), Some(file)) => file.to_owned(),
        (Some(None), None) | (None, _) => return,
    };
    if !changes.names.contains(&name) {
        changes.names.push(name);
    }
}
