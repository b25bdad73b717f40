//! Cold, warm, parallel, crashed, timed out, idle, drained.

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Site, eventually, exists};

crate::both_reapers![
    cold_then_warm_on_the_same_worker,
    large_events_go_to_the_same_worker_again_and_again,
    memory_that_a_worker_tells_is_reported,
    a_crash_is_answered_and_the_next_invocation_served,
    a_timeout_kills_the_whole_group,
    idle_workers_are_stopped_and_reaped,
    a_worker_that_a_debugger_holds_is_reaped_once_it_lets_go,
];

fn cold_then_warm_on_the_same_worker(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(reaper);
    let first = server.ok("demo", "{\"n\":1}");
    let second = server.ok("demo", "{\"n\":2}");
    assert_eq!((&first["count"], &second["count"]), (&1.into(), &2.into()));
    assert_eq!(first["pid"], second["pid"]);
    assert_eq!(second["event"]["n"], 2);
    let log = server.hob(&["logs", "demo"]).out;
    let reports: Vec<&str> = log.lines().filter(|line| line.starts_with("REPORT")).collect();
    assert_eq!(reports.len(), 2, "{log}");
    assert!(reports[0].contains("\tInit Duration: "), "{log}");
    assert!(!reports[1].contains("\tInit Duration: "), "{log}");
    assert!(!reports[0].contains("Max Memory Used: 0 MB"), "{log}");
    server.stop();
    assert!(!exists(first["pid"].as_i64().unwrap()), "the worker is gone with the server");
}

fn large_events_go_to_the_same_worker_again_and_again(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(reaper);
    // None of them fits into a pipe: each has to be waited with.
    let text = "x".repeat(1_000_000);
    let event = format!("{{\"text\":\"{text}\"}}");
    for count in 1..=5 {
        let reply = server.ok("demo", &event);
        assert_eq!(reply["count"], count, "{}", server.log());
        assert_eq!(reply["event"]["text"], text.as_str());
    }
    server.stop();
}

fn memory_that_a_worker_tells_is_reported(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "memory", "");
    site.native("old", "streams", "");
    let server = site.serve(reaper);
    // Less than the server has cannot be told apart from the server's own, and is looked at.
    server.ok("demo", r#"{"do":"memory","n":1}"#);
    server.ok("demo", r#"{"do":"memory","n":307200}"#);
    let log = server.hob(&["logs", "demo"]).out;
    let reports: Vec<&str> = log.lines().filter(|line| line.starts_with("REPORT")).collect();
    assert!(!reports[0].contains("Max Memory Used: 0 MB"), "{log}");
    assert!(!reports[0].contains("Max Memory Used: 300 MB"), "{log}");
    assert!(reports[1].contains("Max Memory Used: 300 MB"), "{log}");
    assert_eq!(server.fails("old", r#"{"do":"memory","n":1}"#).0, "Runtime.ExitError");
    assert!(server.log().contains("message out of order"), "{}", server.log());
    server.stop();
}

fn a_crash_is_answered_and_the_next_invocation_served(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(reaper);
    for (event, message) in [
        ("{\"do\":\"crash\"}", "signal: aborted"),
        ("{\"do\":\"exit\",\"n\":3}", "exit status 3"),
        ("{\"do\":\"half\"}", "without providing a reason"),
        ("{\"do\":\"exit\",\"n\":0}", "without providing a reason"),
        ("{\"do\":\"garbage\"}", "signal: killed"),
        ("{\"do\":\"wrong-id\"}", "signal: killed"),
    ] {
        let (kind, text) = server.fails("demo", event);
        assert_eq!(kind, "Runtime.ExitError", "{event}");
        assert!(text.starts_with("RequestId: ") && text.ends_with(message), "{event}: {text}");
        assert_eq!(server.ok("demo", "{}")["count"], 1, "a new worker after {event}");
    }
    server.stop();
}

fn a_timeout_kills_the_whole_group(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 1\nshutdown_grace_ms = 100");
    let server = site.serve(reaper);
    let grandchild = server.ok("demo", "{\"do\":\"grandchild\"}")["grandchild"].as_i64().unwrap();
    assert!(exists(grandchild));
    server.ok("demo", "{\"do\":\"stubborn\"}");
    let (kind, text) = server.fails("demo", "{\"do\":\"hang\"}");
    assert_eq!(kind, "Sandbox.Timedout");
    assert!(text.ends_with("Error: Task timed out after 1.00 seconds"), "{text}");
    assert_eq!(server.ok("demo", "{}")["count"], 1, "a new worker");
    eventually("the grandchild is gone", || (!exists(grandchild)).then_some(()));
    server.stop();
}

fn idle_workers_are_stopped_and_reaped(reaper: &[&str]) {
    let site = Site::new();
    let file = site.path().join("cleanup");
    let more =
        format!("idle_timeout_s = 1\nenvironment = {{ CLEANUP_FILE = \"{}\" }}", file.display());
    site.native("demo", "", &more);
    let server = site.serve(reaper);
    let pid = server.ok("demo", "{\"do\":\"stubborn\"}")["pid"].as_i64().unwrap();
    assert_eq!(server.workers_of("demo").len(), 1);
    eventually("the worker is stopped", || server.workers_of("demo").is_empty().then_some(()));
    assert!(!exists(pid));
    // It ignored SIGTERM, and saw the end of its stream.
    assert!(file.exists(), "it had its chance to clean up");
    server.stop();
}

fn a_worker_that_a_debugger_holds_is_reaped_once_it_lets_go(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(reaper);
    let pid = server.ok("demo", "{}")["pid"].as_i64().unwrap();
    // PTRACE_SEIZE, until its input ends.
    let hold = format!(
        "import ctypes; ctypes.CDLL(None).ptrace(0x4206, {pid}, None, None); input('held\\n')"
    );
    let mut debugger = Command::new("python3")
        .args(["-c", &hold])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 is there: apt-get install -y python3");
    let mut held = [0; 5];
    debugger.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    let is_zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('Z').then_some(())
    };
    eventually("the worker has ended", is_zombie);
    // The server has heard of it, and cannot reap it.
    assert_eq!(server.workers_of("demo").len(), 1);
    drop(debugger.stdin.take());
    debugger.wait().unwrap();
    eventually("the worker is reaped", || server.workers_of("demo").is_empty().then_some(()));
    assert_eq!(server.ok("demo", "{}")["count"], 1, "a new worker");
    server.stop();
}
