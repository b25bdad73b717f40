//! The keys of `hob.toml`, each with its flag, its variable, and what it may hold.

use crate::board::{ALLOWED, BOARDS};
use crate::function::name::REGION_MAX;
use crate::limits::{MEMORY_BUDGET_MB_MAX, SLOTS_MAX};

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number in a range.
    Integer(i64, i64),
    /// Text that a check accepts; and in words what it accepts.
    Text(fn(&str) -> bool, &'static str),
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// One key of `hob.toml`, and its flag.
pub struct Key {
    /// In the file; in upper case with `HOB_` in front, the variable.
    pub name: &'static str,
    /// On the command line.
    pub flag: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// One line for `hob help serve`.
    pub help: &'static str,
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

fn is_region(text: &str) -> bool {
    (1..=REGION_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_board(text: &str) -> bool {
    text == "auto" || BOARDS.iter().any(|(id, _)| *id == text)
}

const PATH: Kind = Kind::Text(is_path, "a path");

/// Every key that may stand at the top of `hob.toml`.
pub const KEYS: [Key; 19] = [
    Key {
        name: "listen",
        flag: "listen",
        kind: Kind::Text(is_address, "HOST:PORT"),
        help: "TCP address (127.0.0.1:4620)",
    },
    Key { name: "socket", flag: "socket", kind: PATH, help: "Unix socket for the command line" },
    Key { name: "data", flag: "data", kind: PATH, help: "directory for code and state" },
    Key { name: "functions", flag: "functions", kind: PATH, help: "directory of function folders" },
    Key {
        name: "board",
        flag: "board",
        kind: Kind::Text(is_board, ALLOWED),
        help: "whose slots and memory budget hold (auto: this machine's)",
    },
    Key {
        name: "memory_budget_mb",
        flag: "memory-budget-mb",
        kind: Kind::Integer(1, MEMORY_BUDGET_MB_MAX as i64),
        help: "memory for server and workers (the board's)",
    },
    Key {
        name: "slots",
        flag: "slots",
        kind: Kind::Integer(1, SLOTS_MAX as i64),
        help: "processes at one time (the board's, else up to 16)",
    },
    Key {
        name: "queue_wait_ms",
        flag: "queue-wait",
        kind: Kind::Integer(0, 900_000),
        help: "wait for a free worker, milliseconds (1000)",
    },
    Key {
        name: "idle_timeout_s",
        flag: "idle-timeout",
        kind: Kind::Integer(0, 86_400),
        help: "stop workers idle for so many seconds (600)",
    },
    Key {
        name: "init_limit_s",
        flag: "init-limit",
        kind: Kind::Integer(1, 900),
        help: "stop workers that start for so many seconds (10)",
    },
    Key {
        name: "drain_limit_s",
        flag: "drain-limit",
        kind: Kind::Integer(0, 900),
        help: "let invocations finish for so many seconds at the end (60)",
    },
    Key {
        name: "upgrade_wait_s",
        flag: "upgrade-wait",
        kind: Kind::Integer(1, 900),
        help: "give up a successor that does not serve within so many seconds (30)",
    },
    Key {
        name: "region",
        flag: "region",
        kind: Kind::Text(is_region, "lower case letters, digits and -"),
        help: "region in ARNs (us-east-1)",
    },
    Key {
        name: "account",
        flag: "account",
        kind: Kind::Text(is_account, "twelve digits"),
        help: "account in ARNs (000000000000)",
    },
    Key {
        name: "reaper",
        flag: "reaper",
        kind: Kind::Choice(&["auto", "pidfd", "sigchld"]),
        help: "how exits become known (auto)",
    },
    Key {
        name: "freeze_ms",
        flag: "freeze",
        kind: Kind::Integer(0, 86_400_000),
        help: "idle time before a worker is frozen, 0: never (0)",
    },
    Key {
        name: "freezer",
        flag: "freezer",
        kind: Kind::Choice(&["auto", "signals"]),
        help: "how: by control groups if possible, or by signals (auto)",
    },
    Key {
        name: "spares",
        flag: "spares",
        kind: Kind::Choice(&["auto", "off"]),
        help: "a worker made beforehand for each hot function, or none (auto)",
    },
    Key {
        name: "paths",
        flag: "paths",
        kind: Kind::Choice(&["auto", "real"]),
        help: "/var/task, /opt, /tmp as on AWS if possible, or never (auto)",
    },
];
