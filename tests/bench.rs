//! `hob bench`: complete, and gone without a trace, however it ends.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};

use common::{HOB, Ran};

#[test]
fn the_bench_measures_every_row_that_needs_no_tool() {
    let ran = Ran::of(Command::new(HOB).args(["bench", "--json"]));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let measured: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let rows = measured["rows"].as_array().unwrap();
    let mut numbers: Vec<u64> = rows.iter().map(|row| row["row"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8, 10, 11]);
    for row in rows {
        let value = row["value"].as_f64().unwrap();
        // Differences are about nothing where the machine has moods, or has pages to spare.
        let is_difference = row["row"] == 2 || row["what"] == "  hob's own share";
        assert!(is_difference || value > 0.0, "{row}");
        assert!(row["beside"].is_null() || row["beside"].as_f64().unwrap() > 0.0, "{row}");
    }
}

/// A bench that has just started its server, with what it keeps below a directory of its own.
fn begun(out: Stdio) -> (tempfile::TempDir, Child, i64) {
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(HOB);
    command.arg("bench").env("TMPDIR", place.path()).stdout(out).stderr(Stdio::null());
    let bench = command.spawn().unwrap();
    let pid = i32::try_from(bench.id()).unwrap();
    let server = common::eventually("its server is there", || {
        common::children(pid).first().map(|(server, _)| i64::from(*server))
    });
    (place, bench, server)
}

fn leaves_nothing(place: &tempfile::TempDir, mut bench: Child, server: i64) {
    let status = common::eventually("it ends", || bench.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(!common::exists(server), "and its server before it");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "and nothing is left");
}

#[test]
fn a_bench_that_nobody_reads_leaves_nothing() {
    let (place, mut bench, server) = begun(Stdio::piped());
    drop(bench.stdout.take());
    leaves_nothing(&place, bench, server);
}

#[test]
fn a_bench_that_is_interrupted_leaves_nothing() {
    let (place, bench, server) = begun(Stdio::null());
    let pid = rustix::process::Pid::from_raw(i32::try_from(bench.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    leaves_nothing(&place, bench, server);
}
