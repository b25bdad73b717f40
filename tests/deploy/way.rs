//! The way that all goes well, and what is refused before anything is done.

use std::fs;

use super::binaries::{name_of, scratch, version};
use super::board::{Board, Make, Sshd};
use super::common::Ran;

/// VERSION and BEFORE of the table's only host; it serves since some time.
fn columns(ran: &Ran) -> [String; 2] {
    let line: Vec<&str> = ran.out.lines().nth(1).unwrap().split_whitespace().collect();
    assert!(line[4].ends_with('Z') && line[4].contains('T'), "{}", ran.out);
    [line[2].to_owned(), line[3].to_owned()]
}

fn whole_way(board: &Board) {
    let (one, two) = (version("one"), version("two"));
    let dry = board.deploy(&one, &["--dry-run"]);
    assert_eq!(dry.code, 0, "{}{}", dry.out, dry.err);
    assert!(dry.err.contains(&format!("upload {}", name_of(&one))), "{}", dry.err);
    assert!(!board.lib().exists(), "a dry run does nothing");

    let first = board.deploy(&one, &[]);
    assert_eq!(first.code, 0, "{}{}", first.out, first.err);
    assert!(first.out.contains("serves"), "{}", first.out);
    assert_eq!(columns(&first), [name_of(&one), "-".to_owned()]);
    assert_eq!(board.current(), Some(name_of(&one)));
    assert!(board.serves());

    let again = board.deploy(&one, &[]);
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    assert!(again.err.contains("nothing: "), "{}", again.err);

    let second = board.deploy(&two, &[]);
    assert_eq!(second.code, 0, "{}{}", second.out, second.err);
    assert_eq!(columns(&second), [name_of(&two), name_of(&one)]);
    assert_eq!(board.current(), Some(name_of(&two)));
    assert!(board.serves());

    let status = Ran::of(&mut board.command(&["--status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status[0]["version"], name_of(&two), "{status}");
    assert_eq!(status[0]["previous"], name_of(&one), "{status}");
    assert_eq!(status[0]["running"], true, "{status}");

    let back = Ran::of(&mut board.command(&["--rollback"]));
    assert_eq!(back.code, 0, "{}{}", back.out, back.err);
    assert_eq!(board.current(), Some(name_of(&one)));
    assert!(board.serves());
}

#[test]
fn dropbear_and_busybox() {
    whole_way(&Make::new(Sshd::Dropbear, &[]).start());
}

#[test]
fn openssh_and_dash() {
    whole_way(&Make::new(Sshd::OpenSsh, &[]).shell("dash").start());
}

#[test]
fn a_board_without_the_usual_tools_and_with_its_clock_at_1970() {
    let make = Make::new(Sshd::Dropbear, &["sha256sum", "setsid", "date", "groupadd", "addgroup"]);
    let make = make.shell("dash");
    super::common::executable(
        &make.root().join("bin/date"),
        "#!/bin/sh\necho 1970-01-01T00:00:07Z\n",
    );
    whole_way(&make.start());
}

#[test]
fn a_board_takes_the_profile_that_it_is_told_and_no_other() {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let one = version("one");
    let unknown = board.deploy(&one, &["--board", "pi-9"]);
    assert_eq!(unknown.code, 2, "{}{}", unknown.out, unknown.err);
    assert!(unknown.err.contains("--board: \"pi-9\" is not valid, allowed: auto, beaglebone"));
    let other = board.deploy(&one, &["--board", "milkv-duo"]);
    assert_eq!(other.code, 1, "{}{}", other.out, other.err);
    assert!(other.out.contains("is riscv64, this one is x86_64"), "{}", other.out);
    assert!(!board.lib().exists(), "nothing was done");
    // Settings that are there are not touched.
    let there = board.deploy(&one, &["--board", "lab-x86_64"]);
    assert_eq!(there.code, 0, "{}{}", there.out, there.err);
    assert!(there.err.contains("says nothing of board lab-x86_64"), "{}", there.err);
    board.sh("mv /etc/hob/hob.toml /etc/hob/old.toml");
    assert_eq!(board.deploy(&version("two"), &["--board", "lab-x86_64"]).code, 0);
    let settings = fs::read_to_string(board.root().join("etc/hob/hob.toml")).unwrap();
    assert!(settings.contains("\nboard = \"lab-x86_64\"\n"), "{settings}");
    board.sh("mv /etc/hob/old.toml /etc/hob/hob.toml");
}

#[test]
fn the_board_compares_no_times() {
    for text in
        [include_str!("../../src/deploy/board.sh"), include_str!("../../src/deploy/install.sh")]
    {
        for word in [" -nt ", " -ot ", "date +%s", "-mmin", "-mtime", "stat -c", "$SECONDS"] {
            assert!(!text.contains(word), "{word}");
        }
    }
}

#[test]
fn the_boards_program_is_plain_shell() {
    let path = scratch().join("board.sh");
    let text = concat!(
        include_str!("../../src/deploy/board.sh"),
        include_str!("../../src/deploy/install.sh")
    );
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    for (program, arguments) in [
        ("dash", &["-n", path][..]),
        ("busybox", &["ash", "-n", path]),
        ("shellcheck", &["-s", "sh", path]),
    ] {
        let ran = Ran::of(std::process::Command::new(program).args(arguments));
        assert_eq!(ran.code, 0, "{program}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn a_binary_for_another_board_is_not_uploaded() {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let mut bytes = fs::read(version("other")).unwrap();
    bytes[18] = 183;
    let wrong = scratch().join("wrong");
    fs::write(&wrong, &bytes).unwrap();
    let ran = board.deploy(&wrong, &[]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let why = "it is for AArch64 (64-bit), the board is x86-64 (64-bit)";
    assert!(ran.out.contains(why), "{}", ran.out);
    fs::write(&wrong, "#!/bin/sh\n").unwrap();
    let ran = board.deploy(&wrong, &[]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(!board.lib().exists());
}

#[test]
fn a_read_only_root_and_a_full_disk_are_told_before() {
    let read_only = "mount -o remount,bind,ro $R";
    let full = "mount -t tmpfs -o size=1m none $R/usr/local";
    for (mount, why) in [(read_only, "cannot be written"), (full, "KiB free")] {
        let board = Make::new(Sshd::Dropbear, &[]).mount(mount).start();
        let ran = board.deploy(&version("one"), &[]);
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains(why), "{}", ran.out);
        assert_eq!(board.sh("ls /usr/local").out, "");
    }
}

#[test]
fn many_hosts_and_the_exit_code_of_the_worst() {
    let boards = [Make::new(Sshd::Dropbear, &[]).start(), Make::new(Sshd::OpenSsh, &[]).start()];
    // The same key for both: the second board's is not the first one's.
    let key = fs::read(boards[0].root().join("root/.ssh/authorized_keys")).unwrap();
    fs::write(boards[1].root().join("root/.ssh/authorized_keys"), key).unwrap();
    let fleet = scratch().join("fleet.toml");
    let host = |name, address| format!("[[host]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let text = host("kitchen", boards[0].address())
        + &host("gone", "root@127.0.0.1:1".into())
        + &host("garage", boards[1].address());
    fs::write(&fleet, text).unwrap();
    let one = version("one");
    let arguments = ["--fleet", fleet.to_str().unwrap(), "--binary", one.to_str().unwrap()];
    let ran = Ran::of(&mut boards[0].command_to(&arguments));
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    for board in &boards {
        assert_eq!(board.current(), Some(name_of(&one)), "{}{}", ran.out, ran.err);
    }
    let line = |name: &str| ran.out.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("gone").contains("cannot be reached"), "{}", ran.out);
    assert!(line("kitchen").contains("serves") && line("garage").contains("serves"), "{}", ran.out);
    // Without the one that is gone all is well.
    let mut two = arguments.to_vec();
    two.extend(["kitchen", "garage"]);
    assert_eq!(Ran::of(&mut boards[0].command_to(&two)).code, 0);
}
