//! Mutated requests and random bytes: the server answers or hangs up, and goes on as it was.
//!
//! `HTTP_SEED=S` runs one seed.

use std::net::Shutdown;

use crate::common::http::invocations;
use crate::common::seeds::{Rng, mutate, run};
use crate::common::sign::{Request, hash};
use crate::common::{Server, Site, descriptors, eventually, status_number};

const SEEDS: u64 = 4000;

fn requests() -> Vec<String> {
    let path = invocations("demo");
    let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ademo";
    let chunks = "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3;a=b\r\n{\"n\r\n4\r\n\":1}\r\n0\r\nX: 1\r\n\r\n";
    vec![
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "GET http://t/readyz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(),
        "HEAD /fn/demo HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "GET /hob/functions/demo HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "GET /hob/logs/demo?since_ms=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\n{{\"n\":1}}"),
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{chunks}"),
        format!(
            "POST /2015-03-31/functions/{arn}/invocations?Qualifier=%24LATEST HTTP/1.1\r\nHost: localhost\r\n\
             X-Amz-Invocation-Type: RequestResponse\r\nX-Amz-Log-Type: Tail\r\nX-Amz-Client-Context: \
             e30=\r\nX-Amzn-Trace-Id: Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700\r\nContent-Length: 0\
             \r\n\r\n"
        ),
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{{}}"),
        "PUT /fn/demo/a%20b?c=d&c=%zz HTTP/1.1\r\nHost: localhost\r\nCookie: e=f; g\r\nAccept: a\r\nAccept: b\r\n\
         Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nxyz"
            .into(),
    ]
}

/// What a client of this seed sends.
fn bytes(rng: &mut Rng) -> Vec<u8> {
    if rng.percent(10) {
        return (0..rng.between(1, 3000))
            .map(|_| u8::try_from(rng.next() >> 56).unwrap())
            .collect();
    }
    let all = requests();
    let mut bytes = Vec::new();
    for _ in 0..rng.between(1, 3) {
        let text = &all[usize::try_from(rng.between(0, all.len() as u64 - 1)).unwrap()];
        bytes.extend(text.as_bytes());
    }
    mutate(rng, &mut bytes);
    bytes
}

/// One connection: everything is sent in a few pieces, and all that comes back is read.
fn world(server: &Server, seed: u64) {
    let mut rng = Rng::new(seed);
    let bytes = bytes(&mut rng);
    let mut conn = server.connect();
    let piece = usize::try_from(rng.between(1, bytes.len().max(1) as u64)).unwrap();
    for piece in bytes.chunks(piece.max(64)) {
        conn.send(piece);
    }
    conn.socket().shutdown(Shutdown::Write).unwrap();
    let replies = conn.rest();
    let text = String::from_utf8_lossy(&replies);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
}

#[test]
fn mutated_requests_change_nothing() {
    let site = Site::new();
    site.native("demo", "", "[url]\nauth = \"none\"");
    let server = site.serve(&[]);
    let pid = server.ok("demo", "{}")["pid"].take();
    let before = descriptors(server.pid());
    run("HTTP_SEED", "http mutated", SEEDS, |seed| {
        world(&server, seed);
        if seed % 500 == 0 {
            assert_eq!(status_number(server.pid(), "Threads"), 1);
            eventually("nothing leaks", || (descriptors(server.pid()) <= before).then_some(()));
        }
    });
    assert_eq!(server.ok("demo", "{\"n\":5}")["pid"], pid, "the worker is still the same");
    eventually("nothing leaks", || (descriptors(server.pid()) <= before).then_some(()));
    server.stop();
}

#[test]
fn mutated_signatures_run_nothing_but_what_was_signed() {
    let site = Site::new();
    site.native("demo", "", "");
    let config = site.path().join("hob.toml");
    let key = "[auth]\nkeys = [{ id = \"AKIAADMIN\", secret = \"s3cret/+=\" }]\n";
    std::fs::write(&config, key).unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    let path = format!("{}?Qualifier=%24LATEST", invocations("demo"));
    let body = b"{\"signed\":1}";
    let digest = hash(body);
    let content = [("X-Amz-Content-Sha256", digest.as_str()), ("X-Amz-Log-Type", "Tail")];
    run("HTTP_SEED", "http mutated signatures", SEEDS / 2, |seed| {
        let fields = if seed.is_multiple_of(2) { &content[..] } else { &[] };
        let signed = Request { fields, ..Request::new("POST", &path, body) }.signed();
        let lines: String = signed.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n"
        );
        let mut bytes = [head.as_bytes(), body].concat();
        let mut rng = Rng::new(seed);
        mutate(&mut rng, &mut bytes);
        let mut conn = server.connect();
        conn.send(&bytes);
        conn.socket().shutdown(Shutdown::Write).unwrap();
        while let Some(reply) = conn.try_reply() {
            if reply.status == 200 {
                assert_eq!(reply.json()["event"], serde_json::json!({"signed": 1}));
            } else {
                assert!((400..=501).contains(&reply.status), "{}", reply.status);
                assert_ne!(reply.status, 500, "{}", reply.text());
            }
        }
    });
    server.stop();
}
