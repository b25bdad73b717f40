//! Requests that are refused: what two readers could read differently, and what is too much.

use crate::common::http::{Conn, Reply, invocations};
use crate::common::{Server, Site};

const MIB: usize = 1024 * 1024;

fn demo() -> (Site, Server) {
    let site = Site::new();
    site.native("demo", "", "[url]\nauth = \"none\"");
    let server = site.serve(&[]);
    (site, server)
}

/// Sends `bytes` and expects one refusal with this status, and then the end of the connection.
fn refused(server: &Server, bytes: &[u8], status: u16, what: &str) -> Reply {
    let mut conn = server.connect();
    conn.send(bytes);
    let reply = conn.reply();
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    assert_eq!(reply.field("connection"), Some("close"), "{what}");
    let rest = conn.rest();
    assert!(rest.is_empty(), "{what}: more than one reply: {}", String::from_utf8_lossy(&rest));
    reply
}

/// A second request that a smuggler would like to see served.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn heads_that_can_be_read_two_ways_end_the_connection() {
    let (_site, server) = demo();
    let path = invocations("demo");
    for (fields, status) in [
        ("Content-Length: 2\r\nContent-Length: 3", 400),
        ("Content-Length: 2, 2", 400),
        ("Content-Length: +2", 400),
        ("Content-Length: -2", 400),
        ("Content-Length: 0x2", 400),
        ("Content-Length: 2 2", 400),
        ("Content-Length:", 400),
        ("Content-Length: 18446744073709551618", 400),
        ("Content-Length : 2", 400),
        (" Content-Length: 2", 400),
        ("Content-Length\t: 2", 400),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", 400),
        ("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: chunked, chunked", 501),
        ("Transfer-Encoding: chunked;q=1", 501),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding:", 501),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding\r\n: chunked", 400),
        ("X: y\r\n Transfer-Encoding: chunked", 400),
        ("X: y\rTransfer-Encoding: chunked", 400),
        ("X: y\0", 400),
        ("X y: z", 400),
        ("X", 400),
        (": z", 400),
        ("Host: other", 400),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
        let bytes = format!("{head}{{}}{SMUGGLED}{SMUGGLED}");
        refused(&server, bytes.as_bytes(), status, fields);
    }
    server.stop();
}

#[test]
fn request_lines_that_are_none_end_the_connection() {
    let (_site, server) = demo();
    for (line, status) in [
        ("GET /healthz", 400),
        ("GET /healthz HTTP/0.9", 400),
        ("GET /healthz HTTP/2.0", 400),
        ("GET /healthz HTTP/1.1 ", 400),
        ("GET  /healthz HTTP/1.1", 400),
        (" GET /healthz HTTP/1.1", 400),
        ("GET /health z HTTP/1.1", 400),
        ("GET\t/healthz\tHTTP/1.1", 400),
        ("GET /healthz\x01 HTTP/1.1", 400),
        ("/healthz HTTP/1.1", 400),
        ("PRI * HTTP/2.0", 400),
        ("\x16\x03\x01\x02", 400),
        ("BREW /healthz HTTP/1.1", 501),
        ("get /healthz HTTP/1.1", 501),
        ("CONNECT t:1 HTTP/1.1", 501),
    ] {
        let bytes = format!("{line}\r\nHost: localhost\r\n\r\n{SMUGGLED}");
        refused(&server, bytes.as_bytes(), status, line);
    }
    refused(&server, b"GET /healthz HTTP/1.1\r\n\r\n", 400, "no Host");
    refused(&server, b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two Hosts");
    refused(&server, b"\r\n\r\n\r\n", 400, "nothing");
    server.stop();
}

#[test]
fn chunks_that_can_be_read_two_ways_end_the_connection() {
    let (_site, server) = demo();
    let path = invocations("demo");
    for body in [
        "g\r\n",
        "+2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        " 2\r\n{}\r\n0\r\n\r\n",
        "\r\n2\r\n{}\r\n0\r\n\r\n",
        ";a=b\r\n{}\r\n0\r\n\r\n",
        // Proxies differ on whether a bare line feed ends the line or belongs to the extension.
        "2\n{}\r\n0\r\n\r\n",
        "2;a\n{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "2\r{}\r\n0\r\n\r\n",
        "2\r\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\n\r\n",
        "2\r\n{}\r\n0\r\nX: y\n\r\n",
        "2\r\n{}\r\n0\r\n\n",
        "2\r\n{}\r\n0\r\nX: y\rZ\r\n\r\n",
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        let bytes = format!("{head}{body}{SMUGGLED}{SMUGGLED}");
        refused(&server, bytes.as_bytes(), 400, body);
    }
    server.stop();
}

#[test]
fn a_body_refused_half_way_is_not_read_again_as_another_one() {
    let (_site, server) = demo();
    // What is decoded of the chunks reads like the end of a body, and a request behind it.
    let inner = format!("0\r\n\r\n{SMUGGLED}");
    for path in [invocations("demo").as_str(), "/fn/demo/", "/healthz", "/nothing"] {
        let method = if path == "/healthz" { "GET" } else { "POST" };
        let bytes = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             {:x}\r\n{inner}\r\nffffff\r\n",
            inner.len()
        );
        let mut conn = server.connect();
        conn.send(bytes);
        conn.reply();
        let rest = conn.rest();
        assert!(rest.is_empty(), "{path}: {}", String::from_utf8_lossy(&rest));
    }
    server.stop();
}

#[test]
fn without_credentials_a_web_page_cannot_call_under_a_name_of_its_own() {
    let (site, server) = demo();
    let invocation = invocations("demo");
    let targets = [invocation.as_str(), "/fn/demo/", "/hob/server", "/hob/functions/x", "/healthz"];
    let ask = |conn: &mut Conn, target: &str, host: &str| {
        let method = if target == invocation { "POST" } else { "GET" };
        let agent = "User-Agent: Mozilla/5.0\r\n";
        conn.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{agent}\r\n"));
        conn.reply()
    };
    let mut conn = server.connect();
    for target in targets {
        let reply = ask(&mut conn, target, "evil.example:4620");
        assert_eq!(reply.status, 403, "{target}");
        assert_eq!(reply.field("x-amzn-errortype"), Some("AccessDeniedException"), "{target}");
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("Host 'evil.example:4620' is not a name of this server"));
        for host in [server.address.as_str(), "localhost", "[::1]:1", ""] {
            assert_ne!(ask(&mut conn, target, host).status, 403, "{target} {host}");
        }
        // Programs may say what they like.
        conn.send(format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n"));
        assert_ne!(conn.reply().status, 403, "{target}");
        let mut unix = Conn::unix(&server.socket());
        assert_ne!(ask(&mut unix, target, "evil.example").status, 403, "{target}");
    }
    server.stop();
    // Who knows the token is no web page.
    let config = site.path().join("hob.toml");
    std::fs::write(&config, "[auth]\ntoken = \"secret\"\n").unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    let mut conn = server.connect();
    assert_eq!(ask(&mut conn, "/fn/demo/", "board.example").status, 200);
    server.stop();
}

#[test]
fn without_credentials_a_web_page_of_another_origin_calls_function_urls_only() {
    let (site, server) = demo();
    let invocation = invocations("demo");
    let own = format!("http://{}", server.address);
    let ask = |server: &Server, method: &str, target: &str, origin: &str| {
        let address = &server.address;
        let mut conn = server.connect();
        conn.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\n\r\n"
        ));
        conn.reply()
    };
    for (method, target, status) in [
        ("POST", invocation.as_str(), 403),
        ("POST", "/hob/reload", 403),
        ("DELETE", "/hob/functions/demo", 403),
        ("OPTIONS", invocation.as_str(), 403),
        ("GET", "/nothing", 403),
        ("POST", "/fn/demo/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
    ] {
        for origin in ["http://evil.example", "http://127.0.0.1:1", "null", "\u{e9}"] {
            let reply = ask(&server, method, target, origin);
            assert_eq!(reply.status, status, "{method} {target} {origin}");
            if status == 403 {
                let message = reply.json()["message"].as_str().unwrap().to_owned();
                assert!(message.starts_with(&format!("Origin '{origin}' is not this server")));
            }
        }
        assert_ne!(ask(&server, method, target, &own).status, 403, "{method} {target}");
    }
    server.stop();
    // Who has credentials is no web page that just happens to be open.
    let config = site.path().join("hob.toml");
    std::fs::write(&config, "[auth]\ntoken = \"secret\"\n").unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    let fields = [("Origin", "http://evil.example"), ("Authorization", "Bearer secret")];
    assert_eq!(server.connect().post(&invocation, &fields, b"{}").status, 200);
    server.stop();
}

#[test]
fn heads_that_are_too_long_are_refused_and_the_client_reads_it() {
    let (_site, server) = demo();
    let head = |fields: &str| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let long = |name: &str, length: usize| format!("{name}: {}\r\n", "x".repeat(length));
    // 64 KiB and 100 fields are taken.
    let mut conn = server.connect();
    let fields = long("X", 64 * 1024 - head("").len() - long("X", 0).len());
    for fields in [fields.clone(), "X: y\r\n".repeat(99)] {
        conn.send(head(&fields));
        assert_eq!(conn.reply().status, 200);
    }
    for (what, fields) in [
        ("a byte too long", fields.replacen('X', "XX", 1)),
        ("a field too many", "X: y\r\n".repeat(100)),
        ("a long field", long("Cookie", MIB)),
        ("many long fields", long("Cookie", 10_000).repeat(120)),
        ("garbage", "\u{e9}\x01:;,".repeat(MIB / 6)),
    ] {
        refused(&server, head(&fields).as_bytes(), 431, what);
    }
    let target = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(MIB));
    refused(&server, target.as_bytes(), 431, "a long target");
    refused(&server, &vec![b'x'; MIB], 431, "no head at all");
    server.stop();
}

/// The head of an invocation that announces so many bytes.
fn announce(length: usize) -> String {
    let path = invocations("demo");
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

fn is_too_large(conn: &mut Conn) {
    let reply = conn.reply();
    assert_eq!(reply.status, 413);
    assert_eq!(reply.field("x-amzn-errortype"), Some("RequestTooLargeException"));
    let message = "Request must be smaller than 6291456 bytes for the InvokeFunction operation";
    assert_eq!(reply.json(), serde_json::json!({"Type": "User", "message": message}));
    assert_eq!(reply.field("connection"), Some("close"));
    assert!(conn.rest().is_empty());
}

#[test]
fn events_beyond_6_mib_are_refused_and_the_client_reads_it_while_it_sends() {
    let (_site, server) = demo();
    let piece = vec![b' '; MIB];
    // It sends everything before it looks for a reply, far more than any socket holds.
    for total in [6 * MIB + 1, 20 * MIB] {
        let mut conn = server.connect();
        conn.send(announce(total));
        for _ in 0..total / MIB {
            conn.send(&piece);
        }
        conn.send(&piece[..total % MIB]);
        is_too_large(&mut conn);
    }
    let mut conn = server.connect();
    conn.send(format!(
        "{}\r\n\r\n",
        announce(0).replace("Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked")
    ));
    for _ in 0..20 {
        conn.send(format!("{MIB:x}\r\n"));
        conn.send(&piece);
        conn.send("\r\n");
    }
    conn.send("0\r\n\r\n");
    is_too_large(&mut conn);
    let mut conn = server.connect();
    conn.send(announce(usize::MAX / 100));
    is_too_large(&mut conn);
    server.stop();
}

#[test]
fn a_chunk_cannot_announce_more_than_there_is() {
    let (_site, server) = demo();
    let head = announce(0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    for size in ["600001", "fffffffffffffff", "10000000000000000", "ffffffffffffffffffffff"] {
        let mut conn = server.connect();
        conn.send(format!("{head}{size}\r\n{{}}"));
        is_too_large(&mut conn);
    }
    // Extensions and trailers have their bounds, too.
    let long = "x".repeat(MIB);
    refused(&server, format!("{head}2;{long}\r\n").as_bytes(), 400, "a long extension");
    refused(&server, format!("{head}0\r\nX: {long}\r\n").as_bytes(), 431, "long trailers");
    server.stop();
}
