//! What goes wrong after the upload: the board goes back by itself, and says why.

use std::fs;

use super::binaries::{name_of, program, version};
use super::board::patiently;
use super::board::{Board, Make, Sshd};
use super::common::Ran;

fn with_one() -> Board {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let ran = board.deploy(&version("one"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    board
}

fn is_back(board: &Board, ran: &Ran, why: &str) {
    let one = name_of(&version("one"));
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains(&format!("rolled back to {one}: {why}")), "{}", ran.out);
    assert_eq!(board.current(), Some(one));
    assert!(board.serves());
    assert!(!board.lib().join("trial").exists() && !board.lib().join("lock").exists());
}

#[test]
fn a_version_that_crashes_at_its_start() {
    let board = with_one();
    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    is_back(&board, &ran, "it ended at its start: no luck");
}

#[test]
fn a_version_that_crashes_without_a_word() {
    let board = with_one();
    let ran = board.deploy(&program("silent", "return 7;"), &[]);
    is_back(&board, &ran, "it did not take over: successor ");
    assert!(ran.out.contains("it ended with status 7"), "{}", ran.out);
}

#[test]
fn a_version_that_starts_and_does_not_answer() {
    let board = with_one();
    let ran = board.deploy(&program("mute", "pause(); return 0;"), &["--probe-timeout", "3"]);
    is_back(&board, &ran, "no good answer in 3 s");
    let status = Ran::of(&mut board.command(&["--status"]));
    assert!(status.out.contains("serves; rolled-back rolled back to"), "{}", status.out);
}

#[test]
fn a_first_version_that_is_no_good_leaves_nothing_in_force() {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let ran = board.deploy(&program("quits", "return 1;"), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("nothing was installed before"), "{}", ran.out);
    assert_eq!(board.current(), None);
}

#[test]
fn power_that_is_lost_before_the_confirmation() {
    let board = with_one();
    let (one, two) = (name_of(&version("one")), version("two"));
    assert_eq!(board.deploy(&two, &[]).code, 0);
    // As a board finds it that went down in the middle.
    board.sh("/etc/init.d/S60hob stop");
    let trial = format!("{} {one} another-boot 77\n", name_of(&two));
    fs::write(board.lib().join("trial"), trial).unwrap();
    fs::write(board.lib().join("lock"), "1 another-boot\n").unwrap();
    board.sh("/etc/init.d/S60hob start </dev/null >/dev/null 2>&1");
    patiently("it serves", || board.serves().then_some(()));
    assert_eq!(board.current(), Some(one.clone()));
    let why = format!("rolled back to {one}: the board went down before {} ", name_of(&two));
    assert!(board.outcome().contains(&why), "{}", board.outcome());
    // And the next deployment finds nothing in its way.
    assert_eq!(board.deploy(&two, &[]).code, 0);
}
