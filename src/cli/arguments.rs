//! Arguments to a [`Command`].

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use super::client::Target;
use crate::error::Error;
use crate::server::settings::KEYS;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help(Option<String>),
    Version,
    Serve {
        config: Option<PathBuf>,
        flags: Vec<(&'static str, String)>,
    },
    Demo {
        keep: bool,
    },
    Bench {
        json: bool,
    },
    Invoke(Invoke),
    Push {
        target: Target,
        path: PathBuf,
        name: Option<String>,
        /// It is a layer, and no function.
        layer: bool,
    },
    List {
        target: Target,
        json: bool,
    },
    Show {
        target: Target,
        name: String,
        json: bool,
    },
    Remove {
        target: Target,
        name: String,
    },
    Processes {
        target: Target,
        json: bool,
        watch: bool,
    },
    Logs {
        target: Target,
        name: String,
        follow: bool,
        since_s: Option<u64>,
    },
    Doctor {
        json: bool,
    },
    Deploy(crate::deploy::Options),
    /// Work that the server hands to a process of its own.
    Helper(Vec<String>),
    /// The demo's handler.
    Sample,
}

/// One invocation from the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Invoke {
    pub target: Target,
    pub name: String,
    /// JSON, `@FILE`, or `-`.
    pub payload: Option<String>,
    pub asynchronous: bool,
    pub tail: bool,
    pub qualifier: Option<String>,
}

/// Everything a client verb may be told.
#[derive(Default)]
struct Options {
    target: Target,
    names: Vec<OsString>,
    json: bool,
    watch: bool,
    follow: bool,
    tail: bool,
    asynchronous: bool,
    layer: bool,
    name: Option<String>,
    payload: Option<String>,
    qualifier: Option<String>,
    since: Option<String>,
}

/// Understands the arguments behind the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let verb = match parser.next().map_err(usage)? {
        None => return Ok(Command::Help(None)),
        Some(Long("help") | Short('h')) => return Ok(Command::Help(None)),
        Some(Long("version") | Short('V')) => return Ok(Command::Version),
        Some(Value(verb)) => text(verb)?,
        Some(other) => return Err(usage(other.unexpected())),
    };
    match verb.as_str() {
        "help" => Ok(Command::Help(optional(&mut parser)?)),
        "version" => Ok(Command::Version),
        "serve" => serve(parser),
        "demo" => Ok(Command::Demo { keep: switch(parser, "keep")? }),
        "bench" => Ok(Command::Bench { json: switch(parser, "json")? }),
        "helper" => {
            let rest = parser.raw_args().map_err(usage)?.map(text);
            Ok(Command::Helper(rest.collect::<Result<_, _>>()?))
        }
        "deploy" => super::deploy::parse(parser),
        "sample" => Ok(Command::Sample),
        "invoke" | "push" | "ls" | "show" | "rm" | "ps" | "logs" | "doctor" => {
            client(&verb, parser)
        }
        other => Err(Error::usage(format!("{other}: no such verb, see hob --help"))),
    }
}

pub(super) fn usage(error: lexopt::Error) -> Error {
    Error::usage(format!("{error}, see hob --help"))
}

pub(super) fn text(value: OsString) -> Result<String, Error> {
    value.into_string().map_err(|value| Error::usage(format!("{}: not UTF-8", value.display())))
}

fn optional(parser: &mut lexopt::Parser) -> Result<Option<String>, Error> {
    match parser.next().map_err(usage)? {
        Some(Value(value)) => text(value).map(Some),
        Some(other) => Err(usage(other.unexpected())),
        None => Ok(None),
    }
}

fn serve(mut parser: lexopt::Parser) -> Result<Command, Error> {
    let (mut config, mut flags) = (None, Vec::new());
    let absolute = |value: OsString| -> Result<String, Error> {
        let path = std::path::absolute(&value);
        text(path.map_or(value, PathBuf::into_os_string))
    };
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("config") => config = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("help") | Short('h') => return Ok(Command::Help(Some("serve".into()))),
            Long(flag) => {
                let Some(key) = KEYS.iter().find(|key| key.flag == flag || key.name == flag) else {
                    return Err(usage(Long(flag).unexpected()));
                };
                let value = parser.value().map_err(usage)?;
                let is_path = ["socket", "data", "functions"].contains(&key.name);
                flags.push((key.name, if is_path { absolute(value)? } else { text(value)? }));
            }
            Value(path) if !flags.iter().any(|(name, _)| *name == "functions") => {
                flags.push(("functions", absolute(path)?));
            }
            other @ (Short(_) | Value(_)) => return Err(usage(other.unexpected())),
        }
    }
    Ok(Command::Serve { config, flags })
}

/// Whether the one thing that a verb may be told is there.
fn switch(mut parser: lexopt::Parser, name: &str) -> Result<bool, Error> {
    let mut on = false;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long(flag) if flag == name => on = true,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(usage(other.unexpected())),
        }
    }
    Ok(on)
}

fn client(verb: &str, mut parser: lexopt::Parser) -> Result<Command, Error> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(usage)? {
        // A flag of another verb is as wrong as one of none.
        let flag = match &argument {
            Long(flag) => (*flag).to_owned(),
            Short(flag) => flag.to_string(),
            Value(_) => String::new(),
        };
        let mine: &[&str] = match verb {
            "invoke" => &["payload", "async", "tail", "qualifier"],
            "push" => &["name", "layer"],
            "ls" | "show" | "doctor" => &["json"],
            "ps" => &["json", "watch"],
            "logs" => &["f", "follow", "since"],
            _ => &[],
        };
        let known = ["socket", "url", ""].contains(&flag.as_str()) || mine.contains(&flag.as_str());
        if !known {
            return Err(usage(argument.unexpected()));
        }
        let value = |parser: &mut lexopt::Parser| text(parser.value().map_err(usage)?);
        match argument {
            Long("socket") => options.target = Target::Socket(value(&mut parser)?.into()),
            Long("url") => options.target = Target::Url(value(&mut parser)?),
            Long("json") => options.json = true,
            Long("watch") => options.watch = true,
            Long("follow") | Short('f') => options.follow = true,
            Long("tail") => options.tail = true,
            Long("async") => options.asynchronous = true,
            Long("layer") => options.layer = true,
            Long("name") => options.name = Some(value(&mut parser)?),
            Long("payload") => options.payload = Some(value(&mut parser)?),
            Long("qualifier") => options.qualifier = Some(value(&mut parser)?),
            Long("since") => options.since = Some(value(&mut parser)?),
            Value(name) => options.names.push(name),
            other @ (Short(_) | Long(_)) => return Err(usage(other.unexpected())),
        }
    }
    options.command(verb)
}

impl Options {
    fn command(mut self, verb: &str) -> Result<Command, Error> {
        let wants_name = !matches!(verb, "ls" | "ps" | "doctor");
        let name = self.names.pop();
        if wants_name != name.is_some() || !self.names.is_empty() {
            let what = match (verb, wants_name) {
                ("push", _) => "takes one folder or zip",
                (_, true) => "takes the name of one function",
                (_, false) => "takes no further arguments",
            };
            return Err(Error::usage(format!("{verb} {what}, see hob --help")));
        }
        let name = name.unwrap_or_default();
        let (target, json) = (self.target, self.json);
        Ok(match verb {
            "invoke" => Command::Invoke(Invoke {
                target,
                name: text(name)?,
                payload: self.payload,
                asynchronous: self.asynchronous,
                tail: self.tail,
                qualifier: self.qualifier,
            }),
            "push" => {
                Command::Push { target, path: name.into(), name: self.name, layer: self.layer }
            }
            "ls" => Command::List { target, json },
            "show" => Command::Show { target, name: text(name)?, json },
            "rm" => Command::Remove { target, name: text(name)? },
            "ps" => Command::Processes { target, json, watch: self.watch },
            "logs" => Command::Logs {
                target,
                name: text(name)?,
                follow: self.follow,
                since_s: self.since.as_deref().map(seconds).transpose()?,
            },
            _ => Command::Doctor { json },
        })
    }
}

/// `90`, `90s`, `5m`, `2h`, `1d` in seconds.
fn seconds(text: &str) -> Result<u64, Error> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let unit = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit)).ok_or_else(|| {
        Error::usage(format!("--since: {text:?} is not valid, allowed: 90s, 5m, 2h, 1d"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn verbs_take_their_own_flags_and_no_others() {
        let target = Target::default;
        let name = || "demo".to_owned();
        assert_eq!(
            parsed("ls --json").expect("valid"),
            Command::List { target: target(), json: true }
        );
        let logs =
            Command::Logs { target: target(), name: name(), follow: true, since_s: Some(300) };
        assert_eq!(parsed("logs demo -f --since 5m").expect("valid"), logs);
        let socket = Target::Socket("/s".into());
        let rm = Command::Remove { target: socket, name: name() };
        assert_eq!(parsed("rm --socket /s demo").expect("valid"), rm);
        for line in [
            "ls demo",
            "ls --tail",
            "show",
            "show a b",
            "logs demo --since 5x",
            "demo --json",
            "frobnicate",
            "--frobnicate",
            "serve --slotz 3",
            "serve a b",
            "push --layer",
            "show --layer x",
        ] {
            assert_eq!(
                parsed(line).map_err(|error| error.code),
                Err(crate::error::ExitCode::Usage),
                "{line}"
            );
        }
    }

    #[test]
    fn every_key_has_its_flag() {
        for key in &KEYS {
            let line = format!("serve --{} 1", key.flag);
            let Command::Serve { flags, .. } = parsed(&line).expect("valid") else {
                panic!("{line}")
            };
            assert_eq!(flags[0].0, key.name);
        }
        let Command::Serve { flags, .. } = parsed("serve /f --slots 3").expect("valid") else {
            panic!("not serve")
        };
        assert_eq!(flags, [("functions", "/f".to_owned()), ("slots", "3".to_owned())]);
    }
}
