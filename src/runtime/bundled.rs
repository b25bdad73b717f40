//! The runtimes that are part of hob: the sources of the Python and Node bootstraps, and where
//! they are on disk.
//!
//! ```text
//! DATA/runtime/DIGEST/python/   what `python3.*` workers run, and may import
//! DATA/runtime/DIGEST/node/     what `nodejs*` workers run
//! ```
//!
//! A directory is written once, whole, by a helper. Another hob brings another one, and the old one
//! stays as long as a server may still start workers from it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::function::tree;

/// Path below the directory, and content.
type Source = (&'static str, &'static str);

const SOURCES: &[Source] = &[
    ("python/bootstrap.py", include_str!("python/bootstrap.py")),
    ("python/awslambdaric/__init__.py", include_str!("python/awslambdaric/__init__.py")),
    (
        "python/awslambdaric/lambda_context.py",
        include_str!("python/awslambdaric/lambda_context.py"),
    ),
    ("python/hob/__init__.py", include_str!("python/hob/__init__.py")),
    ("python/hob/_after.py", include_str!("python/hob/_after.py")),
    ("python/hob/_encode.py", include_str!("python/hob/_encode.py")),
    ("python/hob/_environment.py", include_str!("python/hob/_environment.py")),
    ("python/hob/_errors.py", include_str!("python/hob/_errors.py")),
    ("python/hob/_child.py", include_str!("python/hob/_child.py")),
    ("python/hob/_fork.py", include_str!("python/hob/_fork.py")),
    ("python/hob/_handler.py", include_str!("python/hob/_handler.py")),
    ("python/hob/_heap.py", include_str!("python/hob/_heap.py")),
    ("python/hob/_logging.py", include_str!("python/hob/_logging.py")),
    ("python/hob/_logs.py", include_str!("python/hob/_logs.py")),
    ("python/hob/_main.py", include_str!("python/hob/_main.py")),
    ("python/hob/_tmp.py", include_str!("python/hob/_tmp.py")),
    ("python/hob/_worker.py", include_str!("python/hob/_worker.py")),
    ("python/hob/_zygote.py", include_str!("python/hob/_zygote.py")),
    ("python/snapshot_restore_py.py", include_str!("python/snapshot_restore_py.py")),
    ("node/bootstrap.cjs", include_str!("node/bootstrap.cjs")),
    ("node/main.cjs", include_str!("node/main.cjs")),
    ("node/wire.cjs", include_str!("node/wire.cjs")),
    ("node/log.cjs", include_str!("node/log.cjs")),
    ("node/load.cjs", include_str!("node/load.cjs")),
    ("node/invoke.cjs", include_str!("node/invoke.cjs")),
    ("node/store.cjs", include_str!("node/store.cjs")),
    ("node/stream.cjs", include_str!("node/stream.cjs")),
    ("node/imports.cjs", include_str!("node/imports.cjs")),
    ("node/hooks.mjs", include_str!("node/hooks.mjs")),
];

/// Names the sources. FNV-1a: nobody but this project has a hand in them.
const DIGEST: u64 = {
    let mut digest: u64 = 0xcbf2_9ce4_8422_2325;
    let mut n = 0;
    while n < SOURCES.len() {
        let parts = [SOURCES[n].0.as_bytes(), SOURCES[n].1.as_bytes()];
        let mut part = 0;
        while part < parts.len() {
            let mut at = 0;
            while at < parts[part].len() {
                digest = (digest ^ parts[part][at] as u64).wrapping_mul(0x0100_0000_01b3);
                at += 1;
            }
            part += 1;
        }
        n += 1;
    }
    digest
};

/// Where the bootstraps are, for a server with this data directory.
pub fn directory(data: &Path) -> PathBuf {
    data.join("runtime").join(format!("{DIGEST:016x}"))
}

/// Writes them there, unless that was done before.
pub fn install(data: &Path) -> io::Result<()> {
    let place = directory(data);
    if place.is_dir() {
        return Ok(());
    }
    let all = data.join("runtime");
    let new = all.join(".new");
    tree::remove(&new)?;
    for (path, content) in SOURCES {
        let file = new.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&new))?;
        let mut file = File::create(file)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
    }
    tree::sync_directories(&new)?;
    fs::rename(&new, &place)?;
    File::open(&all)?.sync_all()
}

/// Removes those of other builds. Only while no other server runs.
pub fn remove_others(data: &Path) -> io::Result<()> {
    let own = directory(data);
    let Ok(all) = fs::read_dir(data.join("runtime")) else { return Ok(()) };
    for entry in all {
        let path = entry?.path();
        if path != own {
            tree::remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(path: &Path) -> Option<&str> {
        path.extension()?.to_str()
    }

    #[test]
    fn all_of_them_are_in_the_binary() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime");
        let mut places = vec![here.join("python"), here.join("node")];
        while let Some(place) = places.pop() {
            for entry in fs::read_dir(place).expect("a folder").flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&here).expect("below").to_owned();
                if path.is_dir() && !path.ends_with("__pycache__") {
                    places.push(path);
                } else if matches!(ending(&path), Some("py" | "cjs" | "mjs")) {
                    assert!(SOURCES.iter().any(|(path, _)| name == Path::new(path)), "{name:?}");
                }
            }
        }
    }

    #[test]
    fn they_are_written_whole_and_once_and_those_of_another_build_go_when_told() {
        let data = tempfile::tempdir().expect("data");
        let old = data.path().join("runtime/0123456789abcdef/python");
        fs::create_dir_all(&old).expect("made");
        remove_others(data.path()).expect("removed");
        assert!(!old.exists());
        remove_others(&data.path().join("none")).expect("nothing to do");
        fs::create_dir_all(&old).expect("made");
        install(data.path()).expect("installed");
        assert!(old.exists());
        remove_others(data.path()).expect("removed");
        assert!(!old.exists());
        for (path, content) in SOURCES {
            let written = fs::read_to_string(directory(data.path()).join(path)).expect(path);
            assert_eq!(written, *content);
        }
        let changed = directory(data.path()).join(SOURCES[0].0);
        fs::write(&changed, "kept").expect("written");
        install(data.path()).expect("installed");
        assert_eq!(fs::read_to_string(&changed).expect("there"), "kept");
    }
}
