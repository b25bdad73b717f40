//! Replies in pieces by workers on the wire, and what goes wrong with them halfway.

use serde_json::{Value, json};

use crate::common::http::Conn;
use crate::common::{Server, Site, eventually, example, slower, status_number};

crate::both_reapers![
    a_piece_arrives_before_the_handler_ends,
    other_callers_get_all_of_it_at_once,
    errors_halfway_end_the_stream,
    workers_that_break_the_rules_of_streams_are_killed,
    a_stream_of_an_older_protocol_is_out_of_order,
    a_slow_client_holds_back_its_worker_and_nobody_else,
    who_leaves_halfway_loses_the_rest_and_nobody_else,
    what_a_worker_wrote_before_it_left_arrives,
    a_reply_beyond_the_limit_is_cut_off,
    whole_replies_are_streams_of_one_piece,
    handlers_on_the_sdk_write_bit_by_bit,
    a_slow_client_does_not_stop_the_clock,
    a_stream_is_finished_before_the_server_stops,
];

fn site() -> (Site, String) {
    let site = Site::new();
    site.native("flow", "streams", &format!("timeout_s = {}", 30 * slower()));
    site.native("short", "streams", "timeout_s = 1\nshutdown_grace_ms = 50");
    site.native("well", "", "");
    let gate = site.path().join("gate");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &gate, fifo, 0o600.into(), 0).unwrap();
    let gate = gate.to_str().unwrap().to_owned();
    (site, gate)
}

fn is_well(server: Server) {
    assert_eq!(server.ok("well", "{\"n\":7}")["event"]["n"], 7);
    server.stop();
}

/// Invokes and reads all of the stream: the payload, and what the last message says.
fn stream(server: &Server, name: &str, event: &Value) -> (Vec<u8>, Value) {
    let mut conn = server.connect();
    assert_eq!(conn.stream(name, &[], &event.to_string()).status, 200);
    conn.messages()
}

fn chunk(conn: &mut Conn) -> String {
    let (kind, payload) = conn.message().unwrap();
    assert_eq!(kind, "PayloadChunk");
    String::from_utf8(payload).unwrap()
}

fn a_piece_arrives_before_the_handler_ends(reaper: &[&str]) {
    let (site, gate) = site();
    let server = site.serve(reaper);
    let mut conn = server.connect();
    for _ in 0..2 {
        let event = json!({"do": "stream", "pieces": ["one", "two"], "gate": gate, "last": "end"});
        let head = conn.stream("flow", &[("X-Amz-Log-Type", "Tail")], &event.to_string());
        assert_eq!(head.status, 200);
        assert_eq!(head.field("content-type"), Some("application/vnd.amazon.eventstream"));
        assert_eq!(head.field("x-amz-executed-version"), Some("$LATEST"));
        assert_eq!(head.field("transfer-encoding"), Some("chunked"));
        assert!(head.field("x-amzn-requestid").is_some_and(|id| id.len() == 36));
        assert_eq!(chunk(&mut conn), "one");
        // Only now may the handler go on.
        std::fs::write(&gate, "x").unwrap();
        let (rest, end) = conn.messages();
        assert_eq!(rest, b"twoend");
        assert_eq!(end.as_object().unwrap().len(), 1, "{end}");
        assert!(end["LogResult"].as_str().is_some_and(|log| log.len() > 100));
    }
    assert_eq!(server.workers_of("flow").len(), 1, "it stays warm");
    is_well(server);
}

fn other_callers_get_all_of_it_at_once(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    let reply = server.invoke("flow", r#"{"do":"stream","pieces":["[1,","2"],"last":"]"}"#);
    assert_eq!((reply.status, reply.text().as_str()), (200, "[1,2]"));
    assert_eq!(reply.field("x-amz-function-error"), None);
    let reply = server.invoke("flow", r#"{"do":"stream"}"#);
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    let reply = server.invoke("flow", r#"{"do":"stream","n":6291556}"#);
    assert_eq!((reply.status, reply.body.len()), (200, 6_291_556));
    let (kind, message) = server.fails("flow", r#"{"do":"stream","n":6291557}"#);
    assert_eq!(kind, "Function.ResponseSizeTooLarge");
    assert!(message.contains("(6291556 bytes)"), "{message}");
    let (kind, message) = server.fails("flow", r#"{"do":"stream","n":9,"end":"fail"}"#);
    assert_eq!((kind.as_str(), message.as_str()), ("TestError", "halfway"));
    assert_eq!(server.workers_of("flow")[0]["invocations"], 5, "one worker for all of it");
    is_well(server);
}

fn errors_halfway_end_the_stream(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    for (name, end, code, details) in [
        ("flow", "fail", "TestError", "halfway"),
        ("flow", "crash", "Runtime.ExitError", "signal: aborted"),
        ("short", "hang", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
    ] {
        let event = json!({"do": "stream", "pieces": ["one"], "end": end});
        let (payload, told) = stream(&server, name, &event);
        assert_eq!(payload, b"one", "{end}");
        assert_eq!(told["ErrorCode"], code);
        let error: Value = serde_json::from_str(told["ErrorDetails"].as_str().unwrap()).unwrap();
        assert_eq!(error["errorType"], code);
        let message = error["errorMessage"].as_str().unwrap();
        assert!(message.ends_with(details), "{message}");
    }
    is_well(server);
}

fn workers_that_break_the_rules_of_streams_are_killed(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    for end in ["wrong-id", "again", "long", "after"] {
        let event = json!({"do": "stream", "pieces": ["one"], "end": end});
        let (payload, told) = stream(&server, "flow", &event);
        assert_eq!(payload, b"one", "{end}");
        let code = (end != "after").then_some("Runtime.ExitError");
        assert_eq!(told["ErrorCode"].as_str(), code, "{end}: {told}");
        eventually("it is gone", || server.workers_of("flow").is_empty().then_some(()));
    }
    let log = server.log();
    assert_eq!(log.matches("message out of order").count(), 4, "{log}");
    is_well(server);
}

fn a_stream_of_an_older_protocol_is_out_of_order(reaper: &[&str]) {
    let (site, _) = site();
    site.native("old", "protocol 2", "");
    let server = site.serve(reaper);
    assert_eq!(server.ok("old", "{}")["count"], 1);
    let (kind, _) = server.fails("old", r#"{"do":"stream"}"#);
    assert_eq!(kind, "Runtime.ExitError");
    is_well(server);
}

/// A function that has written all of its reply says so in its log.
fn has_written(server: &Server) -> bool {
    server.hob(&["logs", "flow"]).out.contains("all pieces are written")
}

fn a_slow_client_holds_back_its_worker_and_nobody_else(reaper: &[&str]) {
    const LENGTH: usize = 20_000_000;
    let (site, _) = site();
    let server = site.serve(reaper);
    server.ok("well", "{}");
    let before = status_number(server.pid(), "VmRSS");
    let mut conn = server.connect();
    let event = json!({"do": "stream", "pieces": ["one"], "n": LENGTH});
    assert_eq!(conn.stream("flow", &[], &event.to_string()).status, 200);
    let first = chunk(&mut conn).len();
    for n in 0..200 {
        assert_eq!(server.ok("well", &format!("{{\"n\":{n}}}"))["event"]["n"], n);
    }
    // Sockets hold some megabytes of it at the most, and the server next to nothing.
    assert!(!has_written(&server));
    let (payload, end) = conn.messages();
    assert_eq!((first + payload.len(), end), (LENGTH + "one".len(), json!({})));
    let grown = status_number(server.pid(), "VmHWM").saturating_sub(before);
    assert!(grown < 1_500, "{grown} KiB");
    is_well(server);
}

fn who_leaves_halfway_loses_the_rest_and_nobody_else(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    let event = json!({"do": "stream", "pieces": ["one"], "n": 20_000_000}).to_string();
    let mut conn = server.connect();
    conn.stream("flow", &[], &event);
    assert!(chunk(&mut conn).starts_with("one"));
    assert!(!has_written(&server));
    conn.reset();
    eventually("the function runs on", || has_written(&server).then_some(()));
    let flow = eventually("it is idle", || {
        server.workers_of("flow").pop().filter(|worker| worker["state"] == "idle")
    });
    assert_eq!(server.invoke("flow", r#"{"do":"stream","last":"1"}"#).text(), "1");
    assert_eq!(server.workers_of("flow")[0]["pid"], flow["pid"], "the same worker");
    is_well(server);
}

fn what_a_worker_wrote_before_it_left_arrives(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    let mut conn = server.connect();
    // As much as sockets hold, so that it can leave while nobody reads.
    let event = json!({"do": "stream", "n": 100_000, "end": "leave", "last": "end"});
    conn.stream("flow", &[], &event.to_string());
    eventually("it left", || server.workers_of("flow").is_empty().then_some(()));
    let (payload, end) = conn.messages();
    assert_eq!((payload.len(), end), (100_003, json!({})));
    is_well(server);
}

fn a_reply_beyond_the_limit_is_cut_off(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    let event = json!({"do": "stream", "n": 209_715_201});
    let mut conn = server.connect();
    conn.stream("flow", &[], &event.to_string());
    let mut length = 0;
    let end = loop {
        match conn.message().unwrap() {
            (kind, bytes) if kind == "PayloadChunk" => length += bytes.len(),
            (_, bytes) => break serde_json::from_slice::<Value>(&bytes).unwrap(),
        }
    };
    assert!(length <= 209_715_200, "{length}");
    assert_eq!(end["ErrorCode"], "Function.ResponseSizeTooLarge");
    assert!(end["ErrorDetails"].as_str().unwrap().contains("(209715200 bytes)"));
    is_well(server);
}

fn whole_replies_are_streams_of_one_piece(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    let mut conn = server.connect();
    assert_eq!(conn.stream("well", &[], r#"{"do":"raw","text":"[1]"}"#).status, 200);
    assert_eq!(chunk(&mut conn), "[1]");
    assert_eq!(conn.messages(), (Vec::new(), json!({})));
    conn.stream("well", &[], r#"{"do":"fail"}"#);
    let (payload, end) = conn.messages();
    assert_eq!((payload.len(), &end["ErrorCode"]), (0, &"TestError".into()));
    // What is refused is no stream.
    let fields = [("X-Amz-Invocation-Type", "DryRun")];
    assert_eq!(conn.stream("well", &fields, "{}").status, 204);
    for (name, fields, event, status) in [
        ("nobody", None, "{}", 404),
        ("well", None, "{", 400),
        ("well", Some(("X-Amz-Invocation-Type", "Event")), "{}", 400),
    ] {
        let path = format!("/2021-11-15/functions/{name}/response-streaming-invocations");
        let fields: Vec<_> = fields.into_iter().collect();
        assert_eq!(conn.post(&path, &fields, event.as_bytes()).status, status, "{name} {event}");
    }
    is_well(server);
}

fn handlers_on_the_sdk_write_bit_by_bit(reaper: &[&str]) {
    let (site, gate) = site();
    let folder = site.function("sdk", "runtime = \"native\"\nhandler = \"flow\"\nzygote = \"on\"");
    std::os::unix::fs::symlink(example("flow"), folder.join("flow")).unwrap();
    let server = site.serve(reaper);
    let mut conn = server.connect();
    for _ in 0..2 {
        let event = json!({"bits": ["one", "two"], "gate": gate, "n": 100_000});
        conn.stream("sdk", &[], &event.to_string());
        assert_eq!(chunk(&mut conn), "one");
        std::fs::write(&gate, "x").unwrap();
        let (payload, end) = conn.messages();
        assert!(payload.starts_with(b"twox"));
        assert_eq!((payload.len(), end), (100_003, json!({})));
    }
    assert_eq!(server.invoke("sdk", r#"{"bits":["1","2"]}"#).text(), "12");
    let event = json!({"bits": ["one"], "type": "text/plain", "n": 40_000, "error": "Odd"});
    let (payload, end) = stream(&server, "sdk", &event);
    assert_eq!(
        (payload.len(), &end["ErrorCode"]),
        (32_768, &"Odd".into()),
        "what was sent by then"
    );
    assert_eq!(server.workers_of("sdk")[0]["invocations"], 4);
    is_well(server);
}

fn a_slow_client_does_not_stop_the_clock(reaper: &[&str]) {
    let (site, _) = site();
    let server = site.serve(reaper);
    let mut conn = server.connect();
    let event = json!({"do": "stream", "n": 20_000_000});
    conn.stream("short", &[], &event.to_string());
    eventually("it ran out of time", || server.workers_of("short").is_empty().then_some(()));
    let (payload, end) = conn.messages();
    assert!(payload.len() < 20_000_000);
    assert_eq!(end["ErrorCode"], "Sandbox.Timedout");
    is_well(server);
}

fn a_stream_is_finished_before_the_server_stops(reaper: &[&str]) {
    let (site, gate) = site();
    let mut server = site.serve(reaper);
    let mut conn = server.connect();
    let event = json!({"do": "stream", "pieces": ["one"], "gate": gate, "n": 1_000_000});
    conn.stream("flow", &[], &event.to_string());
    assert_eq!(chunk(&mut conn), "one");
    server.signal(rustix::process::Signal::TERM);
    eventually("it stops", || server.log().contains("in flight").then_some(()));
    std::fs::write(&gate, "x").unwrap();
    let (payload, end) = conn.messages();
    assert_eq!((payload.len(), end), (1_000_000, json!({})));
    assert!(server.wait().success());
}
