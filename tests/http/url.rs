//! Function URLs: any request becomes an event, and the reply becomes the response.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::http::Conn;
use crate::common::{Server, Site, eventually};

fn demo(more: &str) -> (Site, Server) {
    let site = Site::new();
    site.native("demo", "", &format!("{more}\n[url]\nauth = \"none\""));
    let server = site.serve(&[]);
    (site, server)
}

/// Sends a request to the function and returns the event that it saw.
fn event(conn: &mut Conn, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Value {
    conn.request(method, &format!("/fn/demo{path}"), fields, body);
    let reply = conn.reply();
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("application/json")));
    let event = reply.json()["event"].take();
    assert_eq!(event["requestContext"]["requestId"], reply.field("x-amzn-requestid").unwrap());
    event
}

#[test]
fn every_method_reaches_the_function() {
    let (_site, server) = demo("");
    let mut conn = server.connect();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let event = event(&mut conn, method, "/a", &[], b"");
        assert_eq!(event["requestContext"]["http"]["method"], method);
        assert_eq!(event.get("body"), None, "{method}");
    }
    conn.send("HEAD /fn/demo HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = conn.try_head().unwrap();
    assert_eq!(head.status, 200);
    let event = event(&mut conn, "DELETE", "", &[], b"with a body");
    assert_eq!(event["body"], "with a body");
    server.stop();
}

#[test]
fn a_request_is_told_in_payload_format_2() {
    let (_site, server) = demo("");
    let mut conn = server.connect();
    let fields = [
        ("X-Once", "a, b"),
        ("X-Twice", "1"),
        ("x-twice", "2"),
        ("Cookie", "a=1; b=2"),
        ("cookie", "c=3;"),
        ("User-Agent", "tests/1 \"quoted\" \\"),
        ("X-Raw", "\u{e9}\t\u{1f980}"),
        ("X-Empty", ""),
    ];
    let path = "/p%20q//r/?x=1&y=%2B+z&x=2&empty=&bare&%C3%A9=%zz";
    let event = event(&mut conn, "POST", path, &fields, b"{}");
    assert_eq!(event["version"], "2.0");
    assert_eq!(event["routeKey"], "$default");
    assert_eq!(event["rawPath"], "/p%20q//r/");
    assert_eq!(event["rawQueryString"], "x=1&y=%2B+z&x=2&empty=&bare&%C3%A9=%zz");
    let query = json!({"x": "1,2", "y": "+ z", "empty": "", "bare": "", "\u{e9}": "%zz"});
    assert_eq!(event["queryStringParameters"], query);
    assert_eq!(event["cookies"], json!(["a=1", "b=2", "c=3"]));
    let headers = json!({
        "host": "localhost", "x-once": "a, b", "x-twice": "1,2", "x-empty": "", "content-length": "2",
        "user-agent": "tests/1 \"quoted\" \\", "x-raw": "\u{e9}\t\u{1f980}",
        "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "http",
    });
    assert_eq!(event["headers"], headers);
    let context = &event["requestContext"];
    assert_eq!(context["accountId"], "000000000000");
    assert_eq!((&context["apiId"], &context["domainPrefix"]), (&"demo".into(), &"demo".into()));
    assert_eq!(
        (&context["domainName"], &context["stage"]),
        (&"localhost".into(), &"$default".into())
    );
    let http = json!({
        "method": "POST", "path": "/p%20q//r/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1",
        "userAgent": "tests/1 \"quoted\" \\",
    });
    assert_eq!(context["http"], http);
    assert!(context["timeEpoch"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(context["time"].as_str().unwrap().len(), "12/Mar/2020:19:03:58 +0000".len());
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&"{}".into(), &false.into()));
    server.stop();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "tests have a clock of their own")]
fn many_parameters_hold_up_nobody() {
    let (_site, server) = demo("");
    let mut conn = server.connect();
    event(&mut conn, "GET", "/", &[], b"");
    // As many different names as a head has room for.
    let names: Vec<String> = (0..15_500u32)
        .map(|n| [n / 625, n / 25 % 25, n % 25])
        .map(|digits| digits.iter().map(|d| char::from_u32(97 + d).unwrap()).collect())
        .collect();
    let begun = Instant::now();
    let event = event(&mut conn, "GET", &format!("/?{}", names.join("&")), &[], b"");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(event["queryStringParameters"].as_object().unwrap().len(), names.len());
    server.stop();
}

#[test]
fn bodies_are_text_where_they_are_and_base64_elsewhere() {
    let (_site, server) = demo("");
    let mut conn = server.connect();
    for (kind, body, told, encoded) in [
        ("text/plain", &b"\"\n\xc3\xa9"[..], "\"\n\u{e9}", false),
        ("application/json; charset=utf-8", b"{}", "{}", false),
        ("application/x-www-form-urlencoded", b"a=b", "a=b", false),
        ("application/vnd.api+json", b"[]", "[]", false),
        ("image/svg+xml", b"<a/>", "<a/>", false),
        ("TEXT/HTML", b"<p>", "<p>", false),
        ("application/octet-stream", b"abc", "YWJj", true),
        ("multipart/form-data; boundary=x", b"--x", "LS14", true),
        ("image/png", b"\x00\xff", "AP8=", true),
        ("text/plain", b"\xff", "/w==", true),
    ] {
        let event = event(&mut conn, "PUT", "/", &[("Content-Type", kind)], body);
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&told.into(), &encoded.into()));
    }
    let large = vec![b'x'; 4 * 1024 * 1024];
    let seen = event(&mut conn, "PUT", "/", &[("Content-Type", "image/png")], &large);
    assert!(seen["body"].as_str().unwrap().len() == large.len().div_ceil(3) * 4);
    // Encoded, it is larger than an event may be.
    let large = vec![b'x'; 5 * 1024 * 1024];
    let reply = conn.post("/fn/demo", &[("Content-Type", "image/png")], &large);
    assert_eq!(reply.status, 413);
    assert_eq!(event(&mut conn, "GET", "/", &[], b"")["rawPath"], "/");
    server.stop();
}

/// Functions that always reply with these bytes, called `r0`, `r1` and so on.
fn replying(replies: &[&[u8]]) -> (Site, Server) {
    let site = Site::new();
    for (n, reply) in replies.iter().enumerate() {
        let toml = "runtime = \"exec\"\nhandler = \"cat reply\"\n[url]\nauth = \"none\"";
        let folder = site.function(&format!("r{n}"), toml);
        std::fs::write(folder.join("reply"), reply).unwrap();
    }
    let server = site.serve(&[]);
    (site, server)
}

/// A reply, and the status, some fields and the body of the response that it makes.
type Row = (&'static str, u16, &'static [(&'static str, &'static str)], &'static [u8]);

const RESPONSES: [Row; 15] = [
    ("{\"statusCode\":201}", 201, &[("content-type", "application/json")], b""),
    ("{\"statusCode\":200,\"body\":\"a\\u00e9\\n\"}", 200, &[], b"a\xc3\xa9\n"),
    ("{\"statusCode\":404,\"body\":null}", 404, &[], b""),
    (
        "{\"statusCode\":302,\"headers\":{\"Location\":\"/x\",\"X-N\":5,\"X-B\":true}}",
        302,
        &[("location", "/x"), ("x-n", "5"), ("x-b", "true")],
        b"",
    ),
    (
        "{\"statusCode\":200,\"headers\":{\"content-type\":\"text/html\"},\"body\":\"<p>\"}",
        200,
        &[("content-type", "text/html")],
        b"<p>",
    ),
    ("{\"statusCode\":200,\"body\":\"AP8=\",\"isBase64Encoded\":true}", 200, &[], b"\x00\xff"),
    ("{\"statusCode\":200,\"body\":\"AP8=\",\"isBase64Encoded\":false}", 200, &[], b"AP8="),
    // As Go writes what was not set.
    (
        "{\"statusCode\":200,\"headers\":null,\"body\":\"x\",\"isBase64Encoded\":false,\"cookies\":null}",
        200,
        &[("content-type", "application/json")],
        b"x",
    ),
    ("{\"statusCode\":200,\"isBase64Encoded\":null,\"body\":\"x\"}", 200, &[], b"x"),
    ("{\"statusCode\":599,\"unknown\":[{}],\"body\":\"x\"}", 599, &[], b"x"),
    // What is ours to say, or would break the head apart, is left out.
    (
        "{\"statusCode\":200,\"headers\":{\"Content-Length\":\"99\",\"Connection\":\"close\",\
         \"Transfer-Encoding\":\"chunked\",\"X-A\":\"b\\r\\nX-Evil: 1\",\"X Y\":\"z\",\"\":\"z\",\
         \"X-Good\":\"yes\"},\"body\":\"x\"}",
        200,
        &[("x-good", "yes")],
        b"x",
    ),
    // Anything else is the body as it stands.
    ("{\"status\":201}", 200, &[("content-type", "application/json")], b"{\"status\":201}"),
    ("{\"statusCode\":101}", 200, &[("content-type", "application/json")], b"{\"statusCode\":101}"),
    ("\"text\"", 200, &[("content-type", "application/json")], b"\"text\""),
    ("plain text", 200, &[("content-type", "text/plain; charset=utf-8")], b"plain text"),
];

#[test]
fn a_reply_with_a_status_code_is_the_response() {
    let texts: Vec<&[u8]> = RESPONSES.iter().map(|row| row.0.as_bytes()).collect();
    let (_site, server) = replying(&texts);
    let mut conn = server.connect();
    for (n, (text, status, fields, body)) in RESPONSES.iter().enumerate() {
        let reply = conn.get(&format!("/fn/r{n}"));
        assert_eq!((reply.status, &reply.body[..]), (*status, *body), "{text}");
        for (name, value) in *fields {
            assert_eq!(reply.field(name), Some(*value), "{text}");
        }
        let length = body.len().to_string();
        assert_eq!(reply.field("content-length"), Some(length.as_str()), "{text}");
        for never in ["x-evil", "x-a", "x y", "", "transfer-encoding", "connection"] {
            assert_eq!(reply.field(never), None, "{text}");
        }
    }
    server.stop();
}

#[test]
fn replies_of_every_kind_leave_the_connection_in_order() {
    let (_site, server) = replying(&[
        b"{\"statusCode\":204,\"body\":\"x\"}",
        b"{\"statusCode\":304,\"body\":\"x\"}",
        b"{\"statusCode\":200,\"cookies\":[\"a=1; Path=/\",\"b=2\",\"c\\r\\nX: 1\"]}",
        b"",
        b"\x00\xff\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"{\"statusCode\":200,\"body\":\"not base64!\",\"isBase64Encoded\":true}",
    ]);
    let mut conn = server.connect();
    for (name, status) in [("r0", 204), ("r1", 304)] {
        let reply = conn.get(&format!("/fn/{name}"));
        assert_eq!((reply.status, reply.field("content-length")), (status, None));
    }
    let reply = conn.get("/fn/r2");
    let cookies: Vec<&str> = reply
        .head
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
    let reply = conn.get("/fn/r3");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let reply = conn.get("/fn/r4");
    assert_eq!(reply.field("content-type"), Some("application/octet-stream"));
    assert_eq!(reply.body, b"\x00\xff\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
    let reply = conn.get("/fn/r5");
    assert_eq!((reply.status, reply.text().as_str()), (502, "Internal Server Error"));
    conn.send("HEAD /fn/r4 HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /fn/r0 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(conn.try_head().unwrap().field("content-length"), Some("25"));
    assert_eq!(conn.try_head().unwrap().status, 204);
    assert_eq!(conn.get("/healthz").text(), "ok\n");
    server.stop();
}

#[test]
fn a_function_that_fails_is_a_bad_gateway() {
    let site = Site::new();
    for (name, script) in [("exits", "exit 3"), ("dies", "kill -9 $$"), ("hangs", "sleep 100")] {
        let script = format!("#!/bin/sh\n{script}\n");
        site.script(name, "exec", &script, "timeout_s = 1\n[url]\nauth = \"none\"");
    }
    site.native("init", "exit 1", "[url]\nauth = \"none\"");
    let server = site.serve(&[]);
    let mut conn = server.connect();
    for name in ["exits", "dies", "hangs", "init"] {
        let reply = conn.get(&format!("/fn/{name}/x"));
        assert_eq!((reply.status, reply.text().as_str()), (502, "Internal Server Error"), "{name}");
        assert_eq!(reply.field("content-type"), Some("text/plain"), "{name}");
    }
    server.stop();
}

#[test]
fn who_may_not_and_who_cannot_are_told() {
    let (site, server) = demo("reserved_concurrency = 0");
    site.native("iam", "", "[url]\nauth = \"iam\"");
    site.native("plain", "", "");
    server.hob(&["reload"]);
    let mut conn = server.connect();
    eventually("the functions are read", || (conn.get("/fn/plain").status == 200).then_some(()));
    let reply = conn.get("/fn/demo");
    assert_eq!((reply.status, reply.field("retry-after")), (429, Some("1")));
    assert_eq!(conn.get("/fn/iam").status, 403);
    assert_eq!(conn.get("/fn/iam").field("x-amzn-errortype"), Some("AccessDeniedException"));
    for path in ["/fn/none", "/fn/", "/fn", "/fn/%zz", "/fn/demo%2fx", "/fn//demo", "/fn/demo:1"] {
        assert_eq!(conn.get(path).status, 404, "{path}");
    }
    server.stop();
}

#[test]
fn a_request_whose_function_changes_while_it_is_sent_reaches_the_new_one() {
    let (site, server) = demo("");
    let mut conn = server.connect();
    conn.send("PUT /fn/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nx");
    conn.taken();
    let mut gone = server.connect();
    gone.send("PUT /fn/demo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nx");
    gone.taken();
    let timeout = || server.get("/hob/functions/demo")["timeout_s"].as_u64();
    assert_eq!(timeout(), Some(3));
    site.native("demo", "", "timeout_s = 5\n[url]\nauth = \"none\"");
    server.hob(&["reload"]);
    eventually("the new version is in force", || (timeout() == Some(5)).then_some(()));
    conn.send("yz");
    assert_eq!(conn.reply().json()["event"]["body"], "xyz");
    std::fs::remove_dir_all(site.functions().join("demo")).unwrap();
    server.hob(&["reload"]);
    eventually("the function is gone", || (conn.get("/fn/demo").status == 404).then_some(()));
    gone.send("yz");
    assert_eq!(gone.reply().status, 404);
    server.stop();
}
