//! The server's memory and CPU as work grows, measured, drawn, and put into words. Started by
//! `benches/curves`.
//!
//! CPU is what the kernel has counted for the server's one thread. Servers that differ in how much
//! they have are all up at one time and are measured in turns, so that the machine's moods fall on
//! all of them alike; what is told is the median over the turns. What a sentence says of the reason
//! is written by hand, and true of the code; its figures are of the run.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss
)]

#[path = "rows/common.rs"]
mod common;
#[path = "../tests/common/http.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod http;
mod plot;
#[path = "rows/server.rs"]
#[allow(dead_code, reason = "shared with the budget")]
mod server;
#[path = "../tests/common/sockets.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod sockets;

use std::time::Instant;

pub use common::{Bench, median_p99};
use plot::{Line, Plot};
use server::{EVENT, Function, Server, exec, native};

/// An invocation leaves its deadline behind, and a server is not at rest before that.
const TIMEOUT: &str = "timeout_s = 1\n";

/// A plot, and what it shows.
struct Curve(Plot, String);

fn main() {
    let Some((bench, _)) = Bench::from_arguments() else {
        // `cargo bench` alone: the script builds what is needed here.
        println!("run benches/curves");
        return;
    };
    let mut curves = workers(&bench);
    curves.push(cold(&bench));
    curves.extend(functions(&bench));
    curves.extend(payloads(&bench));
    let folder = match bench.small {
        true => bench.out.clone(),
        false => common::project().join("benches/plots"),
    };
    let mut table = String::from("| | |\n|---|---|\n");
    for Curve(plot, sentence) in &curves {
        let (name, title) = (plot.name, plot.title);
        std::fs::write(folder.join(name).with_extension("svg"), plot.svg()).unwrap();
        table += &format!("| ![{title}](benches/plots/{name}.svg) | {sentence} |\n");
        println!("{title}: {sentence}");
        for Line(name, points) in &plot.lines {
            println!("  {name}: {points:.1?}");
        }
    }
    if !bench.small {
        common::into_readme("curves", |_| table);
    }
}

/// 1, 2, 4 ... `most`; of a small run the ends only.
fn doubled(bench: &Bench, most: usize) -> Vec<usize> {
    if bench.small {
        return vec![1, most / 8];
    }
    let powers = (0..).map(|n| 1 << n).take_while(|n| *n < most);
    powers.chain([most]).collect()
}

/// Turns that are taken.
fn rounds(bench: &Bench) -> usize {
    if bench.small { 1 } else { 30 }
}

/// A server for each of these counts, with so many warm workers.
fn crowds(bench: &Bench, at: &[usize]) -> Vec<Server> {
    let start = |n: &usize| {
        let warm = native(&format!("{TIMEOUT}provisioned_concurrency = {n}"));
        let functions = [("warm", warm), ("cold", exec(TIMEOUT))];
        let server = Server::start(bench, &bench.fixed, &functions, &["--slots", "256"], &[]);
        assert_eq!(server.at_rest(*n), *n);
        server
    };
    at.iter().map(start).collect()
}

/// CPU time that the server has had, in microseconds.
fn cpu_us(server: &Server) -> f64 {
    let path = format!("/proc/{}/schedstat", server.pid());
    let text = std::fs::read_to_string(path).unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1000.0
}

/// What one invocation takes of each of `works` (a server, a function, an event): microseconds of the
/// server's CPU, and from the request to the reply.
fn each(works: &[(&Server, &str, Vec<u8>, usize)], rounds: usize) -> Vec<(f64, f64)> {
    let mut all: Vec<(Vec<f64>, Vec<f64>)> = works.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds {
        for ((server, function, event, count), (cpu, whole)) in works.iter().zip(&mut all) {
            let mut connection = server.connect();
            let mut run = |_: usize| {
                let begun = Instant::now();
                let reply = connection.invoke(function, event);
                assert_eq!((reply.status, reply.body.len()), (200, event.len()));
                begun.elapsed().as_secs_f64() * 1e6
            };
            // What it gave back while the others had their turn is there again.
            for n in 0..5 {
                run(n);
            }
            let before = cpu_us(server);
            whole.extend((0..*count).map(run));
            cpu.push((cpu_us(server) - before) / *count as f64);
        }
    }
    let medians =
        |(cpu, whole): &mut (Vec<f64>, Vec<f64>)| (median_p99(cpu).0, median_p99(whole).0);
    all.iter_mut().map(medians).collect()
}

fn points<'a>(at: &[usize], values: impl IntoIterator<Item = f64> + 'a) -> Vec<(f64, f64)> {
    let points: Vec<_> = at.iter().map(|n| *n as f64).zip(values).collect();
    assert!(points.len() == at.len() && points.iter().all(|(_, y)| *y > 0.0), "{points:?}");
    points
}

/// The memory of servers at rest: all of it, and their own.
fn memory(at: &[usize], servers: &[Server]) -> Vec<Line> {
    let of = |key| points(at, servers.iter().map(|server| server.status(key) as f64));
    vec![Line("all that is resident", of("VmRSS")), Line("its own", of("RssAnon"))]
}

/// What each further one adds, by the ends of a line.
fn slope(line: &Line) -> f64 {
    let (first, last) = (line.1[0], line.last());
    (last.1 - first.1) / (last.0 - first.0)
}

/// `flat, 30 to 32`, or how it is not.
fn shape(points: &[(f64, f64)]) -> String {
    let values = points.iter().map(|(_, y)| *y);
    let (least, most) = values.fold((f64::MAX, 0.0f64), |(a, b), y| (a.min(y), b.max(y)));
    let word = if most <= least * 1.5 { "flat" } else { "not flat" };
    let digits = usize::from(most < 100.0);
    format!("{word}, {least:.digits$} to {most:.digits$}")
}

fn plot(
    (name, title): (&'static str, &'static str),
    (x, y): (&'static str, &'static str),
    lines: Vec<Line>,
) -> Plot {
    Plot { name, title, x, y, by_decades: false, lines }
}

fn workers(bench: &Bench) -> Vec<Curve> {
    let at = doubled(bench, 256);
    let servers = crowds(bench, &at);
    servers[0].quiet();
    let memory = memory(&at, &servers);
    let works: Vec<_> =
        servers.iter().map(|s| (s, "warm", EVENT.to_vec(), bench.amount(1000))).collect();
    let cpu = points(&at, each(&works, rounds(bench)).into_iter().map(|(cpu, _)| cpu));
    let linear = format!(
        "Linear: {:.2} KiB for each further worker, {:.0} KiB in all with {}. That is what is known of \
         it, its task, and its descriptors' places in the event loop; a worker at rest holds no \
         buffer, and table and program are there without it.",
        slope(&memory[1]),
        memory[0].last().1,
        memory[0].last().0
    );
    let flat = format!(
        "CPU is {} us: nothing looks at the table. A version's idle workers are linked, the one \
         used last comes first; deadlines are looked through when one is due; and the kernel names the \
         descriptors that have something.",
        shape(&cpu)
    );
    let (names, axes) =
        (("workers-memory", "Server memory at rest, by warm workers"), ("workers", "KiB"));
    let memory = Curve(plot(names, axes, memory), linear);
    let names = ("workers-cpu", "Server CPU of a warm invocation, by warm workers");
    vec![memory, Curve(plot(names, ("workers", "us"), vec![Line("CPU", cpu)]), flat)]
}

fn cold(bench: &Bench) -> Curve {
    // One slot of the 256 is for the worker that is started.
    let at = doubled(bench, 255);
    let servers = crowds(bench, &at);
    let works: Vec<_> =
        servers.iter().map(|s| (s, "cold", EVENT.to_vec(), bench.amount(200))).collect();
    let (cpu, whole): (Vec<_>, Vec<_>) = each(&works, rounds(bench)).into_iter().unzip();
    let whole = Line("from request to reply", points(&at, whole));
    let cpu = Line("CPU of the server", points(&at, cpu));
    let linear = format!(
        "Nearly flat: {:.0} us of CPU, and {:.2} more for each worker that is there; from request to \
         reply {:.0} us, and {:.2} more. The kernel copies the server's list of descriptors, four \
         a worker, for the new process, and closes the copies at its exec; and at its end it looks \
         once through the server's children for others that have ended.",
        cpu.1[0].1,
        slope(&cpu).max(0.0),
        whole.1[0].1,
        slope(&whole)
    );
    let names = ("cold-cpu", "A cold start (exec), by warm workers that are there");
    Curve(plot(names, ("workers", "us"), vec![whole, cpu]), linear)
}

fn functions(bench: &Bench) -> Vec<Curve> {
    let at = doubled(bench, 64);
    let name = |n: usize| format!("f{n:02}");
    let start = |n: &usize| {
        let functions: Vec<Function> =
            (0..*n).map(|n| (&*name(n).leak(), native(TIMEOUT))).collect();
        Server::start(bench, &bench.fixed, &functions, &[], &[])
    };
    let mut servers: Vec<Server> = at.iter().map(start).collect();
    let mut times: Vec<(Vec<f64>, Vec<f64>)> = at.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds(bench) {
        servers = servers.into_iter().map(|s| s.again(&bench.fixed, &[], &[])).collect();
        for (server, (first, loaded)) in servers.iter().zip(&mut times) {
            first.push(server.start_us / 1000.0);
            loaded.push(server.loaded_us / 1000.0);
        }
    }
    // The last of all names.
    let last: Vec<String> = at.iter().map(|n| name(n - 1)).collect();
    let works: Vec<_> = servers
        .iter()
        .zip(&last)
        .map(|(server, last)| (server, &**last, EVENT.to_vec(), bench.amount(1000)))
        .collect();
    let cpu = points(&at, each(&works, rounds(bench)).into_iter().map(|(cpu, _)| cpu));
    servers[0].quiet();
    let memory = memory(&at, &servers);
    let first = points(&at, times.iter_mut().map(|(first, _)| median_p99(first).0));
    let loaded = points(&at, times.iter_mut().map(|(_, loaded)| median_p99(loaded).0));
    functions_in_words(memory, cpu, first, Line("all functions read", loaded))
}

fn functions_in_words(
    memory: Vec<Line>,
    cpu: Vec<(f64, f64)>,
    first: Vec<(f64, f64)>,
    loaded: Line,
) -> Vec<Curve> {
    let linear = format!(
        "Linear: {:.1} KiB for each further function, {:.0} KiB in all with {}, one of which has a \
         worker. That is its settings and names, the watch on its folder, and the arguments and the \
         environment that its workers start with; its code is not in memory.",
        slope(&memory[1]),
        memory[0].last().1,
        memory[0].last().0
    );
    let flat = format!(
        "CPU is {} us: a function is found among the others by bisection, in seven steps of 64 at \
         most, its version and its workers by number.",
        shape(&cpu)
    );
    let starts = format!(
        "The first answer is {} ms after the start: the server serves before it has read its \
         functions, and an invocation waits for its own. That all are read is linear, {:.1} ms with \
         one and {:.2} more for each: a helper looks whether a file of theirs has changed, and the \
         server reads their settings.",
        shape(&first),
        loaded.1[0].1,
        slope(&loaded)
    );
    let names = [
        ("functions-memory", "Server memory at rest, by functions"),
        ("functions-cpu", "Server CPU of a warm invocation, by functions"),
        ("functions-start", "After the start of the server, by functions"),
    ];
    vec![
        Curve(plot(names[0], ("functions", "KiB"), memory), linear),
        Curve(plot(names[1], ("functions", "us"), vec![Line("CPU", cpu)]), flat),
        Curve(
            plot(names[2], ("functions", "ms"), vec![loaded, Line("first answer", first)]),
            starts,
        ),
    ]
}

/// A JSON text of so many bytes.
fn event(bytes: usize) -> Vec<u8> {
    match bytes {
        1 => b"1".to_vec(),
        _ => format!("\"{}\"", "x".repeat(bytes - 2)).into_bytes(),
    }
}

fn payloads(bench: &Bench) -> Vec<Curve> {
    let at: Vec<usize> = match bench.small {
        true => vec![1, 6 << 20],
        false => vec![1, 16, 256, 4 << 10, 64 << 10, 1 << 20, 6 << 20],
    };
    let server = Server::start(bench, &bench.fixed, &[("warm", native(TIMEOUT))], &[], &[]);
    let mut connection = server.connect();
    let (mut high, mut after) = (Vec::new(), Vec::new());
    connection.invoke("warm", EVENT);
    server.quiet();
    for bytes in &at {
        let event = event(*bytes);
        // From here on the kernel keeps the most there was.
        std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
        for _ in 0..10 {
            assert!(
                connection.invoke("warm", &event).body == event,
                "what comes back is the event"
            );
        }
        high.push(server.status("VmHWM") as f64);
        server.quiet();
        after.push(server.status("VmRSS") as f64);
    }
    // Of long ones fewer.
    let count = |bytes: usize| (bench.amount(1000) / (1 + bytes / 16_384)).max(5);
    let works: Vec<_> = at.iter().map(|n| (&server, "warm", event(*n), count(*n))).collect();
    let cpu = points(&at, each(&works, rounds(bench)).into_iter().map(|(cpu, _)| cpu));
    let cpu = Line("CPU", cpu);
    let high = Line("most during invocations", points(&at, high));
    let after = points(&at, after);
    let small: Vec<_> = cpu.1.iter().copied().filter(|(bytes, _)| *bytes <= 256.0).collect();
    let linear = format!(
        "CPU is {} us up to 256 B, the price of the system calls; then it is linear, {:.1} ns a byte. \
         The kernel copies the event in and out and then the reply, and once the server reads the event \
         byte by byte to see that it is JSON, which is the larger part. It copies neither: buffers \
         are handed on.",
        shape(&small),
        slope(&cpu) * 1000.0
    );
    let back = format!(
        "Flat for what fits the buffers that are there, then linear: {:.2} bytes for each byte, {:.0} \
         KiB at 6 MiB, since the event is gone when the reply comes. At rest it is {} KiB whatever \
         came: large buffers go back to the system at once, small ones and the program's text \
         after a second of quiet.",
        slope(&high) * 1024.0,
        high.last().1,
        shape(&after)
    );
    let names = ("payloads-cpu", "Server CPU of a warm invocation, by payload");
    let cpu = plot(names, ("bytes", "us"), vec![cpu]);
    let names = ("payloads-memory", "Server memory, by payload");
    let memory = plot(names, ("bytes", "KiB"), vec![high, Line("at rest afterwards", after)]);
    let drawn = |plot, sentence| Curve(Plot { by_decades: true, ..plot }, sentence);
    vec![drawn(cpu, linear), drawn(memory, back)]
}
