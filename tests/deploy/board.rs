//! Boards for tests: a BusyBox-only root in a chroot, in namespaces of its own, with a real SSH
//! server on loopback. All of it is gone when its first process is.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::common::{HOB, Ran, eventually, executable};
use super::machine::Group;

/// Which SSH server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sshd {
    Dropbear,
    OpenSsh,
}

/// A board that was not started yet.
pub struct Make {
    dir: tempfile::TempDir,
    sshd: Sshd,
    mounts: String,
}

/// How a board is started, as often as it is.
pub struct Launch {
    /// What its first process runs; `$R` is its root.
    pub script: String,
    /// What `unshare` is told besides.
    pub namespaces: &'static [&'static str],
    /// Who logs in for `hob deploy`.
    pub user: &'static str,
    pub port: u16,
    /// Goes with it.
    pub _group: Option<Group>,
}

/// A running board.
pub struct Board {
    dir: tempfile::TempDir,
    first: Child,
    launch: Launch,
    pub port: u16,
}

/// Waits for what takes an upload and a few starts, on a machine that does other things too.
pub fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = (0..6000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        look()
    });
    found.unwrap_or_else(|| panic!("waited in vain: {what}"))
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let ran = Ran::of(Command::new(program).args(arguments));
    assert_eq!(ran.code, 0, "{program} {arguments:?}: {}", ran.err);
    ran.out
}

pub fn find(program: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/lib/systemd"];
    let found = places.iter().map(|place| Path::new(place).join(program)).find(|p| p.exists());
    found.unwrap_or_else(|| panic!("install {program}: tests/run does"))
}

/// A program and the libraries that it needs, at the same paths.
fn copy_program(root: &Path, program: &Path, to: &str) {
    let target = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::copy(program, &target).unwrap();
    copy_libraries(root, program);
}

fn copy_libraries(root: &Path, program: &Path) {
    let listed = Ran::of(Command::new("ldd").arg(program)).out;
    for path in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(path.trim_start_matches('/'));
        if !target.exists() {
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(path, target).unwrap();
        }
    }
}

/// A new key; its public half.
pub fn key(path: &Path) -> String {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path.to_str().unwrap()]);
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

/// The user's `ssh`, with the key of this board; `more` settings.
fn client_settings(dir: &Path, more: &str) {
    let key = dir.join("key");
    let settings = format!(
        "Host *\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\n\
         StrictHostKeyChecking no\nLogLevel ERROR\nKexAlgorithms curve25519-sha256\n{more}",
        key.display()
    );
    fs::write(dir.join("ssh_config"), settings).unwrap();
    let file = dir.join("ssh_config");
    executable(&dir.join("ssh"), &format!("#!/bin/sh\nexec ssh -F {} \"$@\"\n", file.display()));
}

/// Starts the first process: whatever happens, it ends with the test that started it.
fn spawn(dir: &Path, launch: &Launch) -> Child {
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let first = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"])
        .args(launch.namespaces)
        .args(["sh", "-c", &launch.script])
        .env("R", dir.join("root"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let network = format!("/proc/{}/ns/net", first.id());
    let own = launch.namespaces.contains(&"--net");
    let way = format!("ProxyCommand nsenter --net={network} busybox nc %h %p\n");
    client_settings(dir, if own { &way } else { "" });
    first
}

impl Make {
    /// A board with BusyBox, without these applets; only another shell than its own misses them.
    pub fn new(sshd: Sshd, without: &[&str]) -> Make {
        let dir = tempfile::tempdir().unwrap();
        // A chroot for OpenSSH must not be open to others.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = dir.path().join("root");
        for name in [
            "bin",
            "dev",
            "proc",
            "tmp",
            "etc/init.d",
            "etc/hob",
            "root/.ssh",
            "run",
            "var",
            "usr/local",
        ] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy(find("busybox"), root.join("bin/busybox")).unwrap();
        for applet in run(find("busybox").to_str().unwrap(), &["--list"]).lines() {
            if !without.contains(&applet) && applet != "busybox" {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(root.join("etc/shells"), "/bin/sh\n").unwrap();
        fs::write(root.join("etc/hob/hob.toml"), "listen = \"127.0.0.1:0\"\n").unwrap();
        // Its root's shell is named by the machine's list of users.
        executable(&root.join("bin/bash"), "#!/bin/sh\nexec /bin/sh \"$@\"\n");
        copy_libraries(&root, Path::new(HOB));
        Make { dir, sshd, mounts: String::new() }
    }

    /// The board's root directory, from outside.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Another shell is `/bin/sh`.
    pub fn shell(self, program: &str) -> Make {
        copy_program(&self.root(), &find(program), &format!("/bin/{program}"));
        fs::remove_file(self.root().join("bin/sh")).unwrap();
        symlink(program, self.root().join("bin/sh")).unwrap();
        self
    }

    /// Its first process is BusyBox's init, which starts what OpenRC has in its default runlevel;
    /// `packages` is where that was unpacked.
    pub fn openrc(self, packages: &Path) -> Make {
        let root = self.root();
        for place in ["bin", "sbin", "lib", "etc"] {
            let from = packages.join(place);
            run("cp", &["-a", from.to_str().unwrap(), root.to_str().unwrap()]);
        }
        for program in ["sbin/openrc-run", "sbin/supervise-daemon", "bin/rc-status"] {
            copy_libraries(&root, &packages.join(program));
        }
        for level in ["sysinit", "boot", "default", "shutdown"] {
            fs::create_dir_all(root.join("etc/runlevels").join(level)).unwrap();
        }
        let inittab = "::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n\
                       ::shutdown:/sbin/openrc shutdown\n";
        fs::write(root.join("etc/inittab"), inittab).unwrap();
        for file in ["fstab", "insserv.conf"] {
            fs::write(root.join("etc").join(file), "").unwrap();
        }
        symlink("../run", root.join("var/run")).unwrap();
        self.mount("mount -t tmpfs none $R/run")
    }

    /// Runs this before the SSH server, in the board's namespaces; `$R` is its root.
    pub fn mount(mut self, command: &str) -> Make {
        self.mounts += &format!("{command}\n");
        self
    }

    /// Starts it.
    pub fn start(self) -> Board {
        let (root, dir) = (self.root(), self.dir);
        let public = key(&dir.path().join("key"));
        let authorized = root.join("root/.ssh/authorized_keys");
        fs::write(&authorized, public).unwrap();
        for path in [root.clone(), root.join("root"), root.join("root/.ssh"), authorized.clone()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = match self.sshd {
            Sshd::Dropbear => {
                copy_program(&root, &find("dropbear"), "/usr/sbin/dropbear");
                let host_key = root.join("etc/dropbear_key");
                run("dropbearkey", &["-t", "ed25519", "-f", host_key.to_str().unwrap()]);
                let command = format!(
                    "/usr/sbin/dropbear -F -E -s -p 127.0.0.1:{port} -r /etc/dropbear_key \
                     -P /tmp/dropbear.pid"
                );
                let inittab = root.join("etc/inittab");
                if inittab.exists() {
                    let lines = fs::read_to_string(&inittab).unwrap();
                    fs::write(inittab, format!("{lines}::respawn:{command}\n")).unwrap();
                    "exec chroot $R /bin/init".to_owned()
                } else {
                    format!("exec chroot $R {command}")
                }
            }
            Sshd::OpenSsh => {
                let host_key = dir.path().join("host_key");
                key(&host_key);
                let settings = format!(
                    "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
                     ChrootDirectory /srv\nUsePAM no\nStrictModes no\nPidFile none\n\
                     PermitRootLogin prohibit-password\n",
                    host_key.display(),
                    authorized.display()
                );
                fs::write(dir.path().join("sshd_config"), settings).unwrap();
                let file = dir.path().join("sshd_config");
                // The way to a chroot must be root's alone, which that to a scratch directory is not.
                format!(
                    "mount -t tmpfs none /run && mkdir /run/sshd && mount --rbind $R /srv &&\n\
                     exec /usr/sbin/sshd -D -e -f {}",
                    file.display()
                )
            }
        };
        let script = format!(
            "set -e\nmount --bind $R $R\nmount -t proc proc $R/proc\nmount --bind /dev $R/dev\n{}{server}\n",
            self.mounts
        );
        let namespaces = &["--mount", "--pid"];
        let launch = Launch { script, namespaces, user: "root", port, _group: None };
        let board = Board::start(dir, launch);
        eventually("the SSH server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        board
    }
}

impl Board {
    /// Starts what is in `root` in this directory.
    pub fn start(dir: tempfile::TempDir, launch: Launch) -> Board {
        let first = spawn(dir.path(), &launch);
        let port = launch.port;
        Board { dir, first, launch, port }
    }

    /// After its first process has ended, or as if the power were lost.
    pub fn start_again(&mut self) {
        let _ = self.first.kill();
        self.first.wait().unwrap();
        self.first = spawn(self.dir.path(), &self.launch);
    }

    /// True if its first process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.first.try_wait().unwrap().is_some()
    }

    /// The network that it has, if that is its own.
    pub fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.first.id()).into()
    }

    /// The board's root directory, from outside; without what is mounted in it.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Where the board keeps versions.
    pub fn lib(&self) -> PathBuf {
        match self.launch.user {
            "root" => self.root().join("usr/local/lib/hob"),
            user => self.root().join("home").join(user).join(".local/lib/hob"),
        }
    }

    /// The version in force.
    pub fn current(&self) -> Option<String> {
        let link = fs::read_link(self.lib().join("current")).ok()?;
        Some(link.file_name().unwrap().to_str().unwrap().to_owned())
    }

    /// How the last deployment ended.
    pub fn outcome(&self) -> String {
        fs::read_to_string(self.lib().join("outcome")).unwrap_or_default()
    }

    /// Its address for `hob deploy`.
    pub fn address(&self) -> String {
        format!("{}@127.0.0.1:{}", self.launch.user, self.port)
    }

    /// `hob deploy` to this board.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command_to(arguments);
        command.arg(self.address());
        command
    }

    /// `hob deploy` with this board's key, to hosts among the arguments.
    pub fn command_to(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(HOB);
        command.arg("deploy").args(arguments).env("HOB_SSH", self.dir.path().join("ssh"));
        command.stdin(Stdio::null());
        command
    }

    /// Deploys a file.
    pub fn deploy(&self, binary: &Path, more: &[&str]) -> Ran {
        let mut arguments = vec!["--binary", binary.to_str().unwrap()];
        arguments.extend(more);
        Ran::of(&mut self.command(&arguments))
    }

    /// Runs a command on it.
    pub fn sh(&self, command: &str) -> Ran {
        self.sh_as(self.launch.user, command)
    }

    /// Runs a command on it as another user.
    pub fn sh_as(&self, user: &str, command: &str) -> Ran {
        let (host, port) = (format!("{user}@127.0.0.1"), self.port.to_string());
        let mut ssh = Command::new(self.dir.path().join("ssh"));
        ssh.args(["-p", &port, &host, command]).stdin(Stdio::null());
        Ran::of(&mut ssh)
    }

    /// True if the server there answers its command line.
    pub fn serves(&self) -> bool {
        self.hob("ls").code == 0
    }

    /// The command line there.
    pub fn hob(&self, arguments: &str) -> Ran {
        self.sh(&format!("{} {arguments}", self.program()))
    }

    /// Who logs in.
    pub fn user(&self) -> &'static str {
        self.launch.user
    }

    /// Its path, as a shell there has it.
    pub fn program(&self) -> &'static str {
        if self.launch.user == "root" { "/usr/local/bin/hob" } else { "~/.local/bin/hob" }
    }

    /// What it has done, for people.
    fn log(&self) -> String {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let lib = self.lib();
        format!(
            "--- sshd\n{}--- deploy.log\n{}--- hob.log\n{}--- outcome {}",
            read(self.dir.path().join("log")),
            read(lib.join("deploy.log")),
            read(self.root().join("var/lib/hob/hob.log")),
            self.outcome()
        )
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            if self.launch._group.is_some() && !self.has_ended() {
                eprintln!(
                    "--- journal\n{}",
                    self.sh_as("root", "journalctl --quiet --lines 30").out
                );
            }
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}
