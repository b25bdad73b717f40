//! Zips: unpacked so that nothing they say can reach outside the directory they go to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use super::tree::{Sum, Trouble, stays_inside};
use crate::limits::{CODE_DEPTH_MAX, CODE_FILES_MAX};

/// Lambda's words for what is no zip, or none that can be taken.
pub const BAD_ZIP: &str =
    "Could not unzip uploaded file. Please check your file, then try to upload again.";

/// Links that lead to links that lead to links: as many as Linux follows.
const LINKS_FOLLOWED_MAX: usize = 40;

fn bad(what: impl std::fmt::Display) -> Trouble {
    Trouble::BadZip(format!("{BAD_ZIP} ({what})"))
}

/// Unpacks `zip`, which may hold `bytes_max` bytes of content, into the empty directory `to`.
/// Returns the digest of what that holds then.
pub fn unpack(zip: &Path, to: &Path, bytes_max: u64) -> Result<String, Trouble> {
    let mut file = File::open(zip)?;
    if says_too_many(&mut file)? {
        return Err(Trouble::TooMany);
    }
    let said = says_how_many(&mut file)?;
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    if archive.len() > CODE_FILES_MAX {
        return Err(Trouble::TooMany);
    }
    // The reader keeps one entry of each name, whichever comes last.
    if said.is_some_and(|said| usize::from(said) != archive.len()) {
        return Err(bad("a name comes twice"));
    }
    // In the order of paths, so that the digest is that of the content and not of the zip.
    let mut entries: Vec<(PathBuf, usize)> = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(bad)?;
        entries.push((checked_path(&entry.name().map_err(bad)?)?, index));
    }
    entries.sort();
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(bad(format_args!("{} comes twice", pair[0].0.display())));
    }
    let mut sum = Sum::new(bytes_max);
    let mut links = BTreeMap::new();
    for (path, index) in entries {
        let mut entry = archive.by_index(index).map_err(bad)?;
        let target = to.join(&path);
        if entry.is_dir() {
            make_directories(&mut sum, to, &path)?;
            continue;
        }
        if let Some(parent) = path.parent() {
            make_directories(&mut sum, to, parent)?;
        }
        // File type and permissions as Unix zips carry them; without them a plain file.
        let mode = entry.unix_mode().unwrap_or(0o644);
        match mode & 0o170_000 {
            0 | 0o100_000 => {
                take_file(&mut sum, &path, mode & 0o111 != 0, &mut entry, &target)?;
            }
            0o120_000 => {
                let mut text = String::new();
                entry.by_ref().take(4096).read_to_string(&mut text).map_err(bad)?;
                let link = PathBuf::from(text);
                if !stays_inside(&path, &link) {
                    return Err(bad(format_args!("link {} leads out", path.display())));
                }
                sum.link(&path, &link);
                links.insert(path, link);
            }
            _ => return Err(bad(format_args!("{} is not a plain file", path.display()))),
        }
    }
    // One alone stays inside; through another one it might not.
    if let Some(path) = links.keys().find(|path| !leads_inside(path, &links)) {
        return Err(bad(format_args!("link {} leads out", path.display())));
    }
    // Links come last: nothing is ever written through one.
    for (path, link) in &links {
        let target = to.join(path);
        symlink(link, &target).map_err(|error| Trouble::Io(target, error))?;
    }
    Ok(sum.digest())
}

/// True if a zip says that it holds more entries than a function may have. Only the record of
/// large zips can: it is looked for before the reader keeps something of every entry.
fn says_too_many(zip: &mut File) -> std::io::Result<bool> {
    // Its signature; where the disk's number, the entries of this disk, and all entries stand. The
    // reader takes only records of one disk.
    const SIGNATURE: &[u8] = b"PK\x06\x06";
    const LENGTH: usize = 40;
    let says = |record: &[u8]| {
        let one_disk = record[16..20] == [0; 4] && record[24..32] == record[32..40];
        let entries = record[32..40].try_into().map_or(0, u64::from_le_bytes);
        record.starts_with(SIGNATURE) && one_disk && entries > CODE_FILES_MAX as u64
    };
    let mut bytes = Vec::new();
    while zip.by_ref().take(64 * 1024).read_to_end(&mut bytes)? > 0 {
        if bytes.windows(LENGTH).any(says) {
            return Ok(true);
        }
        // A record may go on in the next piece.
        bytes.drain(..bytes.len().saturating_sub(LENGTH - 1));
    }
    zip.rewind()?;
    Ok(false)
}

/// Unpacks a file. What cannot be read of it is the zip's fault, and not the disk's.
fn take_file(
    sum: &mut Sum,
    path: &Path,
    executable: bool,
    entry: &mut impl Read,
    target: &Path,
) -> Result<(), Trouble> {
    match sum.file(path, executable, entry, target) {
        // It is named as it is in the zip, and the disk's by its place.
        Err(Trouble::Io(place, error)) if place == path => Err(bad(error)),
        taken => taken,
    }
}

/// How many entries a zip says that it holds; `None` if only the record of large zips can tell.
fn says_how_many(zip: &mut File) -> std::io::Result<Option<u16>> {
    // The record at the end: its signature, and where the number of all entries stands. Behind it
    // is nothing but a comment.
    const SIGNATURE: &[u8] = b"PK\x05\x06";
    const LENGTH: usize = 22;
    const COMMENT_MAX: usize = 0xFFFF;
    let length = zip.metadata()?.len();
    zip.seek(SeekFrom::Start(length.saturating_sub((LENGTH + COMMENT_MAX) as u64)))?;
    let mut tail = Vec::new();
    zip.by_ref().take((LENGTH + COMMENT_MAX) as u64).read_to_end(&mut tail)?;
    zip.rewind()?;
    let record = tail.windows(LENGTH).rev().find(|record| record.starts_with(SIGNATURE));
    let entries = record.map(|record| u16::from_le_bytes([record[10], record[11]]));
    Ok(entries.filter(|entries| *entries != u16::MAX))
}

/// True if the link at `path` leads to a place inside, through all `links` on its way, whether
/// something is there or not.
fn leads_inside(path: &Path, links: &BTreeMap<PathBuf, PathBuf>) -> bool {
    let mut place = PathBuf::new();
    let mut rest: Vec<Component<'_>> = path.components().rev().collect();
    let mut followed = 0;
    while let Some(part) = rest.pop() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::ParentDir if place.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
        if matches!(part, Component::Normal(_))
            && let Some(target) = links.get(&place)
        {
            followed += 1;
            if followed > LINKS_FOLLOWED_MAX {
                return false;
            }
            place.pop();
            rest.extend(target.components().rev());
        }
    }
    true
}

/// The path of an entry, if it is one below the directory it goes to.
fn checked_path(name: &str) -> Result<PathBuf, Trouble> {
    let parts: Vec<&str> =
        name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let evil = name.starts_with('/') || name.contains(['\0', '\\']) || parts.contains(&"..");
    if evil || parts.is_empty() {
        return Err(bad(format_args!("entry {name:?} has no place here")));
    }
    if parts.len() > CODE_DEPTH_MAX {
        return Err(Trouble::TooDeep);
    }
    Ok(parts.iter().collect())
}

/// Creates the directories down to `path`, as far as they are missing.
fn make_directories(sum: &mut Sum, to: &Path, path: &Path) -> Result<(), Trouble> {
    let mut so_far = PathBuf::new();
    for part in path.components() {
        so_far.push(part);
        let directory = to.join(&so_far);
        match fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(bad(format_args!("{} is not a directory", so_far.display()))),
            Err(_) => {
                sum.directory(&so_far)?;
                fs::create_dir(&directory).map_err(|error| Trouble::Io(directory, error))?;
            }
        }
    }
    Ok(())
}

/// Packs a folder into a zip, as `hob push` sends it: stored, since it goes over a local socket.
pub fn pack(folder: &Path, zip: &mut File) -> Result<(), Trouble> {
    let staged = tempdir()?;
    let result = super::tree::copy(folder, &staged).and_then(|_| pack_tree(&staged, zip));
    super::tree::remove(&staged)?;
    result
}

/// A directory of one's own under a name that nobody can foresee, removed by its maker.
fn tempdir() -> Result<PathBuf, Trouble> {
    let name = format!("hob-push-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let path = std::env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

fn pack_tree(root: &Path, zip: &mut File) -> Result<(), Trouble> {
    use std::os::unix::fs::MetadataExt;
    use zip::write::SimpleFileOptions;
    let mut writer = zip::ZipWriter::new(zip);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(root.join(&folder))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let relative = folder.join(entry.file_name());
            let Some(name) = relative.to_str() else {
                return Err(bad(format_args!("{} is not UTF-8", relative.display())));
            };
            let metadata = fs::symlink_metadata(entry.path())?;
            let options = SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Stored)
                .large_file(false)
                .unix_permissions(metadata.mode() & 0o777);
            if metadata.is_dir() {
                writer.add_directory(name, options).map_err(bad)?;
                folders.push(relative);
            } else if metadata.is_symlink() {
                let target = fs::read_link(entry.path())?;
                writer.add_symlink(name, target.display().to_string(), options).map_err(bad)?;
            } else {
                writer.start_file(name, options).map_err(bad)?;
                std::io::copy(&mut File::open(entry.path())?, &mut writer)?;
            }
        }
    }
    writer.finish().map_err(bad)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use zip::write::SimpleFileOptions;

    fn zip_of(entries: &[(&str, u32, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut writer = zip::ZipWriter::new(file.reopen().expect("a handle"));
        for (name, mode, content) in entries {
            let options = SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Deflated)
                .unix_permissions(*mode);
            if mode & 0o170_000 == 0o120_000 {
                let target = String::from_utf8_lossy(content);
                writer.add_symlink(*name, target, options).expect("a link");
            } else {
                writer.start_file(*name, options).expect("an entry");
                writer.write_all(content).expect("written");
            }
        }
        writer.finish().expect("finished");
        file
    }

    fn unpacked(entries: &[(&str, u32, &[u8])]) -> (tempfile::TempDir, Result<String, Trouble>) {
        let to = tempfile::tempdir().expect("a folder");
        let result = unpack(zip_of(entries).path(), to.path(), 10_000);
        (to, result)
    }

    #[test]
    fn zips_from_real_life_unpack() {
        let (to, result) = unpacked(&[
            ("lib/deep/data", 0o644, b"content"),
            ("bootstrap", 0o755, b"#!/bin/sh\n"),
            ("link", 0o120_777, b"lib/deep/data"),
            ("lib64", 0o120_777, b"lib"),
            ("through", 0o120_777, b"lib64/deep/../deep/data"),
            ("nowhere", 0o120_777, b"lib64/nothing"),
        ]);
        result.expect("unpacked");
        let path = |name: &str| to.path().join(name);
        for link in ["link", "through"] {
            assert_eq!(fs::read_to_string(path(link)).expect("there"), "content");
        }
        let mode = fs::metadata(path("bootstrap")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn zips_that_reach_out_are_refused() {
        for entries in [
            &[("../evil", 0o644, &b"x"[..])][..],
            &[("/etc/evil", 0o644, b"x")],
            &[("a/../../evil", 0o644, b"x")],
            &[("a\\..\\evil", 0o644, b"x")],
            &[("link", 0o120_777, b"/etc/passwd")],
            &[("link", 0o120_777, b"../outside")],
            &[("a", 0o644, b"x"), ("./a", 0o644, b"y")],
            &[("a", 0o644, b"x"), ("a/b", 0o644, b"y")],
            // Each of the two stays inside, by what it says.
            &[
                ("a/b/c/f", 0o644, b"x"),
                ("a/b/c/s", 0o120_777, b"../../.."),
                ("a/b/t", 0o120_777, b"c/s/.."),
            ],
            // Nothing need be there yet.
            &[
                ("a/b/c/f", 0o644, b"x"),
                ("a/b/c/s", 0o120_777, b"../../.."),
                ("a/b/t", 0o120_777, b"c/s/../nothing/here"),
            ],
            &[("circle", 0o120_777, b"circle")],
        ] {
            let (to, result) = unpacked(entries);
            assert!(result.is_err(), "{:?}", entries[0].0);
            let beside = to.path().parent().expect("a parent").join("evil");
            assert!(!beside.exists());
        }
        let to = tempfile::tempdir().expect("a folder");
        let garbage = tempfile::NamedTempFile::new().expect("a file");
        fs::write(garbage.path(), b"PK nonsense").expect("written");
        let trouble = unpack(garbage.path(), to.path(), 10_000).expect_err("refused").to_string();
        assert!(trouble.starts_with("Could not unzip uploaded file."), "{trouble}");
    }

    #[test]
    fn too_many_entries_are_refused_before_one_is_read() {
        let to = tempfile::tempdir().expect("a folder");
        let record = |entries: u64| {
            let mut record = b"PK\x06\x06".to_vec();
            record.resize(24, 0);
            record.extend([entries.to_le_bytes(), entries.to_le_bytes()].concat());
            record
        };
        let file = tempfile::NamedTempFile::new().expect("a file");
        for before in [0, 64 * 1024 - 20, 200_000] {
            let mut bytes = vec![b'P'; before];
            bytes.extend(record(CODE_FILES_MAX as u64 + 1));
            fs::write(file.path(), &bytes).expect("written");
            let result = unpack(file.path(), to.path(), 10_000);
            assert!(matches!(result, Err(Trouble::TooMany)), "{before}: {result:?}");
        }
        fs::write(file.path(), record(CODE_FILES_MAX as u64)).expect("written");
        let result = unpack(file.path(), to.path(), 10_000);
        assert!(matches!(result, Err(Trouble::BadZip(_))), "{result:?}");
    }

    #[test]
    fn a_bomb_is_stopped_by_what_it_really_holds() {
        let zeros = [0u8; 6_000];
        let (_to, result) = unpacked(&[("a", 0o644, &zeros), ("b", 0o644, &zeros)]);
        assert!(matches!(result, Err(Trouble::TooLarge)), "{result:?}");
    }

    #[test]
    fn what_is_staged_is_nobody_elses() {
        let (one, two) = (tempdir().expect("made"), tempdir().expect("made"));
        assert_ne!(one, two);
        let mode = fs::metadata(&one).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::remove_dir(one).and_then(|()| fs::remove_dir(two)).expect("removed");
    }

    #[test]
    fn a_folder_packs_and_unpacks_to_the_same_code() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("lib")).expect("made");
        fs::write(folder.path().join("lib/x"), "x").expect("written");
        symlink("lib/x", folder.path().join("link")).expect("a link");
        let mut zip = tempfile::tempfile().expect("a file");
        pack(folder.path(), &mut zip).expect("packed");
        let copy = tempfile::tempdir().expect("a folder");
        let (digest, _) = super::super::tree::copy(folder.path(), copy.path()).expect("copied");
        let file = tempfile::NamedTempFile::new().expect("a file");
        zip.rewind().expect("rewound");
        std::io::copy(&mut zip, &mut file.reopen().expect("a handle")).expect("written");
        let to = tempfile::tempdir().expect("a folder");
        assert_eq!(unpack(file.path(), to.path(), 10_000).expect("unpacked"), digest);
    }
}
