//! What is timed, and what it is beside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::client::{Body, Connection, Target};
use crate::error::Error;
use crate::function::config::Runtime;
use crate::io::Clock;
use crate::pool::Instant;
use crate::runtime::interpreter;
use crate::runtime::launch::interpreter_path;

/// The event of each invocation.
const EVENT: &[u8] = b"{\"n\":1}";
/// How long throughput is looked at at one time.
const RATE_MS: u32 = 500;

/// Somebody who asks for one thing, on a connection that is kept.
pub struct Client {
    target: Target,
    path: String,
    connection: Option<Connection>,
}

impl Client {
    /// Of this path; it connects when it first asks.
    pub fn new(target: Target, path: &str) -> Client {
        Client { target, path: path.to_owned(), connection: None }
    }

    /// Asks, and says how long it took, in microseconds.
    pub fn call(&mut self) -> Result<u64, Error> {
        self.send(EVENT)
    }

    /// Asks with this event; any answer will do but an error.
    pub fn send(&mut self, event: &[u8]) -> Result<u64, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect()?,
        };
        let is_invocation = self.path.ends_with("/invocations");
        let (method, body) =
            if is_invocation { ("POST", Body::Bytes(event)) } else { ("GET", Body::Empty) };
        let clock = Clock::start();
        let mut reply = connection.send(method, &self.path, &[], body)?;
        let bytes = reply.bytes()?;
        let us = clock.now().as_micros();
        if reply.status != 200 {
            return Err(reply.error(&bytes));
        }
        if let Some(kind) = reply.field("x-amz-function-error") {
            let text = String::from_utf8_lossy(&bytes);
            return Err(Error::failed(format!("{}: {kind}: {text}", self.path)));
        }
        self.connection = Some(reply.done());
        Ok(us)
    }

    /// Its connection, left open.
    pub fn into_connection(self) -> Option<Connection> {
        self.connection
    }
}

/// Answers at once, whatever it is asked: what an exchange costs by itself. Ends with its client.
pub struct Echo {
    address: String,
}

impl Echo {
    /// On a port of its own, for one client.
    pub fn start() -> Result<Echo, Error> {
        let fail = |error: std::io::Error| Error::doing("listen on", "127.0.0.1", error);
        let listener = TcpListener::bind("127.0.0.1:0").map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?.to_string();
        std::thread::spawn(move || {
            // Its client says what is wrong.
            let _ = listener.accept().and_then(|(stream, _)| answer(stream));
        });
        Ok(Echo { address })
    }

    /// Its client.
    pub fn client(&self) -> Client {
        let target = Target::Url(format!("http://{}", self.address));
        Client::new(target, "/invocations")
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 1024];
    // A request comes in one piece: its client writes it so.
    while stream.read(&mut request)? > 0 {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"n\":1}")?;
    }
    Ok(())
}

/// Starts this program for next to nothing, and waits for its end: microseconds.
pub fn process_us() -> Result<u64, Error> {
    let fail = |error: std::io::Error| Error::doing("start", "this program", error);
    let own = std::env::current_exe().map_err(fail)?;
    let mut command = Command::new(own);
    command.arg("version").stdin(Stdio::null());
    let clock = Clock::start();
    command.output().map_err(fail)?;
    Ok(clock.now().as_micros())
}

/// The runtime of the Python function: in its place a server takes what is here.
pub const PYTHON: &str = "python3.11";

/// The program that a server here runs it with.
pub fn python() -> Option<PathBuf> {
    let runtime = Runtime::Python(PYTHON.to_owned());
    interpreter::find(&runtime, &interpreter_path()).ok().map(|found| found.program)
}

/// The least that a function in Python does: takes an event, and answers it.
const ANSWER: &str = "import json, sys; print(json.dumps(json.loads(sys.stdin.readline())))";

/// Starts a Python that answers one event: microseconds until it has.
pub fn python_us(program: &Path) -> Result<u64, Error> {
    let fail = |error: std::io::Error| Error::doing("start", program.display(), error);
    let clock = Clock::start();
    let mut child = Command::new(program)
        .args(["-u", "-c", ANSWER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let mut answer = String::new();
    if let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
        stdin.write_all(EVENT).and_then(|()| stdin.write_all(b"\n")).map_err(fail)?;
        BufReader::new(stdout).read_line(&mut answer).map_err(fail)?;
    }
    let us = clock.now().as_micros();
    child.wait().map_err(fail)?;
    Ok(us)
}

/// True if a process waits: for a spare, to be wanted.
pub fn waits(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name, which may be anything, is in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Answers a second, if so many clients ask as quickly as they can.
pub fn rate(clients: usize, client: &(dyn Fn() -> Client + Sync)) -> Result<f64, Error> {
    let one = || {
        let (mut client, mut count) = (client(), 0u32);
        client.call()?;
        let clock = Clock::start();
        while clock.now() < Instant::ZERO.after_ms(RATE_MS) {
            client.call()?;
            count += 1;
        }
        Ok(count)
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        let counts = all.into_iter().map(|one| one.join().unwrap_or_else(|_| unreachable!()));
        let sum: u32 = counts.sum::<Result<u32, Error>>()?;
        Ok(f64::from(sum) / (f64::from(RATE_MS) / 1e3))
    })
}

/// Times of the same, in microseconds.
#[derive(Default)]
pub struct Times(Vec<u64>);

impl Times {
    /// One more.
    pub fn add(&mut self, us: u64) {
        self.0.push(us);
    }

    fn at(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * percent / 100).map_or(0.0, |us| *us as f64)
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.at(50)
    }

    /// The 99th percentile.
    pub fn p99(&self) -> f64 {
        self.at(99)
    }
}
