//! Keeping the host's functions in step with the disk: at start, when a folder changes, when told.

use std::cell::Cell;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::watch::{Changes, Watch};
use crate::function::name::is_built_in;
use crate::function::record::FunctionRecord;
use crate::function::store::{Content, Found, Part, Store};
use crate::host::Host;
use crate::host::catalog::Source;
use crate::limits::{
    CHANGE_AT_MOST_MS, CHANGE_QUIET_MS, HELPER_REPLY_MAX, LOOK_AGAIN_MS, LOOK_AGAIN_MS_MAX,
};

/// Asks the loader to look at everything again, and tells when it first has.
#[derive(Default)]
pub struct Reload {
    asked: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// Everything was read at least once, without a mishap; who waits for that.
    read: Cell<bool>,
    reader: Cell<Option<Waker>>,
}

impl Reload {
    /// Asks.
    pub fn ask(&self) {
        self.asked.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits until everything was read once, for who must not serve less than that.
    pub async fn read(&self) {
        poll_fn(|cx| {
            if self.read.get() {
                return Poll::Ready(());
            }
            self.reader.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn has_read(&self) {
        self.read.set(true);
        if let Some(waker) = self.reader.take() {
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
    let mut watch = None;
    let mut unwatched = String::new();
    let mut unread = String::new();
    let mut again_ms = LOOK_AGAIN_MS;
    let mut changes = Changes { all: true, names: Vec::new() };
    loop {
        if watch.is_none() {
            // A directory that is not there yet may be at the next look.
            watch = start_watch(&host, folders.as_deref(), &mut unwatched);
        }
        if let Some(watch) = &mut watch {
            // Before the look, so that what changes during it is seen.
            for name in watched(&changes, folders.as_deref()) {
                watch.add_function(&name);
            }
        }
        let looked = look(&host, &store, folders.as_deref(), &changes).await;
        host.loaded();
        let told = async {
            reload.asked().await;
            Changes { all: true, names: Vec::new() }
        };
        if let Err(error) = looked {
            // What changed is still to be read; what changes meanwhile, the watch keeps.
            if error != unread {
                log::error!("read functions: {error}");
                unread = error;
            }
            let until = host.reactor.now().after_ms(again_ms);
            again_ms = again_ms.saturating_mul(2).min(LOOK_AGAIN_MS_MAX);
            if let Some(all) = host.reactor.by(until, told).await {
                changes = all;
            }
            continue;
        }
        reload.has_read();
        unread.clear();
        again_ms = LOOK_AGAIN_MS;
        let seen = async {
            match &mut watch {
                Some(watch) => watch.changed(CHANGE_QUIET_MS, CHANGE_AT_MOST_MS).await,
                None => std::future::pending().await,
            }
        };
        changes = smol::future::or(told, seen).await;
    }
}

/// Begins to watch the folders; complains if that fails in another way than before.
fn start_watch(host: &Host, folders: Option<&Path>, before: &mut String) -> Option<Watch> {
    let root = folders?;
    match Watch::new(&host.reactor, root) {
        Ok(watch) => Some(watch),
        Err(error) => {
            let error = error.to_string();
            if error != *before {
                log::warn!("watch {}: {error}; send SIGHUP after changes", root.display());
                *before = error;
            }
            None
        }
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

/// Brings the host up to what the disk says; the error is why that could not be read.
async fn look(
    host: &Rc<Host>,
    store: &Store,
    folders: Option<&Path>,
    changes: &Changes,
) -> Result<(), String> {
    let _change = host.changes.lock().await;
    host.discard_unused(store.data()).await;
    let data = store.data().display().to_string();
    let root = folders.map_or_else(|| "-".to_owned(), |root| root.display().to_string());
    let mut arguments = vec!["scan", &data, &root];
    if !changes.all {
        arguments.extend(changes.names.iter().map(String::as_str));
    }
    let (found, is_whole) = read(&host.helper(&arguments).await?);
    // Folders that changed or went may leave code that no version ever ran.
    host.has_unused();
    for found in &found {
        apply(host, store, folders, found, &found_folder(folders, &found.name));
    }
    if !is_whole {
        let last = found.last().map_or("the first", |found| &found.name);
        log::warn!("read functions: too many; what comes after {last} stays as it was");
        return Ok(());
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
    Ok(())
}

fn found_folder(folders: Option<&Path>, name: &str) -> PathBuf {
    folders.map(|root| root.join(name)).unwrap_or_default()
}

/// Puts one function in force, unless it is already.
fn apply(host: &Rc<Host>, store: &Store, folders: Option<&Path>, found: &Found, folder: &Path) {
    let source = if found.pushed { Source::Pushed } else { Source::Folder(folder.to_owned()) };
    let name = &found.name;
    if is_built_in(name) {
        let why = format!("{}: the name is that of a built-in function", folder.display());
        return host.install(host.refused(name, source, why));
    }
    let (same, shadowed) = {
        let catalog = host.catalog.borrow();
        let known = catalog.function(name);
        let place = |content: &Content| {
            (store.code(&content.code), content.layers.as_ref().map(|d| store.layers(d)))
        };
        let there = found.content.as_ref().ok().map(place);
        let same = known.is_some_and(|known| {
            let serving = known.state.as_ref().ok();
            let serving = serving.map(|version| (version.code.clone(), version.layers.clone()));
            known.source == source && serving.is_some() && serving == there
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
    if is_built_in(name) {
        let why = format!("{}: the name is that of a built-in function", folder.display());
        return host.install(host.refused(name, source, why));
    }
    let record = store.record::<FunctionRecord>(Part::Functions, name);
    let function = match (&found.content, record) {
        (Ok(Content { code, layers }), Ok(record)) => {
            let layers = layers.as_ref().map(|digest| store.layers(digest));
            host.load(name, source, (&store.code(code), layers), record.as_ref())
        }
        (Ok(_), Err(error)) => {
            host.refused(name, source, format!("its record cannot be read: {error}"))
        }
        (Err(why), _) => host.refused(name, source, why.clone()),
    };
    host.install(function);
    host.provision(store, name);
}

/// Reads what `helper scan` printed; and whether that is all that it had to say.
fn read(text: &str) -> (Vec<Found>, bool) {
    let is_whole = text.len() < HELPER_REPLY_MAX;
    // A line that was cut off says something else than it did.
    let end = if is_whole { text.len() } else { text.rfind('\n').unwrap_or(0) };
    (text[..end].lines().filter_map(parse).collect(), is_whole)
}

/// Reads a line of `helper scan`; the counterpart is [`print()`].
fn parse(line: &str) -> Option<Found> {
    let mut fields = line.splitn(4, '\t');
    let pushed = fields.next()? == "pushed";
    let name = fields.next()?.to_owned();
    let good = fields.next()? == "ok";
    let text = fields.next()?.to_owned();
    let content = if good {
        let (code, layers) = match text.split_once(' ') {
            Some((code, layers)) => (code.to_owned(), Some(layers.to_owned())),
            None => (text, None),
        };
        Ok(Content { code, layers })
    } else {
        Err(text)
    };
    Some(Found { name, pushed, content })
}

/// A line of `helper scan`.
pub fn print(found: &Found) -> String {
    let source = if found.pushed { "pushed" } else { "folder" };
    let (verdict, text) = match &found.content {
        Ok(Content { code, layers: None }) => ("ok", code.clone()),
        Ok(Content { code, layers: Some(layers) }) => ("ok", format!("{code} {layers}")),
        Err(why) => ("bad", why.clone()),
    };
    let clean = |text: &str| text.replace(['\t', '\n'], " ");
    format!("{source}\t{}\t{verdict}\t{}", clean(&found.name), clean(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_scan_read_back() {
        let content = |layers: Option<&str>| {
            Ok(Content { code: "d1".into(), layers: layers.map(str::to_owned) })
        };
        for found in [
            Found { name: "a".into(), pushed: false, content: content(None) },
            Found { name: "l".into(), pushed: false, content: content(Some("d2")) },
            Found { name: "b".into(), pushed: true, content: Err("bad\tluck".into()) },
        ] {
            let read = parse(&print(&found)).expect("a line");
            let content = found.content.map_err(|error| error.replace('\t', " "));
            let expected = Found { content, ..found };
            assert_eq!(read, expected);
        }
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_scan_that_was_cut_off_ends_with_its_last_whole_line() {
        let line = |n: usize| format!("folder\tf{n:05}\tok\t{}\n", "d".repeat(64));
        let whole: String = (0..10).map(line).collect();
        assert_eq!((read(&whole).0.len(), read(&whole).1), (10, true));
        let mut cut: String = (0..HELPER_REPLY_MAX).map(line).take(4_000).collect();
        cut.truncate(HELPER_REPLY_MAX);
        let (found, is_whole) = read(&cut);
        assert!(!is_whole && !cut.ends_with('\n'));
        assert_eq!(found.len(), cut.lines().count() - 1);
        let content = Content { code: "d".repeat(64), layers: None };
        assert!(found.iter().all(|found| found.content.as_ref() == Ok(&content)));
    }
}
