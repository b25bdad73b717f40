//! Workers that do not start.

use std::path::PathBuf;

use crate::common::{Server, Site, eventually};

crate::both_reapers![
    a_worker_that_cannot_start_is_tried_twice_and_then_left_alone,
    a_worker_that_hangs_in_its_start_is_cut_off,
    a_reported_init_error_reaches_the_caller_as_it_is,
    a_worker_with_another_protocol_is_refused,
    a_start_that_waits_serves_the_invocation_it_was_made_for,
];

/// A native function whose starts are counted in a file.
fn counted(site: &Site, name: &str, arguments: &str, more: &str) -> PathBuf {
    let file = site.path().join(format!("{name}-starts"));
    let environment = format!("environment = {{ STARTS_FILE = \"{}\" }}\n{more}", file.display());
    site.native(name, arguments, &environment);
    file
}

fn starts(file: &PathBuf) -> usize {
    std::fs::read(file).map_or(0, |bytes| bytes.len())
}

fn refused_at_once(server: &Server, file: &PathBuf, kind: &str) {
    let before = starts(file);
    assert_eq!(server.fails("demo", "{}").0, kind);
    assert_eq!(starts(file), before, "it is left alone for a while");
}

fn a_worker_that_cannot_start_is_tried_twice_and_then_left_alone(reaper: &[&str]) {
    let site = Site::new();
    let file = counted(&site, "demo", "exit 7", "");
    site.native("other", "", "");
    let server = site.serve(reaper);
    let (kind, text) = server.fails("demo", "{}");
    assert_eq!(kind, "Runtime.ExitError");
    assert!(text.ends_with("Error: Runtime exited with error: exit status 7"), "{text}");
    assert_eq!(starts(&file), 2, "once, and once more inside the invocation");
    refused_at_once(&server, &file, "Runtime.ExitError");
    server.ok("other", "{}");
    let log = server.hob(&["logs", "demo"]).out;
    assert!(log.contains("\tPhase: init\tStatus: error\tError Type: Runtime.ExitError"), "{log}");
    // The first quiet time is a second.
    eventually("it is tried again", || {
        server.fails("demo", "{}");
        (starts(&file) > 2).then_some(())
    });
    server.stop();
}

fn a_worker_that_hangs_in_its_start_is_cut_off(reaper: &[&str]) {
    let site = Site::new();
    let file = counted(&site, "demo", "never", "timeout_s = 1\nshutdown_grace_ms = 50");
    let server = site.serve(&[reaper, &["--init-limit", "1"]].concat());
    let (kind, text) = server.fails("demo", "{}");
    // The second start ran inside the invocation, and used up its time.
    assert_eq!(kind, "Sandbox.Timedout", "{text}");
    assert_eq!(starts(&file), 2);
    let log = server.hob(&["logs", "demo"]).out;
    assert!(log.contains("INIT_REPORT Init Duration: 1"), "{log}");
    assert!(log.contains("\tStatus: timeout"), "{log}");
    eventually("no worker is left", || server.workers().is_empty().then_some(()));
    server.stop();
}

fn a_reported_init_error_reaches_the_caller_as_it_is(reaper: &[&str]) {
    let site = Site::new();
    let file = counted(&site, "demo", "init-error", "");
    let server = site.serve(reaper);
    let reply = server.invoke("demo", "{}");
    assert_eq!(reply.text(), r#"{"errorType":"Oops","errorMessage":"no luck"}"#);
    assert_eq!(reply.field("x-amz-function-error"), Some("Unhandled"));
    assert_eq!(starts(&file), 2);
    let log = server.hob(&["logs", "demo"]).out;
    let id = reply.field("x-amzn-requestid").unwrap();
    let phases: Vec<bool> = log
        .lines()
        .filter(|line| line.starts_with("INIT_REPORT Init Duration: "))
        .map(|line| line.contains("\tPhase: invoke\tStatus: error\tError Type: "))
        .collect();
    assert_eq!(phases, [false, true], "{log}");
    let line = |text: &str| log.lines().find(|line| line.starts_with(text)).map(str::to_owned);
    assert!(line(&format!("START RequestId: {id} Version: $LATEST")).is_some(), "{log}");
    let report = line(&format!("REPORT RequestId: {id}\t")).unwrap_or_default();
    assert!(report.ends_with("\tStatus: error\tError Type: Runtime.Unknown\t"), "{log}");
    refused_at_once(&server, &file, "Oops");
    server.stop();
}

fn a_worker_with_another_protocol_is_refused(reaper: &[&str]) {
    let site = Site::new();
    counted(&site, "demo", "protocol 9", "");
    counted(&site, "other", "garbage", "");
    let server = site.serve(reaper);
    for name in ["demo", "other"] {
        let (kind, text) = server.fails(name, "{}");
        assert_eq!(kind, "Runtime.Protocol", "{text}");
    }
    server.stop();
}

fn a_start_that_waits_serves_the_invocation_it_was_made_for(reaper: &[&str]) {
    let site = Site::new();
    // The start takes longer than the queue wait: who caused it does not get 429 for that.
    site.native("demo", "slow 600", "queue_wait_ms = 0");
    let server = site.serve(reaper);
    assert_eq!(server.ok("demo", "{}")["count"], 1);
    server.stop();
}
