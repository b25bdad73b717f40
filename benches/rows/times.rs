//! Rows 6, 7, 10, 11, 18, 19: times, each beside its floor.

use std::cell::RefCell;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::http::{Conn, invocations};
use crate::load::{ROUNDS, in_turns, invocation, load};
use crate::relay::{Relay, Way};
use crate::server::{EVENT, Server, exec, native};
use crate::{Bench, Row, median_p99};

pub fn rows(bench: &Bench) -> Vec<Row> {
    vec![
        cold(bench),
        cold_native(bench),
        warm(bench),
        throughput(bench),
        start(bench),
        overload(bench),
    ]
}

/// What the machine takes by itself.
#[derive(Clone, Copy)]
pub enum Floor {
    /// To start a process, have its answer, and reap it.
    Process,
    /// To exchange a request and a reply over HTTP.
    Exchange,
    /// To fork a native zygote, until its worker has answered an event.
    Fork,
}

/// What the machine takes, in microseconds.
pub fn floor(bench: &Bench, rounds: usize, floor: Floor) -> Vec<f64> {
    let (tool, more): (_, &[&str]) = match floor {
        Floor::Process => ("echo", &[]),
        Floor::Exchange => ("echo", &["http"]),
        Floor::Fork => ("fork", &["fork"]),
    };
    let mut command = Command::new(bench.tool("floor"));
    command.arg(bench.tool(tool)).arg(rounds.to_string()).args(more);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub fn timed(server: &Server, name: &str, rounds: usize) -> Vec<f64> {
    timed_at(&server.address, &invocations(name), rounds)
}

/// As [`timed`], of whatever answers there.
pub fn timed_at(address: &str, path: &str, rounds: usize) -> Vec<f64> {
    let mut connection = Conn::tcp(address);
    (0..rounds).map(|_| call(&mut connection, path)).collect()
}

/// What one invocation takes, in microseconds.
pub fn call(connection: &mut Conn, path: &str) -> f64 {
    let begun = Instant::now();
    assert_eq!(connection.post(path, &[], EVENT).status, 200);
    begun.elapsed().as_secs_f64() * 1e6
}

/// Times cold starts, each once the last one's worker is gone: what that takes to end belongs to no
/// start, as little as a bare process's end does.
pub fn alone(server: &Server, name: &str, rounds: usize) -> Vec<f64> {
    let mut connection = server.connect();
    let path = invocations(name);
    let run = |_| {
        let begun = Instant::now();
        while !connection.get("/hob/workers").json().as_array().unwrap().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the last worker stays");
        }
        call(&mut connection, &path)
    };
    (0..rounds).map(run).collect()
}

/// Alternates between measurements, so that the machine's moods fall on all of them.
pub fn interleaved<const N: usize>(
    rounds: usize,
    measure: [&dyn Fn(usize) -> Vec<f64>; N],
) -> [(f64, f64); N] {
    let mut all: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..rounds.div_ceil(20) {
        for (times, measure) in all.iter_mut().zip(measure) {
            times.extend(measure(20));
        }
    }
    all.each_mut().map(|times| median_p99(times))
}

fn cold(bench: &Bench) -> Row {
    let server = Server::start(bench, &bench.fixed, &[("cold", exec(""))], &[], &[]);
    let [(total, p99), (spawn, _), (exchange, _)] = interleaved(
        bench.amount(2000),
        [&|n| timed(&server, "cold", n), &|n| floor(bench, n, Floor::Process), &|n| {
            floor(bench, n, Floor::Exchange)
        }],
    );
    let own = total - spawn - exchange;
    Row {
        number: "6",
        promise: "cold start over HTTP, exec: hob's own share at most 100 us",
        measured: format!(
            "{total:.0} us (p99 {p99:.0}); floor {:.0} us = process {spawn:.0} + exchange \
             {exchange:.0}; own share {own:.0} us",
            spawn + exchange
        ),
        holds: None,
    }
}

fn cold_native(bench: &Bench) -> Row {
    let functions = [("cold", native("max_invocations = 1\nshutdown_grace_ms = 0"))];
    let server = Server::start(bench, &bench.fixed, &functions, &[], &[]);
    let [(total, p99), (spawn, _)] = interleaved(
        bench.amount(1000),
        [&|n| timed(&server, "cold", n), &|n| floor(bench, n, Floor::Process)],
    );
    Row {
        number: "7a",
        promise: "cold start over HTTP, native, without a zygote",
        measured: format!("{total:.0} us (p99 {p99:.0}), {:.2} x the bare process", total / spawn),
        holds: None,
    }
}

fn warm(bench: &Bench) -> Row {
    let server = Server::start(bench, &bench.fixed, &[("warm", native(""))], &[], &[]);
    timed(&server, "warm", 100);
    let relay = Relay::start(bench, 1);
    let [(p50, p99), (relayed, _), (floor, floor_p99)] = interleaved(
        bench.amount(20_000),
        [
            &|n| timed(&server, "warm", n),
            &|n| timed_at(&relay.address, Way::Native.path(), n),
            &|n| floor(bench, n, Floor::Exchange),
        ],
    );
    Row {
        number: "10",
        promise: "warm invocation over a kept connection, native: goal 2 x the bare exchange",
        measured: format!(
            "{p50:.0} us (p99 {p99:.0}), {:.2} x the bare exchange of {floor:.0} us (p99 \
             {floor_p99:.0}); a bare relay {:.2} x",
            p50 / floor,
            relayed / floor
        ),
        holds: None,
    }
}

fn throughput(bench: &Bench) -> Row {
    let functions = [("warm", native("queue_wait_ms = 60000"))];
    let server = Server::start(bench, &bench.fixed, &functions, &["--slots", "4"], &[]);
    let warm = invocation("warm", EVENT);
    let bare = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let relay = Relay::start(bench, 4);
    let count = bench.amount(10_000);
    let mut text = Vec::new();
    for clients in [8, 32] {
        let run = |request: &[u8]| {
            let load = load(&server.address, clients, count, request);
            assert!(load.refused.is_empty());
            load
        };
        let [relayed, answered, native, bare] = in_turns([
            &|| relay.load(clients, count, Way::Native),
            &|| relay.load(clients, count, Way::None),
            &|| run(&warm),
            &|| run(bare),
        ]);
        // What a bare relay's way to workers would leave of this server's own replies.
        let most = 1.0 / (1.0 + 1.0 / relayed.part - 1.0 / answered.part);
        text.push(format!(
            "{clients} clients: {:.0}/s, {:.2} x a reply without a worker ({:.0}/s), and {:.2} x the \
             most ({most:.2} x); a bare relay {:.0}/s, {:.2} x its own",
            native.rate,
            native.part,
            bare.rate,
            native.part / most,
            relayed.rate,
            relayed.part / answered.part
        ));
    }
    Row {
        number: "11",
        promise: "throughput, native: at least 0.4 x a reply without a worker, or 0.8 x the most that \
                  a bare relay's way to workers leaves of that",
        measured: text.join("; "),
        holds: None,
    }
}

fn start(bench: &Bench) -> Row {
    let functions: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
        .into_iter()
        .map(|name| (name, native("")))
        .collect();
    let starts = bench.amount(500).div_ceil(25);
    let (mut first, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        let server = Server::start(bench, &bench.fixed, &functions, &[], &[]);
        first.push(server.start_us / 1000.0);
        loaded.push(server.loaded_us / 1000.0);
    }
    let ((p50, p99), (all, _)) = (median_p99(&mut first), median_p99(&mut loaded));
    Row {
        number: "18",
        promise: "start to first answer, 10 functions: at most 10 ms",
        measured: format!("{p50:.1} ms (p99 {p99:.1}); all functions read after {all:.1} ms"),
        holds: None,
    }
}

fn overload(bench: &Bench) -> Row {
    let functions = [("busy", native("queue_wait_ms = 0"))];
    let server = Server::start(bench, &bench.fixed, &functions, &["--slots", "4"], &[]);
    let text = [("", EVENT, 10_000), ("; of a millisecond's work, ", b"\"work\"", 200)].map(
        |(what, event, count)| {
            let busy = invocation("busy", event);
            let count = bench.amount(count);
            load(&server.address, 4, count.min(200), &busy);
            let refused = RefCell::new(Vec::new());
            let over = || {
                let mut over = load(&server.address, 40, count, &busy);
                refused.borrow_mut().append(&mut over.refused);
                over
            };
            let [goodput, capacity] = in_turns([&over, &|| load(&server.address, 4, count, &busy)]);
            let mut refused = refused.into_inner();
            let all = refused.len() + ROUNDS * count;
            let parts = refused.len() as f64 / all as f64 * 100.0;
            let late = if refused.is_empty() { 0.0 } else { median_p99(&mut refused).1 };
            format!(
                "{what}{:.0} % of {:.0}/s; {parts:.0} % of requests refused, p99 {late:.1} ms",
                goodput.part * 100.0,
                capacity.rate
            )
        },
    );
    Row {
        number: "19",
        promise: "overload 10 x: goodput at least 95 % of capacity, refusals within 10 ms",
        measured: text.concat(),
        holds: None,
    }
}
