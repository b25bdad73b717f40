//! The store, on a real disk.

use std::fs;

use super::*;
use crate::function::record::{CodeRecord, FunctionRecord, VersionRecord};

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
    let code = CodeRecord { digest: new.clone(), zip: None, size: 1 };
    let latest = VersionRecord {
        code,
        opt: None,
        configuration: None,
        description: String::new(),
        modified_ms: 0,
        revision_id: "r".into(),
    };
    let record = FunctionRecord { latest: Some(latest), ..FunctionRecord::default() };
    let staged = store.stage(2, &record).expect("staged");
    store.commit(Part::Functions, "pushed", &staged, None).expect("committed");
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
    store.forget(Part::Functions, "pushed").expect("forgotten");
    store.forget(Part::Functions, "pushed").expect("twice is fine");
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
