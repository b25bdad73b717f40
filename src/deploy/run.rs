//! One host, from the first look to the confirmation.

use std::time::Duration;

use super::binary::{self, Arch, Binary};
use super::functions::{self, Function};
use super::look::Look;
use super::plan::Plan;
use super::ssh::{Ssh, Trouble};
use super::target::Host;
use super::upload::{self, Upload};
use super::{Action, Options};
use crate::board::Profile;
use crate::error::ExitCode;

/// How it ended on one host.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the board said at first.
    pub look: Option<Look>,
    /// What it is built for.
    pub arch: String,
    /// The version in force at the end, as far as known.
    pub version: String,
    /// What became of it, for people.
    pub text: String,
    /// What was planned.
    pub steps: Vec<String>,
    /// The exit code, 0 to 3.
    pub code: i32,
}

/// How long one command waits for the board's outcome: the link shows that it is alive.
const AWAIT_S: u32 = 20;
/// Attempts to reach the board again, a few seconds apart.
const AGAIN_MAX: u32 = 5;

/// A connection that is made again when it is lost.
pub struct Link<'a> {
    host: &'a Host,
    ssh: Option<Ssh>,
    say: &'a dyn Fn(&str),
}

impl<'a> Link<'a> {
    /// Connects.
    pub fn open(host: &'a Host, say: &'a dyn Fn(&str)) -> Result<Link<'a>, Trouble> {
        Ok(Link { host, ssh: Some(Ssh::open(host)?), say })
    }

    /// A line of progress.
    pub fn say(&self, line: &str) {
        (self.say)(line);
    }

    /// Connects once more.
    pub fn again(&mut self) -> Result<(), Trouble> {
        self.ssh = None;
        self.ssh = Some(Ssh::open(self.host)?);
        Ok(())
    }

    /// Runs a verb, once.
    pub fn call(&mut self, arguments: &[&str], input: &[u8]) -> Result<String, Trouble> {
        match &self.ssh {
            Some(ssh) => ssh.call(arguments, input),
            None => Err(Trouble::Link("not connected".into())),
        }
    }

    /// Runs a verb that may be run twice, until it was.
    pub fn steady(&mut self, arguments: &[&str]) -> Result<String, Trouble> {
        let mut attempts = 0;
        loop {
            match self.call(arguments, b"") {
                Err(Trouble::Link(why)) => {
                    attempts += 1;
                    if attempts > AGAIN_MAX {
                        return Err(Trouble::Link(why));
                    }
                    std::thread::sleep(Duration::from_secs(attempts.into()));
                    let _ = self.again();
                }
                other => return other,
            }
        }
    }
}

/// Does what the options say on one host.
pub fn run(host: &Host, options: &Options, given: Option<&Binary>, say: &dyn Fn(&str)) -> Report {
    let mut report = Report::default();
    let directory = host.functions.as_ref().or(options.functions.as_ref());
    let directory = directory.filter(|_| options.action == Action::Deploy);
    let functions = match directory.map(|directory| functions::read(directory)).transpose() {
        Ok(functions) => functions,
        Err(error) => {
            report.text = error.message;
            report.code = error.code as i32;
            return report;
        }
    };
    let wanted = Wanted { given, functions: functions.as_deref() };
    if let Err(trouble) = act(host, options, &wanted, say, &mut report) {
        (report.text, report.code) = match trouble {
            Trouble::Link(why) => (format!("cannot be reached: {why}"), ExitCode::Refused as i32),
            Trouble::Board(why) => (why, ExitCode::Failed as i32),
        };
    }
    report
}

/// What a board is to have.
struct Wanted<'a> {
    /// The binary that was named.
    given: Option<&'a Binary>,
    /// Functions, if they are part of it.
    functions: Option<&'a [Function]>,
}

fn act(
    host: &Host,
    options: &Options,
    wanted: &Wanted<'_>,
    say: &dyn Fn(&str),
    report: &mut Report,
) -> Result<(), Trouble> {
    let mut link = Link::open(host, say)?;
    let mut paths = binary::interpreters(wanted.given);
    let handlers = wanted.functions.into_iter().flatten().filter_map(Function::interpreter);
    // A loader of an odd name would not be a word for the board's shell.
    paths.extend(handlers.filter(|path| path.starts_with('/')).map(str::to_owned));
    paths.sort_unstable();
    paths.dedup();
    let mut arguments = vec!["look"];
    arguments.extend(paths.iter().map(String::as_str));
    let look = Look::parse(&link.steady(&arguments)?)
        .ok_or_else(|| Trouble::Board("what the board says about itself makes no sense".into()))?;
    let arch = Arch::of(&look);
    report.arch = arch.map_or(look.arch.clone(), |arch| arch.name().to_owned());
    report.version = look.current.clone().unwrap_or_default();
    report.look = Some(look.clone());
    match options.action {
        Action::Status => {
            report.text = status(&look);
            Ok(())
        }
        Action::Rollback => {
            let previous = look.previous.as_ref().filter(|p| look.versions.contains(p));
            let previous = previous
                .ok_or_else(|| Trouble::Board("there is no version before this one".into()))?;
            report.steps = vec![format!("back to {previous}")];
            activate(&mut link, previous, options, report)
        }
        Action::Deploy => {
            let arch = arch.ok_or_else(|| {
                Trouble::Board(format!("there is no hob for {} ({} bits)", look.arch, look.bits))
            })?;
            let found;
            let binary = match wanted.given {
                Some(binary) => binary,
                None => {
                    found = binary::find(arch, &look, say).map_err(Trouble::Board)?;
                    &found
                }
            };
            binary.check(arch, &look).map_err(Trouble::Board)?;
            let board = host.board.as_ref().or(options.board.as_ref());
            if let Some(profile) = board.and_then(|board| Profile::named(board))
                && profile.target != arch.name()
            {
                let (name, target, own) = (profile.name, profile.target, arch.name());
                return Err(Trouble::Board(format!("a {name} is {target}, this one is {own}")));
            }
            for function in wanted.functions.into_iter().flatten() {
                function.check(arch, &look).map_err(Trouble::Board)?;
            }
            let plan = Plan::new(&look, binary.version(), binary.bytes.len() as u64);
            let plan = plan.map_err(Trouble::Board)?;
            report.steps = plan.steps(&look);
            let change = Change::new(&look, wanted.functions, options.prune);
            report.steps.extend(change.steps());
            deploy(&mut link, binary, &plan, (board, options), report)?;
            if !options.dry_run {
                change.make(&mut link, &plan.version, report)?;
            }
            Ok(())
        }
    }
}

/// What changes among the functions.
struct Change<'a> {
    sent: Vec<&'a Function>,
    dropped: Vec<&'a str>,
}

impl<'a> Change<'a> {
    fn new(look: &'a Look, functions: Option<&'a [Function]>, prune: bool) -> Change<'a> {
        let all = functions.unwrap_or_default();
        let sent = all.iter().filter(|function| !function.is_there(look)).collect();
        let dropped =
            if prune && functions.is_some() { functions::gone(look, all) } else { Vec::new() };
        Change { sent, dropped }
    }

    fn steps(&self) -> impl Iterator<Item = String> {
        let sent = self.sent.iter().map(|function| format!("function {}", function.name));
        sent.chain(self.dropped.iter().map(|name| format!("remove function {name}")))
    }

    fn make(&self, link: &mut Link<'_>, version: &str, report: &mut Report) -> Result<(), Trouble> {
        for function in &self.sent {
            function.send(link, version)?;
        }
        for name in &self.dropped {
            link.steady(&["drop", name])?;
        }
        if !self.sent.is_empty() || !self.dropped.is_empty() {
            let (sent, dropped) = (self.sent.len(), self.dropped.len());
            report.text += &format!("; functions: {sent} sent, {dropped} removed");
        }
        Ok(())
    }
}

fn deploy(
    link: &mut Link<'_>,
    binary: &Binary,
    plan: &Plan,
    (board, options): (Option<&String>, &Options),
    report: &mut Report,
) -> Result<(), Trouble> {
    for step in &report.steps {
        link.say(step);
    }
    if options.dry_run {
        report.text = "nothing was done".into();
        return Ok(());
    }
    if let Some(from) = plan.upload_from {
        let (id, bytes) = (binary.version(), &binary.bytes);
        upload::upload(link, &Upload { id, bytes, sha256: &binary.sha256, by: id }, from)?;
    }
    if !plan.activate {
        report.text = "serves already".into();
        return Ok(());
    }
    let installed =
        link.steady(&["install", &plan.version, board.map_or("auto", |board| board)])?;
    for note in installed.lines().filter_map(|line| line.strip_prefix("note ")) {
        link.say(&super::look::plain(note));
    }
    activate(link, &plan.version, options, report)
}

fn activate(
    link: &mut Link<'_>,
    version: &str,
    options: &Options,
    report: &mut Report,
) -> Result<(), Trouble> {
    if options.dry_run {
        report.text = "nothing was done".into();
        return Ok(());
    }
    let attempt = format!("{:016x}", fastrand::u64(..));
    let probe = options.probe_timeout_s.to_string();
    let launched = link.steady(&[
        "launch",
        &attempt,
        version,
        &probe,
        &options.confirm_timeout_s.to_string(),
    ])?;
    if launched.trim() == "busy" {
        return Err(Trouble::Board("another deployment runs there".into()));
    }
    // The old server may drain for a minute, and the way back takes as long as the way there.
    let mut left = options.probe_timeout_s * 2 + options.confirm_timeout_s + 240;
    let mut probed = false;
    while left > 0 {
        let said = link.steady(&["await", &attempt, &AWAIT_S.to_string()])?;
        let said = super::look::plain(&said);
        let (state, text) = said.split_once(' ').unwrap_or((&said, ""));
        match state {
            "probed" => {
                if !std::mem::replace(&mut probed, true) {
                    link.say("it answers");
                }
                link.steady(&["confirm", &attempt])?;
                // Until the board has taken note of it.
                std::thread::sleep(Duration::from_millis(200));
            }
            "done" => {
                report.version = version.to_owned();
                report.text = "serves".into();
                // What was before, and since when it serves, is known only now.
                let again = link.steady(&["look"]).ok().and_then(|said| Look::parse(&said));
                report.look = again.or(report.look.take());
                return Ok(());
            }
            "running" => left = left.saturating_sub(AWAIT_S),
            _ => return Err(Trouble::Board(text.to_owned())),
        }
        left = left.saturating_sub(1);
    }
    Err(Trouble::Board("the board has not said how it ended; see hob deploy --status".into()))
}

fn status(look: &Look) -> String {
    let running = if look.running { "serves" } else { "does not answer" };
    match (&look.current, look.outcome.as_str()) {
        (None, "") => "nothing is installed".to_owned(),
        (None, outcome) => format!("nothing is installed; {outcome}"),
        (Some(_), "") => running.to_owned(),
        (Some(_), outcome) => format!("{running}; {outcome}"),
    }
}
