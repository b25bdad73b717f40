//! Answers in pieces, rule by rule: the test itself is the runtime.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::common::http::{Conn, Reply};
use crate::common::{Server, Site, eventually};
use crate::workers::provided;

/// A function whose runtime is this test.
struct Stage {
    server: Server,
    site: Site,
    caller: Conn,
}

const STREAMING: &str = "Lambda-Runtime-Function-Response-Mode: streaming\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

impl Stage {
    fn new() -> Stage {
        let site = Site::new();
        let puppet = site.path().join("puppet");
        let environment = [("PUPPET", puppet.to_str().unwrap())];
        provided(&site, "demo", &environment, "timeout_s = 60\nreserved_concurrency = 1");
        let server = site.serve(&[]);
        let caller = server.connect();
        Stage { site, server, caller }
    }

    /// Begins an invocation, for a caller that takes pieces or not.
    fn invoke(&mut self, pieces: bool) {
        let path = match pieces {
            true => "/2021-11-15/functions/demo/response-streaming-invocations",
            false => "/2015-03-31/functions/demo/invocations",
        };
        self.caller.request("POST", path, &[], b"{}");
    }

    /// A connection of the runtime.
    fn connect(&self) -> Conn {
        let address = eventually("the runtime is there", || {
            let text = std::fs::read_to_string(self.site.path().join("puppet")).ok()?;
            Some(text.lines().last()?.to_owned())
        });
        Conn::tcp(&address)
    }

    /// The end of the stream: what it says of an error.
    fn end(&mut self, payload: &[u8]) -> Value {
        assert_eq!(self.caller.try_head().unwrap().status, 200);
        let (found, end) = self.caller.messages();
        assert_eq!(found, payload);
        end
    }

    /// The worker goes on with the next invocation.
    fn goes_on(mut self, runtime: &mut Conn) {
        self.invoke(false);
        let id = next(runtime);
        post(runtime, &id, "Content-Length: 1\r\n\r\n1");
        assert_eq!(runtime.reply().status, 202);
        assert_eq!(self.caller.reply().text(), "1");
        // One that did not ask for more would hold up the end.
        runtime.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(self.server.workers_of("demo").len(), 1);
        self.server.stop();
    }
}

fn next(runtime: &mut Conn) -> String {
    let event = runtime.get("/2018-06-01/runtime/invocation/next");
    event.field("lambda-runtime-aws-request-id").unwrap().to_owned()
}

fn post(runtime: &mut Conn, id: &str, rest: &str) {
    let path = format!("/2018-06-01/runtime/invocation/{id}/response");
    runtime.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}"));
}

fn error_type(reply: &Reply) -> String {
    reply.json()["errorType"].as_str().unwrap().to_owned()
}

#[test]
fn every_piece_goes_on_at_once() {
    let mut stage = Stage::new();
    stage.invoke(true);
    let mut runtime = stage.connect();
    let id = next(&mut runtime);
    post(&mut runtime, &id, &format!("{STREAMING}{CHUNKED}\r\n"));
    for (n, piece) in ["one", "two", "three"].into_iter().enumerate() {
        runtime.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        if n == 0 {
            assert_eq!(stage.caller.try_head().unwrap().status, 200);
        }
        // Nothing more is sent before this has arrived.
        let message = stage.caller.message().unwrap();
        assert_eq!(message, ("PayloadChunk".to_owned(), piece.as_bytes().to_vec()));
    }
    runtime.send("0\r\n\r\n");
    assert_eq!(runtime.reply().status, 202);
    assert_eq!(stage.caller.messages(), (Vec::new(), json!({})));
    stage.goes_on(&mut runtime);
}

#[test]
fn a_length_in_place_of_chunks_will_do() {
    let mut stage = Stage::new();
    stage.invoke(true);
    let mut runtime = stage.connect();
    let id = next(&mut runtime);
    post(&mut runtime, &id, &format!("{STREAMING}Content-Length: 6\r\n\r\none"));
    assert_eq!(stage.caller.try_head().unwrap().status, 200);
    assert_eq!(stage.caller.message().unwrap().1, b"one");
    runtime.send("two");
    assert_eq!(runtime.reply().status, 202);
    assert_eq!(stage.caller.messages(), (b"two".to_vec(), json!({})));
    stage.goes_on(&mut runtime);
}

#[test]
fn an_error_in_the_trailers_ends_the_stream() {
    let error = r#"{"errorType":"Odd","errorMessage":"halfway"}"#;
    let body = BASE64_STANDARD.encode(error);
    let trailers = |more: &str| format!("Lambda-Runtime-Function-Error-Type: Odd\r\n{more}\r\n");
    let whole = trailers(&format!("Lambda-Runtime-Function-Error-Body: {body}\r\n"));
    for (trailers, details) in [
        (whole, error),
        (trailers(""), r#"{"errorMessage":"","errorType":"Odd"}"#),
        (
            trailers("Lambda-Runtime-Function-Error-Body: no base64\r\n"),
            r#"{"errorMessage":"","errorType":"Odd"}"#,
        ),
    ] {
        let mut stage = Stage::new();
        stage.invoke(true);
        let mut runtime = stage.connect();
        let id = next(&mut runtime);
        let body = format!("3\r\none\r\n0\r\n{trailers}");
        post(&mut runtime, &id, &format!("{STREAMING}{CHUNKED}\r\n{body}"));
        assert_eq!(runtime.reply().status, 202);
        let end = stage.end(b"one");
        assert_eq!((&end["ErrorCode"], &end["ErrorDetails"]), (&"Odd".into(), &details.into()));
        // Somebody who wants all of it has no use for a part.
        stage.invoke(false);
        let id = next(&mut runtime);
        post(&mut runtime, &id, &format!("{STREAMING}{CHUNKED}\r\n{body}"));
        assert_eq!(runtime.reply().status, 202);
        let reply = stage.caller.reply();
        assert_eq!(reply.field("x-amz-function-error"), Some("Unhandled"));
        assert_eq!(reply.text(), details);
        stage.goes_on(&mut runtime);
    }
}

#[test]
fn what_is_cut_off_is_a_truncated_response() {
    for (pieces, mode) in [(true, STREAMING), (false, STREAMING), (false, "")] {
        let mut stage = Stage::new();
        for body in ["5\r\nabc", "3\r\nabc\r\nno size\r\n"] {
            stage.invoke(pieces);
            let mut runtime = stage.connect();
            let id = next(&mut runtime);
            post(&mut runtime, &id, &format!("{mode}{CHUNKED}\r\n{body}"));
            if body.ends_with("\r\n") {
                let reply = runtime.reply();
                assert_eq!(
                    (reply.status, error_type(&reply)),
                    (400, "TruncatedHTTPRequest".into())
                );
            }
            drop(runtime);
            let code = match pieces {
                true => stage.end(b"abc")["ErrorCode"].take(),
                false => stage.caller.reply().json()["errorType"].take(),
            };
            assert_eq!(code, "Runtime.TruncatedResponse", "{pieces} {mode} {body}");
        }
        let mut runtime = stage.connect();
        stage.goes_on(&mut runtime);
    }
}

#[test]
fn only_the_one_who_owes_it_may_answer_and_once() {
    let mut stage = Stage::new();
    stage.invoke(true);
    let mut runtime = stage.connect();
    let id = next(&mut runtime);
    let mut other = stage.connect();
    let stray = "00000000-0000-4000-8000-000000000000";
    for id in [stray, "x"] {
        post(&mut other, id, &format!("{STREAMING}{CHUNKED}\r\n3\r\nabc\r\n"));
        let reply = other.reply();
        assert_eq!((reply.status, error_type(&reply)), (400, "InvalidRequestID".into()));
        assert!(other.is_closed(), "how much more would come is not known");
        other = stage.connect();
    }
    post(&mut runtime, &id, &format!("{STREAMING}{CHUNKED}\r\n3\r\none\r\n"));
    assert_eq!(stage.caller.try_head().unwrap().status, 200);
    assert_eq!(stage.caller.message().unwrap().1, b"one");
    // A second answer beside the first.
    post(&mut other, &id, "Content-Length: 1\r\n\r\n1");
    assert_eq!(error_type(&other.reply()), "InvalidRequestID");
    // Whoever asks for more beforehand has asked once the answer is there.
    other.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\n\r\n");
    other.taken();
    assert_eq!(stage.server.workers_of("demo")[0]["state"], "busy");
    runtime.send("0\r\n\r\n");
    assert_eq!(runtime.reply().status, 202);
    assert_eq!(stage.caller.messages(), (Vec::new(), json!({})));
    stage.invoke(false);
    let event = other.reply();
    let id = event.field("lambda-runtime-aws-request-id").unwrap().to_owned();
    post(&mut runtime, &id, "Content-Length: 1\r\n\r\n2");
    assert_eq!(runtime.reply().status, 202);
    assert_eq!(stage.caller.reply().text(), "2");
    stage.goes_on(&mut runtime);
}

#[test]
fn who_asks_for_more_before_an_answer_begins_has_not_lost_the_event() {
    let mut stage = Stage::new();
    stage.invoke(true);
    let mut runtime = stage.connect();
    let id = next(&mut runtime);
    // On two connections nobody says what arrives first.
    let mut other = stage.connect();
    other.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: a\r\n\r\n");
    other.taken();
    assert_eq!(stage.server.workers_of("demo")[0]["state"], "busy");
    post(&mut runtime, &id, &format!("{STREAMING}{CHUNKED}\r\n3\r\none\r\n0\r\n\r\n"));
    assert_eq!(runtime.reply().status, 202);
    stage.end(b"one");
    stage.invoke(false);
    let event = other.reply();
    let another = event.field("lambda-runtime-aws-request-id").unwrap().to_owned();
    assert_ne!(another, id);
    post(&mut runtime, &another, "Content-Length: 1\r\n\r\n2");
    assert_eq!(runtime.reply().status, 202);
    assert_eq!(stage.caller.reply().text(), "2");
    stage.goes_on(&mut runtime);
}

#[test]
fn who_asks_again_and_does_not_answer_gets_the_same_event() {
    let mut stage = Stage::new();
    stage.invoke(false);
    let mut runtime = stage.connect();
    let id = next(&mut runtime);
    assert_eq!(next(&mut runtime), id);
    post(&mut runtime, &id, "Content-Length: 1\r\n\r\n1");
    assert_eq!(runtime.reply().status, 202);
    assert_eq!(stage.caller.reply().text(), "1");
    stage.goes_on(&mut runtime);
}

#[test]
fn what_is_too_large_is_told_before_it_comes() {
    let mut stage = Stage::new();
    for (pieces, length, most) in [(true, 209_715_201, 209_715_200), (false, 6_291_557, 6_291_556)]
    {
        stage.invoke(pieces);
        let mut runtime = stage.connect();
        let id = next(&mut runtime);
        post(&mut runtime, &id, &format!("{STREAMING}Content-Length: {length}\r\n\r\n"));
        let reply = runtime.reply();
        assert_eq!((reply.status, error_type(&reply)), (413, "RequestEntityTooLarge".into()));
        let message = match pieces {
            true => stage.end(b"")["ErrorDetails"].take(),
            false => stage.caller.reply().json()["errorMessage"].take(),
        };
        let message = message.as_str().unwrap();
        assert!(message.contains(&format!("({most} bytes)")), "{message}");
    }
    let mut runtime = stage.connect();
    stage.goes_on(&mut runtime);
}

#[test]
fn other_modes_are_refused() {
    let mut stage = Stage::new();
    stage.invoke(true);
    let mut runtime = stage.connect();
    let id = next(&mut runtime);
    let mode = "Lambda-Runtime-Function-Response-Mode: buffered\r\n";
    post(&mut runtime, &id, &format!("{mode}Content-Length: 1\r\n\r\n1"));
    let reply = runtime.reply();
    assert_eq!((reply.status, error_type(&reply)), (400, "InvalidFunctionResponseMode".into()));
    assert_eq!(stage.end(b"")["ErrorCode"], "Runtime.InvalidResponseModeHeader");
    stage.goes_on(&mut runtime);
}
