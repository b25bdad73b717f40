//! The end of the server: asked for, forced, or sudden.

use std::time::Duration;

use rustix::process::Signal;

use crate::common::http::Conn;
use crate::common::{Server, Site, children, eventually, exists};

/// Bytes of a large reply.
const BIG: usize = 6 * 1024 * 1024;

crate::both_reapers![
    running_invocations_finish_and_new_ones_are_refused,
    the_drain_limit_cuts_off_what_runs_too_long,
    the_drain_limit_cuts_off_what_starts_too_long,
    a_second_signal_stops_at_once,
    a_slow_client_reads_its_reply_to_the_end,
    a_second_signal_does_not_wait_for_a_slow_client,
    who_follows_a_log_hears_its_end,
    workers_die_with_a_server_that_is_killed,
    orphans_of_workers_are_reaped,
];

fn running_invocations_finish_and_new_ones_are_refused(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut server = site.serve(reaper);
    server.ok("demo", "{}");
    let mut running = server.connect();
    running.begin("demo", "{\"do\":\"sleep\",\"n\":700}");
    let mut other = server.connect();
    other.begin("demo", "{\"do\":\"sleep\",\"n\":500}");
    let busy = || (server.get("/hob/server")["in_flight"] == 2).then_some(());
    eventually("both run", busy);
    server.signal(Signal::TERM);
    eventually("it drains", || (server.get("/hob/server")["draining"] == true).then_some(()));
    let refused = server.invoke("demo", "{}");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.field("x-amzn-errortype"), Some("ServiceException"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(other.reply().status, 200);
    let last = running.reply();
    assert_eq!(last.status, 200);
    assert!(server.wait().success());
    assert!(!exists(last.json()["pid"].as_i64().unwrap()));
    assert!(!server.socket().exists(), "the socket file goes with the server");
}

fn the_drain_limit_cuts_off_what_runs_too_long(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 900\nshutdown_grace_ms = 50");
    let mut server = site.serve(&[reaper, &["--drain-limit", "1"]].concat());
    server.ok("demo", "{}");
    let mut running = server.connect();
    running.begin("demo", "{\"do\":\"hang\"}");
    eventually("it runs", || (server.get("/hob/server")["in_flight"] == 1).then_some(()));
    server.signal(Signal::INT);
    assert_eq!(running.reply().status, 503);
    assert!(server.wait().success());
}

fn the_drain_limit_cuts_off_what_starts_too_long(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "never", "shutdown_grace_ms = 50");
    let mut server = site.serve(&[reaper, &["--drain-limit", "1", "--init-limit", "900"]].concat());
    let mut starting = server.connect();
    starting.begin("demo", "{}");
    eventually("it starts", || (server.workers().len() == 1).then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(starting.reply().status, 503);
    assert!(server.wait().success());
}

fn a_second_signal_stops_at_once(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 900");
    let mut server = site.serve(reaper);
    let pid = server.ok("demo", "{\"do\":\"stubborn\"}")["pid"].as_i64().unwrap();
    let mut running = server.connect();
    running.begin("demo", "{\"do\":\"hang\"}");
    eventually("it runs", || (server.get("/hob/server")["in_flight"] == 1).then_some(()));
    server.signal(Signal::TERM);
    eventually("it drains", || (server.get("/hob/server")["draining"] == true).then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(running.reply().status, 200, "a crash is an answer too");
    assert!(server.wait().success());
    assert!(!exists(pid));
}

/// Begins a reply larger than any socket holds, and waits until all of it is the server's to send.
fn unread_reply(server: &Server) -> Conn {
    server.ok("demo", "{}");
    let mut slow = server.connect();
    slow.begin("demo", &format!("{{\"do\":\"big\",\"n\":{BIG}}}"));
    eventually("it has run", || {
        (server.workers_of("demo")[0]["invocations"] == 2
            && server.get("/hob/server")["in_flight"] == 0)
            .then_some(())
    });
    slow
}

fn a_slow_client_reads_its_reply_to_the_end(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut server = site.serve(reaper);
    let mut slow = unread_reply(&server);
    server.signal(Signal::TERM);
    eventually("the worker is gone", || children(server.pid()).is_empty().then_some(()));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(slow.reply().body.len(), BIG);
    assert!(server.wait().success());
}

fn a_second_signal_does_not_wait_for_a_slow_client(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut server = site.serve(reaper);
    let slow = unread_reply(&server);
    server.signal(Signal::TERM);
    eventually("the worker is gone", || children(server.pid()).is_empty().then_some(()));
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    drop(slow);
}

fn who_follows_a_log_hears_its_end(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let mut server = site.serve(reaper);
    let mut follower = server.connect();
    follower.send("GET /hob/logs/demo?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    follower.taken();
    server.signal(Signal::TERM);
    assert_eq!(follower.reply().status, 200, "and its last chunk");
    assert!(server.wait().success());
}

fn workers_die_with_a_server_that_is_killed(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    site.script("hangs", "exec", "#!/bin/sh\nexec sleep 1000\n", "timeout_s = 900");
    let server = site.serve(reaper);
    let pid = server.ok("demo", "{\"do\":\"stubborn\"}")["pid"].as_i64().unwrap();
    server.connect().begin("hangs", "{}");
    let all = eventually("both run", || {
        let children = children(server.pid());
        (children.len() == 2).then_some(children)
    });
    server.signal(Signal::KILL);
    eventually("the workers are gone", || {
        // Whoever adopts them may take its time to reap them.
        let gone = |pid: i64| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        (gone(pid) && all.iter().all(|(pid, _)| gone((*pid).into()))).then_some(())
    });
    // A server that was killed leaves its socket and its lock behind; the next one starts.
    let again = site.serve(reaper);
    again.ok("demo", "{}");
    again.stop();
}

fn orphans_of_workers_are_reaped(reaper: &[&str]) {
    let site = Site::new();
    let script = "#!/bin/sh\n(sleep 0.2; exit 3) >/dev/null 2>&1 &\necho 1\n";
    site.script("demo", "exec", script, "");
    let server = site.serve(reaper);
    for _ in 0..20 {
        server.ok("demo", "{}");
    }
    eventually("no zombie is left", || children(server.pid()).is_empty().then_some(()));
    server.stop();
}
