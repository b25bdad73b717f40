//! Requests in every shape that HTTP/1 allows, cut in every place.

use serde_json::Value;

use crate::common::http::{Conn, invocations};
use crate::common::{Server, Site};

fn demo() -> (Site, Server) {
    let site = Site::new();
    site.native("demo", "", "[url]\nauth = \"none\"");
    let server = site.serve(&[]);
    (site, server)
}

/// The same invocation as clients may write it.
fn spellings() -> Vec<Vec<u8>> {
    let path = invocations("demo");
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Amz-Log-Type: None\r\n");
    vec![
        format!("{head}Content-Length: 7\r\n\r\n{{\"n\":1}}").into_bytes(),
        format!(
            "{head}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;a=b;c=\"d\"\r\n{{\"n\r\n\
             0004\r\n\":1}}\r\n0;last\r\nX-Sum: 1\r\n\r\n"
        )
        .into_bytes(),
        // Line ends without the carriage return are still lines of a head.
        format!("\r\n{head}Content-Length: 7\r\n\r\n{{\"n\":1}}").replace("\r\n", "\n").into(),
    ]
}

#[test]
fn a_request_cut_anywhere_is_the_same_request() {
    let (_site, server) = demo();
    for request in spellings() {
        let mut conn = server.connect();
        for at in 1..request.len() {
            conn.send_pieces([&request[..at], &request[at..]]);
            let reply = conn.reply();
            assert_eq!(reply.status, 200, "cut at {at}: {}", reply.text());
            assert_eq!(reply.json()["event"]["n"], 1, "cut at {at}");
        }
        conn.send_pieces(request.chunks(1));
        assert_eq!(conn.reply().json()["event"]["n"], 1, "byte by byte");
    }
    server.stop();
}

#[test]
fn a_function_url_request_cut_anywhere_is_the_same_request() {
    let (_site, server) = demo();
    let request = b"PUT /fn/demo/a%20b?c=d HTTP/1.1\r\nHost: localhost\r\nCookie: e=f; g=h\r\n\
                    Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nxyz";
    let mut conn = server.connect();
    for at in 1..request.len() {
        conn.send_pieces([&request[..at], &request[at..]]);
        let event = &conn.reply().json()["event"];
        assert_eq!(event["rawPath"], "/a%20b", "cut at {at}");
        assert_eq!(event["cookies"], serde_json::json!(["e=f", "g=h"]), "cut at {at}");
        assert_eq!(event["body"], "xyz", "cut at {at}");
    }
    server.stop();
}

#[test]
fn pipelined_invocations_are_answered_in_order_by_one_worker() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let mut all = Vec::new();
    for n in 0..50 {
        let event = format!("{{\"n\":{n}}}");
        let path = invocations("demo");
        all.extend_from_slice(
            format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                event.len()
            )
            .as_bytes(),
        );
        all.extend_from_slice(event.as_bytes());
    }
    conn.send(&all);
    for n in 0..50 {
        let reply = conn.reply().json();
        assert_eq!((&reply["event"]["n"], &reply["count"]), (&n.into(), &(n + 1).into()));
    }
    server.stop();
}

#[test]
fn pipelined_requests_of_all_kinds_do_not_run_into_each_other() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    let mut all = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    all.extend(&spellings()[1]);
    all.extend(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    all.extend(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nGET / HT");
    all.extend(b"GET /hob/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
    all.extend(&spellings()[0]);
    all.extend(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for cut in [all.len(), 1, 7, 100] {
        let mut conn = if cut == all.len() {
            std::mem::replace(&mut conn, server.connect())
        } else {
            server.connect()
        };
        conn.send_pieces(all.chunks(cut));
        assert_eq!(conn.reply().text(), "ok\n");
        assert_eq!(conn.reply().json()["event"]["n"], 1);
        let head = conn.try_head().unwrap();
        assert_eq!((head.status, head.field("content-length")), (200, Some("3")));
        assert_eq!(conn.reply().status, 404);
        assert_eq!(conn.reply().status, 404);
        assert_eq!(conn.reply().json()["event"]["n"], 1);
        assert_eq!(conn.reply().field("connection"), Some("close"));
        assert!(conn.rest().is_empty(), "nothing more after Connection: close");
    }
    server.stop();
}

#[test]
fn connections_are_kept_and_closed_as_the_client_says() {
    let (_site, server) = demo();
    let ask = |conn: &mut Conn, version: &str, fields: &str| {
        conn.send(format!("GET /healthz HTTP/{version}\r\nHost: localhost\r\n{fields}\r\n"));
        let reply = conn.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"), "{version} {fields}");
        reply.field("connection").map(str::to_owned)
    };
    let mut conn = server.connect();
    for fields in ["", "Connection: keep-alive\r\n", "Connection: x-anything\r\n"] {
        assert_eq!(ask(&mut conn, "1.1", fields), None, "{fields}");
    }
    // Clients of HTTP/1.0 take a connection for closed unless they are told.
    for _ in 0..2 {
        let said = ask(&mut conn, "1.0", "Connection: Keep-Alive\r\n");
        assert_eq!(said.as_deref(), Some("keep-alive"));
    }
    for (version, fields) in [
        ("1.1", "Connection: close\r\n"),
        ("1.1", "Connection: keep-alive, Close\r\n"),
        ("1.1", "Connection: x\r\nConnection: close\r\n"),
        ("1.0", ""),
        ("1.0", "Connection: close\r\n"),
    ] {
        let mut conn = server.connect();
        assert_eq!(ask(&mut conn, version, fields).as_deref(), Some("close"), "{version} {fields}");
        assert!(conn.rest().is_empty());
    }
    server.stop();
}

#[test]
fn http_1_0_needs_no_host_and_gets_its_reply() {
    let (_site, server) = demo();
    let path = invocations("demo");
    let mut conn = server.connect();
    conn.send(format!("POST {path} HTTP/1.0\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n"));
    conn.taken();
    conn.send("{\"n\":1}");
    let reply = conn.reply();
    assert_eq!(reply.status, 200, "no 100 for a client that cannot mean it");
    assert_eq!(reply.json()["event"]["n"], 1);
    assert!(conn.is_closed());
    server.stop();
}

#[test]
fn a_reply_to_head_is_only_a_head() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    for (path, status) in [("/healthz", 200), ("/fn/demo/x", 200), ("/fn/none", 404), ("/x", 404)] {
        conn.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let reply = conn.try_head().unwrap();
        assert_eq!(reply.status, status, "{path}");
        let length: usize = reply.field("content-length").unwrap().parse().unwrap();
        assert!(length > 0, "{path}: as long as the reply to GET");
        assert_eq!(conn.get("/healthz").text(), "ok\n", "after HEAD {path}");
    }
    server.stop();
}

#[test]
fn targets_may_be_absolute() {
    let (_site, server) = demo();
    let mut conn = server.connect();
    assert_eq!(conn.get("http://board:4620/healthz").text(), "ok\n");
    let reply = conn.post(&format!("http://b{}", invocations("demo")), &[], b"{\"n\":2}");
    assert_eq!(reply.json()["event"]["n"], 2);
    for target in ["http://b:1/fn/demo/p/q?r=s", "http://fn/fn/demo/p/q?r=s"] {
        let event: Value = conn.get(target).json()["event"].take();
        assert_eq!((&event["rawPath"], &event["rawQueryString"]), (&"/p/q".into(), &"r=s".into()));
    }
    for target in ["http://board", "http://", "*", "https://b/healthz", "healthz"] {
        assert_eq!(conn.get(target).status, 404, "{target}");
    }
    server.stop();
}

#[test]
fn who_expects_100_continue_is_told_before_the_body_and_only_then() {
    let (_site, server) = demo();
    let path = invocations("demo");
    let mut conn = server.connect();
    for framing in ["Content-Length: 7", "Transfer-Encoding: chunked"] {
        conn.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-Continue\r\n{framing}\r\n\r\n"
        ));
        let told = conn.reply();
        assert_eq!((told.status, told.head.len()), (100, 0), "{framing}");
        let body =
            if framing.starts_with('C') { "{\"n\":1}" } else { "7\r\n{\"n\":1}\r\n0\r\n\r\n" };
        conn.send(body);
        assert_eq!(conn.reply().json()["event"]["n"], 1, "{framing}");
    }
    // Who did not wait, or has nothing to send, is not kept from the reply.
    conn.post(&path, &[("Expect", "100-continue")], b"{\"n\":3}");
    let reply = conn.post(&path, &[("Expect", "100-continue")], b"");
    assert_eq!(reply.status, 200);
    server.stop();
}

#[test]
fn who_expects_100_continue_is_refused_before_the_body() {
    let (_site, server) = demo();
    let demo = invocations("demo");
    for (path, length, status) in [
        (demo.as_str(), 6_291_457, 413),
        (&invocations("none"), 7, 404),
        ("/fn/none/x", 7, 404),
        ("/nothing", 7, 404),
        ("/2015-03-31/functions/a%20b/invocations", 7, 400),
    ] {
        let mut conn = server.connect();
        conn.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"));
        let reply = conn.reply();
        assert_eq!(reply.status, status, "{path}");
        // Whether the body comes is the client's choice; so the connection is of no use any more.
        assert_eq!(reply.field("connection"), Some("close"), "{path}");
        assert!(conn.rest().is_empty(), "{path}");
    }
    let mut conn = server.connect();
    let reply = conn.post(&demo, &[("Expect", "200-ok")], b"{}");
    assert_eq!(reply.status, 417);
    server.stop();
}
