//! Rows 7, 8, 12, 15, 15a: Python, zygotes, spares, the Runtime API, and what workers take.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::invocations;
use crate::load::{in_turns, invocation, load};
use crate::relay::{Relay, Way};
use crate::server::{EVENT, Function, Server, native};
use crate::times::{Floor, alone, call, floor, interleaved, timed, timed_at};
use crate::{Bench, Row};

/// A Python handler; and one that keeps its worker busy for a while, and collects its garbage.
const ECHO: &str = "def handler(event, context):\n    return event\n";
const COLLECTING: &str = "import gc, time\ndef handler(event, context):\n    \
                          time.sleep(0.02)\n    gc.collect()\n    return event\n";

pub fn rows(bench: &Bench) -> Vec<Row> {
    vec![native_fork(bench), python(bench), throughput(bench), memory(bench), native_memory(bench)]
}

fn function(runtime: &str, more: &str) -> String {
    format!("runtime = \"{runtime}\"\nhandler = \"app.handler\"\n{more}\n")
}

/// Times cold starts from spares: each is waited for before it is wanted.
fn spared(server: &Server, name: &str, rounds: usize) -> Vec<f64> {
    let (mut connection, path) = (server.connect(), invocations(name));
    let one = |_| {
        // A spare is for what is called again and again: on a machine with other work, once more.
        let mut calls = 0;
        while !server.spare_waits(name) {
            assert!(calls < 10, "{name} has no spare");
            calls += timed(server, name, 2).len();
        }
        call(&mut connection, &path)
    };
    (0..rounds).map(one).collect()
}

/// Times cold starts after a rest, when the processor's caches have little of it left.
fn rested(server: &Server, name: &str, rounds: usize) -> Vec<f64> {
    let (mut connection, path) = (server.connect(), invocations(name));
    let one = |_| {
        std::thread::sleep(Duration::from_millis(15));
        call(&mut connection, &path)
    };
    (0..rounds).map(one).collect()
}

fn native_fork(bench: &Bench) -> Row {
    let toml = "runtime = \"native\"\nhandler = \"fork\"\nmax_invocations = 1\n\
                shutdown_grace_ms = 0\nzygote = \"on\"\n";
    let functions: [Function; 1] = [("cold", toml.to_owned())];
    let server = Server::start(bench, &bench.fixed, &functions, &["--spares", "off"], &[]);
    let spared = Server::start(bench, &bench.fixed, &functions, &[], &[]);
    timed(&spared, "cold", 2);
    let [(forked, p99), (bare, _), (close, _), (spare, _), (after_rest, _), (spawn, _)] =
        interleaved(
            bench.amount(1000),
            [
                &|n| alone(&server, "cold", n),
                &|n| floor(bench, n, Floor::Fork),
                &|n| timed(&server, "cold", n),
                &|n| self::spared(&spared, "cold", n),
                &|n| rested(&server, "cold", n),
                &|n| floor(bench, n, Floor::Process),
            ],
        );
    Row {
        number: "7",
        promise: "cold start over a kept connection, native from a zygote: goal 150 us",
        measured: format!(
            "{forked:.0} us (p99 {p99:.0}), {:.2} x the bare process; by a bare host without HTTP \
             {bare:.0} us; while the last one ends \
             {close:.0} us; from a spare {spare:.0} us; after a rest {after_rest:.0} us",
            forked / spawn
        ),
        holds: None,
    }
}

/// A Python that answers a line with itself, and one that does the least of a function: takes an
/// event, and answers it.
const BARE: &str = "import sys; print(sys.stdin.readline(), end='')";
const ANSWER: &str = "import json, sys; print(json.dumps(json.loads(sys.stdin.readline())))";

/// Starts a Python with this program, which may import more, gives it a line, and waits for its
/// answer: microseconds.
fn start_python(import: &str, program: &str, rounds: usize) -> Vec<f64> {
    let program = format!("{import}\n{program}");
    let one = |_| {
        let begun = Instant::now();
        let mut child = Command::new(PYTHON)
            .args(["-u", "-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"{\"n\":1}\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let took = begun.elapsed().as_secs_f64() * 1e6;
        assert!(child.wait().unwrap().success());
        took
    };
    (0..rounds).map(one).collect()
}

/// The Python that hob finds first for `python3.11`, on this machine and on Debian's others.
const PYTHON: &str = "/usr/bin/python3";

/// Cold starts of a Python handler with this import, each beside a Python's own start.
fn python_starts(bench: &Bench, import: &str, rounds: usize) -> String {
    let toml = function("python3.11", "max_invocations = 1\nshutdown_grace_ms = 0\ntimeout_s = 30");
    let functions: [Function; 1] = [("cold", toml)];
    let source = format!("{import}\n{ECHO}");
    let server = Server::start_with(bench, &functions, &source, &["--spares", "off"]);
    let spared = Server::start_with(bench, &functions, &source, &[]);
    timed(&server, "cold", 2);
    timed(&spared, "cold", 2);
    let [(bare, _), (answer, _), (forked, p99), (close, _), (spare, _), (after_rest, _)] =
        interleaved(
            rounds,
            [
                &|n| start_python(import, BARE, n),
                &|n| start_python(import, ANSWER, n),
                &|n| alone(&server, "cold", n),
                &|n| timed(&server, "cold", n),
                &|n| self::spared(&spared, "cold", n),
                &|n| rested(&server, "cold", n),
            ],
        );
    format!(
        "forked {:.2} ms (p99 {:.2}), 1/{:.1} of the start of {:.1} ms; while the last one ends \
         {:.2} ms, 1/{:.1}; from a spare {:.2} ms, 1/{:.0}; after a rest {:.2} ms; a start without \
         JSON {:.1} ms",
        forked / 1e3,
        p99 / 1e3,
        answer / forked,
        answer / 1e3,
        close / 1e3,
        answer / close,
        spare / 1e3,
        answer / spare,
        after_rest / 1e3,
        bare / 1e3
    )
}

fn python(bench: &Bench) -> Row {
    let mut measured = python_starts(bench, "", bench.amount(400));
    let numpy = Command::new(PYTHON).args(["-c", "import numpy"]).stderr(Stdio::null()).status();
    match numpy {
        Ok(status) if status.success() => {
            let with = python_starts(bench, "import numpy", bench.amount(200));
            measured += &format!("; with numpy {with}");
        }
        Ok(_) | Err(_) => measured += "; numpy is not here",
    }
    Row {
        number: "8",
        promise: "cold start, Python: from a zygote 1/14 of starting a Python that answers one \
                  event (numpy 1/45), from a spare 1/35",
        measured,
        holds: None,
    }
}

fn throughput(bench: &Bench) -> Row {
    let provided = "runtime = \"provided.al2023\"\nhandler = \"any\"\nqueue_wait_ms = 60000\n";
    let functions: [Function; 3] = [
        ("native", native("queue_wait_ms = 60000")),
        ("provided", provided.to_owned()),
        ("python", function("python3.11", "queue_wait_ms = 60000")),
    ];
    let server = Server::start_with(bench, &functions, ECHO, &["--slots", "12"]);
    let relay = Relay::start(bench, 12);
    let [(one, _), (relayed, _)] = interleaved(
        bench.amount(5_000),
        [&|n| timed(&server, "provided", n), &|n| {
            timed_at(&relay.address, Way::Provided.path(), n)
        }],
    );
    let mut text = vec![format!("1 client: provided {one:.0} us, by a bare relay {relayed:.0}")];
    for clients in [8, 32] {
        let count = bench.amount(5_000);
        let run = |name: &str| {
            let load = load(&server.address, clients, count, &invocation(name, EVENT));
            assert!(load.refused.is_empty(), "{name}");
            load
        };
        let [provided, python, _] =
            in_turns([&|| run("provided"), &|| run("python"), &|| run("native")]);
        let [beside, own, native, relayed] = in_turns([
            &|| run("provided"),
            &|| run("native"),
            &|| relay.load(clients, count, Way::Native),
            &|| relay.load(clients, count, Way::Provided),
        ]);
        text.push(format!(
            "{clients} clients: provided {:.0}/s, {:.2} x a bare relay's ({:.0}/s), and {:.2} x native \
             (at most {:.2} x; the relay's {:.2} x its native); Python {:.0}/s, {:.2} x native",
            provided.rate,
            beside.part,
            relayed.rate,
            provided.part,
            most(own.part, native.part),
            1.0 / native.part,
            python.rate,
            python.part,
        ));
    }
    Row {
        number: "12",
        promise: "throughput: provided at least 0.85 x a bare relay's, Python 0.4 x native",
        measured: text.join("; "),
        holds: None,
    }
}

/// What part of its native rate hob could reach with workers of the Runtime API, if what it does for
/// an invocation beside relaying it took no longer there than for a native one. Both rates are given
/// beside the relay's with such workers, so that one of those takes a time of 1.
fn most(native: f64, relayed: f64) -> f64 {
    let (native, relayed) = (1.0 / native, 1.0 / relayed);
    native / (1.0 + native - relayed)
}

/// What ten workers take after a garbage collection, with their zygote.
fn memory(bench: &Bench) -> Row {
    const WORKERS: usize = 10;
    let functions: [Function; 1] =
        [("many", function("python3.11", "provisioned_concurrency = 10"))];
    let server = Server::start_with(bench, &functions, COLLECTING, &[]);
    server.at_rest(WORKERS);
    load(&server.address, WORKERS, 20 * WORKERS, &invocation("many", EVENT));
    server.at_rest(WORKERS);
    let pids = pids(&server);
    let zygote = server.get("/hob/functions/many")["zygote"]["pid"].as_i64().unwrap();
    let sum = |pids: &[i64], key: &str| -> u64 { pids.iter().map(|pid| rollup(*pid, key)).sum() };
    let pss = (sum(&pids, "Pss:") + rollup(zygote, "Pss:")) / WORKERS as u64;
    let private = sum(&pids, "Private_Dirty:") / WORKERS as u64;
    Row {
        number: "15",
        promise: "memory of a Python worker of ten, its part of the zygote included: at most \
                  1,638 KiB, 700 of them its own",
        measured: format!("{pss} KiB after a garbage collection, {private} of them its own"),
        holds: Some(pss <= 1638 && private <= 700),
    }
}

/// What a native worker and its kernel records take, and what the same program takes without a host.
fn native_memory(bench: &Bench) -> Row {
    const WORKERS: usize = 10;
    let functions = [("many", native("provisioned_concurrency = 10"))];
    let server = Server::start(bench, &bench.fixed, &functions, &[], &[]);
    server.at_rest(WORKERS);
    load(&server.address, WORKERS, 20 * WORKERS, &invocation("many", EVENT));
    server.at_rest(WORKERS);
    let all: Vec<[u64; 2]> = pids(&server).into_iter().map(taken).collect();
    let mean = |part: usize| all.iter().map(|taken| taken[part]).sum::<u64>() / WORKERS as u64;
    let mut bare = Command::new(bench.tool("echo"))
        .arg("once")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = i64::from(bare.id());
    // Until it waits for its input.
    while said_of(pid, "status", "State:").is_none_or(|state| state != "S") {
        std::thread::yield_now();
    }
    let [own, kernel] = taken(pid);
    drop(bare.stdin.take());
    bare.wait().unwrap();
    Row {
        number: "15a",
        promise: "memory of a native worker, the kernel's for it included: at most a fifth more than \
                  the same program without a host",
        measured: format!(
            "{} KiB its own, {} for its page tables and its stack in the kernel; the same program \
             without a host {own} and {kernel}",
            mean(0),
            mean(1)
        ),
        holds: Some(5 * (mean(0) + mean(1)) <= 6 * (own + kernel)),
    }
}

/// KiB of a process that no file has; those of its page tables and of its stack in the kernel, which is that
/// of all tasks at the mean.
fn taken(pid: i64) -> [u64; 2] {
    let line = std::fs::read_to_string("/proc/loadavg").unwrap();
    let tasks = line.split_whitespace().nth(3).unwrap().rsplit('/').next().unwrap();
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let stacks: u64 = value(&text, "KernelStack:").unwrap().parse().unwrap();
    let tables: u64 = said_of(pid, "status", "VmPTE:").unwrap().parse().unwrap();
    [rollup(pid, "Anonymous:"), tables + stacks / tasks.parse::<u64>().unwrap()]
}

fn pids(server: &Server) -> Vec<i64> {
    let workers = server.get("/hob/workers");
    workers.as_array().unwrap().iter().map(|worker| worker["pid"].as_i64().unwrap()).collect()
}

fn rollup(pid: i64, key: &str) -> u64 {
    said_of(pid, "smaps_rollup", key).unwrap().parse().unwrap()
}

/// What a file of a process in `/proc` says of a key.
fn said_of(pid: i64, file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    value(&text, key).map(ToOwned::to_owned)
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()
}
