//! Where the program for a board comes from, if none is named.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::binaries::{name_of, version};
use super::board::{Board, Make, Sshd};
use super::common::{HOB, Ran, executable};

/// A board that says it is another machine.
fn foreign() -> Board {
    let make = Make::new(Sshd::Dropbear, &["uname"]).shell("dash");
    executable(&make.root().join("bin/uname"), "#!/bin/sh\necho aarch64\n");
    make.start()
}

/// A checkout whose `cross/build` does this.
fn checkout(build: &str) -> tempfile::TempDir {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("cross")).unwrap();
    executable(&source.path().join("cross/build"), &format!("#!/bin/sh\n{build}\n"));
    source
}

/// What would be deployed: from this directory, with this `HOB_SOURCE`.
fn dry(board: &Board, directory: &Path, source: Option<&Path>) -> Ran {
    let mut command: Command = board.command(&["--dry-run"]);
    command.current_dir(directory).env_remove("HOB_SOURCE");
    command.envs(source.map(|source| ("HOB_SOURCE", source)));
    Ran::of(&mut command)
}

#[test]
fn this_program_itself_where_it_runs() {
    let board = Make::new(Sshd::Dropbear, &[]).start();
    let source = checkout("echo it is not asked >&2; exit 1");
    let ran = dry(&board, source.path(), Some(source.path()));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains(&format!("upload {}", name_of(HOB.as_ref()))), "{}", ran.err);
}

#[test]
fn what_the_checkout_builds() {
    let board = foreign();
    let empty = tempfile::tempdir().unwrap();
    let ran = dry(&board, empty.path(), None);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let why = "there is no hob for aarch64 here: run this in a checkout of hob (or set HOB_SOURCE";
    assert!(ran.out.contains(why), "{}", ran.out);

    // The last line that it prints is the path, seen from the checkout.
    let source = checkout("echo making \"$@\"; echo target/cross/$1/hob");
    let built = source.path().join("target/cross/aarch64/hob");
    fs::create_dir_all(built.parent().unwrap()).unwrap();
    let mut bytes = fs::read(version("one")).unwrap();
    // Its machine, in place of this one; and no loader is asked for.
    bytes[18] = 183;
    fs::write(&built, without_loader(bytes)).unwrap();
    let step = format!("upload {}", name_of(&built));
    for (directory, named) in [(empty.path(), Some(source.path())), (source.path(), None)] {
        let ran = dry(&board, directory, named);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert!(ran.err.contains("cross/build aarch64"), "{}", ran.err);
        assert!(ran.err.contains(&step), "{}", ran.err);
    }
    // A relative HOB_SOURCE is seen from where the command is run.
    let ran =
        dry(&board, source.path().parent().unwrap(), source.path().file_name().map(Path::new));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);

    let fails = checkout("echo no linker >&2; exit 3");
    let ran = dry(&board, empty.path(), Some(fails.path()));
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(ran.out.contains("cross/build aarch64 failed"), "{}", ran.out);
    assert!(ran.err.contains("no linker"), "{}", ran.err);

    let other = checkout(&format!("echo {HOB}"));
    let ran = dry(&board, empty.path(), Some(other.path()));
    assert_eq!(ran.code, 1, "{}", ran.out);
    let why = "it is for x86-64 (64-bit), the board is AArch64 (64-bit)";
    assert!(ran.out.contains(why), "{}", ran.out);
}

/// As a static program has it: nothing in the place of `PT_INTERP`.
fn without_loader(mut bytes: Vec<u8>) -> Vec<u8> {
    let number = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte))
    };
    let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let heads = (0..count).map(|n| first + n * size);
    let loaders: Vec<usize> = heads.filter(|at| number(*at, 4) == 3).collect();
    for at in loaders {
        bytes[at] = 0;
    }
    bytes
}
