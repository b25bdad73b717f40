//! Rows 13, 14, 17: system calls, instructions, allocations, wake-ups. The same on every machine.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::http::{Conn, invocations};
use crate::load::{invocation, load};
use crate::server::{EVENT, Server, native};
use crate::{Bench, Row};

pub fn rows(bench: &Bench) -> Vec<Row> {
    vec![system_calls(bench), instructions(bench), allocations(bench), quiet(bench)]
}

/// `strace -c` on a server; its report comes when it is told to stop.
struct Trace {
    child: Child,
    report: std::path::PathBuf,
}

impl Trace {
    fn start(bench: &Bench, server: &Server) -> Trace {
        let report = bench.tool("strace.txt");
        let _ = std::fs::remove_file(&report);
        let mut child = Command::new("strace")
            .args(["-c", "-f", "-o"])
            .arg(&report)
            .args(["-p", &server.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says so once it is attached.
        let mut line = [0; 64];
        let said = std::io::Read::read(child.stderr.as_mut().unwrap(), &mut line).unwrap();
        assert!(
            String::from_utf8_lossy(&line[..said]).contains("attached"),
            "strace cannot attach"
        );
        Trace { child, report }
    }

    /// All system calls, and those that wait for events.
    fn stop(mut self) -> (usize, usize) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap();
        let report = std::fs::read_to_string(&self.report).unwrap();
        let calls = |line: &str| -> Option<(usize, String)> {
            let fields: Vec<&str> = line.split_whitespace().collect();
            Some((fields.get(3)?.parse().ok()?, (*fields.last()?).to_owned()))
        };
        let all: Vec<(usize, String)> =
            report.lines().filter_map(calls).filter(|(_, name)| name != "total").collect();
        let waits = all.iter().filter(|(_, name)| name.starts_with("epoll")).map(|(n, _)| n);
        (all.iter().map(|(n, _)| n).sum(), waits.sum())
    }
}

fn system_calls(bench: &Bench) -> Row {
    let functions = [("warm", native("queue_wait_ms = 60000"))];
    let server = Server::start(bench, &bench.fixed, &functions, &["--slots", "8"], &[]);
    let warm = invocation("warm", EVENT);
    load(&server.address, 8, 400, &warm);
    let mut each = Vec::new();
    for clients in [1, 8] {
        // What a connection costs to open and close is taken out by the difference of two runs.
        let count = |invocations: usize| {
            let trace = Trace::start(bench, &server);
            load(&server.address, clients, invocations, &warm);
            trace.stop().0
        };
        let (few, more) = (10 * clients, bench.amount(5_000));
        let opened = count(few) as f64;
        each.push((count(few + more) as f64 - opened) / more as f64);
    }
    Row {
        number: "13",
        promise: "system calls a warm invocation, at 1 and 8 clients: at most 8 and 6",
        measured: format!("{:.2} and {:.2} (floor 4)", each[0], each[1]),
        holds: Some(each[0] <= 8.0 && each[1] <= 6.0),
    }
}

/// A server that runs by single instructions, each of which is counted.
struct Steps {
    child: Child,
    count: std::path::PathBuf,
}

impl Steps {
    fn start(bench: &Bench, server: &Server) -> Steps {
        let count = bench.tool("steps.count");
        std::fs::write(&count, [0; 8]).unwrap();
        let mut child = Command::new(bench.tool("steps"))
            .arg(server.pid().to_string())
            .arg(&count)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 9];
        let read = std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said);
        assert!(read.is_ok() && &said == b"attached\n", "steps cannot attach");
        Steps { child, count }
    }

    /// How many there were when the server waits again.
    fn count(&self) -> u64 {
        let now = || {
            let bytes = std::fs::read(&self.count).unwrap();
            u64::from_le_bytes(bytes[..8].try_into().unwrap())
        };
        let mut last = now();
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let count = now();
            if count == last {
                return count;
            }
            last = count;
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap();
    }
}

fn instructions(bench: &Bench) -> Row {
    let server = Server::start(bench, &bench.fixed, &[("warm", native(""))], &[], &[]);
    let mut connection = server.connect();
    let path = invocations("warm");
    // Time goes slowly meanwhile: what comes once a second is in most of them, and not in the least.
    let rounds = if bench.small { 5 } else { 30 };
    let mut least = |mut ask: Box<dyn FnMut(&mut Conn)>| {
        ask(&mut connection);
        let steps = Steps::start(bench, &server);
        ask(&mut connection);
        let mut before = steps.count();
        let each = (0..rounds).map(|_| {
            ask(&mut connection);
            let count = steps.count();
            count - std::mem::replace(&mut before, count)
        });
        each.min().unwrap()
    };
    let warm = least(Box::new(move |connection| {
        assert_eq!(connection.post(&path, &[], EVENT).status, 200);
    }));
    let bare = least(Box::new(|connection| assert_eq!(connection.get("/healthz").status, 200)));
    assert!(bare > 1_000 && warm > bare, "the server ran by single steps");
    Row {
        number: "13a",
        promise: "instructions of the server's own, a warm invocation and a reply without a worker",
        measured: format!("{warm} and {bare}"),
        holds: None,
    }
}

fn allocations(bench: &Bench) -> Row {
    let file = bench.tool("count");
    std::fs::write(&file, [0; 8]).unwrap();
    let preload = bench.tool("count.so");
    let environment =
        [("LD_PRELOAD", preload.to_str().unwrap()), ("HOB_BUDGET_COUNT", file.to_str().unwrap())];
    let functions = [("warm", native(""))];
    let dynamic = bench.tool("dynamic");
    let server = Server::start(bench, &dynamic, &functions, &[], &environment);
    let count = || {
        let bytes = std::fs::read(&file).unwrap();
        u64::from_le_bytes(bytes[..8].try_into().unwrap())
    };
    let path = invocations("warm");
    let mut connection = server.connect();
    let mut run = |event: &[u8], times: usize| {
        for _ in 0..times {
            assert_eq!(connection.post(&path, &[], event).status, 200);
        }
        count()
    };
    let large = format!("{{\"text\":\"{}\",\"list\":[1,2,{{}}]}}", "x".repeat(3_900));
    let mut each = Vec::new();
    for event in [EVENT, large.as_bytes()] {
        let before = run(event, 500);
        assert!(before > 0, "the allocator is counted");
        let times = bench.amount(10_000);
        each.push((run(event, times) - before) as f64 / times as f64);
    }
    Row {
        number: "14",
        promise: "allocations a warm invocation, bodies up to 4 KiB: 0 but for the executor's queue",
        measured: format!(
            "{:.3} at 7 bytes, {:.3} at 3.9 KiB; the queue takes a block for every 31 wake-ups, \
             which are three an invocation",
            each[0], each[1]
        ),
        holds: Some(each.iter().all(|n| *n < 3.0 / 31.0 + 0.01)),
    }
}

fn quiet(bench: &Bench) -> Row {
    let functions: Vec<_> = ["a", "b", "c"].map(|name| (name, native(""))).to_vec();
    let server = Server::start(bench, &bench.fixed, &functions, &[], &[]);
    load(&server.address, 1, 3, &invocation("a", EVENT));
    server.at_rest(1);
    std::thread::sleep(Duration::from_millis(300));
    let written = || -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
        line.parse().unwrap()
    };
    let before = written();
    let trace = Trace::start(bench, &server);
    let seconds = if bench.small { 3 } else { 60 };
    std::thread::sleep(Duration::from_secs(seconds));
    let (_, waits) = trace.stop();
    let bytes = written() - before;
    // Attaching and detaching interrupt the wait that is under way.
    let wakes = waits.saturating_sub(2);
    Row {
        number: "17",
        promise: "idle server with a warm worker: at most 2 wake-ups a minute, 0 bytes written",
        measured: format!("{wakes} wake-ups, {bytes} bytes in {seconds} s"),
        holds: Some(wakes <= 2 && bytes == 0),
    }
}
