//! The built-in function `hob-probe`: there on every server, and nowhere else.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::{Server, Site, eventually, exists};

crate::both_reapers![
    it_tells_which_server_answers,
    it_is_there_only_while_it_is_used,
    its_name_is_nobody_elses,
    it_waits_for_a_slot_like_others,
];

/// The SHA-256 of the file, by another program than ours.
pub fn digest(path: &std::path::Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

fn gone(server: &Server) {
    eventually("the probe's worker is gone", || server.workers().is_empty().then_some(()));
}

fn it_tells_which_server_answers(reaper: &[&str]) {
    let site = Site::new();
    let server = site.serve(reaper);
    let ran = server.hob(&["invoke", "hob-probe"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let answer: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer["digest"], digest(crate::common::HOB.as_ref()));
    assert_eq!(answer["server_pid"], server.pid());
    assert!(answer["uptime_s"].as_u64().unwrap() < 3600);
    let again = server.ok("hob-probe", "{}");
    assert_eq!(again["pid"], answer["pid"], "the same worker");
    server.stop();
    assert!(!exists(answer["pid"].as_i64().unwrap()));
}

fn it_is_there_only_while_it_is_used(reaper: &[&str]) {
    let site = Site::new();
    let server = site.serve(reaper);
    for _ in 0..2 {
        server.ok("hob-probe", "{}");
        assert_eq!(server.workers_of("hob-probe").len(), 1);
        assert_eq!(server.get("/hob/functions"), json!([]));
        let listed = server.connect().get("/2015-03-31/functions/");
        assert_eq!(listed.json()["Functions"], json!([]));
        gone(&server);
    }
    server.stop();
}

fn its_name_is_nobody_elses(reaper: &[&str]) {
    let site = Site::new();
    site.native("hob-probe", "", "");
    let server = site.serve(reaper);
    assert_eq!(server.ok("hob-probe", "{}")["server_pid"], server.pid());
    assert!(server.log().contains("the name is that of a built-in function"), "{}", server.log());
    for (method, path, body) in [
        ("DELETE", "/2015-03-31/functions/hob-probe", ""),
        ("GET", "/2015-03-31/functions/hob-probe", ""),
        ("PUT", "/2015-03-31/functions/hob-probe/configuration", "{\"Timeout\":3}"),
        ("PUT", "/2015-03-31/functions/hob-probe/code", "{\"ZipFile\":\"UEs=\"}"),
        ("POST", "/2015-03-31/functions", "{\"FunctionName\":\"hob-probe\"}"),
        ("POST", "/2015-03-31/functions/hob-probe/versions", "{}"),
        ("DELETE", "/hob/functions/hob-probe", ""),
    ] {
        let mut connection = server.connect();
        connection.request(method, path, &[], body.as_bytes());
        let reply = connection.reply();
        assert_eq!(reply.status, 409, "{method} {path}: {}", reply.text());
        let kind = reply.field("x-amzn-errortype");
        assert_eq!(kind, Some("ResourceConflictException"), "{method} {path}");
    }
    let pushed = server.hob(&["push", site.functions().join("hob-probe").to_str().unwrap()]);
    assert!(pushed.code != 0 && pushed.err.contains("built into the server"), "{}", pushed.err);
    let unknown = server.connect().invoke("hob-probe:1", b"{}");
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    server.stop();
}

fn it_waits_for_a_slot_like_others(reaper: &[&str]) {
    let site = Site::new();
    site.native("demo", "", "timeout_s = 900");
    let server = site.serve(&[reaper, &["--slots", "1", "--queue-wait", "50"]].concat());
    let mut running = server.connect();
    running.begin("demo", "{\"do\":\"sleep\",\"n\":2000}");
    eventually("it runs", || (server.get("/hob/server")["in_flight"] == 1).then_some(()));
    assert_eq!(server.invoke("hob-probe", "{}").status, 429);
    assert_eq!(running.reply().status, 200);
    assert_eq!(server.ok("hob-probe", "{}")["server_pid"], server.pid());
    server.stop();
    // Outside of a server it is nothing.
    let mut alone = Command::new(crate::common::HOB);
    let alone = alone.args(["helper", "probe"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut alone = alone.spawn().unwrap();
    let _ = alone.stdin.take().unwrap().write_all(b"x");
    assert!(!alone.wait().unwrap().success());
}
