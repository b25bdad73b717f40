//! The service of OpenRC, on a board as Alpine makes them: BusyBox, its init, and OpenRC.

use std::path::Path;

use super::binaries::{name_of, program, version};
use super::board::{Board, Make, Sshd, patiently};
use super::common::Ran;

fn started() -> Board {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openrc");
    assert!(packages.exists(), "run tests/deploy/get-openrc: tests/run does");
    let board = Make::new(Sshd::Dropbear, &[]).openrc(&packages).start();
    patiently("the default runlevel", || {
        let level = board.sh("rc-status --runlevel");
        (level.out.trim() == "default").then_some(())
    });
    board
}

/// What the server says about itself: its process.
fn server(board: &Board) -> Option<String> {
    let ran = board.hob("invoke hob-probe");
    let reply: serde_json::Value = serde_json::from_str(&ran.out).ok()?;
    Some(reply["server_pid"].to_string())
}

fn another_serves(board: &Board, before: &str) -> String {
    patiently("another server", || server(board).filter(|now| now != before))
}

fn is_started(board: &Board) {
    let status = board.sh("rc-service hob status");
    assert_eq!(status.code, 0, "{}{}", status.out, status.err);
    assert!(status.out.contains("started"), "{}", status.out);
}

fn servers(board: &Board) -> usize {
    board.sh("ps -o args").out.lines().filter(|line| line.contains("hob serve")).count()
}

#[test]
fn a_service_of_openrc_serves_and_comes_back() {
    let mut board = started();
    let (one, two) = (version("one"), version("two"));
    let ran = board.deploy(&one, &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("with an OpenRC service"), "{}", ran.err);
    assert!(!ran.err.contains("note"), "{}", ran.err);
    is_started(&board);
    assert!(board.sh("rc-update show default").out.contains("hob"));
    let first = server(&board).unwrap();

    let ran = board.deploy(&two, &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let second = another_serves(&board, &first);
    patiently("the first server has gone", || {
        (board.sh(&format!("kill -0 {first}")).code != 0).then_some(())
    });
    // Nothing is started beside the one that took over, and it is looked after.
    is_started(&board);
    assert_eq!(servers(&board), 1, "{}", board.sh("ps").out);
    board.sh(&format!("kill -9 {second}"));
    let third = another_serves(&board, &second);
    assert_eq!(servers(&board), 1, "{}", board.sh("ps").out);

    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let why = format!("rolled back to {}: it ended at its start: no luck", name_of(&two));
    assert!(ran.out.contains(&why), "{}", ran.out);
    let back = Ran::of(&mut board.command(&["--rollback"]));
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    assert_eq!(board.current(), Some(name_of(&one)));
    let fourth = another_serves(&board, &third);

    assert_eq!(board.sh("rc-service hob restart").code, 0);
    let fifth = another_serves(&board, &fourth);
    is_started(&board);
    assert_eq!(board.sh("rc-service hob reload").code, 0);
    assert_eq!(server(&board), Some(fifth));
    assert_eq!(board.sh("rc-service hob stop").code, 0);
    patiently("it has stopped", || (servers(&board) == 0).then_some(()));
    assert!(board.sh("rc-service hob status").code != 0);

    board.start_again();
    patiently("it serves", || board.serves().then_some(()));
    is_started(&board);
}

#[test]
fn a_first_version_that_is_no_good_is_told_by_openrc_too() {
    let board = started();
    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let why = "it ended at its start: no luck; nothing was installed before";
    assert!(ran.out.contains(why), "{}", ran.out);
    assert_eq!(board.current(), None);
    let ran = board.deploy(&version("one"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    is_started(&board);
}
