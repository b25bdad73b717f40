//! The server's own log: lines on standard error, with a priority in front where journald reads
//! them, with the time where a person does.

use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::io::clock::{CivilTime, Clock};

struct Logger {
    journal: bool,
}

/// Starts logging. `HOB_LOG` (error, warn, info, debug) says how much; info unless it is set.
pub fn start() {
    let level = std::env::var("HOB_LOG").ok().and_then(|text| text.parse().ok());
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    if log::set_boxed_logger(Box::new(Logger { journal })).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("hob")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Vec::with_capacity(128);
        let written = if self.journal {
            // The numbers of syslog, which journald strips.
            let priority = match record.level() {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug | Level::Trace => 7,
            };
            writeln!(line, "<{priority}>{}", record.args())
        } else {
            let time = CivilTime::from_unix_ms(Clock::unix_ms()).to_iso();
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(line, "{time} {level:5} {}", record.args())
        };
        // One write for one line, so that lines of several processes do not mix; and nobody to
        // complain to if it fails.
        if written.is_ok() {
            let _ = std::io::stderr().write_all(&line);
        }
    }

    fn flush(&self) {}
}
