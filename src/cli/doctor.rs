//! `hob doctor`: what this machine can enforce, what is missing, and the one-line cure.

use std::path::Path;
use std::time::Duration;

use async_process::{Command, Stdio};
use serde_json::json;

use super::{print, table};
use crate::error::{Error, ExitCode};
use crate::host::cgroup::Cgroups;
use crate::host::process::Reaper;
use crate::runtime::paths::Paths;
use crate::server::settings::Settings;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is there.
    Good,
    /// It is not there; hob runs without it.
    Missing,
    /// It is not there, and hob cannot run.
    Fatal,
}

struct Finding {
    what: &'static str,
    state: State,
    detail: String,
    cure: &'static str,
}

fn finding(
    what: &'static str,
    good: bool,
    detail: impl Into<String>,
    cure: &'static str,
) -> Finding {
    let state = if good { State::Good } else { State::Missing };
    let cure = if good { "" } else { cure };
    Finding { what, state, detail: detail.into(), cure }
}

/// Looks at the machine; fails if hob cannot run on it.
pub fn run(json: bool) -> Result<ExitCode, Error> {
    let settings = Settings::read(None, &[])?;
    let mut findings = vec![
        kernel(),
        finding("board", settings.board.is_known(), settings.board.to_string(), ADD_BOARD),
        memory_budget(&settings),
        pidfd(),
        memory_cgroup(),
        security_module("landlock"),
        seccomp(),
        pressure(),
        user_namespaces(),
        paths(&settings),
        freezer(),
        files(&settings),
        data(&settings),
    ];
    findings.extend(smol::block_on(interpreters()));
    let fatal = findings.iter().any(|finding| finding.state == State::Fatal);
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let state = match finding.state {
                State::Good => "yes",
                State::Missing => "no",
                State::Fatal => "NO",
            };
            let cells = [finding.what, state, &finding.detail, finding.cure];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    if json {
        let list: Vec<_> = rows
            .iter()
            .map(|row| json!({ "what": row[0], "there": row[1] == "yes", "detail": row[2], "cure": row[3] }))
            .collect();
        print(&format!(
            "{:#}\n",
            json!({
                "runs": !fatal,
                "board": settings.board.id,
                "slots": settings.budget.slots,
                "memory_budget_mb": settings.budget.whole_mb,
                "findings": list,
            })
        ));
    } else {
        print(&table::render(&["WHAT", "THERE", "DETAIL", "CURE"], &rows));
    }
    Ok(if fatal { ExitCode::Failed } else { ExitCode::Ok })
}

const ADD_BOARD: &str = "--board NAME, of one that is like it; or see boards/README.md";

fn memory_budget(settings: &Settings) -> Finding {
    let (budget, checked) = (settings.budget, settings.check_budget());
    let cure = "fewer slots, or another memory_budget_mb";
    let detail = match &checked {
        Ok(()) => format!("{budget}; {} MB are left for workers", budget.workers_mb()),
        Err(error) => error.message.clone(),
    };
    let mut found = finding("memory budget", checked.is_ok(), detail, cure);
    if checked.is_err() {
        found.state = State::Fatal;
    }
    found
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    finding("Linux", true, release, "")
}

fn pidfd() -> Finding {
    let there = Reaper::detect() == Reaper::Pidfd;
    let detail = if there { "exits by pidfd" } else { "exits by SIGCHLD, which works as well" };
    finding("pidfd", there, detail, "Linux 5.3 or later")
}

fn memory_cgroup() -> Finding {
    let controllers = read("/sys/fs/cgroup/cgroup.controllers")
        .or_else(|| read("/sys/fs/cgroup/unified/cgroup.controllers"));
    let there = controllers.is_some_and(|list| list.split(' ').any(|name| name == "memory"));
    let detail = if there { "cgroup v2" } else { "memory limits cannot be enforced by cgroup" };
    let cure = "add cgroup_enable=memory to the kernel's command line, use cgroup v2";
    finding("memory cgroup", there, detail, cure)
}

fn security_module(name: &'static str) -> Finding {
    let modules = read("/sys/kernel/security/lsm").unwrap_or_default();
    let there = modules.split(',').any(|module| module == name);
    let detail = if modules.is_empty() { "the kernel does not tell".to_owned() } else { modules };
    finding(name, there, detail, "a kernel with it in CONFIG_LSM, or lsm= on its command line")
}

fn seccomp() -> Finding {
    let actions = read("/proc/sys/kernel/seccomp/actions_avail");
    let there = actions.is_some();
    finding("seccomp", there, actions.unwrap_or_default(), "a kernel with CONFIG_SECCOMP_FILTER")
}

fn pressure() -> Finding {
    let some = read("/proc/pressure/memory");
    let detail = some.as_deref().and_then(|text| text.lines().next()).unwrap_or_default();
    finding("PSI", some.is_some(), detail, "psi=1 on the kernel's command line")
}

fn user_namespaces() -> Finding {
    let most = read("/proc/sys/user/max_user_namespaces");
    let there = most.as_deref().is_some_and(|n| n != "0");
    let root = rustix::process::geteuid().is_root();
    let detail = if root { "and this is root" } else { "for an ordinary user" };
    finding("namespaces", there, detail, "sysctl user.max_user_namespaces=1000")
}

fn paths(settings: &Settings) -> Finding {
    let (there, detail) = match Paths::detect(settings.real_paths, false) {
        Paths::Namespace(_) => (true, "by a mount namespace".to_owned()),
        Paths::Real(why) => (false, format!("{why}; layers work by variables")),
    };
    let cure = "run hob as root, in a container with CAP_SYS_ADMIN; mkdir /var/task /opt";
    finding("paths as on AWS", there, detail, cure)
}

fn freezer() -> Finding {
    let found = Cgroups::detect();
    let there = found.is_ok();
    let by = |why| format!("by signals ({why})");
    let detail = found.map_or_else(by, |_| "by a control group for each worker".to_owned());
    finding("freezing", there, detail, "run hob as root or with Delegate=yes, on cgroup v2")
}

fn files(settings: &Settings) -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let needed = crate::limits::FILES_OWN
        + crate::limits::FILES_PER_SLOT * u64::from(settings.budget.slots)
        + 16;
    let good = hard >= needed;
    let mut found = finding(
        "open files",
        good,
        format!("hard limit {hard}, needs {needed}"),
        "ulimit -Hn 4096",
    );
    if !good {
        found.state = State::Fatal;
    }
    found
}

fn data(settings: &Settings) -> Finding {
    // The nearest directory that exists must take new files.
    let mut place = settings.data.as_path();
    while !place.exists() {
        let Some(parent) = place.parent() else { break };
        place = parent;
    }
    let good = rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok();
    let detail = settings.data.display().to_string();
    let mut found =
        finding("data directory", good, detail, "--data DIR, with a directory you may write");
    if !good {
        found.state = State::Fatal;
    }
    found
}

/// Asks interpreters and tools that handlers often need for their versions.
async fn interpreters() -> Vec<Finding> {
    let mut found = Vec::new();
    for (what, program) in [("python3", "python3"), ("node", "node"), ("curl", "curl")] {
        let version = version(program).await;
        let detail = version.clone().unwrap_or_else(|| "not found".into());
        found.push(finding(
            what,
            version.is_some(),
            detail,
            "install it if your functions need it",
        ));
    }
    found
}

async fn version(program: &str) -> Option<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let limit = async {
        smol::Timer::after(Duration::from_secs(5)).await;
        Err(std::io::ErrorKind::TimedOut.into())
    };
    let output = smol::future::or(output, limit).await.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.chars().take(60).collect())
}
