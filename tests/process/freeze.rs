//! Idle workers that get no processor time.

use crate::common::{Server, Site, eventually, exists};

crate::both_reapers![
    an_idle_worker_is_frozen_and_goes_on_with_its_next_event,
    a_frozen_worker_still_cleans_up,
    nothing_is_frozen_unless_somebody_wants_it,
];

/// The state of a process: `T` is stopped.
fn state(pid: i64) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?')
}

fn pid(server: &Server, event: &str) -> i64 {
    server.ok("demo", event)["pid"].as_i64().unwrap()
}

fn an_idle_worker_is_frozen_and_goes_on_with_its_next_event(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 2");
    let server = site.serve(&[reaper, &["--freeze", "50"]].concat());
    let worker = pid(&server, "{}");
    let grandchild = server.ok("demo", "{\"do\":\"grandchild\"}")["grandchild"].as_i64().unwrap();
    for _ in 0..3 {
        eventually("it is frozen", || (state(worker) == 'T').then_some(()));
        eventually("so is its child", || (state(grandchild) == 'T').then_some(()));
        assert_eq!(pid(&server, "{}"), worker, "it serves on");
        assert_ne!(state(grandchild), 'Z');
    }
    // One that runs for longer than that is left alone.
    assert_eq!(server.ok("demo", "{\"do\":\"sleep\",\"n\":300}")["pid"], worker);
    server.stop();
    assert!(!exists(worker) && !exists(grandchild));
}

fn a_frozen_worker_still_cleans_up(reaper: &[&str]) {
    let site = Site::new();
    let file = site.path().join("cleanup");
    let more =
        format!("idle_timeout_s = 1\nenvironment = {{ CLEANUP_FILE = \"{}\" }}", file.display());
    site.native("demo", "", &more);
    let server = site.serve(&[reaper, &["--freeze", "50"]].concat());
    let worker = server.ok("demo", "{\"do\":\"stubborn\"}")["pid"].as_i64().unwrap();
    eventually("it is frozen", || (state(worker) == 'T').then_some(()));
    eventually("it is stopped", || server.workers_of("demo").is_empty().then_some(()));
    assert!(file.exists(), "it had its chance to clean up");
    let worker = pid(&server, "{}");
    eventually("the next one is frozen", || (state(worker) == 'T').then_some(()));
    // Also by the server's end.
    server.stop();
    assert!(!exists(worker));
}

fn nothing_is_frozen_unless_somebody_wants_it(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    site.native("other", "", "idle_timeout_s = 1");
    let server = site.serve(reaper);
    let worker = pid(&server, "{}");
    server.ok("other", "{}");
    eventually("the other one has been idle for a second", || {
        assert_ne!(state(worker), 'T');
        server.workers_of("other").is_empty().then_some(())
    });
    server.stop();
}
