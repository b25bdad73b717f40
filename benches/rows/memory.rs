//! Rows 1 to 5: memory, threads, size.

use crate::http::Conn;
use crate::load::{invocation, load};
use crate::server::{EVENT, Function, Server, exec, native};
use crate::{Bench, Row};

fn ten() -> Vec<Function> {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let toml = |n: usize| if n.is_multiple_of(2) { native("") } else { exec("") };
    names.iter().enumerate().map(|(n, name)| (*name, toml(n))).collect()
}

fn kib(server: &Server) -> String {
    let (all, own) = (server.status("VmRSS"), server.status("RssAnon"));
    format!("{all} KiB, {own} of them its own and the rest the program's text")
}

pub fn rows(bench: &Bench) -> Vec<Row> {
    let server = Server::start(bench, &bench.fixed, &ten(), &[], &[]);
    server.get("/hob/server");
    let busy = server.status("VmRSS");
    server.quiet();
    let idle = server.status("VmRSS");
    let mut rows = vec![Row {
        number: "1",
        promise: "idle server, 10 functions, no worker: at most 768 KiB",
        measured: format!("{}; {busy} KiB just after a request", kib(&server)),
        holds: Some(idle <= 768),
    }];
    drop(server);
    rows.push(crowded(bench));
    rows.push(growth(bench));
    let server = Server::start(bench, &bench.fixed, &ten(), &[], &[]);
    load(&server.address, 4, 40, &invocation("a", EVENT));
    let threads = server.status("Threads");
    rows.push(Row {
        number: "4",
        promise: "threads: at most 2",
        measured: threads.to_string(),
        holds: Some(threads <= 2),
    });
    rows.push(sizes(bench));
    rows
}

/// The server for this machine, and for every other that `cross/build` has made one for.
fn sizes(bench: &Bench) -> Row {
    let built = bench.fixed.ancestors().nth(2).unwrap();
    let mut sizes: Vec<(String, u64)> = std::fs::read_dir(built)
        .unwrap()
        .flatten()
        .filter_map(|folder| {
            let name = folder.file_name().into_string().ok()?;
            let program = std::fs::metadata(folder.path().join("hob")).ok()?;
            // What has more to its name was not made for a board.
            (!name.contains('-')).then_some((name, program.len()))
        })
        .collect();
    sizes.sort();
    let text: Vec<String> =
        sizes.iter().map(|(name, size)| format!("{name} {}", size / 1024)).collect();
    Row {
        number: "5",
        promise: "static stripped binary: at most 2 MiB",
        measured: format!("{} KiB, musl", text.join(", ")),
        holds: Some(sizes.iter().all(|(_, size)| *size <= 2 << 20)),
    }
}

/// Workers and idle connections: what all of them and each of them take.
fn crowded(bench: &Bench) -> Row {
    // Between a few and many, since the first ones bring along what all of them share.
    let (few, many) = (16, 64);
    let own = |workers, connections| {
        let (server, _open) = crowd(bench, workers, connections);
        server.status("RssAnon")
    };
    let each = |less: u64, more: u64| more.saturating_sub(less) as f64 / (many - few) as f64;
    let worker = each(own(few, 0), own(many, 0));
    let connection = each(own(0, few), own(0, many));
    let (server, _open) = crowd(bench, many, many);
    let all = server.status("VmRSS");
    Row {
        number: "2",
        promise: "with 64 warm workers and 64 idle connections: at most 1,024 KiB; 1 KiB a worker, \
                  2 KiB a connection",
        measured: format!(
            "{}; {worker:.2} KiB a worker, {connection:.2} KiB a connection",
            kib(&server)
        ),
        holds: Some(all <= 1024 && worker <= 1.0 && connection <= 2.0),
    }
}

/// A server at rest with so many warm workers, and so many connections that were used.
fn crowd(bench: &Bench, workers: usize, connections: usize) -> (Server, Vec<Conn>) {
    let functions = [("many", native(&format!("provisioned_concurrency = {workers}")))];
    let server = Server::start(bench, &bench.fixed, &functions, &["--slots", "80"], &[]);
    server.at_rest(workers);
    let mut open: Vec<Conn> = (0..connections).map(|_| server.connect()).collect();
    for connection in &mut open {
        assert_eq!(connection.get("/healthz").status, 200);
    }
    server.quiet();
    (server, open)
}

/// Memory before and after a long day.
fn growth(bench: &Bench) -> Row {
    let slow =
        "runtime = \"exec\"\nhandler = \"sleep 1000\"\ntimeout_s = 1\nshutdown_grace_ms = 0\n";
    let functions = [("warm", native("queue_wait_ms = 60000")), ("slow", slow.to_owned())];
    let server = Server::start(bench, &bench.fixed, &functions, &["--slots", "16"], &[]);
    let warm = invocation("warm", EVENT);
    let crash = invocation("warm", b"\"crash\"");
    let slow = invocation("slow", EVENT);
    load(&server.address, 8, 400, &warm);
    load(&server.address, 8, 160, &crash);
    load(&server.address, 8, 8, &slow);
    load(&server.address, 8, 400, &warm);
    server.at_rest(1);
    server.quiet();
    let before = server.status("VmRSS");
    let (good, bad, late) = (bench.amount(100_000), bench.amount(10_000), bench.amount(80));
    load(&server.address, 8, good, &warm);
    load(&server.address, 8, bad, &crash);
    load(&server.address, 16, late, &slow);
    load(&server.address, 8, 400, &warm);
    server.at_rest(1);
    server.quiet();
    let grown = server.status("VmRSS").saturating_sub(before);
    Row {
        number: "3",
        promise: "growth after 100,000 warm invocations, 10,000 crashes, timeouts: at most 64 KiB",
        measured: format!("{grown} KiB after {good} and {bad}"),
        holds: Some(grown <= 64),
    }
}
