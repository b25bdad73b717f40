//! The store, on a real disk.

use std::fs;

use super::*;
use crate::function::record::{
    CodeRecord, FunctionRecord, LayerRecord, LayerVersionRecord, VersionRecord,
};

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

/// Publishes a version of a layer that has this one file.
fn publish(store: &Store, name: &str, number: u32, file: &str, content: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(file), content).expect("written");
    let zip = store.incoming(1);
    let mut packed = File::create_new(&zip).expect("a file");
    crate::function::package::pack(folder.path(), &mut packed).expect("packed");
    let code = store.unpack(&zip).expect("unpacked");
    let digest = code.digest.clone();
    let version = LayerVersionRecord {
        code,
        description: String::new(),
        created_ms: 0,
        compatible_runtimes: Vec::new(),
        compatible_architectures: Vec::new(),
        license_info: None,
    };
    let version = store.stage(2, &version).expect("staged");
    let record = LayerRecord { next_version: number + 1, ..LayerRecord::default() };
    let record = store.stage(3, &record).expect("staged");
    store.commit(Part::Layers, name, &record, Some((number, &version))).expect("committed");
    digest
}

#[test]
fn published_layers_are_found_by_name_and_stay_where_they_are_used() {
    let (data, root) = (tempfile::tempdir().expect("data"), tempfile::tempdir().expect("root"));
    let store = Store::new(data.path());
    let _lock = store.open().expect("open");
    function(root.path(), "one", "a");
    let toml = root.path().join("one/function.toml");
    let names = |list: &str| {
        let text = format!("runtime = \"exec\"\nhandler = \"run\"\nlayers = [{list}]\n");
        fs::write(&toml, text).expect("written");
    };
    let scan = || store.scan(Some(root.path()), &[]).expect("scanned")[0].content.clone();
    names(r#""deps:1", "../x""#);
    fs::create_dir(root.path().join("x")).expect("made");
    for file in ["x/both", "x/own"] {
        fs::write(root.path().join(file), "x").expect("written");
    }
    let refused = scan().expect_err("nothing is published");
    let part = "function.toml: layers: deps:1 is not published, allowed: folders, published";
    assert!(refused.contains(part), "{refused}");
    let digest = publish(&store, "deps", 1, "both", "deps");
    let read = |content: &Content, name: &str| {
        let merged = store.layers(content.layers.as_deref().expect("merged"));
        fs::read_to_string(merged.join(name)).expect("there")
    };
    assert_eq!(read(&scan().expect("found"), "both"), "x");
    names(r#""../x", "deps:1""#);
    let content = scan().expect("found");
    assert_eq!(read(&content, "both"), "deps");
    names(r#""deps:2""#);
    let refused = scan().expect_err("another version");
    assert!(refused.ends_with("deps:2 is not published, allowed: folders, deps:1"), "{refused}");
    store.discard(&[]).expect("discarded");
    assert!(store.code(&digest).is_dir(), "the layer's version names it");
    names(r#""../x", "deps:1""#);
    store.forget_version(Part::Layers, "deps", 1).expect("deleted");
    store.discard(&[]).expect("discarded");
    assert!(!store.code(&digest).exists(), "nobody names it any more");
    assert_eq!(scan(), Ok(content.clone()), "it goes on working");
    fs::write(root.path().join("one/run"), "b").expect("written");
    let after = scan().expect("with other code too");
    assert_eq!(after.layers, content.layers);
    assert_ne!(after.code, content.code);
    fs::write(root.path().join("x/both"), "y").expect("written");
    assert!(scan().is_err(), "another merge needs it");
}

#[test]
fn published_layers_are_merged_beside_code_that_leaves_room() {
    let data = tempfile::tempdir().expect("data");
    let store = Store::new(data.path());
    let _lock = store.open().expect("open");
    let one = publish(&store, "one", 1, "both", "one");
    let two = publish(&store, "two", 1, "both", "two");
    let code = publish(&store, "code", 1, "run", "");
    let merged = store.merge(&code, &[&one, &two]).expect("merged");
    let read = |digest: &str| fs::read_to_string(store.layers(digest).join("both")).expect("there");
    assert_eq!(read(&merged), "two");
    assert_eq!(read(&store.merge(&code, &[&two, &one]).expect("merged")), "one");
    assert_eq!(store.fit(&code, &merged), Ok(()));
    let run = File::options().write(true).open(store.code(&code).join("run")).expect("open");
    run.set_len(CODE_BYTES_MAX - 6).expect("grown");
    assert!(store.merge(&code, &[&one, &two]).is_ok());
    run.set_len(CODE_BYTES_MAX - 2).expect("grown");
    let too_large = "Unzipped size must be smaller than 262144000 bytes";
    for refused in [store.merge(&code, &[&one]).map(drop), store.fit(&code, &merged)] {
        assert_eq!(refused, Err(Refused::Parameter(too_large.into())));
    }
    assert!(store.layer_version("one", 1).expect("read").is_some());
    fs::write(data.path().join("published/one/2.json"), "cut off").expect("written");
    assert_eq!(store.layer_version("one", 2).expect("not read"), None, "it was never finished");
    assert_eq!(store.layer_versions("one").expect("read"), [1]);
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
