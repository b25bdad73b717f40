//! Where a worker finds its code, its layers and its `/tmp`: where AWS has them, by a mount
//! namespace of its own, or where they really are, told by variables.
//!
//! Workers of hob's own kinds, `exec` and `native`, always have the real places: they cost nothing.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use litemap::LiteMap;
use rustix::fs::StatVfsMountFlags;

use crate::board::memory_kib;
use crate::function::config::{FunctionConfig, Runtime};
use crate::host::spawn::{Launch, Mount, Namespace, Seat, Spawner};
use crate::limits::{TMP_KIB_MAX, TMP_MEMORY_PART};

/// Where AWS has a function's code.
const TASK: &str = "/var/task";
/// Where AWS has a function's layers.
const OPT: &str = "/opt";
const TMP: &str = "/tmp";

/// What this machine allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Paths as on AWS, with so many KiB of `/tmp`.
    Namespace(u64),
    /// The real ones, with the reason.
    Real(String),
}

impl Paths {
    /// Finds out by trying, unless `real` ones are wanted. With `make`, what is missing for it is
    /// made: two empty directories.
    pub fn detect(real: bool, make: bool) -> Paths {
        if real {
            return Paths::Real("as configured by paths".to_owned());
        }
        match try_out(make) {
            Ok(()) => Paths::Namespace(tmp_kib()),
            Err(why) => Paths::Real(why),
        }
    }
}

impl std::fmt::Display for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Paths::Namespace(_) => write!(f, "as on AWS, by a mount namespace"),
            Paths::Real(why) => write!(f, "the real ones, in variables: {why}"),
        }
    }
}

/// Half a gibibyte, or less on a machine that has little.
fn tmp_kib() -> u64 {
    TMP_KIB_MAX.min(memory_kib() / TMP_MEMORY_PART)
}

/// Takes the steps of a worker's start, all but the last. The error is for people.
fn try_out(make: bool) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may make mount namespaces".to_owned());
    }
    for place in [TASK, OPT].into_iter().filter(|_| make) {
        std::fs::create_dir_all(place).map_err(|error| format!("make {place}: {error}"))?;
    }
    // Without the place, the attempt is made with another one.
    let is_there = Path::new(TASK).is_dir();
    if !is_there && rustix::fs::access("/var", rustix::fs::Access::WRITE_OK).is_err() {
        return Err(format!("{TASK} is missing, and cannot be made"));
    }
    let task = if is_there { TASK } else { TMP };
    let tmp = if is_there { vec![c_move(TASK, TMP)] } else { Vec::new() };
    let namespace = Namespace {
        places: vec![Mount::Bind { source: c("/"), target: c(task), read_only: Some(0) }],
        tmp: [vec![memory(task, 64)], tmp].concat(),
    };
    let launch = Launch {
        program: c("/"),
        arguments: Vec::new(),
        environment: Vec::new(),
        directory: c(task),
        namespace: Some(Rc::new(namespace)),
    };
    let null = std::fs::File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    let seat = Seat { environment: &[], stdio: &[null.as_fd(); 3], join: None, cgroup: None };
    Spawner::new(false).rehearse(&launch, &seat).map_err(|error| error.to_string())
}

/// What a worker sees, and where.
#[derive(Debug)]
pub struct Places {
    /// The function's code.
    pub task: PathBuf,
    /// Its layers, or where they would be.
    pub opt: PathBuf,
    /// The layers are not where AWS has them.
    pub is_opt_real: bool,
    /// What makes it so.
    pub namespace: Option<Rc<Namespace>>,
}

impl Places {
    /// Where a worker sees what is here or there in code or layers; what is elsewhere stays there.
    pub fn seen(&self, path: &Path, (code, layers): (&Path, Option<&Path>)) -> PathBuf {
        let moved = |from: Option<&Path>, to: &Path| Some(to.join(path.strip_prefix(from?).ok()?));
        moved(Some(code), &self.task)
            .or_else(|| moved(layers, &self.opt))
            .unwrap_or_else(|| path.to_owned())
    }

    /// How a process that is forked inside the namespace makes a `/tmp` of its own.
    pub fn tmp_variable(&self) -> Option<String> {
        let steps = &self.namespace.as_ref()?.tmp;
        let text = |c: &CString| c.to_string_lossy().into_owned();
        let step = |mount: &Mount| match mount {
            Mount::Bind { source, target, read_only }
            | Mount::Keep { source, target, read_only } => {
                let flags = read_only.map_or_else(String::new, |flags| flags.to_string());
                ["keep".into(), text(source), text(target), flags].join("\x1f")
            }
            Mount::Directory(target) => ["directory".into(), text(target)].join("\x1f"),
            Mount::Memory { target, options } => {
                ["memory".into(), text(target), text(options)].join("\x1f")
            }
            Mount::Move { source, target } => {
                ["move".into(), text(source), text(target)].join("\x1f")
            }
        };
        let steps: Vec<String> = steps.iter().map(step).collect();
        (!steps.is_empty()).then(|| format!("HOB_TMP={}", steps.join("\x1e")))
    }
}

/// Decides what workers see of the code in `code` and of `layers`. Whatever else of the machine is
/// `needed` to run them stays visible.
pub fn places(
    paths: &Paths,
    config: &FunctionConfig,
    (code, layers): (&Path, Option<&Path>),
    needed: &[PathBuf],
) -> Places {
    let tmp_kib = match (&config.runtime, paths) {
        (Runtime::Exec | Runtime::Native, _) | (_, Paths::Real(_)) => {
            return Places {
                task: code.to_owned(),
                opt: layers.map_or_else(|| OPT.into(), Path::to_owned),
                is_opt_real: layers.is_some(),
                namespace: None,
            };
        }
        (Runtime::Provided(_) | Runtime::Python(_) | Runtime::Node(_), Paths::Namespace(kib)) => {
            *kib
        }
    };
    let mut kept = Kept::default();
    for path in needed {
        // As it is on the machine; nobody asked for more.
        kept.add(path, true);
    }
    for path in &config.sandbox.read {
        kept.add(Path::new(path), false);
    }
    for path in &config.sandbox.write {
        kept.add(Path::new(path), true);
    }
    let mut places =
        vec![Mount::Bind { source: c(code), target: c(TASK), read_only: Some(flags(code)) }];
    // Nothing can be added to layers: what is needed below /opt is not covered by them.
    let on_opt = layers.filter(|_| !kept.any_below(OPT));
    if let Some(layers) = on_opt {
        let read_only = Some(flags(layers));
        places.push(Mount::Bind { source: c(layers), target: c(OPT), read_only });
    } else if let Some(layers) = layers {
        kept.add(layers, false);
    }
    let opt = layers.filter(|_| on_opt.is_none());
    Places {
        task: TASK.into(),
        opt: opt.map_or_else(|| OPT.into(), Path::to_owned),
        is_opt_real: opt.is_some(),
        namespace: Some(Rc::new(Namespace { places, tmp: kept.tmp(tmp_kib) })),
    }
}

/// The directory that an interpreter lives in, with its libraries: `/a` for `/a/bin/python3`.
pub fn prefix(program: &Path) -> PathBuf {
    let directory = program.parent().unwrap_or(program);
    let prefix = directory.parent().unwrap_or(directory);
    let is_too_much = |place: &Path| Path::new(TMP).starts_with(place);
    match (is_too_much(prefix), is_too_much(directory)) {
        (false, _) => prefix.to_owned(),
        (true, false) => directory.to_owned(),
        (true, true) => program.to_owned(),
    }
}

/// Paths that a worker sees as the machine has them, and whether it may write there.
#[derive(Default)]
struct Kept {
    paths: LiteMap<PathBuf, bool>,
}

impl Kept {
    /// A path, and what it leads to.
    fn add(&mut self, path: &Path, writable: bool) {
        for path in [Some(plain(path)), std::fs::canonicalize(path).ok()].into_iter().flatten() {
            let known = self.paths.entry(path).or_default();
            *known |= writable;
        }
    }

    fn any_below(&self, place: &str) -> bool {
        let real = std::fs::canonicalize(place).unwrap_or_else(|_| place.into());
        self.paths.keys().any(|path| path.starts_with(place) || path.starts_with(&real))
    }

    /// The private `/tmp`, of so many KiB, in which they are where they were.
    fn tmp(&self, kib: u64) -> Vec<Mount> {
        let real = std::fs::canonicalize(TMP).unwrap_or_else(|_| TMP.into());
        if self.paths.keys().any(|path| Path::new(TMP).starts_with(path) || *path == real) {
            // All of it stays.
            return Vec::new();
        }
        let mut inside: LiteMap<PathBuf, (&Path, bool)> = LiteMap::new();
        for (path, writable) in &self.paths {
            let relative = path.strip_prefix(TMP).or_else(|_| path.strip_prefix(&real));
            let Ok(relative) = relative else { continue };
            // The nearest that is around it, which comes before it.
            let around = |other: &&PathBuf| relative.starts_with(other);
            let around = inside.keys().rev().find(around).and_then(|path| inside.get(path));
            if around.is_none_or(|(_, other)| other != writable) {
                inside.insert(relative.to_owned(), (path, *writable));
            }
        }
        if inside.is_empty() {
            return vec![memory(TMP, kib)];
        }
        // Made where the code is in the end, on top of it, while the machine's is still in sight.
        let mut steps = vec![memory(TASK, kib)];
        let mut made: Vec<PathBuf> = Vec::new();
        for (relative, (source, writable)) in &inside {
            let mut parents: Vec<&Path> = relative.ancestors().skip(1).collect();
            parents.pop();
            let has_own = |place: &Path| !inside.keys().any(|path| place.starts_with(path));
            for parent in parents.into_iter().rev().filter(|parent| has_own(parent)) {
                if !made.iter().any(|made| made == parent) {
                    steps.push(Mount::Directory(c(Path::new(TASK).join(parent))));
                    made.push(parent.to_owned());
                }
            }
            let target = c(Path::new(TASK).join(relative));
            let read_only = (!writable).then(|| flags(source));
            steps.push(Mount::Keep { source: c(*source), target, read_only });
        }
        steps.push(c_move(TASK, TMP));
        steps
    }
}

/// Without `.` and `..`, as far as names tell.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Normal(_) | Component::Prefix(_) => plain.push(part),
        }
    }
    plain
}

/// What a read-only mount of this path takes over: nothing that is forbidden there is allowed by
/// being seen elsewhere.
fn flags(path: &Path) -> libc::c_ulong {
    let there = rustix::fs::statvfs(path).map_or(StatVfsMountFlags::empty(), |fs| fs.f_flag);
    let both = [
        (StatVfsMountFlags::NOSUID, libc::MS_NOSUID),
        (StatVfsMountFlags::NODEV, libc::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, libc::MS_NOEXEC),
    ];
    both.iter().filter(|(flag, _)| there.contains(*flag)).fold(0, |all, (_, flag)| all | flag)
}

fn memory(target: &str, kib: u64) -> Mount {
    Mount::Memory { target: c(target), options: c(format!("mode=1777,size={kib}k")) }
}

fn c_move(source: &str, target: &str) -> Mount {
    Mount::Move { source: c(source), target: c(target) }
}

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).expect("paths were checked for NULs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sandbox: &str) -> FunctionConfig {
        let text = format!("runtime = \"provided\"\n[sandbox]\n{sandbox}");
        FunctionConfig::parse("f", &text).expect("valid")
    }

    fn steps(mounts: &[Mount]) -> Vec<String> {
        let text = |c: &CString| c.to_string_lossy().into_owned();
        let step = |mount: &Mount| match mount {
            Mount::Bind { source, target, read_only } => {
                format!("bind {} {} {}", text(source), text(target), read_only.is_some())
            }
            Mount::Keep { source, target, read_only } => {
                format!("keep {} {} {}", text(source), text(target), read_only.is_some())
            }
            Mount::Directory(target) => format!("directory {}", text(target)),
            Mount::Memory { target, options } => format!("{} {}", text(target), text(options)),
            Mount::Move { source, target } => format!("move {} {}", text(source), text(target)),
        };
        mounts.iter().map(step).collect()
    }

    fn seen(sandbox: &str, layers: Option<&str>, needed: &[&str]) -> (Places, Vec<String>) {
        let needed: Vec<PathBuf> = needed.iter().map(PathBuf::from).collect();
        let home = (Path::new("/data/code/c"), layers.map(Path::new));
        let places = places(&Paths::Namespace(7), &config(sandbox), home, &needed);
        let namespace = places.namespace.as_ref().expect("one");
        let steps = [steps(&namespace.places), steps(&namespace.tmp)].concat();
        (places, steps)
    }

    #[test]
    fn code_and_layers_are_where_aws_has_them() {
        let (places, steps) = seen("", Some("/data/layers/l"), &[]);
        assert_eq!(
            steps,
            [
                "bind /data/code/c /var/task true",
                "bind /data/layers/l /opt true",
                "/tmp mode=1777,size=7k",
            ]
        );
        let home = (Path::new("/data/code/c"), Some(Path::new("/data/layers/l")));
        for (path, there) in [
            ("/data/code/c/bootstrap", "/var/task/bootstrap"),
            ("/data/layers/l/bin/x", "/opt/bin/x"),
            ("/usr/bin/python3", "/usr/bin/python3"),
        ] {
            assert_eq!(places.seen(Path::new(path), home), Path::new(there));
        }
        assert!(!places.is_opt_real);
    }

    #[test]
    fn what_is_needed_below_opt_is_not_covered() {
        let (places, steps) = seen("", Some("/tmp/layers/l"), &["/opt/python3.11"]);
        assert_eq!((places.opt.to_str(), places.is_opt_real), (Some("/tmp/layers/l"), true));
        assert!(steps.contains(&"keep /tmp/layers/l /var/task/layers/l true".into()), "{steps:?}");
    }

    #[test]
    fn what_is_named_below_tmp_stays() {
        let sandbox = "read = [\"/tmp/a/b\", \"/srv/x\", \"/tmp/w/r\", \"/tmp/a/./b/c\"]\n\
                       write = [\"/tmp/w\", \"/tmp/a/z/../d\"]";
        let (_, steps) = seen(sandbox, None, &[]);
        assert_eq!(
            steps[1..],
            [
                "/var/task mode=1777,size=7k",
                "directory /var/task/a",
                "keep /tmp/a/b /var/task/a/b true",
                "keep /tmp/a/d /var/task/a/d false",
                "keep /tmp/w /var/task/w false",
                "keep /tmp/w/r /var/task/w/r true",
                "move /var/task /tmp",
            ]
        );
        let (_, steps) = seen("write = [\"/tmp/\"]", None, &[]);
        assert_eq!(steps.len(), 1, "all of it: {steps:?}");
    }

    #[test]
    fn an_interpreter_brings_the_directory_that_it_lives_in() {
        for (program, place) in [
            ("/tmp/venv/bin/python3", "/tmp/venv"),
            ("/tmp/bin/python3", "/tmp/bin"),
            ("/tmp/python3", "/tmp/python3"),
            ("/usr/bin/python3", "/usr"),
        ] {
            assert_eq!(prefix(Path::new(program)), Path::new(place));
        }
    }
}
