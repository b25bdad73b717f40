//! `hob bench`: what functions cost on the machine in hand, each time beside its floor, measured in
//! turns with it. Needs nothing but this program; with a Python that is here, that is measured too.

mod times;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_process::Child;
use serde_json::{Value, json};

use super::client::{Body, Connection, Target};
use super::scene::{self, Scene};
use super::{print, say, try_print};
use crate::error::Error;
use crate::io::Clock;
use crate::pool::Instant;
use crate::server::settings::Settings;
use times::{Client, Echo, Times, process_us};

/// Clients at one time where throughput is measured.
const CLIENTS: usize = 8;
/// After so long without work the server has given back what it does not need.
const QUIET: Duration = Duration::from_millis(1_500);

/// How long measurements take turns, and how often at least.
const TURNS_MS: u32 = 2_000;
const ROUNDS_MIN: u32 = 20;

/// One figure.
struct Row {
    /// The row of README's table of promises.
    number: u8,
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// What it is compared with.
    beside: Option<f64>,
}

struct Bench {
    scene: Scene,
    /// The Python that is here.
    python: Option<PathBuf>,
    rows: Vec<Row>,
    json: bool,
    interrupted: Arc<AtomicBool>,
}

/// A server of ours, and where it is.
struct Server {
    child: Child,
    target: Target,
}

/// Measures, and prints as it goes, or all of it as JSON.
pub fn run(json: bool) -> Result<(), Error> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in
        [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
    {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Error::doing("handle", "signals", error))?;
    }
    let fail = |error: std::io::Error| Error::doing("prepare", "the functions", error);
    let scene = Scene::set("bench").map_err(fail)?;
    let mut bench = Bench { scene, python: times::python(), rows: Vec::new(), json, interrupted };
    bench.write().map_err(fail)?;
    bench.begin()?;
    // A server that has done nothing else yet.
    let server = bench.start(&[])?;
    bench.at_rest(&server)?;
    bench.each(&server)?;
    stop(server)?;
    let server = bench.start(&["--spares", "off"])?;
    bench.cold(&server)?;
    bench.python(&server)?;
    bench.warm(&server)?;
    bench.throughput(&server)?;
    stop(server)?;
    let server = bench.start(&[])?;
    bench.spares(&server)?;
    stop(server)?;
    bench.end();
    Ok(())
}

fn stop(mut server: Server) -> Result<(), Error> {
    smol::block_on(scene::stop(&mut server.child)).map(drop)
}

impl Drop for Server {
    fn drop(&mut self) {
        // What failed has been said; the server has still to end before what it runs from goes.
        if let Ok(None) = self.child.try_status() {
            let _ = smol::block_on(scene::stop(&mut self.child));
        }
    }
}

impl Server {
    fn client(&self, function: &str) -> Client {
        let path = format!("/2015-03-31/functions/{function}/invocations");
        Client::new(self.target.clone(), &path)
    }

    /// Waits until a function's next worker is there, and is at rest.
    fn spare_waits(&self, function: &str) -> Result<(), Error> {
        for _ in 0..5_000 {
            let path = format!("/hob/functions/{function}");
            let spare = self.target.ask("GET", &path, Body::Empty)?["spare"]["pid"].as_u64();
            if spare.is_some_and(times::waits) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Error::failed(format!("no spare worker of {function} was made")))
    }

    /// A number of its `/proc/PID/status`.
    fn status(&self, key: &str) -> Result<u64, Error> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path);
        let text = text.map_err(|error| Error::doing("read", &path, error))?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| Error::failed(format!("{path} has no {key}")))
    }
}

impl Bench {
    fn write(&self) -> std::io::Result<()> {
        const ONCE: &str = "max_invocations = 1\nshutdown_grace_ms = 0";
        let own = |name: &str, more: &str| self.scene.own(name, "native", "sample", more);
        self.scene.own("exec", "exec", "version", "")?;
        own("cold", ONCE)?;
        own("fork", &format!("{ONCE}\nzygote = \"on\""))?;
        own("warm", "reserved_concurrency = 4\nqueue_wait_ms = 60000")?;
        own("many", "")?;
        // Ten are a usual number.
        let fillers = if self.python.is_some() { 4 } else { 5 };
        ["a", "b", "c", "d", "e"].iter().take(fillers).try_for_each(|name| own(name, ""))?;
        if self.python.is_some() {
            let more = format!("{ONCE}\ntimeout_s = 60");
            let folder = self.scene.function("python", times::PYTHON, "app.handler", &more)?;
            std::fs::write(folder.join("app.py"), "def handler(event, context): return event\n")?;
        }
        Ok(())
    }

    fn start(&self, arguments: &[&str]) -> Result<Server, Error> {
        smol::block_on(async {
            let child = self.scene.start(arguments).await?;
            let server = self.scene.ask("GET", "/hob/server").await?;
            let url = server["url"].as_str().unwrap_or_default();
            Ok(Server { child, target: Target::Url(url.to_owned()) })
        })
    }

    fn begin(&self) -> Result<(), Error> {
        if self.json {
            return Ok(());
        }
        try_print(&format!("{}\n\n", machine()))?;
        let heading = format!("{:>3}  {:<46}{:>10} {:<4}", "ROW", "WHAT", "MEASURED", "");
        try_print(&format!("{heading}{:>10}{:>8}\n", "BESIDE", "RATIO"))?;
        if self.python.is_none() {
            say("no Python is here: its rows are missing");
        }
        Ok(())
    }

    fn end(&self) {
        if self.json {
            let row = |row: &Row| {
                json!({ "row": row.number, "what": row.what, "value": row.value, "unit": row.unit,
                    "beside": row.beside })
            };
            let rows: Vec<Value> = self.rows.iter().map(row).collect();
            print(&format!("{:#}\n", json!({ "machine": machine(), "rows": rows })));
        }
    }

    fn add(&mut self, row: Row) -> Result<(), Error> {
        if !self.json {
            let Row { number, what, value, unit, beside } = row;
            let digits = if value < 10.0 { 2 } else { 0 };
            let mut line = format!("{number:>3}  {what:<46}{value:>10.digits$} {unit:<4}");
            if let Some(beside) = beside {
                line += &format!("{beside:>10.0}{:>7.2}x", value / beside);
            }
            try_print(&format!("{}\n", line.trim_end()))?;
        }
        self.rows.push(row);
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        match self.interrupted.load(Ordering::Relaxed) {
            true => Err(Error::failed("interrupted")),
            false => Ok(()),
        }
    }

    /// Measures in turns, so that the machine's moods fall on all of them, for some seconds.
    fn interleaved<const N: usize>(
        &self,
        mut all: [&mut dyn FnMut() -> Result<u64, Error>; N],
    ) -> Result<[Times; N], Error> {
        let mut times: [Times; N] = std::array::from_fn(|_| Times::default());
        let clock = Clock::start();
        let mut rounds = 0;
        while rounds < ROUNDS_MIN || clock.now() < Instant::ZERO.after_ms(TURNS_MS) {
            self.check()?;
            for (times, measure) in times.iter_mut().zip(&mut all) {
                times.add(measure()?);
            }
            rounds += 1;
        }
        Ok(times)
    }

    fn at_rest(&mut self, server: &Server) -> Result<(), Error> {
        std::thread::sleep(QUIET);
        let kib = |key| server.status(key).map(|kib| kib as f64);
        let own = std::env::current_exe().and_then(std::fs::metadata);
        let own = own.map_err(|error| Error::doing("look at", "this program", error))?;
        let row = |number, what, value, unit| Row { number, what, value, unit, beside: None };
        self.add(row(1, "server at rest, 10 functions", kib("VmRSS")?, "KiB"))?;
        self.add(row(1, "  of it not the program's text", kib("RssAnon")?, "KiB"))?;
        self.add(row(4, "threads", kib("Threads")?, ""))?;
        self.add(row(5, "the program", own.len() as f64 / 1024.0, "KiB"))?;
        Ok(())
    }

    /// What each worker and each connection takes in the server.
    fn each(&mut self, server: &Server) -> Result<(), Error> {
        let own = || {
            std::thread::sleep(QUIET);
            server.status("RssAnon").map(|kib| kib as f64)
        };
        // Between a few and many, since the first ones bring along what all of them share.
        let workers = |count: u32| {
            self.check()?;
            let sleep = || server.client("many").send(br#"{"do":"sleep","ms":300}"#);
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..count).map(|_| scope.spawn(sleep)).collect();
                let mut ends =
                    all.into_iter().map(|one| one.join().unwrap_or_else(|_| unreachable!()));
                ends.try_for_each(|end| end.map(drop))
            })?;
            own()
        };
        let mut open: Vec<Connection> = Vec::new();
        let mut connections = |count: u32| {
            for _ in 0..count {
                let mut client = Client::new(server.target.clone(), "/healthz");
                client.call()?;
                open.extend(client.into_connection());
            }
            own()
        };
        let (few, more) = (4, 12);
        let each = |less: f64, all: f64| (all - less).max(0.0) / f64::from(more);
        let worker = each(workers(few)?, workers(few + more)?);
        let connection = each(connections(few)?, connections(more)?);
        let row = |what, value: f64| Row { number: 2, what, value, unit: "KiB", beside: None };
        self.add(row("each warm worker, in the server", worker))?;
        self.add(row("each idle connection", connection))?;
        Ok(())
    }

    fn cold(&mut self, server: &Server) -> Result<(), Error> {
        let echo = Echo::start()?;
        let mut exec = server.client("exec");
        let mut cold = server.client("cold");
        let mut fork = server.client("fork");
        let mut exchange = echo.client();
        let [exec, process, exchange, cold, fork] = self.interleaved([
            &mut || exec.call(),
            &mut process_us,
            &mut || exchange.call(),
            &mut || cold.call(),
            &mut || fork.call(),
        ])?;
        let floor = process.median() + exchange.median();
        let row =
            |number, what, value, floor| Row { number, what, value, unit: "us", beside: floor };
        self.add(row(
            6,
            "cold start, exec; beside: process, exchange",
            exec.median(),
            Some(floor),
        ))?;
        self.add(row(6, "  p99", exec.p99(), None))?;
        self.add(row(6, "  hob's own share", exec.median() - floor, None))?;
        self.add(row(7, "cold start, native", cold.median(), Some(floor)))?;
        self.add(row(7, "cold start, native, forked", fork.median(), Some(floor)))?;
        Ok(())
    }

    fn python(&mut self, server: &Server) -> Result<(), Error> {
        let Some(program) = self.python.clone() else { return Ok(()) };
        let mut forked = server.client("python");
        let [started, forked] =
            self.interleaved([&mut || times::python_us(&program), &mut || forked.call()])?;
        let (value, floor) = (forked.median(), Some(started.median()));
        self.add(Row {
            number: 8,
            what: "cold start, Python, forked; beside: a Python",
            value,
            unit: "us",
            beside: floor,
        })?;
        Ok(())
    }

    fn warm(&mut self, server: &Server) -> Result<(), Error> {
        let echo = Echo::start()?;
        let (mut warm, mut exchange) = (server.client("warm"), echo.client());
        let [warm, exchange] = self.interleaved([&mut || warm.call(), &mut || exchange.call()])?;
        let row = |what, value, floor| Row { number: 10, what, value, unit: "us", beside: floor };
        self.add(row("warm, native; beside: an exchange", warm.median(), Some(exchange.median())))?;
        self.add(row("  p99", warm.p99(), Some(exchange.p99())))?;
        Ok(())
    }

    fn throughput(&mut self, server: &Server) -> Result<(), Error> {
        let (mut rate, mut bare) = (0.0, 0.0);
        for _ in 0..3 {
            self.check()?;
            rate += times::rate(CLIENTS, &|| server.client("warm"))? / 3.0;
            let healthz = || Client::new(server.target.clone(), "/healthz");
            bare += times::rate(CLIENTS, &healthz)? / 3.0;
        }
        let what = "warm, 8 clients; beside: replies without a worker";
        self.add(Row { number: 11, what, value: rate, unit: "/s", beside: Some(bare) })?;
        Ok(())
    }

    fn spares(&mut self, server: &Server) -> Result<(), Error> {
        let (mut native, mut python) = (server.client("fork"), server.client("python"));
        // Only what is wanted again and again has a spare.
        native.call().and_then(|_| native.call())?;
        let [spare, process] = self.interleaved([
            &mut || server.spare_waits("fork").and_then(|()| native.call()),
            &mut process_us,
        ])?;
        let row = |number, what, value, floor: f64| Row {
            number,
            what,
            value,
            unit: "us",
            beside: Some(floor),
        };
        self.add(row(
            7,
            "native, from a spare; beside: a process",
            spare.median(),
            process.median(),
        ))?;
        if let Some(program) = self.python.clone() {
            python.call().and_then(|_| python.call())?;
            let [spare, started] = self.interleaved([
                &mut || server.spare_waits("python").and_then(|()| python.call()),
                &mut || times::python_us(&program),
            ])?;
            let what = "Python, from a spare; beside: a Python";
            self.add(row(8, what, spare.median(), started.median()))?;
        }
        Ok(())
    }
}

/// What this was measured on.
fn machine() -> String {
    let board = Settings::read(None, &[]).map(|settings| settings.board.to_string());
    let system = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "hob {}, {}, Linux {}, cores: {cores}, board {}",
        env!("CARGO_PKG_VERSION"),
        system.machine().to_string_lossy(),
        system.release().to_string_lossy(),
        board.unwrap_or_else(|error| error.message),
    )
}
