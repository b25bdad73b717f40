//! What workers write, and where it goes.

use crate::common::Site;

crate::both_reapers![
    lines_belong_to_their_invocation,
    floods_and_endless_lines_do_no_harm,
    the_log_can_be_followed,
];

fn lines_belong_to_their_invocation(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "");
    let server = site.serve(reaper);
    for _ in 0..20 {
        let event = b"{\"do\":\"print\",\"n\":3}";
        let path = crate::common::http::invocations("demo");
        let reply = server.connect().post(&path, &[("X-Amz-Log-Type", "Tail")], event);
        let id = reply.field("x-amzn-requestid").unwrap().to_owned();
        let tail = tail(&reply);
        let lines: Vec<&str> = tail.lines().collect();
        assert_eq!(lines[0], format!("START RequestId: {id} Version: $LATEST"), "{tail}");
        let middle: Vec<&str> = lines[1..lines.len() - 2].to_vec();
        let expected = ["out 0", "err 0", "out 1", "err 1", "out 2", "err 2"];
        assert_eq!(middle, expected, "{tail}");
        assert_eq!(lines[lines.len() - 2], format!("END RequestId: {id}"));
        assert!(lines[lines.len() - 1].starts_with(&format!("REPORT RequestId: {id}\t")));
    }
    server.stop();
}

fn tail(reply: &crate::common::http::Reply) -> String {
    use base64::Engine;
    let text = reply.field("x-amz-log-result").unwrap();
    let bytes = base64::prelude::BASE64_STANDARD.decode(text).unwrap();
    assert!(bytes.len() <= 4096);
    String::from_utf8(bytes).unwrap()
}

fn floods_and_endless_lines_do_no_harm(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 30");
    site.native("calm", "", "");
    let server = site.serve(reaper);
    server.ok("calm", "{}");
    let mut flood = server.connect();
    flood.begin("demo", "{\"do\":\"flood\",\"n\":100000}");
    for _ in 0..20 {
        server.ok("calm", "{}");
    }
    assert_eq!(flood.reply().status, 200);
    let path = crate::common::http::invocations("demo");
    let event = b"{\"do\":\"long-line\",\"n\":3000000}";
    let reply = server.connect().post(&path, &[("X-Amz-Log-Type", "Tail")], event);
    let tail = tail(&reply);
    assert!(tail.contains(" bytes dropped]\nafter it\nEND "), "{tail}");
    server.stop();
}

fn the_log_can_be_followed(reaper: &[&str]) {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let site = Site::new();
    site.native("demo", "", "");
    site.native("other", "", "");
    let server = site.serve(reaper);
    server.ok("demo", "{\"do\":\"print\",\"n\":1}");
    let mut follow = Command::new(crate::common::HOB)
        .args(["logs", "demo", "-f", "--since", "1h"])
        .env("HOB_SOCKET", server.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut until = |end: &str| loop {
        let line = lines.next().unwrap().unwrap();
        assert!(!line.contains("other"), "{line}");
        if line.starts_with(end) {
            break line;
        }
    };
    until("REPORT");
    server.ok("other", "{}");
    let id = server.invoke("demo", "{}").field("x-amzn-requestid").unwrap().to_owned();
    assert!(until("START").contains(&id));
    until("REPORT");
    follow.kill().unwrap();
    follow.wait().unwrap();
    let unknown = server.hob(&["logs", "nobody"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("Function not found: nobody"), "{}", unknown.err);
    server.stop();
}
