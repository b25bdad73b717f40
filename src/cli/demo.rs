//! `hob demo`: a tour of a real server with sample functions and temporary data, each stop
//! checked, with what happened and how long it took.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_process::Child;
use serde_json::{Value, json};

use super::client::{Body, Reply, Target};
use super::scene::{self, Scene};
use super::{print, table, try_print};
use crate::error::Error;
use crate::io::Clock;
use crate::pool::Instant;

/// What a stop of the tour found: what happened, and how long it took.
type Found = Result<(String, u64), Error>;

/// Runs the tour; with `keep`, goes on serving until it is interrupted.
pub fn run(keep: bool) -> Result<(), Error> {
    // The server shares our terminal and gets the interrupt too; we outlive it to clean up.
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted)
        .map_err(|error| Error::doing("handle", "interrupts", error))?;
    // The end of the terminal, or of us: the server would take the one for a reload.
    let (told, tell) = UnixStream::pair().map_err(|error| Error::doing("make", "a pipe", error))?;
    for signal in [signal_hook::consts::SIGHUP, signal_hook::consts::SIGTERM] {
        tell.try_clone()
            .and_then(|tell| signal_hook::low_level::pipe::register(signal, tell))
            .map_err(|error| Error::doing("handle", "signals", error))?;
    }
    let tour = Tour::prepare()?;
    smol::block_on(async {
        let told =
            smol::Async::new(told).map_err(|error| Error::doing("watch", "signals", error))?;
        let clock = Clock::start();
        let mut server = tour.start().await?;
        let started = clock.now().as_micros();
        let toured = async { tour.run(keep, started).await };
        let died = async {
            let status = server.status().await;
            Err(Error::failed(format!("the server stopped early: {status:?}")))
        };
        let mut rows = match smol::future::or(smol::future::or(toured, died), ended(&told)).await {
            Ok(rows) => rows,
            Err(error) => {
                let _ = scene::stop(&mut server).await;
                return Err(error);
            }
        };
        if keep {
            let served = async {
                let status = server.status().await;
                status.map(|_| ()).map_err(|error| Error::doing("wait for", "the server", error))
            };
            let served = smol::future::or(served, ended(&told)).await;
            if served.is_err() {
                let _ = scene::stop(&mut server).await;
            }
            return served;
        }
        rows.push(row("stop: SIGTERM, drain", stopped(&mut server).await)?);
        print(&table::render(&["STOP OF THE TOUR", "WHAT HAPPENED", "MS"], &rows));
        Ok(())
    })
}

/// Waits for a signal to end.
async fn ended<T>(told: &smol::Async<UnixStream>) -> Result<T, Error> {
    let _ = told.readable().await;
    Err(Error::failed("ended by a signal".to_owned()))
}

fn row(what: &str, found: Found) -> Result<Vec<String>, Error> {
    let (happened, us) = found.map_err(|error| Error::failed(format!("{what}: {error}")))?;
    Ok(vec![what.to_owned(), happened, format!("{}.{:02}", us / 1000, us % 1000 / 10)])
}

async fn stopped(server: &mut Child) -> Found {
    let us = scene::stop(server).await?;
    Ok(("exit 0, every worker stopped and reaped".into(), us))
}

/// The server, and what of the machine matters to it.
struct Tour {
    scene: Scene,
    curl: bool,
}

impl Tour {
    fn prepare() -> Result<Tour, Error> {
        let fail = |error: std::io::Error| Error::doing("prepare", "the sample functions", error);
        let tour = Tour { scene: Scene::set("demo").map_err(fail)?, curl: scene::has("curl") };
        tour.write().map_err(fail)?;
        Ok(tour)
    }

    fn write(&self) -> std::io::Result<()> {
        let native = |name: &str, more: &str| self.scene.own(name, "native", "sample", more);
        native("native", "")?;
        native("limited", "reserved_concurrency = 2\nqueue_wait_ms = 0")?;
        native("short", "timeout_s = 1")?;
        native("brief", "idle_timeout_s = 1")?;
        let shell = "#!/bin/sh\nread event\nprintf '{\"echo\":%s}' \"$event\"\n";
        self.scene.script("shell", "exec", shell)?;
        if self.curl {
            self.scene.script("custom", "provided.al2023", BOOTSTRAP)?;
        }
        Ok(())
    }

    async fn start(&self) -> Result<Child, Error> {
        self.scene.start(&["--slots", "8"]).await
    }

    async fn ask(&self, method: &'static str, path: &'static str) -> Result<Value, Error> {
        self.scene.ask(method, path).await
    }

    /// One invocation: status, whether the function failed, body, time.
    async fn invoke(&self, name: &'static str, event: Value) -> Result<Invoked, Error> {
        let target = Target::Socket(self.scene.socket());
        smol::unblock(move || {
            let clock = Clock::start();
            let path = format!("/2015-03-31/functions/{name}/invocations");
            let event = event.to_string();
            let mut reply: Reply =
                target.send("POST", &path, &[], Body::Bytes(event.as_bytes()))?;
            let body = reply.bytes()?;
            Ok(Invoked {
                status: reply.status,
                failed: reply.field("x-amz-function-error").is_some(),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                us: clock.now().as_micros(),
            })
        })
        .await
    }

    async fn run(&self, keep: bool, started: u64) -> Result<Vec<Vec<String>>, Error> {
        let functions = self.ask("GET", "/hob/server").await?["functions"].to_string();
        let mut rows = vec![
            row("start the server", Ok((format!("{functions} functions read"), started)))?,
            row("cold start, native", self.once("native", "started").await)?,
            row("warm, native, 100 times", self.warm("native").await)?,
            row("cold start, exec (sh)", self.once("shell", "one process, one event").await)?,
        ];
        if self.curl {
            let found = self.once("custom", "started: sh and curl on the Runtime API").await;
            rows.push(row("cold start, provided", found)?);
            rows.push(row("warm, provided", self.once("custom", "same process").await)?);
        }
        rows.push(row("6 at once", self.parallel().await)?);
        rows.push(row("5 at once, 2 reserved", self.over_the_cap().await)?);
        rows.push(row("a crash", self.crash().await)?);
        rows.push(row("and after it", self.once("native", "another worker serves").await)?);
        rows.push(row("a hang, timeout 1 s", self.timeout().await)?);
        rows.push(row("idle for 1 s", self.idle().await)?);
        if keep {
            try_print(&table::render(&["STOP OF THE TOUR", "WHAT HAPPENED", "MS"], &rows))?;
            let url = self.ask("GET", "/hob/server").await?["url"].clone();
            let url = url.as_str().unwrap_or_default();
            try_print(&format!(
                "\nstill serving (Ctrl-C ends it); try\n  curl {url}/fn/native/ -d '{{\"n\":1}}'\n  \
                 HOB_SOCKET={} hob ps\n",
                self.scene.socket().display()
            ))?;
        }
        Ok(rows)
    }

    async fn once(&self, name: &'static str, happened: &str) -> Found {
        let invoked = self.invoke(name, json!({ "n": 1 })).await?.good()?;
        Ok((happened.to_owned(), invoked.us))
    }

    async fn warm(&self, name: &'static str) -> Found {
        let mut times = Vec::new();
        for _ in 0..100 {
            times.push(self.invoke(name, json!({ "n": 1 })).await?.good()?.us);
        }
        times.sort_unstable();
        let p99 = times[98];
        let happened = format!("one worker; p99 {}.{:02} ms", p99 / 1000, p99 % 1000 / 10);
        Ok((happened, times[49]))
    }

    async fn all(&self, name: &'static str, count: usize) -> Result<(Vec<Invoked>, u64), Error> {
        let clock = Clock::start();
        let calls: Vec<_> =
            (0..count).map(|_| self.invoke(name, json!({ "do": "sleep", "ms": 200 }))).collect();
        let mut pending: Vec<_> = calls.into_iter().map(Box::pin).collect();
        // All of them run; they are only collected one after the other.
        let mut started = Vec::new();
        for call in &mut pending {
            started.push(smol::future::poll_once(call).await);
        }
        let mut done = Vec::new();
        for (call, early) in pending.iter_mut().zip(started) {
            done.push(match early {
                Some(result) => result?,
                None => call.await?,
            });
        }
        Ok((done, clock.now().as_micros()))
    }

    async fn parallel(&self) -> Found {
        let (done, us) = self.all("native", 6).await?;
        for invoked in done {
            invoked.good()?;
        }
        let workers = self.workers("native").await?;
        Ok((format!("200 ms each, side by side in {workers} workers"), us))
    }

    async fn over_the_cap(&self) -> Found {
        let (done, us) = self.all("limited", 5).await?;
        let good = done.iter().filter(|invoked| invoked.status == 200).count();
        let throttled = done.iter().filter(|invoked| invoked.status == 429).count();
        if (good, throttled) != (2, 3) {
            return Err(Error::failed(format!("{good} ran and {throttled} were throttled")));
        }
        Ok(("2 ran, 3 got 429 TooManyRequestsException".into(), us))
    }

    async fn crash(&self) -> Found {
        let invoked = self.invoke("native", json!({ "do": "crash" })).await?;
        Ok((invoked.error("Runtime.ExitError")?, invoked.us))
    }

    async fn timeout(&self) -> Found {
        let invoked = self.invoke("short", json!({ "do": "hang" })).await?;
        Ok((invoked.error("Sandbox.Timedout")?, invoked.us))
    }

    async fn idle(&self) -> Found {
        self.invoke("brief", json!({})).await?.good()?;
        let clock = Clock::start();
        while clock.now() < Instant::ZERO.after_ms(10_000) {
            if self.workers("brief").await? == 0 {
                return Ok(("stopped and reaped".into(), clock.now().as_micros()));
            }
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        Err(Error::failed("the idle worker was not stopped"))
    }

    async fn workers(&self, name: &str) -> Result<usize, Error> {
        let workers = self.ask("GET", "/hob/workers").await?;
        let all = workers.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(all.iter().filter(|worker| worker["function"] == name).count())
    }
}

struct Invoked {
    status: u16,
    failed: bool,
    body: Value,
    us: u64,
}

impl Invoked {
    fn good(self) -> Result<Invoked, Error> {
        if self.status == 200 && !self.failed {
            return Ok(self);
        }
        Err(Error::failed(format!("status {}: {}", self.status, self.body)))
    }

    /// Lambda's error type and message, if the function failed with this type.
    fn error(&self, error_type: &str) -> Result<String, Error> {
        if !self.failed || self.body["errorType"] != error_type {
            return Err(Error::failed(format!("status {}: {}", self.status, self.body)));
        }
        let message = self.body["errorMessage"].as_str().unwrap_or_default();
        let message = message.split("Error: ").last().unwrap_or_default();
        Ok(format!("{error_type}: {message}"))
    }
}

/// A custom runtime in the shell, as AWS's own documentation has one.
const BOOTSTRAP: &str = r#"#!/bin/sh
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation"
head=$(mktemp)
trap 'rm -f "$head"' EXIT
while event=$(curl -sS -D "$head" "$api/next"); do
  id=$(sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: *//p' "$head" | tr -d '\r')
  curl -sS "$api/$id/response" -d "{\"echo\":$event}" >/dev/null
done
"#;
