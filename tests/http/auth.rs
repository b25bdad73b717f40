//! A server with `[auth]`: keys and what they are good for, signed bodies and function URLs, and what
//! is no credential at all.

use serde_json::json;

use crate::common::http::{Conn, Reply, invocations};
use crate::common::sign::{Request, hash};
use crate::common::{Server, Site, eventually, executable};

const CONFIG: &str = r#"
[auth]
token = "secret"
keys = [
    { id = "AKIAADMIN", secret = "s3cret/+=" },
    { id = "AKIASOME", secret = "some", functions = ["demo", "pushed-*"] },
    { id = "AKIAINVOKE", secret = "invoke", scope = "invoke", functions = ["demo", "iam*"] },
]
"#;

fn closed() -> (Site, Server) {
    let site = Site::new();
    site.native("demo", "", "");
    site.native("other", "", "[url]\nauth = \"none\"");
    site.native("iam-demo", "", "[url]\nauth = \"iam\"");
    let config = site.path().join("hob.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    (site, server)
}

fn send(conn: &mut Conn, request: &Request<'_>) -> Reply {
    let fields = request.signed();
    let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    conn.request(request.method, request.target, &fields, request.body);
    conn.reply()
}

fn kind(reply: &Reply) -> (u16, Option<&str>) {
    (reply.status, reply.field("x-amzn-errortype"))
}

fn message(reply: &Reply) -> String {
    reply.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn who_signs_rightly_is_served_and_others_are_told_what_is_wrong() {
    let (_site, server) = closed();
    let mut conn = server.connect();
    let path = invocations("demo");
    let good = Request::new("POST", &path, b"{\"a\":1}");
    let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ademo";
    let by_arn = format!("{}?Qualifier=%24LATEST", invocations(arn));
    let digest = hash(good.body);
    for served in [
        good.clone(),
        good.clone(),
        Request { target: &by_arn, ..good.clone() },
        Request { body: b"", ..good.clone() },
        Request { skew_s: -290, ..good.clone() },
        Request { skew_s: 290, ..good.clone() },
        Request { fields: &[("X-Amz-Security-Token", "TOKEN/+=")], ..good.clone() },
        Request { fields: &[("X-Amz-Content-Sha256", &digest)], ..good.clone() },
        good.clone().by("AKIASOME", "some"),
        good.clone().by("AKIAINVOKE", "invoke"),
    ] {
        let reply = send(&mut conn, &served);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.field("date").is_some_and(|date| date.ends_with(" GMT")));
    }
    let invalid = "InvalidSignatureException";
    for (refused, name, said) in [
        (good.clone().by("AKIAADMIN", "wrong"), invalid, "The request signature we calculated do"),
        (
            good.clone().by("AKIANOBODY", "s"),
            "UnrecognizedClientException",
            "The security token inc",
        ),
        (Request { skew_s: -310, ..good.clone() }, invalid, "Signature expired: "),
        (Request { skew_s: 310, ..good.clone() }, invalid, "Signature not yet current: "),
        (
            Request { region: "eu-west-1", ..good.clone() },
            invalid,
            "Credential should be scoped to",
        ),
        (
            Request { service: "s3", ..good.clone() },
            invalid,
            "Credential should be scoped to corre",
        ),
        (
            Request { fields: &[("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")], ..good.clone() },
            invalid,
            "x-amz-content-sha256 'UNSIGNED-PAYLOAD' needs TLS",
        ),
        (
            Request { fields: &[("X-Amz-Content-Sha256", &hash(b"{}"))], ..good.clone() },
            invalid,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    ] {
        let reply = send(&mut conn, &refused);
        assert_eq!(kind(&reply), (403, Some(name)), "{said}");
        assert!(message(&reply).starts_with(said), "{}", message(&reply));
    }
    let reply = conn.get(&format!("{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"));
    assert_eq!(kind(&reply), (400, Some("IncompleteSignatureException")));
    assert_eq!(kind(&conn.get(&path)), (403, Some("MissingAuthenticationTokenException")));
    server.stop();
}

#[test]
fn a_body_that_was_not_signed_runs_nothing() {
    let (site, server) = closed();
    let seen = site.path().join("seen");
    let script = format!("#!/bin/sh\ncat >> {}\n", seen.display());
    site.script("iam-write", "exec", &script, "[url]\nauth = \"iam\"");
    server.hob(&["reload"]);
    eventually("it is there", || {
        let known = server.get("/hob/functions").to_string().contains("iam-write");
        known.then_some(())
    });
    let mut conn = server.connect();
    let invoke = invocations("iam-write");
    for path in [invoke.as_str(), "/fn/iam-write/"] {
        let signed = Request::new("POST", path, b"[1]").signed();
        let fields: Vec<_> = signed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        for body in [&b"[2]"[..], b"[1] ", b""] {
            let reply = conn.post(path, &fields, body);
            assert_eq!(kind(&reply), (403, Some("InvalidSignatureException")), "{path}");
        }
        // The same in chunks, which is how some clients send it.
        for (body, status) in
            [("1\r\n[\r\n2\r\n2]\r\n0\r\n\r\n", 403), ("3\r\n[1]\r\n0\r\n\r\n", 200)]
        {
            let lines: String = fields.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            conn.send(format!(
                "POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Transfer-Encoding: chunked\r\n\r\n\
                 {body}"
            ));
            assert_eq!(conn.reply().status, status, "{path}");
        }
    }
    let seen = std::fs::read_to_string(&seen).unwrap();
    assert_eq!(seen.matches("[1]").count(), 2, "{seen}");
    assert!(!seen.contains("[2]"));
    // A long body is proven in pieces.
    let long = [b"\"".to_vec(), vec![b'x'; 6 * 1024 * 1024 - 2], b"\"".to_vec()].concat();
    let path = invocations("demo");
    assert_eq!(send(&mut conn, &Request::new("POST", &path, &long)).status, 200);
    let signed = Request::new("POST", &path, &long).signed();
    let fields: Vec<_> = signed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut other = long.clone();
    other[5_000_000] = b'y';
    assert_eq!(conn.post(&path, &fields, &other).status, 403);
    server.stop();
}

#[test]
fn a_key_is_good_for_what_it_is_meant_for() {
    let (_site, server) = closed();
    let mut conn = server.connect();
    let (demo, other) = (invocations("demo"), invocations("other"));
    let invoke = |target| Request::new("POST", target, b"{}").by("AKIAINVOKE", "invoke");
    let some = |target| Request::new("GET", target, b"").by("AKIASOME", "some");
    let post = |request| Request { method: "POST", body: b"{}", ..request };
    for (request, allowed) in [
        (invoke(&demo), true),
        (invoke("/fn/demo/"), true),
        (invoke(&other), false),
        (invoke("/fn/other/"), true),
        (Request { method: "GET", body: b"", ..invoke("/hob/functions/demo") }, false),
        (Request { method: "GET", body: b"", ..invoke("/hob/server") }, false),
        (Request { body: b"", ..invoke("/hob/reload") }, false),
        (some("/hob/functions/demo"), true),
        (some("/hob/functions/other"), false),
        (some("/hob/logs/other"), false),
        (some("/hob/functions"), false),
        (some("/hob/server"), false),
        (post(some(&demo)), true),
        (post(some(&other)), false),
        (Request { method: "DELETE", ..some("/hob/functions/other") }, false),
        (Request::new("GET", "/hob/server", b""), true),
        (Request::new("GET", "/hob/server", b"with a body"), true),
        (Request::new("POST", "/hob/reload", b""), true),
    ] {
        let what = format!("{} {} {}", request.id, request.method, request.target);
        let reply = send(&mut conn, &request);
        if allowed {
            assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        } else {
            assert_eq!(kind(&reply), (403, Some("AccessDeniedException")), "{what}");
        }
    }
    let reply = send(&mut conn, &invoke(&other));
    let said = "User: arn:aws:iam::000000000000:user/AKIAINVOKE is not authorized to perform: \
                lambda:InvokeFunction on resource: \
                arn:aws:lambda:us-east-1:000000000000:function:other because";
    assert!(message(&reply).starts_with(said), "{}", message(&reply));
    server.stop();
}

#[test]
fn a_push_is_signed_with_its_zip() {
    let (site, server) = closed();
    let folder = site.path().join("pushed");
    std::fs::create_dir(&folder).unwrap();
    let toml = "runtime = \"exec\"\nhandler = \"bootstrap\"\n";
    std::fs::write(folder.join("function.toml"), toml).unwrap();
    executable(&folder.join("bootstrap"), "#!/bin/sh\ncat\n");
    let zip = site.path().join("a.zip");
    let made = std::process::Command::new("python3")
        .args(["-m", "zipfile", "-c", zip.to_str().unwrap()])
        .args([folder.join("function.toml"), folder.join("bootstrap")])
        .status();
    assert!(made.unwrap().success());
    let zip = std::fs::read(zip).unwrap();
    let mut conn = server.connect();
    let mut put = |name: &str, zip: &[u8], signed: &[u8]| {
        let target = format!("/hob/functions/{name}");
        let request = Request::new("PUT", &target, signed).by("AKIASOME", "some");
        let fields = request.signed();
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        conn.request("PUT", &target, &fields, zip);
        conn.reply().status
    };
    assert_eq!(put("pushed-a", &zip, b"something else"), 403);
    assert_eq!(put("elsewhere", &zip, &zip), 403);
    assert_eq!(server.hob(&["show", "pushed-a"]).code, 3, "nothing came of it");
    assert_eq!(put("pushed-a", &zip, &zip), 200);
    assert_eq!(server.hob(&["show", "pushed-a"]).code, 0);
    server.stop();
}

#[test]
fn a_signed_function_url_tells_the_function_who_called() {
    let (_site, server) = closed();
    let mut conn = server.connect();
    let target = "/fn/iam-demo/a%20b/c?x=1&y=%2F";
    let request = Request::new("PUT", target, b"text").by("AKIAINVOKE", "invoke");
    let reply = send(&mut conn, &request);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let expected = json!({
        "accessKey": "AKIAINVOKE", "accountId": "000000000000", "callerId": "AKIAINVOKE",
        "cognitoIdentity": null, "principalOrgId": null,
        "userArn": "arn:aws:iam::000000000000:user/AKIAINVOKE", "userId": "AKIAINVOKE",
    });
    let event = reply.json()["event"].take();
    assert_eq!(event["requestContext"]["authorizer"]["iam"], expected);
    assert_eq!((&event["rawPath"], &event["body"]), (&"/a%20b/c".into(), &"text".into()));
    let reply = send(&mut conn, &Request::new("GET", "/fn/iam-demo//a/./b/", b""));
    assert_eq!(reply.status, 403, "SDKs sign paths without empty and relative parts");
    let reply = conn.post("/fn/iam-demo/", &[("Authorization", "Bearer secret")], b"");
    let owner = &reply.json()["event"]["requestContext"]["authorizer"]["iam"]["userArn"];
    assert_eq!(owner, "arn:aws:iam::000000000000:root");
    let reply = Conn::unix(&server.socket()).get("/fn/iam-demo/");
    assert_eq!(reply.status, 200, "the socket has its file mode");
    for request in [
        Request::new("GET", "/fn/iam-demo/", b"").by("AKIASOME", "some"),
        Request { id: "", ..Request::new("GET", "/fn/iam-demo/", b"") },
    ] {
        let reply = match request.id {
            "" => conn.get("/fn/iam-demo/"),
            _ => send(&mut conn, &request),
        };
        assert_eq!(kind(&reply), (403, Some("AccessDeniedException")));
        let forbidden = "Forbidden. For troubleshooting Function URL authorization issues, see: ";
        assert!(reply.json()["Message"].as_str().unwrap().starts_with(forbidden));
    }
    let reply =
        send(&mut conn, &Request { secret: "x", ..Request::new("GET", "/fn/iam-demo/", b"") });
    assert_eq!(kind(&reply), (403, Some("InvalidSignatureException")));
    assert_eq!(conn.get("/fn/other/").json()["event"]["requestContext"].get("authorizer"), None);
    server.stop();
}

#[test]
fn credentials_that_are_none_are_refused_in_order() {
    let (_site, server) = closed();
    let path = invocations("demo");
    let mut conn = server.connect();
    let good = Request::new("POST", &path, b"{}").signed();
    let authorization = &good.last().unwrap().1;
    let date = ("X-Amz-Date", good[0].1.as_str());
    let incomplete = (400, Some("IncompleteSignatureException"));
    let unknown = (403, Some("UnrecognizedClientException"));
    let invalid = (403, Some("InvalidSignatureException"));
    let sent = authorization.as_str();
    let huge = format!("{sent}, X={}", "x".repeat(60 * 1024));
    let many = format!("{sent}{}", ",a=b".repeat(15_000));
    let slashes = sent.replacen('/', &"/".repeat(30_000), 1);
    let names = sent.replacen("host", &format!("host{}", ";host".repeat(12_000)), 1);
    for (fields, expected) in [
        (&[("Authorization", sent), date][..], (200, None)),
        (&[("Authorization", sent)], incomplete),
        (&[("Authorization", sent), ("Authorization", sent), date], incomplete),
        (&[("Authorization", sent), date, date], incomplete),
        (&[("Authorization", ""), date], unknown),
        (&[("Authorization", "AWS4-HMAC-SHA256"), date], incomplete),
        (&[("Authorization", "Basic QUtJQUFETUlOOnMzY3JldA=="), date], unknown),
        (&[("Authorization", "Bearer "), date], unknown),
        (&[("Authorization", "AWS4-HMAC-SHA256 \u{e9}=\u{e9}"), date], incomplete),
        (&[("Authorization", &many), date], (200, None)),
        (&[("Authorization", &huge), date], (200, None)),
        (&[("Authorization", &slashes), date], incomplete),
        (&[("Authorization", &names), date], invalid),
    ] {
        let reply = conn.post(&path, fields, b"{}");
        let start: String = fields[0].1.chars().take(60).collect();
        assert_eq!(kind(&reply), expected, "{start}");
    }
    for bytes in [&b"\xff\xfe"[..], b"AWS4-HMAC-SHA256 Credential=\xff/\xff", b"Bearer \xff"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n");
        conn.send([head.as_bytes(), b"Authorization: ", bytes, b"\r\n\r\n{}"].concat());
        assert!([400, 403].contains(&conn.reply().status));
    }
    server.stop();
}

#[test]
fn a_function_calls_another_with_the_key_that_it_was_given() {
    let site = Site::new();
    let script =
        "#!/bin/sh\nprintf '\"%s %s\"' \"$AWS_ACCESS_KEY_ID\" \"$AWS_SECRET_ACCESS_KEY\"\n";
    site.script("tells", "exec", script, "");
    site.native("demo", "", "");
    let config = site.path().join("hob.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    let mut conn = server.connect();
    let tells = invocations("tells");
    let key = send(&mut conn, &Request::new("POST", &tells, b"{}")).json();
    let (id, secret) = key.as_str().unwrap().split_once(' ').unwrap();
    assert!(id.starts_with("HOB") && id.len() == 19 && secret.len() == 40, "{id}");
    let demo = invocations("demo");
    let invoke = Request::new("POST", &demo, b"{}").by(id, secret);
    assert_eq!(send(&mut conn, &invoke).status, 200);
    let admin = Request::new("GET", "/hob/server", b"").by(id, secret);
    assert_eq!(kind(&send(&mut conn, &admin)), (403, Some("AccessDeniedException")));
    server.stop();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    let mut conn = server.connect();
    let stale = kind(&send(&mut conn, &invoke)).0;
    assert_eq!(stale, 403, "it is good for one start of the server");
    server.stop();
}
