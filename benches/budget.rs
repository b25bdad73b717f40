//! The budget table, measured: each row beside its floor, in one run. Started by `benches/budget`.
//!
//! Counts (threads, system calls, allocations) are the same on every machine and fail the run when
//! they exceed their promise. Times and memory are printed with their floor and a ratio, and never
//! fail anything: this machine is not the board.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss
)]

#[path = "rows/common.rs"]
mod common;
#[path = "rows/counts.rs"]
mod counts;
#[path = "../tests/common/http.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod http;
#[path = "rows/load.rs"]
mod load;
#[path = "rows/memory.rs"]
mod memory;
#[path = "rows/relay.rs"]
mod relay;
#[path = "rows/runtimes.rs"]
mod runtimes;
#[path = "rows/server.rs"]
mod server;
#[path = "../tests/common/sockets.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod sockets;
#[path = "rows/times.rs"]
mod times;

pub use common::{Bench, median_p99};

/// One row of the table.
pub struct Row {
    /// Its number in the list of promises.
    pub number: &'static str,
    /// What is promised.
    pub promise: &'static str,
    /// What was measured, with its floor where it has one.
    pub measured: String,
    /// Whether it holds; `None`: a time, which this machine cannot judge.
    pub holds: Option<bool>,
}

fn main() {
    let Some((bench, mode)) = Bench::from_arguments() else {
        // `cargo bench` alone: the script builds what is needed here.
        println!("run benches/budget");
        return;
    };
    let mut rows = memory::rows(&bench);
    rows.extend(times::rows(&bench));
    rows.extend(runtimes::rows(&bench));
    rows.extend(counts::rows(&bench));
    let table = render(&rows);
    print!("{table}");
    if mode == "readme" {
        common::into_readme("budget", |old| with_pending(&table, old));
    }
    let broken: Vec<&str> =
        rows.iter().filter(|row| row.holds == Some(false)).map(|row| row.number).collect();
    let counted = ["4", "13", "14"];
    if broken.iter().any(|number| counted.contains(number)) {
        eprintln!("a count exceeds its promise: rows {}", broken.join(", "));
        std::process::exit(1);
    }
}

fn render(rows: &[Row]) -> String {
    let mut text = String::from("| promise | measured | holds | by |\n|---|---|---|---|\n");
    for row in rows {
        let holds = match row.holds {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        text += &format!(
            "| {}. {} | {} | {holds} | `benches/budget` |\n",
            row.number, row.promise, row.measured
        );
    }
    text
}

/// The table as README has it: rows that are not measured yet stay as they are.
fn with_pending(table: &str, old: &str) -> String {
    let number = |line: &str| line.split(['|', '.']).nth(1).unwrap_or_default().trim().to_owned();
    let measured: Vec<String> = table.lines().map(number).collect();
    let pending = old.lines().filter(|line| line.ends_with("| pending |"));
    let pending = pending.filter(|line| !measured.contains(&number(line)));
    let mut lines: Vec<&str> = table.lines().skip(2).chain(pending).collect();
    lines.sort_by_key(|line| number(line).trim_end_matches('a').parse::<u32>().unwrap_or(0));
    let heading = table.lines().take(2);
    heading.chain(lines).map(|line| format!("{line}\n")).collect()
}
