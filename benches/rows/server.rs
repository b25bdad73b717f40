//! A server for one measurement, in a scratch directory of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Bench;
use crate::http::{Conn, invocations};

pub struct Server {
    child: Child,
    dir: tempfile::TempDir,
    pub address: String,
    /// From the start of its process to its first answer.
    pub start_us: f64,
    /// ... and until it had read all functions.
    pub loaded_us: f64,
}

/// The event of each invocation.
pub const EVENT: &[u8] = b"{\"n\":1}";

/// A function: its name and its `function.toml`; the handler `echo` is there.
pub type Function = (&'static str, String);

pub fn native(more: &str) -> String {
    format!("runtime = \"native\"\nhandler = \"echo\"\n{more}\n")
}

pub fn exec(more: &str) -> String {
    format!("runtime = \"exec\"\nhandler = \"echo once\"\n{more}\n")
}

impl Server {
    pub fn start(
        bench: &Bench,
        binary: &Path,
        functions: &[Function],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        Server::start_in(Server::folders(bench, functions, ""), binary, arguments, environment)
    }

    /// The static server, with functions that have this Python besides.
    pub fn start_with(
        bench: &Bench,
        functions: &[Function],
        python: &str,
        arguments: &[&str],
    ) -> Server {
        let dir = Server::folders(bench, functions, python);
        let first = Server::launch(dir, &bench.fixed, arguments, &[]);
        // Python keeps its bytecode on the disk, where later starts find it.
        for (name, _) in functions {
            assert_eq!(first.connect().post(&invocations(name), &[], EVENT).status, 200, "{name}");
        }
        first.again(&bench.fixed, arguments, &[])
    }

    fn folders(bench: &Bench, functions: &[Function], python: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, toml) in functions {
            let folder = dir.path().join("functions").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("function.toml"), toml).unwrap();
            for (tool, file) in [("echo", "echo"), ("poll", "bootstrap"), ("fork", "fork")] {
                // A measurement has those that it needs.
                if bench.tool(tool).exists() {
                    std::fs::copy(bench.tool(tool), folder.join(file)).unwrap();
                }
            }
            if !python.is_empty() {
                std::fs::write(folder.join("app.py"), python).unwrap();
            }
        }
        dir
    }

    fn start_in(
        dir: tempfile::TempDir,
        binary: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        // The first start brings the code into the store; what is measured is a start like any.
        Server::launch(dir, binary, arguments, environment).again(binary, arguments, environment)
    }

    /// Starts once more, in the same directory.
    pub fn again(
        mut self,
        binary: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Server::launch(dir, binary, arguments, environment)
    }

    fn launch(
        dir: tempfile::TempDir,
        binary: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let begun = Instant::now();
        let child = Command::new(binary)
            .arg("serve")
            .arg(dir.path().join("functions"))
            .arg("--data")
            .arg(dir.path().join("data"))
            .arg("--socket")
            .arg(dir.path().join("sock"))
            .args(["--listen", &address])
            .args(arguments)
            .envs(environment.iter().copied())
            .env("HOB_LOG", "error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the server does not start");
            std::thread::sleep(Duration::from_micros(100));
        }
        Conn::tcp(&address).get("/healthz");
        let start_us = begun.elapsed().as_secs_f64() * 1e6;
        let mut server = Server { child, dir, address, start_us, loaded_us: 0.0 };
        while server.get("/hob/server")["loading"] == true {
            std::thread::sleep(Duration::from_micros(200));
        }
        server.loaded_us = begun.elapsed().as_secs_f64() * 1e6;
        server
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub fn connect(&self) -> Conn {
        Conn::tcp(&self.address)
    }

    pub fn get(&self, path: &str) -> serde_json::Value {
        self.connect().get(path).json()
    }

    /// A number from `/proc/PID/status`.
    pub fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits until every worker is idle; how many there are.
    pub fn at_rest(&self, at_least: usize) -> usize {
        loop {
            let workers = self.get("/hob/workers");
            let workers = workers.as_array().unwrap();
            if workers.len() >= at_least && workers.iter().all(|w| w["state"] == "idle") {
                return workers.len();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a function's next worker is there beforehand, and waits for its event: true if that
    /// is soon. It does not sleep, after which the machine itself would have to wake.
    pub fn spare_waits(&self, function: &str) -> bool {
        let at_rest = |pid: i64| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
        };
        let begun = Instant::now();
        let (mut connection, path) = (self.connect(), format!("/hob/functions/{function}"));
        while !connection.get(&path).json()["spare"]["pid"].as_i64().is_some_and(at_rest) {
            if begun.elapsed() > Duration::from_secs(2) {
                return false;
            }
        }
        true
    }

    /// Lets it have the quiet after which it gives back what it does not need: a second, from the
    /// deadline on that the last invocation may have left within the next one.
    pub fn quiet(&self) {
        // A timer in between begins it anew.
        let look = || (self.status("VmRSS"), Instant::now());
        let mut seen = look();
        while seen.1.elapsed() < Duration::from_millis(2_200) {
            std::thread::sleep(Duration::from_millis(100));
            let now = look();
            if now.0 != seen.0 {
                seen = now;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.stop();
        }
    }
}
