//! Requests as events, and replies as responses.

use super::*;
use crate::http::head;
use crate::io::Buffers;

fn event(text: &str, body: &[u8]) -> serde_json::Value {
    let text = format!("{}\r\n\r\n", text.replace('\n', "\r\n"));
    let head = head::parse(text.as_bytes()).expect("a head");
    let request = Request {
        head: &head,
        bytes: text.as_bytes(),
        body,
        name: "demo",
        account: "000000000000",
        source: "127.0.0.1".into(),
        id: RequestId([1; 16]),
        caller: None,
    };
    let mut writer = Writer::new(Buffers::new(1 << 20).take().expect("room"));
    request.write(&mut writer);
    serde_json::from_slice(&writer.finish().expect("room")).expect("JSON")
}

#[test]
fn a_request_becomes_an_event_of_format_2() {
    let text = "POST /fn/demo/a/b?x=1&y=2%20z&x=3 HTTP/1.1\nHost: board:4620\nAccept: a\n\
                accept: b\nCookie: c=1; d=2\nUser-Agent: \"curl\"";
    let event = event(text, b"{\"q\":1}");
    assert_eq!(event["version"], "2.0");
    assert_eq!(event["rawPath"], "/a/b");
    assert_eq!(event["rawQueryString"], "x=1&y=2%20z&x=3");
    assert_eq!(event["queryStringParameters"], serde_json::json!({"x": "1,3", "y": "2 z"}));
    assert_eq!(event["cookies"], serde_json::json!(["c=1", "d=2"]));
    assert_eq!(event["headers"]["accept"], "a,b");
    assert_eq!(event["headers"]["user-agent"], "\"curl\"");
    assert!(event["headers"].get("cookie").is_none());
    assert_eq!(event["requestContext"]["http"]["method"], "POST");
    assert_eq!(event["requestContext"]["http"]["sourceIp"], "127.0.0.1");
    assert_eq!(event["body"], "{\"q\":1}");
    assert_eq!(event["isBase64Encoded"], false);
}

#[test]
fn parameters_keep_the_order_in_which_they_came_first() {
    let mut writer = Writer::new(Buffers::new(1 << 20).take().expect("room"));
    write_query(&mut writer, "z=1&b=2&z=0&a=3&b=1&b=3");
    let text = writer.finish().expect("room");
    let expected = ",\"queryStringParameters\":{\"z\":\"1,0\",\"b\":\"2,1,3\",\"a\":\"3\"}";
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

#[test]
fn what_is_empty_is_left_out_and_bytes_are_base64() {
    let plain = event("GET /fn/demo HTTP/1.1\nHost: a", b"");
    assert_eq!(plain["rawPath"], "/");
    for absent in ["cookies", "queryStringParameters", "body"] {
        assert!(plain.get(absent).is_none(), "{absent}");
    }
    let text = "PUT /fn/demo/ HTTP/1.1\nHost: a\nContent-Type: image/png";
    let bytes = event(text, &[0xFF, 0, 1]);
    assert_eq!((&bytes["body"], &bytes["isBase64Encoded"]), (&"/wAB".into(), &true.into()));
    let broken = event("PUT /fn/demo/ HTTP/1.1\nHost: a\nContent-Type: text/plain", &[0xFF]);
    assert_eq!(broken["isBase64Encoded"], true, "text that is none");
}

#[test]
fn a_reply_cannot_break_the_head_apart() {
    let text = r#"{"statusCode":201,"headers":{"X-A":"b\r\nEvil: 1","Bad Name":"x","X-N":5,
        "Content-Length":"9"},"cookies":["c=1"]}"#;
    let shaped: Shaped<'_> = serde_json::from_str(text).expect("JSON");
    assert_eq!(shaped.fields(), "X-N: 5\r\nContent-Type: application/json\r\nSet-Cookie: c=1\r\n");
}
