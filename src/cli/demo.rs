//! `hob demo`: a tour of a real server with sample functions and temporary data, each stop
//! checked, with what happened and how long it took.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_process::{Child, Command, Stdio};
use serde_json::{Value, json};

use super::client::{Body, Reply, Target};
use super::{print, table};
use crate::error::Error;
use crate::function::tree;
use crate::io::Clock;
use crate::pool::Instant;

const SLOTS: usize = 8;

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
    let scene = Scene::set()?;
    smol::block_on(async {
        let told =
            smol::Async::new(told).map_err(|error| Error::doing("watch", "signals", error))?;
        let clock = Clock::start();
        let mut server = scene.start().await?;
        let started = clock.now().as_micros();
        let tour = async { scene.tour(keep, started).await };
        let died = async {
            let status = server.status().await;
            Err(Error::failed(format!("the server stopped early: {status:?}")))
        };
        let mut rows = match smol::future::or(smol::future::or(tour, died), ended(&told)).await {
            Ok(rows) => rows,
            Err(error) => {
                let _ = stop(&mut server).await;
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
                let _ = stop(&mut server).await;
            }
            return served;
        }
        rows.push(row("stop: SIGTERM, drain", stop(&mut server).await)?);
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

async fn stop(server: &mut Child) -> Found {
    let begun = Clock::start();
    let pid = i32::try_from(server.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| Error::doing("signal", "the server", error))?;
    }
    let status =
        server.status().await.map_err(|error| Error::doing("wait", "the server", error))?;
    if !status.success() {
        return Err(Error::failed(format!("the server ended with {status}")));
    }
    Ok(("exit 0, every worker stopped and reaped".into(), begun.now().as_micros()))
}

/// Temporary functions and data.
struct Scene {
    root: PathBuf,
    curl: bool,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.root) {
            super::say(&format!("hob: remove {}: {error}", self.root.display()));
        }
    }
}

impl Scene {
    fn set() -> Result<Scene, Error> {
        let fail = |error: std::io::Error| Error::doing("prepare", "the sample functions", error);
        // Code runs from here: nobody else may have made it, or write to it.
        let name = format!("hob-demo-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let root = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&root).map_err(fail)?;
        let curl = ["/usr/bin/curl", "/bin/curl"].iter().any(|path| Path::new(path).exists());
        let scene = Scene { root, curl };
        scene.write().map_err(fail)?;
        Ok(scene)
    }

    fn write(&self) -> std::io::Result<()> {
        let own = std::env::current_exe()?;
        let native = |name: &str, more: &str| -> std::io::Result<()> {
            let folder = self.folder(name)?;
            let text = format!("runtime = \"native\"\nhandler = \"hob sample\"\n{more}\n");
            std::fs::write(folder.join("function.toml"), text)?;
            std::os::unix::fs::symlink(&own, folder.join("hob"))
        };
        native("native", "")?;
        native("limited", "reserved_concurrency = 2\nqueue_wait_ms = 0")?;
        native("short", "timeout_s = 1")?;
        native("brief", "idle_timeout_s = 1")?;
        self.script("shell", "exec", "#!/bin/sh\nread event\nprintf '{\"echo\":%s}' \"$event\"\n")?;
        if self.curl {
            self.script("custom", "provided.al2023", BOOTSTRAP)?;
        }
        Ok(())
    }

    fn script(&self, name: &str, runtime: &str, text: &str) -> std::io::Result<()> {
        let folder = self.folder(name)?;
        let toml = format!("runtime = \"{runtime}\"\nhandler = \"bootstrap\"\n");
        std::fs::write(folder.join("function.toml"), toml)?;
        std::fs::write(folder.join("bootstrap"), text)?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join("bootstrap"), mode)
    }

    fn folder(&self, name: &str) -> std::io::Result<PathBuf> {
        let folder = self.root.join("functions").join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn target(&self) -> Target {
        Target::Socket(self.root.join("hob.sock"))
    }

    /// Starts the server and waits until it answers.
    async fn start(&self) -> Result<Child, Error> {
        let fail = |error: std::io::Error| Error::doing("start", "the server", error);
        let own = std::env::current_exe().map_err(fail)?;
        let place = |name: &str| self.root.join(name).into_os_string();
        let slots = SLOTS.to_string();
        let mut server = Command::new(own)
            .arg("serve")
            .arg(place("functions"))
            .args([OsStr::new("--data"), &place("data")])
            .args([OsStr::new("--socket"), &place("hob.sock")])
            .args(["--listen", "127.0.0.1:0", "--slots", &slots])
            // Functions fail here on purpose: that they do is in the table.
            .env("HOB_LOG", "error")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let answers = async {
            for _ in 0..500 {
                let server = self.ask("GET", "/hob/server").await;
                if server.is_ok_and(|server| server["loading"] == false) {
                    return Ok(());
                }
                smol::Timer::after(Duration::from_millis(10)).await;
            }
            Err(Error::failed("start the server: it does not answer"))
        };
        let died = async {
            let status = server.status().await;
            Err(Error::failed(format!("start the server: {status:?}")))
        };
        smol::future::or(answers, died).await?;
        Ok(server)
    }

    async fn ask(&self, method: &'static str, path: &'static str) -> Result<Value, Error> {
        let target = self.target();
        smol::unblock(move || target.ask(method, path, Body::Empty)).await
    }

    /// One invocation: status, whether the function failed, body, time.
    async fn invoke(&self, name: &'static str, event: Value) -> Result<Invoked, Error> {
        let target = self.target();
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

    async fn tour(&self, keep: bool, started: u64) -> Result<Vec<Vec<String>>, Error> {
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
            print(&table::render(&["STOP OF THE TOUR", "WHAT HAPPENED", "MS"], &rows));
            let url = self.ask("GET", "/hob/server").await?["url"].clone();
            let url = url.as_str().unwrap_or_default();
            print(&format!(
                "\nstill serving (Ctrl-C ends it); try\n  curl {url}/fn/native/ -d '{{\"n\":1}}'\n  \
                 HOB_SOCKET={} hob ps\n",
                self.root.join("hob.sock").display()
            ));
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
