//! The Invoke operation, as the SDKs and the AWS CLI use it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::common::http::{Conn, Reply, invocations};
use crate::common::{Server, Site};

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function";

fn demo() -> (Site, Server) {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(&[]);
    (site, server)
}

/// Expects an error of the API, in the shape that SDKs read.
fn is_error(reply: &Reply, status: u16, name: &str, body: &Value) {
    assert_eq!((reply.status, &reply.json()), (status, body));
    assert_eq!(reply.field("x-amzn-errortype"), Some(name));
    assert_eq!(reply.field("content-type"), Some("application/json"));
    assert!(is_uuid(reply.field("x-amzn-requestid")), "{:?}", reply.head);
    assert_eq!(reply.field("x-amz-executed-version"), None);
}

fn is_uuid(text: Option<&str>) -> bool {
    let lengths = text.map(|text| text.split('-').map(str::len).collect::<Vec<_>>());
    lengths == Some(vec![8, 4, 4, 4, 12])
}

fn context(reply: &Reply, key: &str) -> String {
    reply.json()["context"][key].as_str().unwrap().to_owned()
}

const CONTEXT: &[u8] = b"{\"do\":\"context\"}";

#[test]
fn a_reply_says_what_ran_and_as_which_request() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let reply = conn.invoke("demo", CONTEXT);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("content-type"), Some("application/json"));
    assert_eq!(reply.field("x-amz-executed-version"), Some("$LATEST"));
    assert_eq!(reply.field("x-amz-function-error"), None);
    assert_eq!(reply.field("x-amz-log-result"), None);
    let request = reply.field("x-amzn-requestid");
    assert!(is_uuid(request));
    assert_eq!(request, Some(context(&reply, "request_id").as_str()));
    assert_eq!(reply.field("x-amzn-trace-id"), Some(context(&reply, "trace_id").as_str()));
    let other = conn.invoke("demo", CONTEXT);
    assert_ne!(other.field("x-amzn-requestid"), request);
    server.stop();
}

#[test]
fn a_function_error_is_told_by_a_field_and_passed_on_unchanged() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let reply = conn.invoke("demo", b"{\"do\":\"fail\",\"n\":7}");
    assert_eq!((reply.status, reply.field("x-amz-function-error")), (200, Some("Unhandled")));
    assert_eq!(reply.field("x-amz-executed-version"), Some("$LATEST"));
    let expected = json!({"errorType": "TestError", "errorMessage": "as told", "extra": 7});
    assert_eq!(reply.json(), expected);
    let reply = conn.invoke("demo", b"{\"do\":\"exit\",\"n\":3}");
    let request = reply.field("x-amzn-requestid").unwrap();
    let message = format!("RequestId: {request} Error: Runtime exited with error: exit status 3");
    let expected = json!({"errorType": "Runtime.ExitError", "errorMessage": message});
    assert_eq!((reply.status, reply.json()), (200, expected));
    server.stop();
}

#[test]
fn a_dry_run_runs_nothing() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let dry = [("X-Amz-Invocation-Type", "DryRun")];
    for _ in 0..2 {
        let reply = conn.post(&invocations("demo"), &dry, b"{}");
        assert_eq!((reply.status, reply.body.len()), (204, 0));
        assert_eq!(reply.field("content-length"), None, "204 has no body to measure");
        assert_eq!(reply.field("x-amz-executed-version"), None);
        assert!(is_uuid(reply.field("x-amzn-requestid")));
    }
    assert_eq!(conn.post(&invocations("none"), &dry, b"{}").status, 404);
    assert_eq!(conn.post(&invocations("demo"), &dry, b"{").status, 400);
    assert_eq!(conn.invoke("demo", b"{}").json()["count"], 1);
    server.stop();
}

#[test]
fn events_without_a_durable_queue_are_refused_and_not_run() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let message =
        "InvocationType Event is not supported by this server yet: it keeps no durable queue.";
    let body = json!({"Type": "User", "message": message});
    let event = [("X-Amz-Invocation-Type", "Event")];
    let reply = conn.post(&invocations("demo"), &event, b"{}");
    is_error(&reply, 400, "InvalidParameterValueException", &body);
    let reply = conn.post("/2014-11-13/functions/demo/invoke-async/", &[], b"{}");
    is_error(&reply, 400, "InvalidParameterValueException", &body);
    let reply = conn.post(&invocations("demo"), &[("X-Amz-Invocation-Type", "event")], b"{}");
    let message = "1 validation error detected: Value 'event' at 'invocationType' failed to satisfy \
                   constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]";
    let body = json!({"Type": "User", "message": message});
    is_error(&reply, 400, "InvalidParameterValueException", &body);
    assert_eq!(conn.invoke("demo", b"{}").json()["count"], 1);
    server.stop();
}

fn tail(conn: &mut Conn, event: &str) -> String {
    let tail = [("X-Amz-Log-Type", "Tail")];
    let reply = conn.post(&invocations("demo"), &tail, event.as_bytes());
    let text = reply.field("x-amz-log-result").unwrap();
    let text = String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap();
    assert!(text.contains(reply.field("x-amzn-requestid").unwrap()), "{text}");
    text
}

#[test]
fn the_tail_of_the_log_comes_with_the_reply() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let text = tail(&mut conn, "{\"do\":\"print\",\"n\":2}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("START RequestId: ") && lines[0].ends_with(" Version: $LATEST"));
    assert_eq!(lines[1..5], ["out 0", "err 0", "out 1", "err 1"]);
    assert!(lines[5].starts_with("END RequestId: "), "{text}");
    assert!(lines[6].starts_with("REPORT RequestId: "), "{text}");
    assert!(!text.contains("starting"), "what the start wrote is not this invocation's");
    // Of a long log the last 4 KiB, which end with the report like any other.
    let text = tail(&mut conn, "{\"do\":\"print\",\"n\":1000}");
    assert_eq!(text.len(), 4096);
    let report = text.lines().last().unwrap();
    assert!(report.starts_with("REPORT RequestId: ") && text.contains("err 999\n"), "{text}");
    // An error has its log, too, and the next one begins anew.
    assert!(tail(&mut conn, "{\"do\":\"fail\"}").starts_with("START"));
    assert!(tail(&mut conn, "{\"do\":\"exit\",\"n\":1}").contains("exit status 1"));
    for (kind, status) in [("None", 200), ("tail", 400), ("", 400)] {
        let reply = conn.post(&invocations("demo"), &[("X-Amz-Log-Type", kind)], b"{}");
        assert_eq!((reply.status, reply.field("x-amz-log-result")), (status, None), "{kind}");
    }
    server.stop();
}

#[test]
fn no_payload_is_an_empty_object() {
    let site = Site::new();
    site.native("native", "", "");
    site.function("exec", "runtime = \"exec\"\nhandler = \"cat\"");
    let server = site.serve(&[]);
    let mut conn = server.connect();
    assert_eq!(conn.invoke("native", b"").json()["event"], json!({}));
    assert_eq!(conn.invoke("exec", b"").text(), "{}");
    // Without any framing, as the AWS CLI does not but others may.
    conn.send(format!("POST {} HTTP/1.1\r\nHost: localhost\r\n\r\n", invocations("exec")));
    assert_eq!(conn.reply().text(), "{}");
    server.stop();
}

#[test]
fn a_payload_that_is_not_json_never_runs() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let deep = "[".repeat(200);
    for event in
        [&b"{"[..], b"{}x", b"'a'", b"nul", b" ", b"\xff", b"\"\xff\"", b"[1,]", deep.as_bytes()]
    {
        let reply = conn.invoke("demo", event);
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("Could not parse request body into json: "), "{message}");
        let body = json!({"Type": "User", "message": message});
        is_error(&reply, 400, "InvalidRequestContentException", &body);
    }
    for event in ["null", " 1 ", "\"\u{e9}\"", "[]", "{\"a\":{\"b\":[1.5e3,true]}}"] {
        let reply = conn.invoke("demo", event.as_bytes());
        assert_eq!(reply.json()["event"], serde_json::from_str::<Value>(event).unwrap());
    }
    assert_eq!(conn.invoke("demo", b"{}").json()["count"], 6);
    server.stop();
}

#[test]
fn a_function_answers_to_every_spelling_of_its_name() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let bare = format!("{ARN}:demo");
    let latest = format!("{bare}:$LATEST");
    for (name, query, seen) in [
        ("demo", "", &bare),
        ("demo", "?Qualifier=%24LATEST", &latest),
        ("demo", "?x=y&Qualifier=$LATEST", &latest),
        ("demo:$LATEST", "", &latest),
        ("demo%3A%24LATEST", "?Qualifier=%24LATEST", &latest),
        ("function:demo", "", &bare),
        ("000000000000:function:demo", "", &bare),
        ("000000000000%3Afunction%3Ademo%3A$LATEST", "", &latest),
        (&bare.replace(':', "%3A"), "", &bare),
        (&latest, "", &latest),
    ] {
        let path = format!("{}{query}", invocations(name));
        for path in [path.replace('?', "/?"), path] {
            let reply = conn.post(&path, &[], CONTEXT);
            assert_eq!((reply.status, &context(&reply, "function_arn")), (200, seen), "{path}");
        }
    }
    server.stop();
}

#[test]
fn names_that_mean_nothing_here_are_refused_in_lambdas_words() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let not_found = |message: &str| json!({"Type": "User", "Message": message});
    let invalid = |message: &str| json!({"Type": "User", "message": message});
    let (rnf, ipv) = ("ResourceNotFoundException", "InvalidParameterValueException");
    let long = "x".repeat(65);
    for (name, query, status, kind, body) in [
        ("no", "", 404, rnf, not_found(&format!("Function not found: {ARN}:no:$LATEST"))),
        ("no:1", "", 404, rnf, not_found(&format!("Function not found: {ARN}:no:1"))),
        ("demo:1", "", 404, rnf, not_found(&format!("Function not found: {ARN}:demo:1"))),
        (
            "demo",
            "?Qualifier=prod",
            404,
            rnf,
            not_found(&format!("Function not found: {ARN}:demo:prod")),
        ),
        (
            "arn:aws:lambda:eu-west-1:000000000000:function:demo",
            "",
            404,
            rnf,
            not_found("Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"),
        ),
        (
            "demo:1",
            "?Qualifier=2",
            400,
            ipv,
            invalid(
                "The derived qualifier from the function name does not match the specified qualifier.",
            ),
        ),
        (
            &long,
            "",
            400,
            ipv,
            invalid(&format!(
                "1 validation error detected: Value '{long}' at 'functionName' failed to satisfy \
                 constraint: Member must have length less than or equal to 64"
            )),
        ),
    ] {
        let reply = conn.post(&format!("{}{query}", invocations(name)), &[], b"{}");
        is_error(&reply, status, kind, &body);
    }
    let reply = conn.invoke("111111111111:function:demo", b"{}");
    assert_eq!((reply.status, reply.field("x-amzn-errortype")), (404, Some(rnf)));
    for name in ["a%20b", "%00", "..%2fdemo", "a:b:c:d", "arn:aws:s3:::demo", "%22%5c%0d%0a"] {
        let reply = conn.invoke(name, b"{}");
        let body = reply.json();
        assert!(body["message"].as_str().unwrap().contains("at 'functionName' failed to satisfy"));
        is_error(&reply, 400, "ValidationException", &json!({"message": body["message"]}));
    }
    server.stop();
}

#[test]
fn operations_that_are_not_there_are_told_as_such() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/2015-03-31/functions/demo/invocations"),
        ("PUT", "/2015-03-31/functions/demo/invocations"),
        ("POST", "/2015-03-31/functions//invocations/x"),
        ("GET", "/2021-11-15/functions/demo/response-streaming-invocations"),
        ("GET", "/2015-03-31/functions/demo/nothing"),
        ("DELETE", "/2014-01-01/functions/demo"),
        ("POST", "/2015-03-31/functions/%zz/invocations"),
        ("POST", "/2015-03-31/functions/%ff/invocations"),
        ("PATCH", "/hob/functions"),
    ] {
        conn.request(method, path, &[], b"{}");
        let reply = conn.reply();
        is_error(&reply, 404, "UnknownOperationException", &json!({"message": ""}));
    }
    server.stop();
}

#[test]
fn the_client_context_goes_on_to_the_function() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let mut with = |context: &str| {
        conn.post(&invocations("demo"), &[("X-Amz-Client-Context", context)], CONTEXT)
    };
    let text = "{\"custom\":{\"a\":\"\u{e9}\"},\n \"env\":{}}";
    let reply = with(&BASE64_STANDARD.encode(text));
    assert_eq!(context(&reply, "client_context"), text.replace('\n', " "));
    let longest = format!("\"{}\"", "x".repeat(3581));
    assert_eq!(context(&with(&BASE64_STANDARD.encode(&longest)), "client_context"), longest);
    let message = "Client context must be a valid Base64-encoded JSON object.";
    let body = json!({"Type": "User", "message": message});
    let longer = BASE64_STANDARD.encode(format!("{longest} "));
    for bad in ["{}", "e30", "e30=!", &BASE64_STANDARD.encode("{"), &longer] {
        is_error(&with(bad), 400, "InvalidRequestContentException", &body);
    }
    server.stop();
}

#[test]
fn the_trace_header_goes_on_or_is_made() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let given = "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1";
    let long = "x".repeat(513);
    let own = ";Lineage=";
    for (sent, passed) in [(given, true), ("anything", true), (&long, false), ("\u{e9}", false)] {
        let reply = conn.post(&invocations("demo"), &[("X-Amzn-Trace-Id", sent)], CONTEXT);
        let seen = context(&reply, "trace_id");
        assert_eq!(reply.field("x-amzn-trace-id"), Some(seen.as_str()));
        let (seen, lineage) = seen.split_once(own).unwrap();
        assert!(lineage.len() == 10 && lineage.ends_with(":1"), "{lineage}");
        if passed {
            assert_eq!(seen, sent);
        } else {
            assert!(seen.starts_with("Root=1-") && seen.ends_with(";Sampled=0"), "{seen}");
        }
    }
    server.stop();
}
