//! Directory trees: copied, hashed, and looked at cheaply to see whether they changed.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::limits::{CODE_BYTES_MAX, CODE_DEPTH_MAX, CODE_FILES_MAX};

/// Why code is not taken in.
#[derive(Debug)]
pub enum Trouble {
    /// The disk, or a permission.
    Io(PathBuf, io::Error),
    /// More than Lambda allows.
    TooLarge,
    /// More files than this store takes.
    TooMany,
    /// Directories in directories in directories.
    TooDeep,
    /// A device, a pipe, a socket.
    NoFile(PathBuf),
    /// A link that leads out of the tree, to where nothing is.
    Dangling(PathBuf, PathBuf),
    /// A layer cannot be used; with the file and key that name it, and what is wrong.
    Layer(String),
    /// It changes faster than it can be read.
    Changing(PathBuf),
    /// Not a zip, or not one that can be unpacked; with what is wrong.
    BadZip(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Io(path, error) if path.as_os_str().is_empty() => write!(f, "{error}"),
            Trouble::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Trouble::TooLarge => {
                write!(f, "Unzipped size must be smaller than {CODE_BYTES_MAX} bytes")
            }
            Trouble::TooMany => write!(f, "more than {CODE_FILES_MAX} files"),
            Trouble::TooDeep => write!(f, "more than {CODE_DEPTH_MAX} directories deep"),
            Trouble::NoFile(path) => write!(f, "{} is not a plain file", path.display()),
            Trouble::Dangling(path, target) => {
                let (path, target) = (path.display(), target.display());
                write!(f, "{path} leads to {target}, which is not there: build it first")
            }
            Trouble::Changing(path) => write!(f, "{} keeps changing", path.display()),
            Trouble::Layer(what) | Trouble::BadZip(what) => write!(f, "{what}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(PathBuf::new(), error)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Trouble + '_ {
    move |error| Trouble::Io(path.to_owned(), error)
}

/// What a tree holds at one path.
pub(super) enum Node {
    Directory,
    File(Metadata),
    /// A link whose target lies inside the tree.
    Link(PathBuf),
}

/// Walks a tree in the order of its paths. Links that lead out of the tree count as what they
/// lead to, so that a function may use a program which is built elsewhere.
pub(super) fn walk(
    root: &Path,
    visit: &mut dyn FnMut(&Path, &Path, Node) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut count = 0;
    descend(root, Path::new(""), &mut count, visit)
}

fn descend(
    directory: &Path,
    relative: &Path,
    count: &mut usize,
    visit: &mut dyn FnMut(&Path, &Path, Node) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if relative.components().count() > CODE_DEPTH_MAX {
        return Err(Trouble::TooDeep);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        names.push(entry.map_err(at(directory))?.file_name());
    }
    names.sort();
    for name in names {
        if name == ".git" {
            continue;
        }
        *count += 1;
        if *count > CODE_FILES_MAX {
            return Err(Trouble::TooMany);
        }
        let (path, relative) = (directory.join(&name), relative.join(&name));
        let mut metadata = fs::symlink_metadata(&path).map_err(at(&path))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(at(&path))?;
            if stays_inside(&relative, &target) {
                visit(&path, &relative, Node::Link(target))?;
                continue;
            }
            metadata =
                fs::metadata(&path).map_err(|_| Trouble::Dangling(path.clone(), target.clone()))?;
        }
        if metadata.is_dir() {
            visit(&path, &relative, Node::Directory)?;
            descend(&path, &relative, count, visit)?;
        } else if metadata.is_file() {
            visit(&path, &relative, Node::File(metadata))?;
        } else {
            return Err(Trouble::NoFile(path));
        }
    }
    Ok(())
}

/// True if a link at `link` (relative to the tree) to `target` does not leave the tree.
pub fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count() - 1;
    for part in target.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// What a tree looks like from outside: names, sizes and times, and no content.
pub fn fingerprint(root: &Path) -> Result<String, Trouble> {
    let mut hash = Sha256::new();
    walk(root, &mut |_, relative, node| {
        hash.update(relative.as_os_str().as_bytes());
        match node {
            Node::Directory => hash.update(b"\0d"),
            Node::Link(target) => {
                hash.update(b"\0l");
                hash.update(target.as_os_str().as_bytes());
            }
            Node::File(metadata) => {
                hash.update(b"\0f");
                let times = [
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                    metadata.ctime(),
                    metadata.ctime_nsec(),
                ];
                for number in times {
                    hash.update(number.to_le_bytes());
                }
                for number in
                    [metadata.len(), metadata.ino(), metadata.dev(), metadata.mode().into()]
                {
                    hash.update(number.to_le_bytes());
                }
            }
        }
        hash.update(b"\0");
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}

/// Bytes of a tree's content.
pub fn size(root: &Path) -> Result<u64, Trouble> {
    let mut bytes = 0u64;
    walk(root, &mut |_, _, node| {
        if let Node::File(metadata) = node {
            bytes = bytes.saturating_add(metadata.len());
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// Copies a tree into the empty directory `to`, and returns the digest of what it holds and how
/// many bytes of content that is.
pub fn copy(root: &Path, to: &Path) -> Result<(String, u64), Trouble> {
    let mut sum = Sum::new(CODE_BYTES_MAX);
    walk(root, &mut |path, relative, node| sum.copy(path, relative, &node, to))?;
    let bytes = sum.bytes;
    Ok((sum.digest(), bytes))
}

/// The digest of a tree under construction, and its size so far.
pub struct Sum {
    hash: Sha256,
    directories: usize,
    bytes: u64,
    bytes_max: u64,
}

impl Sum {
    /// Nothing yet, and at most so many bytes of content.
    pub fn new(bytes_max: u64) -> Sum {
        Sum { hash: Sha256::new(), directories: 0, bytes: 0, bytes_max }
    }

    fn entry(&mut self, kind: u8, path: &Path) {
        let path = path.as_os_str().as_bytes();
        self.hash.update([kind]);
        self.hash.update((path.len() as u64).to_le_bytes());
        self.hash.update(path);
    }

    /// Counts what is at `path`, and copies it to `relative` in the directory `to`.
    pub(super) fn copy(
        &mut self,
        path: &Path,
        relative: &Path,
        node: &Node,
        to: &Path,
    ) -> Result<(), Trouble> {
        let target = to.join(relative);
        match node {
            Node::Directory => {
                self.directory(relative)?;
                fs::create_dir(&target).map_err(at(&target))
            }
            Node::Link(link) => {
                self.link(relative, link);
                symlink(link, &target).map_err(at(&target))
            }
            Node::File(metadata) => {
                let executable = metadata.permissions().mode() & 0o111 != 0;
                let mut source = File::open(path).map_err(at(path))?;
                self.file(relative, executable, &mut source, &target)?;
                // Python's compiled modules name the time of their source: with another one each
                // start would compile them again, since nobody may write them here.
                let copied = File::options().write(true).open(&target).map_err(at(&target))?;
                let modified = metadata.modified().map_err(at(path))?;
                copied.set_modified(modified).map_err(at(&target))
            }
        }
    }

    /// Counts a directory.
    pub fn directory(&mut self, path: &Path) -> Result<(), Trouble> {
        self.entry(b'd', path);
        self.directories += 1;
        if self.directories > CODE_FILES_MAX { Err(Trouble::TooMany) } else { Ok(()) }
    }

    /// Counts a link.
    pub fn link(&mut self, path: &Path, target: &Path) {
        self.entry(b'l', path);
        self.entry(b't', target);
    }

    /// Counts a file, and writes it to `target` for good.
    pub fn file(
        &mut self,
        path: &Path,
        executable: bool,
        source: &mut impl Read,
        target: &Path,
    ) -> Result<(), Trouble> {
        self.entry(if executable { b'x' } else { b'f' }, path);
        let mut file = File::create_new(target).map_err(at(target))?;
        let mut chunk = vec![0; 64 * 1024];
        let mut length = 0u64;
        loop {
            let n = match source.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Trouble::Io(path.to_owned(), error)),
            };
            self.bytes += n as u64;
            length += n as u64;
            if self.bytes > self.bytes_max {
                return Err(Trouble::TooLarge);
            }
            self.hash.update(&chunk[..n]);
            file.write_all(&chunk[..n]).map_err(at(target))?;
        }
        // The length behind the content closes it off against the next entry.
        self.hash.update(length.to_le_bytes());
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(at(target))?;
        file.sync_all().map_err(at(target))
    }

    /// The digest of all that was counted.
    pub fn digest(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// The SHA-256 of a file in hexadecimal, and its size.
pub fn digest_of(file: &Path) -> Result<(String, u64), Trouble> {
    let mut source = File::open(file).map_err(at(file))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let n = source.read(&mut chunk).map_err(at(file))?;
        if n == 0 {
            return Ok((hex(&hash.finalize()), size));
        }
        size += n as u64;
        hash.update(&chunk[..n]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Brings the names in a directory, and in those below it, to the disk: the files are there.
pub fn sync_directories(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// Removes a file or a whole tree; nothing there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_keep_content_execute_bits_and_inner_links() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("tool"), "built elsewhere").expect("written");
        let root = tempfile::tempdir().expect("a folder");
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("lib/deep")).expect("folders");
        fs::write(path("lib/deep/run"), "x").expect("written");
        fs::set_permissions(path("lib/deep/run"), fs::Permissions::from_mode(0o700)).expect("set");
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let file = File::options().append(true).open(path("lib/deep/run")).expect("open");
        file.set_modified(long_ago).expect("set");
        symlink("lib/deep/run", path("inner")).expect("a link");
        symlink(outside.path().join("tool"), path("outer")).expect("a link");
        let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let (digest, bytes) = copy(root.path(), one.path()).expect("copied");
        assert_eq!(bytes, 1 + 15);
        let copied = |name: &str| one.path().join(name);
        let run = fs::metadata(copied("lib/deep/run")).expect("there");
        assert_eq!((run.mode() & 0o777, run.mtime()), (0o755, 1_000_000_000));
        assert!(fs::symlink_metadata(copied("inner")).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(copied("inner")).expect("there"), "x");
        assert!(fs::symlink_metadata(copied("outer")).expect("there").is_file());
        assert_eq!(fs::read_to_string(copied("outer")).expect("there"), "built elsewhere");
        let again = copy(one.path(), two.path()).expect("copied");
        assert_eq!(again.0.len(), digest.len());
        fs::write(path("lib/deep/run"), "y").expect("written");
        let three = tempfile::tempdir().expect("three");
        assert_ne!(copy(root.path(), three.path()).expect("copied").0, digest);
    }

    #[test]
    fn a_dangling_link_that_leads_out_is_told_by_its_path() {
        let root = tempfile::tempdir().expect("a folder");
        symlink("../nothing/here", root.path().join("handler")).expect("a link");
        let to = tempfile::tempdir().expect("a folder");
        let trouble = copy(root.path(), to.path()).expect_err("refused").to_string();
        let expected = "/handler leads to ../nothing/here, which is not there: build it first";
        assert!(trouble.ends_with(expected), "{trouble}");
    }

    #[test]
    fn links_are_judged_by_where_they_lead() {
        for (link, target, inside) in [
            ("a", "b", true),
            ("a/b", "../c", true),
            ("a/b", "../../c", false),
            ("a", "/etc/passwd", false),
            ("a", "b/../../c", false),
            ("a/b", "./x/../../c", true),
        ] {
            assert_eq!(stays_inside(Path::new(link), Path::new(target)), inside, "{link} {target}");
        }
    }
}
