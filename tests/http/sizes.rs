//! The largest events and replies, through every kind of worker.

use crate::common::{Server, Site};

/// Bytes of the largest event, and of the largest reply.
const EVENT_MAX: usize = 6_291_456;
const REPLY_MAX: usize = 6_291_556;

/// A JSON string of exactly so many bytes, different everywhere.
fn text(length: usize) -> Vec<u8> {
    let letters = (0..length - 2).map(|n| b'a' + u8::try_from(n / 7 % 26).unwrap());
    [b"\"".to_vec(), letters.collect(), b"\"".to_vec()].concat()
}

/// Sends the largest event and expects it back, on one connection.
fn echoes(server: &Server, name: &str) {
    let mut conn = server.connect();
    let event = text(EVENT_MAX);
    for _ in 0..2 {
        let reply = conn.invoke(name, &event);
        assert_eq!((reply.status, reply.field("x-amz-function-error")), (200, None));
        assert!(reply.body == event, "{name}: {} bytes came back", reply.body.len());
    }
    let reply = conn.invoke(name, &text(EVENT_MAX + 1));
    assert_eq!(reply.status, 413);
}

/// Runs a function that replies with a byte too much, and expects the platform's error.
fn exceeds(server: &Server, name: &str, event: &str) {
    let reply = server.invoke(name, event);
    assert_eq!((reply.status, reply.field("x-amz-function-error")), (200, Some("Unhandled")));
    let message =
        format!("Response payload size exceeded maximum allowed payload size ({REPLY_MAX} bytes).");
    let expected = serde_json::json!({
        "errorType": "Function.ResponseSizeTooLarge", "errorMessage": message,
    });
    assert_eq!(reply.json(), expected, "{name}");
}

#[test]
fn native_functions_take_and_give_6_mib() {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 30");
    let server = site.serve(&[]);
    let mut conn = server.connect();
    let event = [b"{\"x\":".to_vec(), text(EVENT_MAX - 6), b"}".to_vec()].concat();
    let reply = conn.invoke("demo", &event);
    assert!(reply.json()["event"]["x"].as_str().unwrap().len() == EVENT_MAX - 8);
    let reply = conn.invoke("demo", format!("{{\"do\":\"big\",\"n\":{REPLY_MAX}}}").as_bytes());
    assert_eq!((reply.status, reply.body.len()), (200, REPLY_MAX));
    exceeds(&server, "demo", &format!("{{\"do\":\"big\",\"n\":{}}}", REPLY_MAX + 1));
    assert_eq!(conn.invoke("demo", b"{}").status, 200);
    server.stop();
}

#[test]
fn programs_take_and_give_6_mib() {
    let site = Site::new();
    site.function("demo", "runtime = \"exec\"\nhandler = \"cat\"\ntimeout_s = 30");
    let head = |count| format!("runtime = \"exec\"\nhandler = \"head -c {count} /dev/zero\"");
    site.function("most", &head(REPLY_MAX));
    site.function("more", &head(REPLY_MAX + 1));
    let server = site.serve(&[]);
    echoes(&server, "demo");
    let reply = server.invoke("most", "{}");
    assert_eq!(reply.field("x-amz-function-error"), None);
    assert!(reply.body == vec![0; REPLY_MAX]);
    exceeds(&server, "more", "{}");
    server.stop();
}
