//! Arguments of `hob deploy`.

use lexopt::prelude::*;

use super::arguments::{Command, text, usage};
use crate::deploy::{Action, Options, target};
use crate::error::Error;
use crate::limits::{CONFIRM_TIMEOUT_S_DEFAULT, PROBE_TIMEOUT_S_DEFAULT};

/// Understands what stands behind `deploy`.
pub fn parse(mut parser: lexopt::Parser) -> Result<Command, Error> {
    let mut options = Options {
        probe_timeout_s: PROBE_TIMEOUT_S_DEFAULT,
        confirm_timeout_s: CONFIRM_TIMEOUT_S_DEFAULT,
        ..Options::default()
    };
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help(Some("deploy".into()))),
            Long("board") => {
                options.board = target::board(&text(parser.value().map_err(usage)?)?)?;
            }
            Long("binary") => options.binary = Some(parser.value().map_err(usage)?.into()),
            Long("functions") => options.functions = Some(parser.value().map_err(usage)?.into()),
            Long("prune") => options.prune = true,
            Long("fleet") => options.fleet = Some(parser.value().map_err(usage)?.into()),
            Long("dry-run") => options.dry_run = true,
            Long("json") => options.json = true,
            Long("status") => options.action = Action::Status,
            Long("rollback") => options.action = Action::Rollback,
            Long("probe-timeout") => options.probe_timeout_s = seconds(&mut parser, "probe")?,
            Long("confirm-timeout") => options.confirm_timeout_s = seconds(&mut parser, "confirm")?,
            Value(host) => options.hosts.push(text(host)?),
            other @ (Short(_) | Long(_)) => return Err(usage(other.unexpected())),
        }
    }
    if options.action != Action::Deploy && options.binary.is_some() {
        return Err(Error::usage("--binary is for deploying, see hob help deploy"));
    }
    Ok(Command::Deploy(options))
}

fn seconds(parser: &mut lexopt::Parser, what: &str) -> Result<u32, Error> {
    let value = text(parser.value().map_err(usage)?)?;
    let seconds = value.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    seconds.ok_or_else(|| {
        Error::usage(format!("--{what}-timeout: {value:?} is not valid, allowed: 1..3600"))
    })
}
