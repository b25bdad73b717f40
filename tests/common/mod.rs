//! Real servers for tests: function folders in a scratch directory, a server process, and a plain
//! HTTP client. Everything ends with the test, and a log line at level error fails it.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]

pub mod http;
pub mod seeds;
pub mod sign;
pub mod sockets;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use http::slower;
use http::{Conn, Reply};
use serde_json::Value;

/// The binary under test.
pub const HOB: &str = env!("CARGO_BIN_EXE_hob");

/// Longest wait for anything that should happen soon.
fn soon() -> Duration {
    Duration::from_secs(10) * slower()
}

/// A program that is an example of this package; built here, since a run of a single test does
/// not build examples.
pub fn example(name: &str) -> PathBuf {
    static BUILT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let path = Path::new(HOB).with_file_name("examples").join(name);
    let mut built = BUILT.lock().unwrap();
    if !built.iter().any(|other| other == name) {
        let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.args(["build", "--quiet", "--example", name]);
        if Path::new(HOB).parent().is_some_and(|profile| profile.ends_with("release")) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "build example {name}");
        built.push(name.to_owned());
    }
    path
}

/// Waits until `look` finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let (begun, soon) = (Instant::now(), soon());
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < soon, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Function folders in a scratch directory.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(site.functions()).unwrap();
        site
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn functions(&self) -> PathBuf {
        self.dir.path().join("functions")
    }

    /// A function with this `function.toml`.
    pub fn function(&self, name: &str, toml: &str) -> PathBuf {
        let folder = self.functions().join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("function.toml"), toml).unwrap();
        folder
    }

    /// A native function that does what its events say; `arguments` say how it starts.
    pub fn native(&self, name: &str, arguments: &str, more: &str) -> PathBuf {
        let toml = format!("runtime = \"native\"\nhandler = \"misbehave {arguments}\"\n{more}\n");
        let toml = toml.replace("misbehave \"", "misbehave\"");
        let folder = self.function(name, &toml);
        let link = folder.join("misbehave");
        if !link.exists() {
            symlink(example("misbehave"), link).unwrap();
        }
        folder
    }

    /// A shell script, run by `runtime`.
    pub fn script(&self, name: &str, runtime: &str, script: &str, more: &str) -> PathBuf {
        let toml = format!("runtime = \"{runtime}\"\nhandler = \"bootstrap\"\n{more}\n");
        let folder = self.function(name, &toml);
        executable(&folder.join("bootstrap"), script);
        folder
    }

    /// Starts a server on these functions.
    pub fn serve(&self, arguments: &[&str]) -> Server {
        let server = self.serve_loading(arguments);
        server.loaded();
        server
    }

    /// Starts a server and waits only until it can be reached.
    pub fn serve_loading(&self, arguments: &[&str]) -> Server {
        Server::start(HOB.as_ref(), self.path(), arguments)
    }

    /// Starts a server by this name of the program.
    pub fn serve_as(&self, program: &Path, arguments: &[&str]) -> Server {
        let server = Server::start(program, self.path(), arguments);
        server.loaded();
        server
    }
}

/// Writes an executable file.
pub fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A running server.
pub struct Server {
    child: Child,
    root: PathBuf,
    pub address: String,
    checked: bool,
}

/// The command line of a server in `root`. A server that grows without bound fails its test
/// instead of the machine. (qemu reserves 4 GiB for a program of a 32-bit processor.)
pub fn serve_command(root: &Path, arguments: &[&str]) -> Command {
    serve_command_of(HOB.as_ref(), root, arguments)
}

/// The same for a server by this name of the program.
fn serve_command_of(program: &Path, root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 8000000; exec \"$@\"", "sh"])
        .arg(program)
        .arg("serve")
        .arg(root.join("functions"))
        .arg("--data")
        .arg(root.join("data"))
        .arg("--socket")
        .arg(root.join("hob.sock"))
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

impl Server {
    fn start(program: &Path, root: &Path, arguments: &[&str]) -> Server {
        let log = fs::File::create(root.join("log")).unwrap();
        let child = serve_command_of(program, root, arguments).stderr(log).spawn().unwrap();
        let root = root.to_owned();
        let mut server = Server { child, root, address: String::new(), checked: false };
        eventually("the server listens", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", server.log());
            }
            UnixStream::connect(server.socket()).ok()
        });
        let info = server.get("/hob/server");
        let url = info["url"].as_str().unwrap();
        server.address = url.strip_prefix("http://").unwrap().to_owned();
        server
    }

    /// Waits until it has read its functions.
    pub fn loaded(&self) {
        eventually("the server is ready", || {
            (self.get("/hob/server")["loading"] == false).then_some(())
        });
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("hob.sock")
    }

    /// What it wrote to standard error.
    pub fn log(&self) -> String {
        let mut text = String::new();
        fs::File::open(self.root.join("log")).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// A new TCP connection.
    pub fn connect(&self) -> Conn {
        Conn::tcp(&self.address)
    }

    /// Asks one of the command line's own questions over the Unix socket.
    pub fn get(&self, path: &str) -> Value {
        let reply = Conn::unix(&self.socket()).get(path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Invokes by the Lambda API on a connection of its own.
    pub fn invoke(&self, name: &str, event: impl AsRef<[u8]>) -> Reply {
        self.connect().invoke(name, event.as_ref())
    }

    /// Invokes and expects success; the reply as JSON.
    pub fn ok(&self, name: &str, event: &str) -> Value {
        let reply = self.invoke(name, event);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.field("x-amz-function-error"), None, "{}", reply.text());
        reply.json()
    }

    /// Invokes and expects a function error; its type and message.
    pub fn fails(&self, name: &str, event: &str) -> (String, String) {
        let reply = self.invoke(name, event);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.field("x-amz-function-error"), Some("Unhandled"), "{}", reply.text());
        let text = |key: &str| reply.json()[key].as_str().unwrap_or_default().to_owned();
        (text("errorType"), text("errorMessage"))
    }

    /// The slot table.
    pub fn workers(&self) -> Vec<Value> {
        self.get("/hob/workers").as_array().unwrap().clone()
    }

    /// The workers of one function.
    pub fn workers_of(&self, name: &str) -> Vec<Value> {
        self.workers().into_iter().filter(|worker| worker["function"] == name).collect()
    }

    /// Runs a verb of the command line against this server.
    pub fn hob(&self, arguments: &[&str]) -> Ran {
        Ran::of(Command::new(HOB).args(arguments).env("HOB_SOCKET", self.socket()))
    }

    /// Sends a signal to the server.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the server ends", || {
            ended = self.child.try_wait().unwrap();
            ended
        });
        self.check_log();
        ended.unwrap()
    }

    /// Stops it as systemd does, and expects a clean end.
    pub fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    /// Takes note that it was killed.
    pub fn reap(&mut self) {
        self.child.wait().unwrap();
    }

    /// It was meant to log an error.
    pub fn forgive(&mut self) {
        self.checked = true;
    }

    /// Ends a server that was meant to log an error; its log.
    pub fn complained(mut self) -> String {
        self.checked = true;
        self.log()
    }

    fn check_log(&mut self) {
        self.checked = true;
        let log = self.log();
        // The level follows the time.
        let is_error = |line: &str| line.split(' ').nth(1) == Some("error");
        assert!(!log.lines().any(is_error), "an error in the server's log:\n{log}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- server log\n{}", self.log());
        } else if !self.checked {
            self.check_log();
        }
    }
}

/// A finished command.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

/// True if a process with this id exists (a zombie counts).
pub fn exists(pid: i64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Direct children of a process, zombies included, as (pid, state).
pub fn children(parent: i32) -> Vec<(i32, char)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((before, after)) = text.rsplit_once(") ") else { continue };
        let mut fields = after.split(' ');
        let state = fields.next().and_then(|state| state.chars().next()).unwrap_or('?');
        let ppid: i32 = fields.next().and_then(|ppid| ppid.parse().ok()).unwrap_or(0);
        if ppid == parent {
            let pid = before.split(' ').next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
            found.push((pid, state));
        }
    }
    found
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A number from `/proc/PID/status`.
pub fn status_number(pid: i32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}
