//! What goes wrong after the upload: the board goes back by itself, and says why.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::binaries::{name_of, program, version};
use super::board::patiently;
use super::board::{Board, Make, Sshd};
use super::common::{Ran, executable};

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

#[test]
fn a_board_whose_mv_cannot_replace_a_link_to_a_directory() {
    let make = Make::new(Sshd::Dropbear, &["mv"]).shell("dash");
    let mv = "#!/bin/sh\ncase \" $* \" in *\" -T \"*) exit 1 ;; esac\nexec busybox mv \"$@\"\n";
    executable(&make.root().join("bin/mv"), mv);
    let board = make.start();
    let (one, two) = (version("one"), version("two"));
    assert_eq!(board.deploy(&one, &[]).code, 0);
    // The new program is not asked for help, which it might never give.
    let mute = program("mute", "pause(); return 0;");
    let ran = board.deploy(&mute, &["--probe-timeout", "3"]);
    is_back(&board, &ran, "no good answer in 3 s");
    assert_eq!(board.deploy(&two, &[]).code, 0);
    assert_eq!(board.current(), Some(name_of(&two)));
    assert!(board.serves());
    assert_eq!(
        board.sh("ls -A /usr/local/lib/hob/versions/*/").out.matches("versions/").count(),
        2
    );
    let versions = board.sh("find /usr/local/lib/hob/versions -type l").out;
    assert_eq!(versions, "", "nothing was moved into a version");
}

#[test]
fn one_deployment_at_a_time() {
    let board = with_one();
    let mute = program("mute", "pause(); return 0;");
    let arguments = ["--binary", mute.to_str().unwrap(), "--probe-timeout", "10"];
    let first = board.command(&arguments).stderr(Stdio::null()).stdout(Stdio::piped()).spawn();
    patiently("it is under way", || board.outcome().contains(" running ").then_some(()));
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("another deployment runs there"), "{}", ran.out);
    let output = first.unwrap().wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code().unwrap();
    is_back(&board, &Ran { code, out, err: String::new() }, "no good answer in 10 s");
    assert_eq!(board.deploy(&version("two"), &[]).code, 0);
}

#[test]
fn of_two_that_begin_in_the_same_instant_one_is_refused() {
    let board = with_one();
    let (two, three) = (version("two"), version("three"));
    // Uploaded already, so that both have only the last step before them.
    let waits = |binary: &Path| {
        let name = name_of(binary);
        fs::create_dir_all(board.lib().join("versions").join(&name)).unwrap();
        fs::copy(binary, board.lib().join("versions").join(&name).join("hob")).unwrap();
        let mut command = board.command(&["--binary", binary.to_str().unwrap()]);
        command.stderr(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let both = [waits(&two), waits(&three)].map(|deploy| deploy.wait_with_output().unwrap());
    let said: Vec<_> = both.iter().map(|one| String::from_utf8_lossy(&one.stdout)).collect();
    // Or one after the other, if they did not meet.
    let good = both.iter().filter(|one| one.status.success()).count();
    let refused = said.iter().filter(|out| out.contains("another deployment runs there")).count();
    assert!(good >= 1 && good + refused == 2, "{said:?}");
    assert!(board.serves());
}
