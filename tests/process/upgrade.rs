//! One server takes over from another: no client notices, and a successor that is no good changes
//! nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::http::Conn;
use crate::common::sign::Request;
use crate::common::{
    HOB, Server, Site, children, descriptors, eventually, executable, slower, status_number,
};
use crate::probe::digest;

crate::both_reapers![
    no_request_is_lost_over_three_upgrades,
    what_runs_ends_where_it_began_and_its_client_moves_on,
    requests_that_were_sent_ahead_are_answered,
    the_program_is_found_by_its_name_again,
    a_successor_that_is_no_good_changes_nothing,
    a_successor_that_hangs_is_given_up,
    a_stop_ends_an_upgrade_on_its_way,
    a_successor_outlives_a_predecessor_that_is_killed,
    workers_of_the_old_server_may_call_the_new_one,
    what_was_changed_before_and_after_is_in_force,
    nothing_is_left_of_five_upgrades,
];

/// A server that was started by a name which may lead elsewhere later.
struct Line {
    server: Server,
    site: Site,
    /// The process that serves.
    pid: i32,
}

impl Line {
    fn new(site: Site, arguments: &[&str]) -> Line {
        let name = site.path().join("hob");
        symlink(HOB, &name).unwrap();
        let server = site.serve_as(&name, arguments);
        let pid = server.pid();
        Line { site, server, pid }
    }

    fn name(&self) -> PathBuf {
        self.site.path().join("hob")
    }

    /// Lets the name lead to another program, as a whole.
    fn swap(&self, program: impl AsRef<Path>) {
        let new = self.site.path().join("hob.new");
        symlink(program, &new).unwrap();
        fs::rename(new, self.name()).unwrap();
    }

    /// A program that does this instead of serving.
    fn swap_for(&self, script: &str) {
        let path = self.site.path().join(format!("script-{}", script.len()));
        executable(&path, &format!("#!/bin/sh\n{script}\n"));
        self.swap(path);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid).unwrap(), signal).unwrap();
    }

    /// Asks for an upgrade and waits until another process answers.
    fn begin_upgrade(&mut self) {
        let old = self.pid;
        self.signal(Signal::USR2);
        self.pid = eventually("another process serves", || {
            let pid = i32::try_from(self.server.get("/hob/server")["pid"].as_i64()?).ok()?;
            (pid != old).then_some(pid)
        });
    }

    fn upgrade(&mut self) {
        let old = self.pid;
        self.begin_upgrade();
        eventually("the old server is gone", || is_gone(old).then_some(()));
    }

    fn unix(&self) -> Conn {
        Conn::unix(&self.server.socket())
    }

    fn logged(&self, what: &str) {
        eventually(what, || self.server.log().contains(what).then_some(()));
    }

    /// Stops whoever serves now.
    fn stop(&mut self) {
        self.signal(Signal::TERM);
        eventually("it is gone", || is_gone(self.pid).then_some(()));
        assert!(!self.server.socket().exists(), "the socket goes with the last server");
    }
}

impl Line {
    /// As [`Server::complained`].
    fn complained(mut self) -> String {
        self.server.forgive();
        self.server.log()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.pid != self.server.pid() && !is_gone(self.pid) {
            self.signal(Signal::KILL);
        }
    }
}

/// Open descriptors of the server, without those of connections that are just being closed.
fn files_of(line: &Line) -> usize {
    let mut least = descriptors(line.pid);
    eventually("descriptors stay the same", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = descriptors(line.pid);
        (std::mem::replace(&mut least, now) == now).then_some(now)
    })
}

/// True for what is a zombie too: who adopts it may take its time.
fn is_gone(pid: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.is_empty() || state.contains(") Z ")
}

fn ok(conn: &mut Conn, name: &str, event: &str) -> Value {
    let reply = conn.invoke(name, event.as_bytes());
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    assert_eq!(reply.field("x-amz-function-error"), None, "{name}: {}", reply.text());
    reply.json()
}

/// Functions of every kind of conversation.
fn functions(site: &Site) -> [&'static str; 3] {
    site.native("native", "", "queue_wait_ms = 60000");
    site.script(
        "exec",
        "exec",
        "#!/bin/sh\nread event\necho \"$event\"\n",
        "queue_wait_ms = 60000",
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hello-provided/bootstrap");
    let runtime = fs::read_to_string(root).unwrap();
    site.script("provided", "provided.al2023", &runtime, "queue_wait_ms = 60000");
    ["native", "exec", "provided"]
}

fn no_request_is_lost_over_three_upgrades(reaper: &[&str]) {
    let site = Site::new();
    let names = functions(&site);
    let mut line = Line::new(site, reaper);
    let (address, socket) = (line.server.address.clone(), line.server.socket());
    let connect = |unix: bool| match unix {
        true => Conn::unix(&socket),
        false => Conn::tcp(&address),
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|client| {
                let (name, unix, keeps) = (names[client % 3], client % 2 == 0, client < 6);
                let (done, connect) = (&done, &connect);
                scope.spawn(move || {
                    let mut conn = connect(unix);
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        if !keeps {
                            conn = connect(unix);
                        }
                        ok(&mut conn, name, "{\"n\":1}");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for _ in 0..3 {
            ok(&mut connect(true), "provided", "{}");
            line.upgrade();
        }
        done.store(true, Ordering::Relaxed);
        let counts: Vec<u32> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    });
    line.stop();
}

fn what_runs_ends_where_it_began_and_its_client_moves_on(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 60");
    let mut line = Line::new(site, reaper);
    let old = line.pid;
    let mut running = line.server.connect();
    let worker = ok(&mut running, "demo", "{}")["pid"].clone();
    // Longer than an upgrade takes.
    running.begin("demo", &format!("{{\"do\":\"sleep\",\"n\":{}}}", 1500 * slower()));
    let mut idle = line.server.connect();
    idle.get("/healthz");
    let mut fresh = line.unix();
    let in_flight = || (line.server.get("/hob/server")["in_flight"] == 1).then_some(());
    eventually("it runs", in_flight);
    let mut follower = line.server.connect();
    follower.send("GET /hob/logs/demo?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    follower.taken();
    line.begin_upgrade();
    assert!(!is_gone(old), "it still runs something");
    // Neither was closed, and both are the new server's.
    for conn in [&mut idle, &mut fresh] {
        assert_eq!(ok(conn, "hob-probe", "{}")["server_pid"], line.pid);
    }
    let reply = running.reply().json();
    assert_eq!((&reply["pid"], &reply["count"]), (&worker, &2.into()), "the worker that had it");
    assert_eq!(ok(&mut running, "hob-probe", "{}")["server_pid"], line.pid);
    assert_eq!(follower.reply().status, 200, "to its last chunk");
    assert_eq!(ok(&mut follower, "hob-probe", "{}")["server_pid"], line.pid);
    assert!(line.server.wait().success());
    line.stop();
}

fn requests_that_were_sent_ahead_are_answered(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut line = Line::new(site, reaper);
    let mut ahead = line.server.connect();
    let one = "POST /2015-03-31/functions/demo/invocations HTTP/1.1\r\nHost: localhost\r\n";
    let sleep = "Content-Length: 23\r\n\r\n{\"do\":\"sleep\",\"n\":1000}";
    ahead.send(format!("{one}{sleep}{one}Content-Length: 2\r\n\r\n{{}}"));
    // Half of a request, which its client goes on to send.
    let mut half = line.server.connect();
    half.send("POST /2015-03-31/functions/demo/invocations HTTP/1.1\r\nHost: loc");
    half.taken();
    let in_flight = || (line.server.get("/hob/server")["in_flight"] == 1).then_some(());
    eventually("it runs", in_flight);
    line.begin_upgrade();
    half.send("alhost\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(half.reply().status, 200);
    assert_eq!(ahead.reply().status, 200);
    assert_eq!(ahead.reply().status, 200);
    for conn in [&mut half, &mut ahead] {
        assert_eq!(ok(conn, "hob-probe", "{}")["server_pid"], line.pid);
    }
    line.stop();
}

fn the_program_is_found_by_its_name_again(reaper: &[&str]) {
    let mut line = Line::new(Site::new(), reaper);
    let before = ok(&mut line.unix(), "hob-probe", "{}");
    assert_eq!(before["digest"], digest(HOB.as_ref()));
    let next = line.site.path().join("hob-next");
    fs::copy(HOB, &next).unwrap();
    let mut bytes = fs::OpenOptions::new().append(true).open(&next).unwrap();
    std::io::Write::write_all(&mut bytes, b"another build").unwrap();
    drop(bytes);
    line.swap(&next);
    line.upgrade();
    // The file may be gone by now.
    let expected = digest(&next);
    fs::remove_file(&next).unwrap();
    let after = ok(&mut line.unix(), "hob-probe", "{}");
    assert_eq!(after["digest"], expected);
    assert_eq!(after["server_pid"], line.pid);
    assert!(before["server_pid"] != after["server_pid"]);
    line.stop();
}

fn a_successor_that_is_no_good_changes_nothing(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let config = site.path().join("hob.toml");
    fs::write(&config, "slots = 4\n").unwrap();
    let config_of = [reaper, &["--config", config.to_str().unwrap()]].concat();
    let mut line = Line::new(site, &config_of);
    let mut kept = line.server.connect();
    let worker = ok(&mut kept, "demo", "{}")["pid"].clone();
    let before = files_of(&line);
    let goes_on = |line: &Line, kept: &mut Conn, why: &str| {
        line.logged(why);
        line.logged("this server goes on");
        eventually("it is reaped", || (children(line.pid).len() == 1).then_some(()));
        assert_eq!(ok(kept, "demo", "{}")["pid"], worker, "its workers stay");
        assert_eq!(line.server.get("/hob/server")["pid"], line.pid);
        assert!(files_of(line) <= before);
    };
    line.swap_for("exit 7");
    line.signal(Signal::USR2);
    goes_on(&line, &mut kept, "it ended with status 7");
    line.swap("/nonexistent");
    line.signal(Signal::USR2);
    goes_on(&line, &mut kept, "start /");
    line.swap(HOB);
    fs::write(&config, "slots = 0\n").unwrap();
    line.signal(Signal::USR2);
    goes_on(&line, &mut kept, "it ended with status 2");
    fs::write(&config, "slots = 4\n").unwrap();
    line.swap_for("exec sleep 1000");
    line.signal(Signal::USR2);
    let heir = eventually("it starts", || {
        let other = |(pid, _): &&(i32, char)| worker != i64::from(*pid);
        children(line.pid).iter().find(other).map(|(pid, _)| *pid)
    });
    kill_process(Pid::from_raw(heir).unwrap(), Signal::KILL).unwrap();
    goes_on(&line, &mut kept, "it was ended by signal 9");
    line.swap(HOB);
    line.upgrade();
    assert_eq!(ok(&mut kept, "hob-probe", "{}")["server_pid"], line.pid);
    line.stop();
    let log = line.complained();
    assert_eq!(log.matches("this server goes on").count(), 4, "{log}");
}

fn a_successor_that_hangs_is_given_up(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut line = Line::new(site, &[reaper, &["--upgrade-wait", "1"]].concat());
    line.swap_for("exec sleep 1000");
    line.signal(Signal::USR2);
    line.logged("upgrade: start");
    // Who changes functions now is to come again.
    let folder = line.site.functions().join("demo");
    let pushed = line.server.hob(&["push", folder.to_str().unwrap(), "--name", "pushed"]);
    assert!(pushed.code != 0 && pushed.err.contains("successor"), "{}", pushed.err);
    line.signal(Signal::USR2);
    line.logged("one is on its way already");
    line.logged("it takes too long; this server goes on");
    eventually("it is reaped", || children(line.pid).is_empty().then_some(()));
    ok(&mut line.unix(), "demo", "{}");
    let pushed = line.server.hob(&["push", folder.to_str().unwrap(), "--name", "pushed"]);
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    ok(&mut line.unix(), "pushed", "{}");
    line.stop();
    line.complained();
}

fn a_stop_ends_an_upgrade_on_its_way(reaper: &[&str]) {
    let site = Site::new();
    let mut line = Line::new(site, reaper);
    line.swap_for("exec sleep 1000");
    line.signal(Signal::USR2);
    let heir = eventually("it starts", || children(line.pid).first().map(|(pid, _)| *pid));
    line.stop();
    assert!(line.server.wait().success());
    assert!(is_gone(heir));
}

fn a_successor_outlives_a_predecessor_that_is_killed(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut line = Line::new(site, reaper);
    let go = line.site.path().join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    line.swap_for(&format!("{wait}\nexec {HOB} \"$@\""));
    line.signal(Signal::USR2);
    let heir = eventually("it starts", || children(line.pid).first().map(|(pid, _)| *pid));
    line.signal(Signal::KILL);
    line.server.reap();
    line.pid = heir;
    // Nobody accepts it yet, but nobody refuses it either.
    let mut early = line.server.connect();
    early.begin("demo", "{}");
    fs::write(&go, "").unwrap();
    assert_eq!(early.reply().status, 200);
    assert_eq!(ok(&mut early, "hob-probe", "{}")["server_pid"], heir);
    line.swap(HOB);
    line.upgrade();
    ok(&mut early, "demo", "{}");
    line.stop();
}

fn workers_of_the_old_server_may_call_the_new_one(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 60");
    let config = site.path().join("hob.toml");
    fs::write(&config, "[auth]\ntoken = \"secret\"\n").unwrap();
    let mut line = Line::new(site, &[reaper, &["--config", config.to_str().unwrap()]].concat());
    let mut conn = line.unix();
    let env = ok(&mut conn, "demo", "{\"do\":\"env\"}")["env"].clone();
    conn.begin("demo", &format!("{{\"do\":\"sleep\",\"n\":{}}}", 4000 * slower()));
    let in_flight = || (line.server.get("/hob/server")["in_flight"] == 1).then_some(());
    eventually("it runs", in_flight);
    let text = |name: &str| env[name].as_str().unwrap().to_owned();
    let (id, secret) = (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY"));
    let endpoint = text("AWS_ENDPOINT_URL_LAMBDA");
    let call = |id: &str, secret: &str| {
        let target = "/2015-03-31/functions/hob-probe/invocations";
        let fields = Request::new("POST", target, b"{}").by(id, secret).signed();
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        Conn::tcp(endpoint.strip_prefix("http://").unwrap()).post(target, &fields, b"{}")
    };
    assert_eq!(call(&id, &secret).json()["server_pid"], line.pid);
    let mut kept = line.server.connect();
    assert_eq!(kept.get("/healthz").status, 200);
    // Over two of them, as long as the first one still runs something.
    for _ in 0..2 {
        line.begin_upgrade();
        let reply = call(&id, &secret);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["server_pid"], line.pid);
    }
    assert_eq!(call(&id, "another").status, 403);
    // A connection that was handed over is still one from the network.
    assert_eq!(kept.invoke("demo", b"{}").status, 403);
    assert_eq!(conn.reply().status, 200);
    assert!(line.server.wait().success());
    line.stop();
}

fn what_was_changed_before_and_after_is_in_force(reaper: &[&str]) {
    let site = Site::new();
    let mut line = Line::new(site, reaper);
    let folder = line.site.path().join("pushed");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("function.toml"), "runtime = \"exec\"\nhandler = \"run.sh\"\n").unwrap();
    let push = |line: &Line, n: u32| {
        executable(&folder.join("run.sh"), &format!("#!/bin/sh\necho {n}\n"));
        let pushed = line.server.hob(&["push", folder.to_str().unwrap()]);
        assert_eq!(pushed.code, 0, "{}", pushed.err);
    };
    for n in 0..4 {
        push(&line, 2 * n);
        line.upgrade();
        assert_eq!(ok(&mut line.unix(), "pushed", "{}"), 2 * n);
        push(&line, 2 * n + 1);
        assert_eq!(ok(&mut line.unix(), "pushed", "{}"), 2 * n + 1);
    }
    let code = line.site.path().join("data/code");
    eventually("old code is gone", || {
        push(&line, 9);
        (fs::read_dir(&code).unwrap().count() <= 2).then_some(())
    });
    line.stop();
}

fn nothing_is_left_of_five_upgrades(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "provisioned_concurrency = 1");
    let mut line = Line::new(site, reaper);
    let mut kept = line.server.connect();
    let warm = |line: &Line, kept: &mut Conn| {
        let one_idles = || {
            let workers = line.server.workers();
            (workers.len() == 1 && workers[0]["state"] == "idle").then_some(())
        };
        eventually("its worker is ready", one_idles);
        for _ in 0..20 {
            ok(kept, "demo", "{}");
        }
        eventually("its worker idles", one_idles);
        (files_of(line), children(line.pid).len(), status_number(line.pid, "VmRSS"))
    };
    let (_, _, first_rss_kib) = warm(&line, &mut kept);
    // The first server may have been left descriptors by whoever started it.
    line.upgrade();
    let before = warm(&line, &mut kept);
    for _ in 0..5 {
        line.upgrade();
    }
    let (files, processes, rss_kib) = warm(&line, &mut kept);
    assert_eq!((files, processes), (before.0, before.1));
    assert!(rss_kib < first_rss_kib + 1024, "{rss_kib} KiB after {first_rss_kib}");
    assert_eq!(status_number(line.pid, "Threads"), 1);
    line.stop();
}
