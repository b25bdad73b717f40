//! Functions on their way to a board.

use std::fs;
use std::path::Path;

use super::binaries::{program, version};
use super::board::{Board, Make, Sshd, patiently};
use super::common::{Ran, executable};

fn function(directory: &Path, name: &str, script: &str) {
    let folder = directory.join(name);
    fs::create_dir_all(&folder).unwrap();
    let secret = "environment = { TOKEN = \"sesame\" }";
    let toml = format!("runtime = \"exec\"\nhandler = \"run.sh\"\n{secret}\n");
    fs::write(folder.join("function.toml"), toml).unwrap();
    executable(&folder.join("run.sh"), script);
}

fn deploy(board: &Board, directory: &Path, more: &[&str]) -> Ran {
    let mut arguments = vec!["--functions", directory.to_str().unwrap()];
    arguments.extend(more);
    board.deploy(&version("one"), &arguments)
}

fn answers(board: &Board, name: &str, reply: &str) {
    patiently(&format!("{name} answers {reply}"), || {
        let ran = board.sh(&format!("/usr/local/bin/hob invoke {name}"));
        (ran.out.trim() == reply).then_some(())
    });
}

#[test]
fn functions_travel_and_only_what_changed() {
    let board = Make::new(Sshd::Dropbear, &["sha256sum"]).shell("dash").start();
    let toml = "listen = \"127.0.0.1:0\"\nfunctions = \"/etc/hob/functions\"\n";
    fs::write(board.root().join("etc/hob/hob.toml"), toml).unwrap();
    let directory = tempfile::tempdir().unwrap();
    function(directory.path(), "one", "#!/bin/sh\necho '\"first\"'\n");
    function(directory.path(), "two", "#!/bin/sh\necho \"\\\"$TOKEN\\\"\"\n");
    let ran = deploy(&board, directory.path(), &[]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("functions: 2 sent, 0 removed"), "{}", ran.out);
    answers(&board, "one", "\"first\"");
    answers(&board, "two", "\"sesame\"");

    function(directory.path(), "one", "#!/bin/sh\necho '\"second\"'\n");
    let ran = deploy(&board, directory.path(), &[]);
    assert!(ran.out.contains("functions: 1 sent, 0 removed"), "{}{}", ran.out, ran.err);
    answers(&board, "one", "\"second\"");

    fs::remove_dir_all(directory.path().join("two")).unwrap();
    let kept = deploy(&board, directory.path(), &[]);
    assert!(!kept.out.contains("functions:"), "{}", kept.out);
    let ran = deploy(&board, directory.path(), &["--prune"]);
    assert!(ran.out.contains("functions: 0 sent, 1 removed"), "{}", ran.out);
    assert_eq!(board.sh("ls /etc/hob/functions").out, "one\n");
}

#[test]
fn a_handler_for_another_machine_stops_all_of_it() {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let directory = tempfile::tempdir().unwrap();
    function(directory.path(), "arm", "");
    let mut bytes = fs::read(program("quits", "return 1;")).unwrap();
    bytes[18] = 183;
    fs::write(directory.path().join("arm/run.sh"), bytes).unwrap();
    let ran = deploy(&board, directory.path(), &[]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let why = "does not run there: it is for AArch64 (64-bit), the board is x86-64 (64-bit)";
    assert!(ran.out.contains("function arm: ") && ran.out.contains(why), "{}", ran.out);
    assert!(!board.lib().exists(), "nothing was uploaded");
}
