//! Many hosts at once: a line of progress each, a table at the end.

use serde_json::json;

use super::binary::Binary;
use super::run::{self, Report};
use super::target::Host;
use super::{Action, Options};
use crate::cli::{print, say, table};
use crate::error::{Error, ExitCode};

/// Hosts that are worked on at the same time.
const AT_ONCE: usize = 16;

/// Does it on every host.
pub fn run(hosts: &[Host], options: &Options, given: Option<&Binary>) -> Result<ExitCode, Error> {
    let mut reports: Vec<Report> = Vec::new();
    for some in hosts.chunks(AT_ONCE) {
        let done: Vec<Report> = std::thread::scope(|scope| {
            let workers: Vec<_> = some
                .iter()
                .map(|host| {
                    scope.spawn(|| {
                        let tell = |line: &str| say(&format!("{}: {line}", host.name));
                        let report = run::run(host, options, given, &tell);
                        if options.action != Action::Status {
                            tell(&report.text);
                        }
                        report
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap_or_default()).collect()
        });
        reports.extend(done);
    }
    if options.json {
        let list: Vec<_> =
            hosts.iter().zip(&reports).map(|(host, report)| to_json(host, report)).collect();
        print(&format!("{:#}\n", json!(list)));
    } else {
        print(&in_table(hosts, &reports));
    }
    Ok(match reports.iter().map(|report| report.code).max().unwrap_or(0) {
        0 => ExitCode::Ok,
        1 => ExitCode::Failed,
        2 => ExitCode::Usage,
        _ => ExitCode::Refused,
    })
}

fn in_table(hosts: &[Host], reports: &[Report]) -> String {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let rows: Vec<Vec<String>> = hosts
        .iter()
        .zip(reports)
        .map(|(host, report)| {
            let look = report.look.as_ref();
            let previous = look.and_then(|look| look.previous.clone()).unwrap_or_default();
            let since = look.map(|look| look.since.clone()).unwrap_or_default();
            vec![
                host.name.clone(),
                dash(&report.arch),
                dash(&report.version),
                dash(&previous),
                dash(&since),
                report.text.clone(),
            ]
        })
        .collect();
    table::render(&["HOST", "ARCH", "VERSION", "BEFORE", "SINCE", "OUTCOME"], &rows)
}

fn to_json(host: &Host, report: &Report) -> serde_json::Value {
    let look = report.look.as_ref();
    json!({
        "host": host.name,
        "reached": look.is_some(),
        "arch": report.arch,
        "model": look.map(|look| &look.model),
        "service": look.map(|look| &look.service),
        "version": report.version,
        "previous": look.and_then(|look| look.previous.as_ref()),
        "since": look.map(|look| &look.since),
        "running": look.map(|look| look.running),
        "steps": report.steps,
        "outcome": report.text,
        "code": report.code,
    })
}
