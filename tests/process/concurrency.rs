//! Who may run how much, and who makes room for whom.

use std::collections::BTreeSet;

use crate::common::http::{Conn, Reply};
use crate::common::{Server, Site, eventually, exists};

crate::both_reapers![
    invocations_run_side_by_side_up_to_the_table,
    reserved_is_guarantee_and_ceiling,
    a_place_is_waited_for_as_long_as_allowed,
    provisioned_workers_are_there_before_the_first_invocation,
    the_longest_idle_worker_makes_room,
    workers_are_recycled_after_their_share,
    a_worker_that_lingers_is_not_given_more,
    who_waits_gets_the_new_code,
];

/// Sends as many invocations at once; their replies in order.
fn at_once(server: &Server, name: &str, event: &str, count: usize) -> Vec<Reply> {
    let mut connections: Vec<Conn> = (0..count).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.begin(name, event);
    }
    connections.iter_mut().map(Conn::reply).collect()
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    let mut all: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    all.sort_unstable();
    all
}

fn reason(replies: &[Reply]) -> String {
    let refused = replies.iter().find(|reply| reply.status == 429).expect("one was throttled");
    assert_eq!(refused.field("x-amzn-errortype"), Some("TooManyRequestsException"));
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert_eq!(refused.json()["message"], "Rate Exceeded.");
    refused.json()["Reason"].as_str().unwrap().to_owned()
}

fn who_waits_gets_the_new_code(reaper: &[&str]) {
    let site = Site::new();
    let go = site.path().join("go");
    let old = format!("#!/bin/sh\nuntil [ -e {} ]; do sleep 0.01; done\necho 1\n", go.display());
    let more = "reserved_concurrency = 1\nqueue_wait_ms = 60000\ntimeout_s = 60";
    site.script("demo", "exec", &old, more);
    let server = site.serve(reaper);
    let (mut first, mut second) = (server.connect(), server.connect());
    first.begin("demo", "{}");
    eventually("one runs", || (server.workers().len() == 1).then_some(()));
    second.begin("demo", "{}");
    eventually("one waits", || (server.get("/hob/server")["in_flight"] == 2).then_some(()));
    let code = || server.get("/hob/functions/demo")["code"].clone();
    let before = code();
    site.script("demo", "exec", "#!/bin/sh\necho 2\n", more);
    eventually("the new code is in force", || (code() != before).then_some(()));
    std::fs::write(go, "").unwrap();
    assert_eq!(first.reply().json(), 1);
    assert_eq!(second.reply().json(), 2);
    assert_eq!(server.ok("demo", "{}"), 2);
    server.stop();
}

const NAP: &str = "{\"do\":\"sleep\",\"n\":300}";

fn invocations_run_side_by_side_up_to_the_table(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "queue_wait_ms = 0");
    let server = site.serve(&[reaper, &["--slots", "3"]].concat());
    let replies = at_once(&server, "demo", NAP, 4);
    assert_eq!(statuses(&replies), [200, 200, 200, 429]);
    assert_eq!(reason(&replies), "ConcurrentInvocationLimitExceeded");
    let good = replies.iter().filter(|reply| reply.status == 200);
    let pids: BTreeSet<i64> = good.map(|reply| reply.json()["pid"].as_i64().unwrap()).collect();
    assert_eq!(pids.len(), 3, "one worker for each");
    // The most recently used worker comes first: the others may time out.
    let last = server.ok("demo", "{}")["pid"].clone();
    for _ in 0..5 {
        assert_eq!(server.ok("demo", "{}")["pid"], last);
    }
    server.stop();
}

fn reserved_is_guarantee_and_ceiling(reaper: &[&str]) {
    let site = Site::new();
    site.native("mine", "", "queue_wait_ms = 0\nreserved_concurrency = 1");
    site.native("rest", "", "queue_wait_ms = 0");
    site.native("off", "", "reserved_concurrency = 0");
    let server = site.serve(&[reaper, &["--slots", "3"]].concat());
    let replies = at_once(&server, "rest", NAP, 3);
    assert_eq!(statuses(&replies), [200, 200, 429], "the third slot is reserved");
    assert_eq!(reason(&replies), "ConcurrentInvocationLimitExceeded");
    let replies = at_once(&server, "mine", NAP, 2);
    assert_eq!(statuses(&replies), [200, 429], "and one is all it gets");
    assert_eq!(reason(&replies), "ReservedFunctionConcurrentInvocationLimitExceeded");
    let replies = at_once(&server, "off", "{}", 1);
    assert_eq!(reason(&replies), "ReservedFunctionConcurrentInvocationLimitExceeded");
    server.stop();
}

fn a_place_is_waited_for_as_long_as_allowed(reaper: &[&str]) {
    let site = Site::new();
    site.native("patient", "", "queue_wait_ms = 5000\nreserved_concurrency = 1");
    site.native("hasty", "", "queue_wait_ms = 50\nreserved_concurrency = 1");
    let server = site.serve(reaper);
    let replies = at_once(&server, "patient", NAP, 3);
    assert_eq!(statuses(&replies), [200, 200, 200], "one after the other");
    assert_eq!(server.workers_of("patient").len(), 1);
    assert_eq!(statuses(&at_once(&server, "hasty", NAP, 3)), [200, 429, 429]);
    // A caller who hung up does not run any more.
    let mut first = server.connect();
    first.begin("patient", NAP);
    let mut gone = server.connect();
    gone.begin("patient", NAP);
    eventually("both are there", || (server.get("/hob/server")["in_flight"] == 2).then_some(()));
    let socket = gone.socket().try_clone().unwrap();
    rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO)).unwrap();
    drop((gone, socket));
    assert_eq!(first.reply().status, 200);
    let count = server.ok("patient", "{}")["count"].as_u64().unwrap();
    assert_eq!(count, 5, "3, then 1 of 2, then this one");
    server.stop();
}

fn provisioned_workers_are_there_before_the_first_invocation(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "provisioned_concurrency = 2\nidle_timeout_s = 0");
    let server = site.serve(reaper);
    let ready = || {
        let workers = server.workers_of("demo");
        (workers.len() == 2 && workers.iter().all(|worker| worker["state"] == "idle"))
            .then_some(workers)
    };
    let workers = eventually("two workers are ready", ready);
    let pids: Vec<i64> = workers.iter().map(|worker| worker["pid"].as_i64().unwrap()).collect();
    let reply = server.ok("demo", "{\"do\":\"env\"}");
    assert!(pids.contains(&reply["pid"].as_i64().unwrap()));
    let kind = &reply["env"]["AWS_LAMBDA_INITIALIZATION_TYPE"];
    assert_eq!(kind, "provisioned-concurrency");
    let log = server.hob(&["logs", "demo"]).out;
    assert!(!log.contains("Init Duration"), "no caller waited for a start: {log}");
    server.fails("demo", "{\"do\":\"crash\"}");
    let again = eventually("the lost one is replaced", ready);
    assert_ne!(workers, again);
    // More than provisioned spills over to workers on demand, which idle out.
    assert_eq!(statuses(&at_once(&server, "demo", NAP, 3)), [200, 200, 200]);
    eventually("the spare one is gone", ready);
    server.stop();
}

fn the_longest_idle_worker_makes_room(reaper: &[&str]) {
    let site = Site::new();
    for name in ["a", "b", "c"] {
        site.native(name, "", "queue_wait_ms = 0");
    }
    let server = site.serve(&[reaper, &["--slots", "2"]].concat());
    let a = server.ok("a", "{}")["pid"].as_i64().unwrap();
    let b = server.ok("b", "{}")["pid"].as_i64().unwrap();
    server.ok("a", "{}");
    server.ok("c", "{}");
    assert!(exists(a) && !exists(b), "b was not used for longer");
    server.stop();
}

fn workers_are_recycled_after_their_share(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "max_invocations = 2");
    let server = site.serve(reaper);
    let counts: Vec<u64> =
        (0..5).map(|_| server.ok("demo", "{}")["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 1, 2, 1]);
    server.stop();
}

fn a_worker_that_lingers_is_not_given_more(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "queue_wait_ms = 0");
    let server = site.serve(reaper);
    // It answers, and asks for more only after a while: a short one is waited for ...
    let mut connection = server.connect();
    let first = connection.invoke("demo", b"{\"do\":\"linger\",\"n\":1}").json();
    let second = connection.invoke("demo", b"{\"do\":\"linger\",\"n\":2000}").json();
    assert_eq!(first["pid"], second["pid"]);
    // ... a long one is not: another worker takes over.
    let third = connection.invoke("demo", b"{}").json();
    assert_ne!(second["pid"], third["pid"]);
    server.stop();
}
