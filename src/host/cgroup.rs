//! A control group for each worker that may be frozen: it holds the worker with everything that it
//! started, also what has left the worker's process group.
//!
//! The groups are threaded ones, which a process enters by itself before its first instruction. That
//! takes 17 us (measured), where moving a process into a group of the usual kind takes 5 ms and more:
//! the kernel then waits until nobody forks.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::Pid;

/// Where cgroup v2 is mounted: alone, or beside v1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The server's own group, in which it makes those of workers.
pub struct Cgroups {
    own: PathBuf,
    made: Cell<u32>,
    /// Groups of workers that are gone, in which something was still dying.
    left: RefCell<Vec<PathBuf>>,
}

/// The group of one worker. It is removed with this, or once nobody is in it any more.
pub struct Cgroup {
    place: PathBuf,
    all: Rc<Cgroups>,
}

impl Cgroups {
    /// The server's group, if it may make others in it; otherwise why not.
    pub fn detect() -> Result<Rc<Cgroups>, String> {
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Err("the kernel has no cgroup v2".to_owned());
        };
        let own = ROOTS.iter().map(|root| Path::new(root).join(path));
        let Some(own) = own.into_iter().find(|own| own.join("cgroup.procs").exists()) else {
            return Err("cgroup v2 is not mounted".to_owned());
        };
        let all = Rc::new(Cgroups { own, made: Cell::new(0), left: RefCell::default() });
        all.remove_others();
        all.make().map_err(|error| format!("{}: {error}", all.own.display()))?;
        Ok(all)
    }

    /// Removes the groups in which nobody is any more.
    pub fn tidy(&self) {
        self.left.borrow_mut().retain(|place| std::fs::remove_dir(place).is_err());
    }

    /// A new group, empty.
    pub fn make(self: &Rc<Self>) -> io::Result<Cgroup> {
        self.tidy();
        let n = self.made.get();
        self.made.set(n.wrapping_add(1));
        let place = self.own.join(format!("hob-{}-{n}", std::process::id()));
        std::fs::create_dir(&place)?;
        let group = Cgroup { place, all: Rc::clone(self) };
        std::fs::write(group.place.join("cgroup.type"), "threaded")?;
        // Older kernels have groups that cannot be frozen.
        group.set_frozen(false)?;
        Ok(group)
    }

    /// Ends and removes what a server that was killed has left, which may be frozen.
    fn remove_others(self: &Rc<Self>) {
        let Ok(list) = std::fs::read_dir(&self.own) else { return };
        for entry in list.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix("hob-")?.split_once('-'));
            if let Some((pid, _)) = pid
                && !Path::new("/proc").join(pid).exists()
            {
                let group = Cgroup { place: entry.path(), all: Rc::clone(self) };
                for pid in group.members() {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

impl Cgroup {
    /// The file with which a process that writes `0` to it enters the group.
    pub fn door(&self) -> PathBuf {
        self.place.join("cgroup.threads")
    }

    /// The same, open.
    pub fn open_door(&self) -> io::Result<File> {
        File::options().write(true).open(self.door())
    }

    /// Everybody in it, by the numbers of their threads. A threaded group has no `cgroup.kill`.
    pub fn members(&self) -> Vec<Pid> {
        let list = std::fs::read_to_string(self.door()).unwrap_or_default();
        list.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
    }

    /// Removes it, now or when nobody is in it any more.
    pub fn remove(&self) {
        let mut left = self.all.left.borrow_mut();
        match std::fs::remove_dir(&self.place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if !left.contains(&self.place) {
                    left.push(self.place.clone());
                }
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// True if somebody is in it.
    pub fn is_entered(&self) -> bool {
        let events = std::fs::read_to_string(self.place.join("cgroup.events"));
        events.is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
    }

    /// Takes all processor time from everybody in it, or gives it back.
    pub fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let mut file = File::options().write(true).open(self.place.join("cgroup.freeze"))?;
        file.write_all(if frozen { b"1" } else { b"0" })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}
