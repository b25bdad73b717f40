//! Keeping the host's functions in step with the disk: at start, when a folder changes, when told.

use std::cell::Cell;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::watch::{Changes, Watch};
use crate::function::store::{Found, Store};
use crate::host::Host;
use crate::host::catalog::Source;
use crate::limits::{CHANGE_AT_MOST_MS, CHANGE_QUIET_MS, LOOK_AGAIN_MS};

/// Asks the loader to look at everything again.
#[derive(Default)]
pub struct Reload {
    asked: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Reload {
    /// Asks.
    pub fn ask(&self) {
        self.asked.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn asked(&self) {
        poll_fn(|cx| {
            if self.asked.replace(false) {
                return Poll::Ready(());
            }
            self.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Loads functions, for ever.
pub async fn run(host: Rc<Host>, store: Rc<Store>, folders: Option<PathBuf>, reload: Rc<Reload>) {
    let mut watch = folders.as_deref().and_then(|root| match Watch::new(&host.reactor, root) {
        Ok(watch) => Some(watch),
        Err(error) => {
            log::warn!("watch {}: {error}; send SIGHUP after changes", root.display());
            None
        }
    });
    let mut changes = Changes { all: true, names: Vec::new() };
    loop {
        if let Some(watch) = &mut watch {
            // Before the look, so that what changes during it is seen.
            for name in watched(&changes, folders.as_deref()) {
                watch.add_function(&name);
            }
        }
        let seen = look(&host, &store, folders.as_deref(), &changes).await;
        host.loaded();
        if !seen {
            // For want of memory or processes, most likely: what changed is still to be read.
            host.reactor.sleep_ms(LOOK_AGAIN_MS).await;
            continue;
        }
        let told = async {
            reload.asked().await;
            Changes { all: true, names: Vec::new() }
        };
        let seen = async {
            match &mut watch {
                Some(watch) => watch.changed(CHANGE_QUIET_MS, CHANGE_AT_MOST_MS).await,
                None => std::future::pending().await,
            }
        };
        changes = smol::future::or(told, seen).await;
    }
}

/// The folders to watch: those that changed, or all there are.
fn watched(changes: &Changes, folders: Option<&Path>) -> Vec<String> {
    let Some(root) = folders.filter(|_| changes.all) else { return changes.names.clone() };
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Brings the host up to what the disk says; false if that could not be read.
async fn look(host: &Rc<Host>, store: &Store, folders: Option<&Path>, changes: &Changes) -> bool {
    let _change = host.changes.lock().await;
    host.discard_unused(store.data()).await;
    let data = store.data().display().to_string();
    let root = folders.map_or_else(|| "-".to_owned(), |root| root.display().to_string());
    let mut arguments = vec!["scan", &data, &root];
    if !changes.all {
        arguments.extend(changes.names.iter().map(String::as_str));
    }
    let found = match host.helper(&arguments).await {
        Ok(text) => text.lines().filter_map(parse).collect::<Vec<Found>>(),
        Err(error) => {
            log::error!("read functions: {error}");
            return false;
        }
    };
    for found in &found {
        apply(host, store, folders, found, &found_folder(folders, &found.name));
    }
    let gone: Vec<Rc<str>> = {
        let catalog = host.catalog.borrow();
        let is_gone = |name: &str| !found.iter().any(|found| found.name == name);
        let looked_at = |name: &str| changes.all || changes.names.iter().any(|n| n == name);
        let folders = catalog.functions().iter().filter(|f| matches!(f.source, Source::Folder(_)));
        folders
            .filter(|f| looked_at(&f.name) && is_gone(&f.name))
            .map(|f| Rc::clone(&f.name))
            .collect()
    };
    for name in gone {
        log::info!("function {name}: its folder is gone");
        host.remove(&name);
    }
    true
}

fn found_folder(folders: Option<&Path>, name: &str) -> PathBuf {
    folders.map(|root| root.join(name)).unwrap_or_default()
}

/// Puts one function in force, unless it is already.
fn apply(host: &Rc<Host>, store: &Store, folders: Option<&Path>, found: &Found, folder: &Path) {
    let source = if found.pushed { Source::Pushed } else { Source::Folder(folder.to_owned()) };
    let name = &found.name;
    let (same, shadowed) = {
        let catalog = host.catalog.borrow();
        let known = catalog.function(name);
        let code = found.code.as_ref().ok().map(|digest| store.code(digest));
        let same = known.is_some_and(|known| {
            let serving = known.state.as_ref().ok().map(|version| &version.code);
            known.source == source && serving.is_some() && serving == code.as_ref()
        });
        let has_folder = |root: &Path| root.join(name).join("function.toml").exists();
        (same, found.pushed && folders.is_some_and(has_folder))
    };
    if shadowed {
        log::warn!("function {name}: pushed, but there is a folder of that name, which counts");
        return;
    }
    if same {
        return;
    }
    let function = match &found.code {
        Ok(digest) => host.load(name, source, &store.code(digest)),
        Err(why) => host.refused(name, source, why.clone()),
    };
    host.install(function);
}

/// Reads a line of `helper scan`; the counterpart is [`print()`].
fn parse(line: &str) -> Option<Found> {
    let mut fields = line.splitn(4, '\t');
    let pushed = fields.next()? == "pushed";
    let name = fields.next()?.to_owned();
    let good = fields.next()? == "ok";
    let text = fields.next()?.to_owned();
    Some(Found { name, pushed, code: if good { Ok(text) } else { Err(text) } })
}

/// A line of `helper scan`.
pub fn print(found: &Found) -> String {
    let source = if found.pushed { "pushed" } else { "folder" };
    let (verdict, text) = match &found.code {
        Ok(digest) => ("ok", digest.as_str()),
        Err(why) => ("bad", why.as_str()),
    };
    let clean = |text: &str| text.replace(['\t', '\n'], " ");
    format!("{source}\t{}\t{verdict}\t{}", clean(&found.name), clean(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_scan_read_back() {
        for found in [
            Found { name: "a".into(), pushed: false, code: Ok("d1".into()) },
            Found { name: "b".into(), pushed: true, code: Err("bad\tluck".into()) },
        ] {
            let read = parse(&print(&found)).expect("a line");
            let expected = Found { code: found.code.map_err(|e| e.replace('\t', " ")), ..found };
            assert_eq!(read, expected);
        }
        assert_eq!(parse("nonsense"), None);
    }
}
