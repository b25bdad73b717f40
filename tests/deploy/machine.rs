//! Machines for tests: boards whose first process is an init system. Their programs are those of this
//! machine, seen read-only; all else is their own: settings, disks, devices, control groups, network.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::board::{Board, Launch, find, key, patiently};

/// The ordinary user of such a machine.
pub const USER: &str = "pi";
const USER_ID: u32 = 1000;

/// Whatever is a place for files in a root.
const PLACES: [&str; 14] = [
    "dev",
    "etc/ssh",
    "etc/systemd/system/multi-user.target.wants",
    "home/pi/.ssh",
    "local",
    "old",
    "proc",
    "root/.ssh",
    "run",
    "sys",
    "tmp",
    "usr/local",
    "var/lib",
    "var/log",
];

/// What there is of this machine's settings: who may log in, and where libraries are.
const SETTINGS: [&str; 8] = [
    "alternatives",
    "dbus-1",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "login.defs",
    "nsswitch.conf",
    "security",
];

/// The devices that every program may expect.
const MOUNTS: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$R" "$R"
mount --bind "$R/usr/local" "$R/local"
mount --rbind /usr "$R/usr"
mount -o remount,bind,ro "$R/usr"
mount --bind "$R/local" "$R/usr/local"
umount "$R/local"
mount -t proc proc "$R/proc"
for place in sys sysrq-trigger; do
  [ -e "$R/proc/$place" ] || continue
  mount --bind "$R/proc/$place" "$R/proc/$place"
  mount -o remount,bind,ro "$R/proc/$place"
done
mount -t sysfs -o ro none "$R/sys"
mount -t tmpfs -o mode=755 none "$R/dev"
for name in null zero full random urandom tty; do
  : >"$R/dev/$name"
  mount --bind "/dev/$name" "$R/dev/$name"
done
mkdir "$R/dev/pts" "$R/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 none "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
ln -s /proc/self/fd "$R/dev/fd"
mount -t tmpfs none "$R/dev/shm"
mount -t tmpfs -o mode=755 none "$R/run"
mount -t tmpfs -o mode=1777 none "$R/tmp"
# Each start is another one.
cat "$R/proc/sys/kernel/random/uuid" >"$R/run/boot_id"
mount --bind "$R/run/boot_id" "$R/proc/sys/kernel/random/boot_id"
mount -t cgroup2 none "$R/sys/fs/cgroup"
mkdir -p "$R/sys/fs/cgroup/$GROUP"
echo 0 >"$R/sys/fs/cgroup/$GROUP/cgroup.procs"
umount "$R/sys/fs/cgroup"
cat >"$R/run/enter" <<'ENTER'
mount -t cgroup2 none "$R/sys/fs/cgroup"
hostname board
busybox ip link set lo up
cd "$R"
pivot_root . old
umount -l old
exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /usr/bin/setpriv --bounding-set=-sys_module,-sys_time,-syslog "$@"
ENTER
exec unshare --cgroup sh -e "$R/run/enter" "#;

/// The control group that a machine lives in. It is removed with this.
pub struct Group(String);

impl Group {
    fn new() -> Group {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let group = Group(format!("hob-board-{}-{n}", std::process::id()));
        // Those of tests that were killed.
        in_groups(
            "for group in hob-board-*; do pid=${group#hob-board-}\n\
             [ ! -d \"$group\" ] || [ -e \"/proc/${pid%-*}\" ] ||\n\
             find \"$group\" -depth -type d -exec rmdir {} \\; ; done",
        );
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let remove = format!("[ ! -d {0} ] || find {0} -depth -type d -exec rmdir {{}} +", self.0);
        // The last of its processes may still be dying.
        let mut tries = 0..200;
        while !in_groups(&remove) && tries.next().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Runs this where the control groups are.
fn in_groups(command: &str) -> bool {
    let script = format!("mount -t cgroup2 none /mnt && cd /mnt && {{ {command}\n}}");
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", &script]).stderr(std::process::Stdio::null());
    shell.status().unwrap().success()
}

/// A root with these programs' own settings, and two who may log in.
fn root(dir: &Path) {
    let root = dir.join("root");
    for place in PLACES {
        fs::create_dir_all(root.join(place)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if let Ok(to) = fs::read_link(Path::new("/").join(name)) {
            symlink(to, root.join(name)).unwrap();
        }
    }
    let etc = root.join("etc");
    for name in SETTINGS.into_iter().chain(["pam.d"]) {
        let from = Path::new("/etc").join(name);
        if from.exists() {
            super::board::run("cp", &["-a", from.to_str().unwrap(), etc.to_str().unwrap()]);
        }
    }
    fs::write(etc.join("machine-id"), "").unwrap();
    fs::write(etc.join("fstab"), "").unwrap();
    users(&etc);
    let public = key(&dir.join("key"));
    for (home, owner) in [("root", 0), ("home/pi", USER_ID)] {
        let home = root.join(home);
        let file = home.join(".ssh/authorized_keys");
        fs::write(&file, &public).unwrap();
        for path in [&home, &home.join(".ssh"), &file] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
            chown(path, Some(owner), Some(owner)).unwrap();
        }
    }
    for path in [dir, &root] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    key(&etc.join("ssh/host_key"));
    let settings = "HostKey /etc/ssh/host_key\nListenAddress 127.0.0.1\nUsePAM yes\n\
                    PermitRootLogin prohibit-password\nPidFile none\n";
    fs::write(etc.join("ssh/sshd_config"), settings).unwrap();
}

/// Those of this machine that belong to its programs, and the ordinary user.
fn users(etc: &Path) {
    let own = |file: &str| {
        let text = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        let is_own = |line: &&str| {
            let id = line.split(':').nth(2).and_then(|id| id.parse::<u32>().ok());
            id.is_some_and(|id| (1..USER_ID).contains(&id) || id == 65534)
                && !line.starts_with("hob:")
        };
        text.lines().filter(is_own).map(|line| format!("{line}\n")).collect::<String>()
    };
    let people =
        format!("root:x:0:0::/root:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}::/home/pi:/bin/sh\n");
    let people = people + &own("passwd");
    let name = |line: &str| line.split(':').next().unwrap().to_owned();
    let shadow = people.lines().map(|line| format!("{}:*:19000:0:99999:7:::\n", name(line)));
    fs::write(etc.join("shadow"), shadow.collect::<String>()).unwrap();
    fs::write(etc.join("passwd"), people).unwrap();
    let groups = format!("root:x:0:\n{USER}:x:{USER_ID}:\n") + &own("group");
    fs::write(etc.join("group"), groups).unwrap();
}

/// A machine that runs systemd, for deployments as this user.
pub fn systemd(user: &'static str) -> Board {
    systemd_with(user, |_| ())
}

/// The same, with settings of its own: `set` gets its root.
pub fn systemd_with(user: &'static str, set: impl FnOnce(&Path)) -> Board {
    let (first, _) = (find("systemd"), find("dbus-daemon"));
    let session = Path::new("/etc/pam.d/common-session");
    let session = fs::read_to_string(session).unwrap_or_default();
    assert!(session.contains("pam_systemd"), "install libpam-systemd: tests/run does");
    let dir = tempfile::tempdir().unwrap();
    root(dir.path());
    let wants = dir.path().join("root/etc/systemd/system/multi-user.target.wants");
    symlink("/lib/systemd/system/ssh.service", wants.join("ssh.service")).unwrap();
    set(&dir.path().join("root"));
    let command = format!("{} --show-status=no", first.display());
    let mut board = begin(dir, user, &command);
    booted(&mut board);
    board
}

/// Waits until systemd has started what there is to start.
pub fn booted(board: &mut Board) {
    patiently("it has booted", || {
        assert!(!board.has_ended(), "its first process has ended");
        let state = board.sh_as("root", "systemctl is-system-running --wait").out;
        matches!(state.trim(), "running" | "degraded").then_some(())
    });
}

fn begin(dir: tempfile::TempDir, user: &'static str, first: &str) -> Board {
    let group = Group::new();
    let script = format!("GROUP={}\n{MOUNTS}{first}\n", group.0);
    let namespaces = &["--mount", "--pid", "--uts", "--ipc", "--net"];
    Board::start(dir, Launch { script, namespaces, user, port: 22, _group: Some(group) })
}
