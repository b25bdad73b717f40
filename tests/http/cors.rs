//! Function URLs that pages of other origins call.

use crate::common::http::{Conn, Reply};
use crate::common::{Server, Site};

const PAGE: &str = "https://shop.example";

const CORS: &str = r#"
[url]
auth = "none"
[url.cors]
allow_credentials = true
allow_headers = ["content-type", "x-a"]
allow_methods = ["GET", "POST"]
allow_origins = ["https://shop.example", "http://localhost:3000"]
expose_headers = ["x-b"]
max_age = 600
"#;

fn site() -> (Site, Server) {
    let site = Site::new();
    site.native("cors", "", CORS);
    site.native("plain", "", "[url]\nauth = \"none\"");
    site.native("any", "", "[url]\nauth = \"iam\"\ncors = { allow_origins = [\"*\"] }");
    site.native("full", "", &format!("reserved_concurrency = 0{CORS}"));
    let folder =
        site.function("own", &format!("runtime = \"exec\"\nhandler = \"cat reply\"{CORS}"));
    let reply = br#"{"statusCode":201,"headers":{"Access-Control-Allow-Origin":"*","X-B":"1"}}"#;
    std::fs::write(folder.join("reply"), reply).unwrap();
    site.script("fails", "exec", "#!/bin/sh\nexit 1\n", CORS);
    let server = site.serve(&[]);
    (site, server)
}

fn ask(conn: &mut Conn, method: &str, target: &str, origin: Option<&str>) -> Reply {
    let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let asked = "Access-Control-Request-Method: POST\r\n";
    conn.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{origin}{asked}\r\n"));
    conn.reply()
}

/// What a reply tells a browser.
fn told(reply: &Reply) -> Vec<(&str, &str)> {
    let fields = reply.head.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    fields.filter_map(|(n, v)| Some((n.strip_prefix("access-control-")?, v))).collect()
}

#[test]
fn a_preflight_request_is_answered_and_runs_nothing() {
    let (_site, server) = site();
    let mut conn = server.connect();
    let expected = [
        ("allow-origin", PAGE),
        ("allow-credentials", "true"),
        ("allow-methods", "GET,POST"),
        ("allow-headers", "content-type,x-a"),
        ("max-age", "600"),
    ];
    for name in ["cors", "full", "fails"] {
        let reply = ask(&mut conn, "OPTIONS", &format!("/fn/{name}/x"), Some(PAGE));
        assert_eq!((reply.status, reply.body.len()), (200, 0), "{name}");
        assert_eq!(told(&reply), expected, "{name}");
        assert_eq!(reply.field("vary"), Some("Origin"));
        assert!(reply.field("x-amzn-requestid").is_some());
    }
    for origin in [None, Some("https://evil.example"), Some("null"), Some("\u{e9}")] {
        let reply = ask(&mut conn, "OPTIONS", "/fn/cors/", origin);
        assert_eq!((reply.status, told(&reply).len()), (200, 0), "{origin:?}");
    }
    let reply = ask(&mut conn, "OPTIONS", "/fn/any/", Some(PAGE));
    assert_eq!((reply.status, &told(&reply)[..]), (200, &[("allow-origin", "*")][..]), "unsigned");
    // A body behind it is read, and the next request is another one.
    conn.request("OPTIONS", "/fn/cors/", &[("Origin", PAGE)], b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(conn.reply().status, 200);
    assert!(server.workers().is_empty(), "nothing was started");
    // Without rules of the server's the request is the function's.
    let reply = ask(&mut conn, "OPTIONS", "/fn/plain/", Some(PAGE));
    assert_eq!(told(&reply), []);
    assert_eq!(reply.json()["event"]["requestContext"]["http"]["method"], "OPTIONS");
    server.stop();
}

#[test]
fn replies_tell_pages_that_they_may_see_them() {
    let (_site, server) = site();
    let mut conn = server.connect();
    let own = [("allow-origin", PAGE), ("allow-credentials", "true"), ("expose-headers", "x-b")];
    for (name, status) in [("cors", 200), ("full", 429), ("fails", 502)] {
        let reply = ask(&mut conn, "POST", &format!("/fn/{name}/"), Some(PAGE));
        assert_eq!((reply.status, &told(&reply)[..]), (status, &own[..]), "{name}");
        for other in [None, Some("https://shop.example:444")] {
            let reply = ask(&mut conn, "POST", &format!("/fn/{name}/"), other);
            assert_eq!((reply.status, told(&reply).len()), (status, 0), "{name} {other:?}");
        }
    }
    // As on Lambda, what the function says of it is sent as well.
    let reply = ask(&mut conn, "GET", "/fn/own/", Some(PAGE));
    let both = [&[("allow-origin", "*")], &own[..]].concat();
    assert_eq!((reply.status, told(&reply), reply.field("x-b")), (201, both, Some("1")));
    let reply = ask(&mut conn, "GET", "/fn/any/", Some(PAGE));
    assert_eq!((reply.status, &told(&reply)[..]), (403, &[("allow-origin", "*")][..]));
    server.stop();
}
