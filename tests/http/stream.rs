//! Function URLs that reply as the handler writes.

use serde_json::{Value, json};

use crate::common::http::Conn;
use crate::common::{Server, Site};

const PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

fn demo() -> (Site, Server, String) {
    let site = Site::new();
    let url = "[url]\nauth = \"none\"\ninvoke_mode = \"response_stream\"";
    site.native("demo", "streams", url);
    let gate = site.path().join("gate");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &gate, fifo, 0o600.into(), 0).unwrap();
    let server = site.serve(&[]);
    let gate = gate.to_str().unwrap().to_owned();
    (site, server, gate)
}

/// Asks the URL for what `event` says. The worker reads it in the body of the request, as its
/// handler would.
fn ask(conn: &mut Conn, event: &Value) {
    conn.request("POST", "/fn/demo/", &[], event.to_string().as_bytes());
}

fn stream(pieces: &[&str], more: Value) -> Value {
    let mut event = json!({"do": "stream", "type": PRELUDE, "pieces": pieces});
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

#[test]
fn bytes_arrive_before_the_handler_ends() {
    let (_site, server, gate) = demo();
    let mut conn = server.connect();
    for (kind, told) in [("", "application/octet-stream"), ("text/plain", "text/plain")] {
        ask(&mut conn, &stream(&["one", "two"], json!({"type": kind, "gate": gate})));
        let head = conn.try_head().unwrap();
        assert_eq!((head.status, head.field("content-type")), (200, Some(told)));
        assert_eq!(head.field("transfer-encoding"), Some("chunked"));
        assert_eq!(head.field("x-amzn-requestid").map(str::len), Some(36));
        assert_eq!(conn.chunk().unwrap(), b"one");
        std::fs::write(&gate, "x").unwrap();
        assert_eq!(conn.chunk().unwrap(), b"two");
        assert_eq!(conn.chunk().unwrap(), b"");
    }
    server.stop();
}

#[test]
fn the_prelude_is_the_head_however_it_is_cut() {
    let (_site, server, _) = demo();
    let mut conn = server.connect();
    let prelude = json!({
        "statusCode": 201,
        "headers": {"X-A": "b", "Content-Type": "text/html", "Content-Length": "9", "X-Evil": "a\r\nb: c"},
        "cookies": ["c=1; Secure", "d=2"],
    });
    let whole = format!("{prelude}{}body", "\0".repeat(8));
    let length = whole.len();
    for cut in [0, 1, length - 13, length - 12, length - 8, length - 5, length - 4, length - 1] {
        let (one, two) = whole.split_at(cut);
        ask(&mut conn, &stream(&[one, two], json!({"last": "end"})));
        let reply = conn.reply();
        assert_eq!((reply.status, reply.text().as_str()), (201, "bodyend"), "cut at {cut}");
        assert_eq!(reply.field("x-a"), Some("b"));
        assert_eq!(reply.field("content-type"), Some("text/html"));
        assert_eq!((reply.field("x-evil"), reply.field("content-length")), (None, None));
        let cookies: Vec<_> = reply.head.iter().filter(|(name, _)| name == "set-cookie").collect();
        assert_eq!(cookies.iter().map(|(_, c)| c).collect::<Vec<_>>(), ["c=1; Secure", "d=2"]);
    }
    ask(&mut conn, &stream(&["{}\0\0\0\0\0\0\0\0x"], json!({})));
    let reply = conn.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "x"));
    assert_eq!(reply.field("content-type"), Some("application/octet-stream"));
    ask(&mut conn, &stream(&["{\"statusCode\":204}\0\0\0\0\0\0\0\0x"], json!({"n": 100_000})));
    let reply = conn.reply();
    assert_eq!((reply.status, reply.field("transfer-encoding")), (204, None));
    assert_eq!(conn.get("/healthz").status, 200, "the connection goes on");
    server.stop();
}

#[test]
fn what_is_no_prelude_is_a_bad_gateway() {
    let (_site, server, _) = demo();
    let mut conn = server.connect();
    let zeros = "\0".repeat(8);
    for (text, n) in [
        ("no JSON", 0),
        (&*format!("no JSON{zeros}"), 0),
        (&*format!("{{\"statusCode\":100}}{zeros}"), 0),
        (&*format!("{{\"statusCode\":99999}}{zeros}"), 0),
        (&*format!("[]{zeros}"), 0),
        ("{\"statusCode\":200}\0\0\0\0\0\0\0", 0),
        ("{", 1_000_000),
    ] {
        ask(&mut conn, &stream(&[text], json!({"n": n})));
        let reply = conn.reply();
        assert_eq!((reply.status, reply.text().as_str()), (502, "Internal Server Error"), "{text}");
    }
    server.stop();
}

#[test]
fn an_error_before_the_head_is_a_bad_gateway_and_one_behind_it_the_end() {
    let (_site, server, _) = demo();
    let mut conn = server.connect();
    ask(&mut conn, &json!({"do": "fail"}));
    assert_eq!(conn.reply().status, 502);
    ask(&mut conn, &stream(&[], json!({"end": "fail"})));
    assert_eq!(conn.reply().status, 502);
    for end in ["fail", "crash"] {
        let mut conn = server.connect();
        ask(&mut conn, &stream(&["one"], json!({"type": "", "end": end})));
        assert_eq!(conn.try_head().unwrap().status, 200);
        assert_eq!(conn.chunk().unwrap(), b"one");
        assert_eq!(conn.chunk(), None, "cut off, where a whole reply has an end");
    }
    server.stop();
}

#[test]
fn a_whole_reply_is_the_body_as_it_stands() {
    let (_site, server, _) = demo();
    let mut conn = server.connect();
    let text = "{\"statusCode\":418,\"body\":\"x\"}";
    ask(&mut conn, &json!({"do": "raw", "text": text}));
    let reply = conn.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, text));
    assert_eq!(reply.field("content-type"), Some("application/octet-stream"));
    ask(&mut conn, &stream(&[], json!({})));
    let reply = conn.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, ""));
    server.stop();
}

#[test]
fn clients_without_chunks_and_without_a_body() {
    let (_site, server, _) = demo();
    let mut old = server.connect();
    let body = stream(&["{\"statusCode\":201}\0\0\0\0\0\0\0\0one"], json!({"last": "two"}));
    let body = body.to_string();
    let length = body.len();
    old.send("POST /fn/demo HTTP/1.0\r\nConnection: keep-alive\r\n");
    old.send(format!("Content-Length: {length}\r\n\r\n{body}"));
    let head = old.try_head().unwrap();
    assert_eq!((head.status, head.field("connection")), (201, Some("close")));
    assert_eq!(head.field("transfer-encoding"), None);
    assert_eq!(old.rest(), b"onetwo");
    let mut conn = server.connect();
    conn.request("HEAD", "/fn/demo", &[], body.as_bytes());
    let head = conn.try_head().unwrap();
    assert_eq!((head.status, head.field("transfer-encoding")), (201, Some("chunked")));
    assert_eq!(conn.get("/healthz").status, 200, "nothing follows the head");
    server.stop();
}
