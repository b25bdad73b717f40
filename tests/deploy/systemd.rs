//! The unit of systemd, under a systemd that has booted.

use std::fs;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::binaries::{name_of, program, version};
use super::board::{Board, patiently};
use super::common::http::Conn;
use super::common::{Ran, example, executable};
use super::machine::{booted, systemd};

/// Where a server listens that was told nothing else.
pub const SERVER: &str = "127.0.0.1:4620";

/// Function folders: each counts its worker's invocations, which tells warm from cold.
pub fn functions(directory: &Path) {
    let function = |name: &str, runtime: &str, handler: &str| {
        let folder = directory.join(name);
        fs::create_dir_all(&folder).unwrap();
        let toml = format!("runtime = \"{runtime}\"\nhandler = \"{handler}\"\ntimeout_s = 30\n");
        fs::write(folder.join("function.toml"), toml).unwrap();
        folder
    };
    let python = function("python", "python3.11", "app.handler");
    let script = "count = 0\ndef handler(event, context):\n    global count\n    count += 1\n    \
                  return {'count': count}\n";
    fs::write(python.join("app.py"), script).unwrap();
    let native = function("native", "native", "misbehave");
    let ran = Ran::of(
        Command::new("strip").arg(example("misbehave")).arg("-o").arg(native.join("misbehave")),
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    executable(
        &function("exec", "exec", "run.sh").join("run.sh"),
        "#!/bin/sh\necho '{\"count\": 1}'\n",
    );
}

/// Cold, and warm.
pub fn functions_run(board: &Board) {
    let mut expected = String::new();
    let mut command = String::new();
    for (name, counts) in [("python", [1, 2]), ("native", [1, 2]), ("exec", [1, 1])] {
        for count in counts {
            command += &format!("echo {name} $({} invoke {name} --payload {{}});", board.program());
            expected += &format!("{name} {count}\n");
        }
    }
    let ran = board.sh(&command);
    let counts = ran.out.lines().map(|line| {
        let (name, reply) = line.split_once(' ').unwrap();
        let reply: serde_json::Value = serde_json::from_str(reply).unwrap_or_default();
        format!("{name} {}\n", reply["count"])
    });
    assert_eq!(counts.collect::<String>(), expected, "{}{}", ran.out, ran.err);
}

/// Runs this where the board's loopback device is this thread's own.
pub fn within<T: Send + 'static>(
    board: &Board,
    run: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let network = fs::File::open(board.network()).unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run()
    })
}

/// Connects and invokes until told to end; how often. Each of them must be answered.
fn load(board: &Board, ended: &Arc<AtomicBool>) -> JoinHandle<u32> {
    let ended = Arc::clone(ended);
    within(board, move || {
        let mut count = 0;
        let mut kept = Conn::tcp(SERVER);
        while !ended.load(Ordering::SeqCst) {
            for reply in [kept.invoke("native", b"{}"), Conn::tcp(SERVER).invoke("native", b"{}")] {
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
            count += 2;
        }
        count
    })
}

/// What systemd says about the unit.
pub fn shows(board: &Board, property: &str) -> String {
    let whose = if board.user() == "root" { "--system" } else { "--user" };
    let show = board.sh(&format!("systemctl {whose} show --value -p {property} hob.service"));
    assert_eq!(show.code, 0, "{}", show.err);
    show.out.trim().to_owned()
}

/// Another process serves than this one; its id.
pub fn another_serves(board: &Board, before: &str) -> String {
    patiently("another server", || {
        let now = shows(board, "MainPID");
        (now != before && now != "0" && board.serves()).then_some(now)
    })
}

fn deployed() -> Board {
    let board = systemd("root");
    let ran = board.deploy(&version("one"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("with a systemd unit"), "{}", ran.err);
    assert!(!ran.err.contains("note"), "{}", ran.err);
    board
}

fn with_functions(board: &Board) {
    let directory = tempfile::tempdir().unwrap();
    functions(directory.path());
    let ran = board.deploy(&version("one"), &["--functions", directory.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

#[test]
fn a_unit_serves_and_comes_back() {
    let mut board = deployed();
    with_functions(&board);
    let properties = "Type,ActiveState,SubState,UnitFileState,Delegate,NRestarts";
    let shown = board.sh(&format!("systemctl show -p {properties} hob.service")).out;
    let mut shown: Vec<&str> = shown.lines().collect();
    shown.sort_unstable();
    let expected = [
        "ActiveState=active",
        "Delegate=yes",
        "NRestarts=0",
        "SubState=running",
        "Type=notify",
        "UnitFileState=enabled",
    ];
    assert_eq!(shown, expected);
    functions_run(&board);
    let doctor = board.hob("doctor").out;
    assert!(doctor.contains("by a control group for each worker"), "{doctor}");
    let first = shows(&board, "MainPID");
    board.sh(&format!("kill -9 {first}"));
    let second = another_serves(&board, &first);
    assert_eq!(shows(&board, "NRestarts"), "1");
    functions_run(&board);

    assert_eq!(board.sh("systemctl reload hob").code, 0);
    assert!(board.serves());
    assert_eq!(shows(&board, "MainPID"), second, "reading settings again is no restart");

    board.sh("systemctl poweroff");
    patiently("it is off", || board.has_ended().then_some(()));
    board.start_again();
    booted(&mut board);
    patiently("it serves", || board.serves().then_some(()));
    assert_eq!(board.current(), Some(name_of(&version("one"))));
    functions_run(&board);
}

#[test]
fn the_watchdog_is_fed_and_bites_who_hangs() {
    let board = deployed();
    let unit = "/etc/systemd/system/hob.service.d";
    let watchdog = format!("mkdir {unit} && printf '[Service]\\nWatchdogSec=2\\n' >{unit}/w.conf");
    let ran = board.sh(&format!("{watchdog} && systemctl daemon-reload && systemctl restart hob"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(shows(&board, "WatchdogUSec"), "2s");
    is_fed(&board);
    let first = shows(&board, "MainPID");
    // What takes its place inherits the dog.
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let second = another_serves(&board, &first);
    is_fed(&board);
    assert_eq!(shows(&board, "NRestarts"), "0");

    board.sh(&format!("kill -STOP {second}"));
    another_serves(&board, &second);
    assert_eq!(shows(&board, "NRestarts"), "1");
    let log = board.sh("journalctl -u hob --no-pager").out;
    assert!(log.contains("Watchdog timeout"), "{log}");
}

fn is_fed(board: &Board) {
    let first = shows(board, "WatchdogTimestampMonotonic");
    let mut seen = vec![first];
    patiently("the watchdog is fed", || {
        let now = shows(board, "WatchdogTimestampMonotonic");
        if !seen.contains(&now) {
            seen.push(now);
        }
        (seen.len() > 2).then_some(())
    });
}

#[test]
fn an_upgrade_refuses_nobody_and_a_stop_drains() {
    let board = systemd("root");
    functions(&board.root().join("etc/hob/functions"));
    assert_eq!(board.deploy(&version("one"), &[]).code, 0);
    let (one, two) = (name_of(&version("one")), name_of(&version("two")));
    let first = shows(&board, "MainPID");
    let ended = Arc::new(AtomicBool::new(false));
    let clients = [load(&board, &ended), load(&board, &ended)];
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(board.current(), Some(two.clone()));
    let second = another_serves(&board, &first);
    let back = Ran::of(&mut board.command(&["--rollback"]));
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    let third = another_serves(&board, &second);
    ended.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().unwrap() > 10);
    }
    assert_eq!(board.current(), Some(one));
    assert_eq!(shows(&board, "NRestarts"), "0");
    // Not started by systemd, and looked after all the same.
    stops_in_peace(&board);
    assert_eq!(board.sh("systemctl start hob").code, 0);
    let fourth = another_serves(&board, &third);
    board.sh(&format!("kill -USR2 {fourth}"));
    let fifth = another_serves(&board, &fourth);
    board.sh(&format!("kill -9 {fifth}"));
    another_serves(&board, &fifth);
    assert_eq!(shows(&board, "NRestarts"), "1");
}

/// What runs is finished before.
fn stops_in_peace(board: &Board) {
    let slow = within(board, || {
        let mut client = Conn::tcp(SERVER);
        client.begin("native", r#"{"do": "sleep", "n": 2000}"#);
        client.reply()
    });
    patiently("it runs", || board.hob("ps").out.contains("busy").then_some(()));
    assert_eq!(board.sh("systemctl stop hob").code, 0);
    let reply = slow.join().unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(shows(board, "ActiveState"), "inactive");
    assert_eq!(shows(board, "Result"), "success");
    let refused = within(board, || TcpStream::connect(SERVER).is_err());
    assert!(refused.join().unwrap());
}

/// It is as it was before, and the deployer was told why.
pub fn is_back(board: &Board, ran: &Ran, before: &str, why: &str) {
    let one = name_of(&version("one"));
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(&format!("rolled back to {one}: {why}")), "{}", ran.out);
    assert_eq!(board.current(), Some(one));
    assert!(board.serves());
    assert_eq!(shows(board, "MainPID"), before, "the old server never stopped");
    assert_eq!(shows(board, "ActiveState"), "active");
}

#[test]
fn versions_that_are_no_good_are_rolled_back() {
    let board = deployed();
    let first = shows(&board, "MainPID");
    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    is_back(&board, &ran, &first, "it ended at its start: no luck");
    let ran = board.deploy(&program("silent", "return 7;"), &[]);
    is_back(&board, &ran, &first, "it did not take over: successor ");
    assert!(ran.out.contains("it ended with status 7"), "{}", ran.out);
    let mute = program("mute", "pause(); return 0;");
    let ran = board.deploy(&mute, &["--probe-timeout", "3"]);
    is_back(&board, &ran, &first, "no good answer in 3 s");
    // And a good one finds nothing in its way.
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    another_serves(&board, &first);
}

#[test]
fn what_is_left_of_a_first_version_that_is_no_good_and_of_a_loss_of_power() {
    let mut board = systemd("root");
    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let why = "it ended at its start: no luck; nothing was installed before";
    assert!(ran.out.contains(why), "{}", ran.out);
    assert_eq!(board.current(), None);
    let state = || matches!(&*shows(&board, "ActiveState"), "inactive" | "failed").then_some(());
    patiently("nothing is tried any more", state);
    assert_eq!(board.sh("systemctl start hob").code, 0, "there is nothing to start");
    assert_eq!(shows(&board, "ActiveState"), "inactive");

    let (one, two) = (version("one"), version("two"));
    let ran = board.deploy(&one, &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    // The deployer goes away before it confirms, and then so does the power.
    let mut deploy = board.command(&["--binary", two.to_str().unwrap()]);
    let mut deploy = deploy.stderr(Stdio::null()).spawn().unwrap();
    patiently("it is under way", || board.outcome().contains(" running ").then_some(()));
    deploy.kill().unwrap();
    deploy.wait().unwrap();
    board.start_again();
    booted(&mut board);
    patiently("it serves", || board.serves().then_some(()));
    assert_eq!(board.current(), Some(name_of(&one)));
    assert!(board.outcome().contains("the board went down before"), "{}", board.outcome());
}
