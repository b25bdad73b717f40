//! Recorded clients as workers: whole, byte by byte, and cut at every position.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::common::http::Conn;
use crate::common::{Server, Site, eventually, status_number};
use crate::recorded::{self, Kind, Request, field, substitute};
use crate::workers::provided;

/// Whole, byte by byte, and cut at every position.
const ROUNDS: usize = 2 + recorded::STRIDE;

/// Invokes and expects what the recorded client answered, with this invocation's request id.
fn expect(server: &Server, conn: &mut Conn, event: &str, answer: &Request) {
    let reply = conn.invoke("demo", event.as_bytes());
    let told = field(&answer.trailers, "lambda-runtime-function-error-body");
    let expected = match told {
        Some(text) => BASE64_STANDARD.decode(text).unwrap(),
        None => {
            let request = reply.field("x-amzn-requestid").unwrap();
            substitute(&answer.payload, answer.id.as_ref().unwrap(), request)
        }
    };
    if reply.body != expected {
        let log = server.hob(&["logs", "demo"]).out;
        let expected = String::from_utf8_lossy(&expected);
        panic!("event {event}: {}\ninstead of {expected}\n{log}", reply.text());
    }
    assert_eq!(reply.status, 200);
    let failed = answer.kind == Kind::Error || !answer.trailers.is_empty();
    let error = failed.then_some("Unhandled");
    assert_eq!(reply.field("x-amz-function-error"), error, "event {event}");
}

fn answers(requests: &[Request]) -> Vec<&Request> {
    let is_answer = |request: &&Request| matches!(request.kind, Kind::Response | Kind::Error);
    requests.iter().filter(is_answer).collect()
}

/// Expects that no worker complained about a reply of the server.
fn content(server: &Server) {
    let log = server.hob(&["logs", "demo"]).out;
    assert!(!log.contains("panicked"), "{log}");
}

/// The same for a caller that takes replies as they are written.
fn expect_stream(conn: &mut Conn, event: &str, answer: &Request) {
    assert_eq!(conn.stream("demo", &[], event).status, 200);
    let (payload, end) = conn.messages();
    assert_eq!(payload, answer.payload);
    let told = field(&answer.trailers, "lambda-runtime-function-error-body");
    let told = told.map(|text| String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap());
    let code = field(&answer.trailers, "lambda-runtime-function-error-type");
    assert_eq!(end["ErrorCode"].as_str(), code.as_deref());
    assert_eq!(end["ErrorDetails"].as_str(), told.as_deref());
}

fn replay(client: &str) {
    let folder = recorded::folder(client);
    let requests = recorded::read(&folder);
    let answers = answers(&requests);
    let site = Site::new();
    let rounds = ROUNDS.to_string();
    let environment = [("REPLAY", folder.to_str().unwrap()), ("ROUNDS", rounds.as_str())];
    // A worker that polls byte by byte is slow: it is not given a second one.
    provided(&site, "demo", &environment, "reserved_concurrency = 1\nqueue_wait_ms = 10000");
    let server = site.serve(&[]);
    let mut conn = server.connect();
    let mut events = 0;
    for round in 0..ROUNDS {
        for answer in &answers {
            let event = format!("{{\"n\":{events}}}");
            if client.ends_with("stream") && round % 2 == 0 {
                expect_stream(&mut conn, &event, answer);
            } else {
                expect(&server, &mut conn, &event, answer);
            }
            events += 1;
        }
    }
    eventually("the worker is through", || {
        server.hob(&["logs", "demo"]).out.contains("all rounds are done").then_some(())
    });
    content(&server);
    let workers = server.workers_of("demo");
    assert_eq!(workers.len(), 1, "one process for all of it");
    assert_eq!(
        (&workers[0]["state"], &workers[0]["invocations"]),
        (&"idle".into(), &events.into())
    );
    assert_eq!(status_number(server.pid(), "Threads"), 1);
    server.stop();
}

/// A test for each recorded client that serves events.
macro_rules! clients {
    ($($name:ident $folder:literal),* $(,)?) => {
        $(#[test] fn $name() { replay($folder); })*
    };
}

clients![
    python "py",
    node "node",
    node_3 "node3",
    node_streaming "nodestream",
    rust "rust",
    rust_streaming "rsstream",
    go "go",
    shell "shell",
];

#[test]
fn go_with_its_sigterm_option() {
    let folder = recorded::folder("go-sig");
    let requests = recorded::read(&folder);
    let answers = answers(&requests);
    let site = Site::new();
    let lives = site.path().join("lives");
    let environment = [("REPLAY", folder.to_str().unwrap()), ("LIVES", lives.to_str().unwrap())];
    // It registers while it starts, so every round is another process.
    provided(&site, "demo", &environment, "max_invocations = 1");
    let server = site.serve(&[]);
    let mut conn = server.connect();
    for _ in 0..40 {
        expect(&server, &mut conn, "{\"n\":0}", answers[0]);
    }
    assert_eq!(std::fs::metadata(lives).unwrap().len(), 40);
    content(&server);
    server.stop();
}

/// A client that fails to start: its error is what the caller gets, and it is started anew.
fn fails_to_start(client: &str) {
    let folder = recorded::folder(client);
    let requests = recorded::read(&folder);
    let site = Site::new();
    let lives = site.path().join("lives");
    let environment = [("REPLAY", folder.to_str().unwrap()), ("LIVES", lives.to_str().unwrap())];
    // A function that failed is left alone for a while; so there is more than one.
    let names: Vec<String> = (0..10).map(|n| format!("demo-{n}")).collect();
    for name in &names {
        provided(&site, name, &environment, "");
    }
    let server = site.serve(&[]);
    for name in &names {
        let reply = server.invoke(name, "{}");
        assert_eq!((reply.status, reply.field("x-amz-function-error")), (200, Some("Unhandled")));
        assert_eq!(reply.body, requests[0].payload);
    }
    assert_eq!(std::fs::metadata(lives).unwrap().len(), 20, "a second start inside the invocation");
    for name in &names {
        let log = server.hob(&["logs", name]).out;
        assert!(!log.contains("panicked") && log.contains("Phase: init\tStatus: error"), "{log}");
    }
    server.stop();
}

#[test]
fn python_that_cannot_start() {
    fails_to_start("py-initerr");
}

#[test]
fn node_that_cannot_start() {
    fails_to_start("node-initerr");
}
