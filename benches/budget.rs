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

#[path = "rows/counts.rs"]
mod counts;
#[path = "../tests/common/http.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod http;
#[path = "rows/memory.rs"]
mod memory;
#[path = "rows/runtimes.rs"]
mod runtimes;
#[path = "rows/server.rs"]
mod server;
#[path = "../tests/common/sockets.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod sockets;
#[path = "rows/times.rs"]
mod times;

use std::path::PathBuf;

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

/// Where things are, and how much of everything to do.
pub struct Bench {
    /// The static server.
    pub fixed: PathBuf,
    /// The dynamic server, for what is counted at the C library's door.
    pub dynamic: PathBuf,
    /// Helpers and results.
    pub out: PathBuf,
    /// A little input instead of a lot.
    pub small: bool,
}

impl Bench {
    /// `whole` of something, or a small part of it.
    pub fn amount(&self, whole: usize) -> usize {
        if self.small { (whole / 50).max(20) } else { whole }
    }

    pub fn tool(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [fixed, dynamic, out, mode] = arguments.as_slice() else {
        // `cargo bench` alone: the script builds what is needed here.
        println!("run benches/budget");
        return;
    };
    let absolute = |path: &str| std::fs::canonicalize(path).unwrap();
    let small = mode == "small";
    let bench =
        Bench { fixed: absolute(fixed), dynamic: absolute(dynamic), out: absolute(out), small };
    let mut rows = memory::rows(&bench);
    rows.extend(times::rows(&bench));
    rows.extend(runtimes::rows(&bench));
    rows.extend(counts::rows(&bench));
    let table = render(&rows);
    print!("{table}");
    if mode == "readme" {
        into_readme(&table);
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

/// Replaces the table in README, with where and when it was measured.
fn into_readme(table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- budget -->\n", "<!-- /budget -->");
    let (before, rest) = readme.split_once(begin).unwrap();
    let (old, after) = rest.split_once(end).unwrap();
    // Rows that are not measured yet stay as they are.
    let number = |line: &str| line.split(['|', '.']).nth(1).unwrap_or_default().trim().to_owned();
    let measured: Vec<String> = table.lines().map(number).collect();
    let pending = old.lines().filter(|line| line.ends_with("| pending |"));
    let pending = pending.filter(|line| !measured.contains(&number(line)));
    let mut lines: Vec<&str> = table.lines().skip(2).chain(pending).collect();
    lines.sort_by_key(|line| number(line).trim_end_matches('a').parse::<u32>().unwrap_or(0));
    let heading = table.lines().take(2);
    let table: String = heading.chain(lines).map(|line| format!("{line}\n")).collect();
    let output = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let date = output("date", &["+%Y-%m-%d"]);
    let cores = output("nproc", &[]);
    let kernel = output("uname", &["-r"]);
    let kernel = kernel.split('-').next().unwrap_or_default();
    let machine = format!("{}, Linux {kernel}, {cores} cores", output("uname", &["-m"]));
    let note = format!("\nMeasured {date} at {commit} on {machine}.\n");
    let text = format!("{before}{begin}{table}{note}{end}{after}");
    std::fs::write(path, text).unwrap();
}

/// The median, and the 99th percentile.
pub fn median_p99(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    (at(50), at(99))
}
