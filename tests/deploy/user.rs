//! Boards that let nobody in as root: a unit of the user's own systemd, or a plain start.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use super::binaries::{name_of, program, version};
use super::board::{Board, patiently};
use super::common::Ran;
use super::machine::{USER, booted, systemd_with};
use super::systemd::{SERVER, another_serves, functions, functions_run, is_back, shows, within};

fn deploy_functions(board: &Board) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    functions(directory.path());
    let ran = board.deploy(&version("one"), &["--functions", directory.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    functions_run(board);
    ran
}

/// How logind treats what users leave behind.
fn logind(root: &Path, settings: &str) {
    fs::write(root.join("etc/systemd/logind.conf"), format!("[Login]\n{settings}\n")).unwrap();
}

/// Users cannot make themselves linger.
fn forbid_lingering(root: &Path) {
    let policy = format!(
        "<busconfig><policy user=\"{USER}\"><deny send_member=\"SetUserLinger\" \
         send_interface=\"org.freedesktop.login1.Manager\"/></policy></busconfig>"
    );
    fs::create_dir_all(root.join("etc/dbus-1/system.d")).unwrap();
    fs::write(root.join("etc/dbus-1/system.d/linger.conf"), policy).unwrap();
}

/// True if somebody listens, without a login that would start something.
fn listens(board: &Board) -> bool {
    within(board, || TcpStream::connect(SERVER).is_ok()).join().unwrap()
}

/// Waits until the user has logged out.
fn logged_out(board: &Board) {
    let list = "loginctl --no-legend list-sessions";
    patiently("the user has gone", || {
        (!board.sh_as("root", list).out.contains(USER)).then_some(())
    });
}

#[test]
fn a_unit_of_the_user_outlives_sessions_and_reboots() {
    let mut board = systemd_with(USER, |root| {
        logind(root, "KillUserProcesses=yes\nUserStopDelaySec=1");
        // As root has allowed it. Without polkit nobody may by himself.
        forbid_lingering(root);
        fs::create_dir_all(root.join("var/lib/systemd/linger")).unwrap();
        fs::write(root.join("var/lib/systemd/linger").join(USER), "").unwrap();
    });
    let ran = deploy_functions(&board);
    assert!(ran.err.contains("with a systemd unit of this user"), "{}", ran.err);
    assert!(!ran.err.contains("note"), "{}", ran.err);
    assert_eq!(shows(&board, "UnitFileState"), "enabled");
    let first = shows(&board, "MainPID");
    logged_out(&board);
    board.sh(&format!("kill -9 {first}"));
    let second = another_serves(&board, &first);

    // Nobody but root reads the journal here: it is the old server that knows how the new one ended.
    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    is_back(&board, &ran, &second, "it did not take over: successor ");
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let third = another_serves(&board, &second);
    let back = Ran::of(&mut board.command(&["--rollback"]));
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    another_serves(&board, &third);
    functions_run(&board);

    // The board goes on alone, whatever becomes of the session.
    let two = version("two");
    let arguments = ["--confirm-timeout", "2", "--binary", two.to_str().unwrap()];
    let mut deploy = board.command(&arguments);
    let mut deploy = deploy.stderr(Stdio::null()).spawn().unwrap();
    patiently("it is under way", || board.outcome().contains(" running ").then_some(()));
    deploy.kill().unwrap();
    deploy.wait().unwrap();
    let why = "the deployer did not confirm it in 2 s";
    patiently("it is back", || board.outcome().contains(why).then_some(()));
    assert_eq!(board.current(), Some(name_of(&version("one"))));

    board.sh_as("root", "systemctl poweroff");
    patiently("it is off", || board.has_ended().then_some(()));
    board.start_again();
    booted(&mut board);
    patiently("it serves without a login", || listens(&board).then_some(()));
    functions_run(&board);
}

#[test]
fn without_lingering_it_serves_while_somebody_is_logged_in() {
    let board = systemd_with(USER, |root| {
        logind(root, "UserStopDelaySec=1");
        forbid_lingering(root);
    });
    let ran = board.deploy(&version("one"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(
        ran.err.contains("without lingering the server ends when you log out: root may"),
        "{}",
        ran.err
    );
    patiently("it has ended", || (!listens(&board)).then_some(()));
    // A login starts it again, whatever else it is for.
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(board.current(), Some(name_of(&version("two"))));
    patiently("it serves", || board.serves().then_some(()));
}

#[test]
fn without_a_systemd_of_the_user_it_is_started_plainly() {
    let board = systemd_with(USER, |root| {
        symlink("/dev/null", root.join("etc/systemd/system/user@.service")).unwrap();
    });
    let ran = board.deploy(&version("one"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("with a plain start"), "{}", ran.err);
    assert!(ran.err.contains("the server does not survive a reboot"), "{}", ran.err);
    assert!(!ran.err.contains("logind"), "{}", ran.err);
    assert!(listens(&board));
    let ran = board.deploy(&program("crash", "write(2, \"no luck\\n\", 8); return 1;"), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("it ended at its start: no luck"), "{}", ran.out);
    let ran = board.deploy(&version("two"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let back = Ran::of(&mut board.command(&["--rollback"]));
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    assert!(board.serves());
}

#[test]
fn where_nothing_outlives_a_session_it_is_said() {
    let board = systemd_with(USER, |root| {
        logind(root, "KillUserProcesses=yes");
        symlink("/dev/null", root.join("etc/systemd/system/user@.service")).unwrap();
    });
    let ran = board.deploy(&version("one"), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("the server ends when you log out: logind is told"), "{}", ran.err);
    patiently("it has ended", || (!listens(&board)).then_some(()));
}
