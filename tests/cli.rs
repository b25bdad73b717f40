//! The command line, and bad input of every kind: one clear line, the right exit code.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{HOB, Ran, Site, serve_command};

fn hob(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(HOB).args(arguments).env_remove("HOB_SOCKET").env_remove("HOB_URL"))
}

/// Starts a server that must not start; its exit code and its last words.
fn refused(site: &Site, arguments: &[&str]) -> (i32, String) {
    let ran = Ran::of(&mut serve_command(site.path(), arguments));
    let last = ran.err.lines().last().unwrap_or_default().to_owned();
    (ran.code, last)
}

#[test]
fn help_fits_a_terminal_and_topics_go_deeper() {
    for arguments in [&["--help"][..], &["help"], &[]] {
        let ran = hob(arguments);
        assert_eq!(ran.code, 0);
        assert!(ran.out.lines().count() <= 28, "{} lines", ran.out.lines().count());
        assert!(ran.out.lines().all(|line| line.len() <= 80), "{}", ran.out);
    }
    for topic in ["serve", "function", "exec", "native", "deploy"] {
        assert_ne!(hob(&["help", topic]).out, hob(&["help"]).out);
    }
    assert!(hob(&["--version"]).out.starts_with("hob "));
}

#[test]
fn wrong_use_is_2_and_an_absent_server_is_3() {
    for (arguments, code, complaint) in [
        (&["frobnicate"][..], 2, "hob: frobnicate: no such verb, see hob --help"),
        (&["invoke"], 2, "hob: invoke takes the name of one function, see hob --help"),
        (&["ls", "--frob"], 2, "hob: invalid option '--frob', see hob --help"),
        (&["serve", "--slots", "many"], 2, "hob: --slots: \"many\" is not valid, allowed: 1..256"),
        (&["ls", "--url", "https://x"], 2, "hob: https://x: allowed: http://HOST:PORT"),
        (
            &["ls", "--socket", "/nonexistent/s"],
            3,
            "hob: reach the server at /nonexistent/s: No such file or directory (os error 2) \
             (is `hob serve` running?)",
        ),
        (
            &["invoke", "x", "--payload", "@/nonexistent"],
            2,
            "hob: read payload /nonexistent: No such file or directory (os error 2)",
        ),
        (
            &["push", "/nonexistent"],
            1,
            "hob: push /nonexistent: No such file or directory (os error 2)",
        ),
    ] {
        let ran = hob(arguments);
        assert_eq!((ran.code, ran.err.trim_end()), (code, complaint), "{arguments:?}");
        assert_eq!(ran.out, "");
    }
}

#[test]
fn a_server_that_cannot_start_says_why_in_one_line() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, last) = refused(&site, &["--listen", &address]);
    assert_eq!(
        (code, last),
        (1, format!("hob: listen on {address}: Address already in use (os error 98)"))
    );
    let (code, last) = refused(&site, &["--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(last.starts_with("hob: listen on 0.0.0.0:0: not a loopback address"), "{last}");
    let (code, last) = refused(&site, &["--data", "/proc/nothing"]);
    assert_eq!(code, 1);
    assert!(last.starts_with("hob: open data directory /proc/nothing: "), "{last}");
    let config = site.path().join("hob.toml");
    fs::write(&config, "slots = 1\nlisten = 4620\n").unwrap();
    let (code, last) = refused(&site, &["--config", config.to_str().unwrap()]);
    assert_eq!(code, 2);
    let place = config.display();
    assert_eq!(last, format!("hob: {place}:2: listen: is a whole number, allowed: HOST:PORT"));
}

#[test]
fn the_demo_s_server_ends_with_the_demo() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = Command::new(HOB)
        .args(["demo", "--keep"])
        .env("TMPDIR", place.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = i32::try_from(demo.id()).unwrap();
    let server = common::eventually("its server is there", || {
        common::children(pid).first().map(|(server, _)| i64::from(*server))
    });
    let scene = fs::read_dir(place.path()).unwrap().next().unwrap().unwrap();
    let mode = scene.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else puts code there");
    let demo_pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(demo_pid, rustix::process::Signal::HUP).unwrap();
    common::eventually("the demo ends", || demo.try_wait().unwrap());
    assert!(!common::exists(server), "and its server before it");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "and nothing is left");
}

#[test]
fn a_file_in_the_socket_s_place_is_left_alone() {
    let site = Site::new();
    let file = site.path().join("precious");
    fs::write(&file, "precious").unwrap();
    let ran = Ran::of(&mut serve_command(site.path(), &["--socket", file.to_str().unwrap()]));
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("there is a file that is no socket"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_makeshift_directory_for_the_socket_is_the_user_s_alone() {
    let site = Site::new();
    let own = rustix::process::geteuid().as_raw();
    let directory = site.path().join(format!("hob-{own}"));
    let socket = directory.join("hob.sock");
    let socket = socket.to_str().unwrap();
    let ls =
        || Ran::of(Command::new(HOB).args(["ls", "--socket", socket]).env("TMPDIR", site.path()));
    let refused = |what: &str| {
        let mut server = serve_command(site.path(), &["--socket", socket]);
        let server = Ran::of(server.env("TMPDIR", site.path()));
        assert_eq!(server.code, 1, "{}", server.err);
        for (ran, doing) in [(server, "listen on socket"), (ls(), "reach the server at")] {
            let last = ran.err.lines().last().unwrap().to_owned();
            assert!(last.starts_with(&format!("hob: {doing} {socket}: {what}")), "{last}");
        }
    };
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    refused("its directory is open to others (allowed: mode 0700)");
    fs::remove_dir(&directory).unwrap();
    std::os::unix::fs::symlink(site.functions(), &directory).unwrap();
    refused("its directory is somebody else's");
    fs::remove_file(&directory).unwrap();
    if own == 0 {
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&directory, Some(1), None).unwrap();
        refused("its directory is somebody else's");
        fs::remove_dir(&directory).unwrap();
    }
    let mut server = serve_command(site.path(), &["--socket", socket]);
    let server = server.env("TMPDIR", site.path()).stderr(std::process::Stdio::null()).spawn();
    let _server = Ended(server.unwrap());
    common::eventually("it serves", || (ls().code == 0).then_some(()));
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A process that ends with its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn paths_in_the_configuration_may_be_relative() {
    let site = Site::new();
    site.script("demo", "exec", "#!/bin/sh\ncat\n", "");
    let text = "listen = \"127.0.0.1:0\"\nfunctions = \"functions\"\nsocket = \"s\"\n";
    fs::write(site.path().join("hob.toml"), text).unwrap();
    let server = Command::new(HOB)
        .args(["serve", "--config", "hob.toml"])
        .current_dir(site.path())
        .env("HOB_DATA", "data")
        .stderr(std::process::Stdio::null())
        .spawn();
    let _server = Ended(server.unwrap());
    let socket = site.path().join("s");
    common::eventually("it serves", || {
        let mut invoke = Command::new(HOB);
        let ran = Ran::of(invoke.args(["invoke", "demo"]).env("HOB_SOCKET", &socket));
        (ran.code == 0).then_some(())
    });
    assert!(site.path().join("data/functions").is_dir());
}

#[test]
fn a_low_limit_of_open_files_is_enough_for_a_small_table() {
    let site = Site::new();
    site.native("demo", "", "");
    let limited = "ulimit -n 500; exec setpriv --bounding-set=-sys_resource \
                   --inh-caps=-sys_resource \"$@\"";
    let log = fs::File::create(site.path().join("log")).unwrap();
    let server = serve_command(site.path(), &["--slots", "4"]);
    let program = server.get_program().to_owned();
    let arguments: Vec<_> = server.get_args().map(ToOwned::to_owned).collect();
    let child = Command::new("sh")
        .args(["-c", limited, "sh"])
        .arg(program)
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .stderr(log)
        .spawn();
    let _server = Ended(child.unwrap());
    let ran = common::eventually("it serves", || {
        let ran = Ran::of(
            Command::new(HOB)
                .args(["invoke", "demo"])
                .env("HOB_SOCKET", site.path().join("hob.sock")),
        );
        (ran.code == 0).then_some(ran)
    });
    assert!(ran.out.contains("\"count\":1"), "{}", ran.out);
}

#[test]
fn one_server_for_one_data_directory_and_one_socket() {
    let site = Site::new();
    site.script("demo", "exec", "#!/bin/sh\ncat\n", "");
    let server = site.serve(&[]);
    let data = site.path().join("data");
    let (code, last) = refused(&site, &["--socket", "/nonexistent"]);
    let expected = format!("hob: open data directory {}: another server uses it", data.display());
    assert_eq!((code, last), (1, expected));
    let other = site.path().join("other");
    let (code, last) = refused(&site, &["--data", other.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(last.ends_with("another server listens on it"), "{last}");
    server.ok("demo", "{}");
    server.stop();
}

#[test]
fn handlers_that_cannot_run_are_refused_with_the_reason() {
    let site = Site::new();
    let function = |name: &str, content: Option<&[u8]>, mode: u32| {
        let folder = site.function(name, "runtime = \"exec\"\nhandler = \"run\"\n");
        if let Some(content) = content {
            fs::write(folder.join("run"), content).unwrap();
            fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let mut foreign = [0u8; 64];
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[18] = 21;
    function("missing", None, 0);
    function("locked", Some(b"#!/bin/sh\n"), 0o644);
    function("foreign", Some(&foreign), 0o755);
    function("plain", Some(b"echo hi\n"), 0o755);
    function("snake", Some(b"#!/usr/bin/snake\n"), 0o755);
    site.function("no-bootstrap", "runtime = \"provided.al2023\"\n");
    let server = site.serve(&[]);
    for (name, reason) in [
        ("missing", "handler run is missing: no such file in the function's folder"),
        ("locked", "handler run is not executable: chmod +x run"),
        ("foreign", "handler run is built for PowerPC64 (64-bit), this is"),
        ("plain", "handler run is neither a program nor a script that starts with #!"),
        ("snake", "handler run needs /usr/bin/snake, which is not here"),
        ("no-bootstrap", "handler bootstrap is missing"),
    ] {
        let place = site.functions().join(name).join("function.toml");
        let line = format!("function {name}: {}: {reason}", place.display());
        assert!(server.log().contains(&line), "{name}: {}", server.log());
        let reply = server.invoke(name, "{}");
        assert_eq!(reply.status, 404, "{name}");
        assert!(reply.text().contains(reason.split(" (").next().unwrap()), "{}", reply.text());
        let shown = server.hob(&["show", name, "--json"]);
        assert!(shown.out.contains("\"refused\""), "{}", shown.out);
    }
    server.stop();
}

#[test]
fn invoke_tells_errors_apart_by_its_exit_code() {
    let site = Site::new();
    site.script("cat", "exec", "#!/bin/sh\ncat\n", "");
    site.script("bad", "exec", "#!/bin/sh\necho why >&2\nexit 1\n", "");
    site.script("off", "exec", "#!/bin/sh\n", "reserved_concurrency = 0");
    let server = site.serve(&[]);
    let file = site.path().join("event");
    fs::write(&file, "[1]").unwrap();
    let from_file = format!("@{}", file.display());
    for (arguments, code, out) in [
        (&["cat", "--payload", "{\"a\":1}"][..], 0, "{\"a\":1}\n"),
        (&["cat", "--payload", &from_file], 0, "[1]\n"),
        (&["cat", "--payload", "-"], 0, "{}\n"),
        (&["cat"], 0, "{}\n"),
        (&["cat", "--qualifier", "$LATEST"], 0, "{}\n"),
        (&["cat", "--qualifier", "7"], 3, ""),
        (
            &["bad"],
            1,
            "{\"errorMessage\":\"why\",\"errorType\":\"Runtime.ExitError\",\"exitStatus\":1}\n",
        ),
        (&["nobody"], 3, ""),
        (&["off"], 3, ""),
        (&["cat", "--payload", "no json"], 3, ""),
        (&["cat", "--async"], 3, ""),
    ] {
        let ran = server.hob(&[&["invoke"], arguments].concat());
        assert_eq!((ran.code, ran.out.as_str()), (code, out), "{arguments:?}: {}", ran.err);
        assert_eq!(ran.err.is_empty(), code == 0, "{arguments:?}: {}", ran.err);
    }
    let tail = server.hob(&["invoke", "bad", "--tail"]);
    assert!(tail.err.starts_with("START RequestId: "), "{}", tail.err);
    assert!(tail.err.contains("\nwhy\n"), "{}", tail.err);
    server.stop();
}

#[test]
fn tables_for_people_and_json_for_programs() {
    let site = Site::new();
    site.native("demo", "", "");
    site.function("bad", "runtime = \"exec\"\n");
    let server = site.serve(&[]);
    server.ok("demo", "{}");
    let ls = server.hob(&["ls"]).out;
    let lines: Vec<Vec<&str>> = ls.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "RUNTIME", "STATE", "VERSION", "WORKERS"]);
    assert_eq!(lines[1], ["bad", "-", "refused", "$LATEST", "0"]);
    assert_eq!(lines[2], ["demo", "native", "active", "$LATEST", "1"]);
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&server.hob(arguments).out).unwrap()
    };
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        keys(&json(&["ls", "--json"])[1]),
        ["name", "runtime", "state", "version", "workers"]
    );
    let ps = json(&["ps", "--json"]);
    let expected = [
        "function",
        "idle_s",
        "invocations",
        "pid",
        "pss_kib",
        "slot",
        "state",
        "uptime_s",
        "version",
    ];
    assert_eq!(keys(&ps[0]), expected);
    assert_eq!((&ps[0]["slot"], &ps[0]["invocations"]), (&0.into(), &1.into()));
    assert!(ps[0]["pss_kib"].as_u64().unwrap() > 100);
    assert!(server.hob(&["ps"]).out.starts_with("SLOT  FUNCTION  VERSION  STATE"));
    assert_eq!(json(&["show", "demo", "--json"])["timeout_s"], 3);
    let url = format!("http://{}", server.address);
    let over_tcp = hob(&["ls", "--url", &url]);
    assert_eq!(over_tcp.out, ls);
    // A reader that has seen enough is no error.
    let pipe = format!("{HOB} ls --url {url} | head -n 1");
    let ran = Ran::of(Command::new("sh").args(["-c", &pipe]));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    server.stop();
}

#[test]
fn a_token_keeps_strangers_out() {
    let site = Site::new();
    site.script("demo", "exec", "#!/bin/sh\ncat\n", "[url]\nauth = \"none\"");
    site.script("closed", "exec", "#!/bin/sh\ncat\n", "");
    let config = site.path().join("hob.toml");
    fs::write(&config, "[auth]\ntoken = \"secret\"\n").unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    let path = common::http::invocations("demo");
    let status = |fields: &[(&str, &str)]| {
        let reply = server.connect().post(&path, fields, b"{}");
        (reply.status, reply.field("x-amzn-errortype").map(str::to_owned))
    };
    let missing = Some("MissingAuthenticationTokenException".to_owned());
    let unknown = Some("UnrecognizedClientException".to_owned());
    assert_eq!(status(&[]), (403, missing));
    assert_eq!(status(&[("Authorization", "Bearer wrong")]), (403, unknown));
    let incomplete = Some("IncompleteSignatureException".to_owned());
    assert_eq!(status(&[("Authorization", "AWS4-HMAC-SHA256 Credential=x")]), (400, incomplete));
    assert_eq!(status(&[("Authorization", "Bearer secret")]), (200, None));
    assert_eq!(server.connect().get("/healthz").status, 200);
    assert_eq!(server.connect().get("/hob/workers").status, 403);
    assert_eq!(server.connect().post("/fn/demo/", &[], b"{}").status, 200, "its URL is open");
    assert_eq!(server.connect().post("/fn/closed/", &[], b"{}").status, 403, "this one is not");
    assert_eq!(server.get("/hob/workers"), serde_json::json!([]), "the socket has its file mode");
    let mode = fs::metadata(server.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let url = format!("http://{}", server.address);
    let mut ls = Command::new(HOB);
    assert_eq!(Ran::of(ls.args(["ls", "--url", &url])).code, 3);
    assert_eq!(Ran::of(ls.env("HOB_TOKEN", "secret")).code, 0);
    server.stop();
}

#[test]
fn keys_of_later_builds_are_named_in_one_warning() {
    let site = Site::new();
    let more = "memory_mb = 64\n[async]\nretries = 0\n[[trigger]]\nfiles = \"/tmp\"";
    site.script("demo", "exec", "#!/bin/sh\ncat\n", more);
    let config = site.path().join("hob.toml");
    fs::write(&config, "[mqtt]\nbroker = \"mqtt://h:1883\"\n").unwrap();
    let server = site.serve(&["--config", config.to_str().unwrap()]);
    server.ok("demo", "{}");
    let log = server.log();
    let line = "function demo: not yet in force in this build: memory_mb, async, trigger";
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(log.contains("hob.toml: not yet in force in this build: mqtt"), "{log}");
    server.stop();
}

#[test]
fn the_demo_shows_the_tour_and_the_doctor_looks_around() {
    let ran = hob(&["demo"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    for stop in [
        "cold start, native",
        "2 ran, 3 got 429",
        "Runtime.ExitError",
        "Sandbox.Timedout",
        "exit 0",
    ] {
        assert!(ran.out.contains(stop), "{}", ran.out);
    }
    let data = tempfile::tempdir().unwrap();
    let doctor =
        |data: &str| Ran::of(Command::new(HOB).args(["doctor", "--json"]).env("HOB_DATA", data));
    let good = doctor(data.path().to_str().unwrap());
    assert_eq!(good.code, 0, "{}", good.err);
    let json: serde_json::Value = serde_json::from_str(&good.out).unwrap();
    assert_eq!(json["runs"], true);
    let findings = json["findings"].as_array().unwrap();
    assert!(findings.len() > 10);
    let paths = findings.iter().find(|finding| finding["what"] == "paths as on AWS").unwrap();
    let says = |what: &str| paths["detail"].as_str().unwrap().ends_with(what);
    match paths["there"].as_bool().unwrap() {
        true => assert!(says("by a mount namespace") && paths["cure"] == "", "{paths}"),
        false => assert!(says("; layers work by variables") && paths["cure"] != "", "{paths}"),
    }
    assert_eq!(doctor("/proc/1/nothing").code, 1, "where it cannot run, it says so");
}
