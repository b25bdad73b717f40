//! Which hosts: `USER@HOST[:PORT]`, and the fleet file.

use std::path::{Path, PathBuf};

use crate::board::{self, Profile};
use crate::config::{Section, Source};
use crate::error::Error;

/// A host, as `ssh` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// For people.
    pub name: String,
    /// `USER@HOST`, or a name of the user's ssh settings.
    pub destination: String,
    /// Another port than those say.
    pub port: Option<u16>,
    /// The profile that it is to take.
    pub board: Option<String>,
    /// Function folders for it.
    pub functions: Option<PathBuf>,
}

/// The fleet file that is read if no host is named.
const FLEET: &str = "fleet.toml";
/// In place of a board's name: each host finds its own profile.
const AUTO: &str = "auto";
const ADDRESS: &str = "USER@HOST or USER@HOST:PORT";

impl Host {
    /// `USER@HOST[:PORT]`; the user may be left to the settings of ssh. An address of IPv6 with a
    /// port stands in brackets.
    pub fn parse(name: Option<&str>, text: &str) -> Option<Host> {
        let (user, rest) = text.rsplit_once('@').map_or(("", text), |(user, rest)| (user, rest));
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None if rest.matches(':').count() == 1 => {
                rest.split_once(':').map(|(host, port)| (host, Some(port)))?
            }
            None => (rest, None),
        };
        let port = port
            .map(|text| text.parse().ok().filter(|port| *port > 0))
            .map_or(Some(None), |port: Option<u16>| port.map(Some))?;
        // What starts with a dash would be an option of ssh.
        let plain = |text: &str| {
            !text.starts_with('-')
                && text.bytes().all(|b| b.is_ascii_graphic() && !b"'\"\\`$;&|<>()".contains(&b))
        };
        let named = text.contains('@') && user.is_empty();
        if host.is_empty() || named || !plain(host) || !plain(user) {
            return None;
        }
        let destination = if user.is_empty() { host.to_owned() } else { format!("{user}@{host}") };
        let name = name.unwrap_or(text).to_owned();
        Some(Host { name, destination, port, board: None, functions: None })
    }
}

/// True for what may be said to be a board.
fn is_board(name: &str) -> bool {
    name == AUTO || Profile::named(name).is_some()
}

/// What `--board` says; `None` if each host is to find its own profile.
pub fn board(name: &str) -> Result<Option<String>, Error> {
    if !is_board(name) {
        let allowed = board::ALLOWED;
        return Err(Error::usage(format!("--board: {name:?} is not valid, allowed: {allowed}")));
    }
    Ok((name != AUTO).then(|| name.to_owned()))
}

/// The hosts of the arguments. With a fleet file, or without arguments, they are names in it.
pub fn hosts(named: &[String], fleet: Option<&Path>) -> Result<Vec<Host>, Error> {
    if fleet.is_none() && !named.is_empty() {
        let parsed = named.iter().map(|text| {
            Host::parse(None, text)
                .ok_or_else(|| Error::usage(format!("{text:?} is not valid, allowed: {ADDRESS}")))
        });
        return parsed.collect();
    }
    let path = fleet.unwrap_or(Path::new(FLEET));
    let text = std::fs::read_to_string(path).map_err(|error| {
        let cure = if fleet.is_none() { "; name a host, USER@HOST" } else { "" };
        Error::usage(format!("read the fleet {}: {error}{cure}", path.display()))
    })?;
    let mut all = parse_fleet(&path.display().to_string(), &text)?;
    // Paths in a file are seen from where it is.
    let here = path.parent().unwrap_or(Path::new(""));
    for functions in all.iter_mut().filter_map(|host| host.functions.as_mut()) {
        *functions = here.join(&*functions);
    }
    if let Some(name) = named.iter().find(|name| !all.iter().any(|host| host.name == **name)) {
        return Err(Error::usage(format!("{}: there is no host {name}", path.display())));
    }
    let wanted = |host: &Host| named.is_empty() || named.contains(&host.name);
    Ok(all.into_iter().filter(wanted).collect())
}

fn parse_fleet(file: &str, text: &str) -> Result<Vec<Host>, Error> {
    let read = Source::new(file, text).read(|section| {
        let hosts = section.tables("host", read_host).unwrap_or_default();
        if hosts.is_empty() {
            section.refuse("host", "is missing, allowed: a list of tables, [[host]]");
        }
        let hosts: Vec<Host> = hosts.into_iter().flatten().collect();
        for (at, host) in hosts.iter().enumerate() {
            if hosts[..at].iter().any(|other| other.name == host.name) {
                section.refuse("host", format_args!("the name {} comes twice", host.name));
            }
        }
        hosts
    });
    read.map_err(|issues| {
        let lines: Vec<String> = issues.iter().map(ToString::to_string).collect();
        Error::usage(lines.join("\n"))
    })
}

fn read_host(section: &Section<'_>) -> Option<Host> {
    let name = section.text("name", "letters, digits, - and _", crate::function::name::is_name);
    let address = section.text("address", ADDRESS, |text| Host::parse(None, text).is_some());
    for key in ["name", "address"] {
        if !section.has(key) {
            section.refuse(key, "is missing");
        }
    }
    let functions = section.text("functions", "a directory", |text| !text.is_empty());
    let board = section.text("board", board::ALLOWED, is_board);
    let board = board.filter(|name| *name != AUTO).map(str::to_owned);
    let host = Host::parse(Some(name?), address?)?;
    Some(Host { board, functions: functions.map(PathBuf::from), ..host })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_ssh_takes_and_nothing_that_it_misreads() {
        let parsed = |text| Host::parse(None, text).map(|host| (host.destination, host.port));
        for (text, destination, port) in [
            ("pi@board", "pi@board", None),
            ("board", "board", None),
            ("root@10.0.0.7:2222", "root@10.0.0.7", Some(2222)),
            ("root@[fe80::1%eth0]:22", "root@fe80::1%eth0", Some(22)),
            ("root@fe80::1", "root@fe80::1", None),
        ] {
            assert_eq!(parsed(text), Some((destination.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            "@b",
            "a@",
            "-oProxyCommand=x",
            "a@-b",
            "a@b:0",
            "a@b:x",
            "a b",
            "a@b:99999",
            "a@[b",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn a_fleet_is_read_strictly() {
        let good = "[[host]]\nname = \"a\"\naddress = \"pi@a:22\"\n[[host]]\nname = \"b\"\naddress = \"b\"\n";
        let hosts = parse_fleet("f", good).expect("valid");
        assert_eq!(hosts.len(), 2);
        assert_eq!((hosts[0].name.as_str(), hosts[0].port), ("a", Some(22)));
        let example = include_str!("../../examples/fleet.toml");
        let hosts = parse_fleet("examples/fleet.toml", example).expect("valid");
        assert_eq!(hosts[0].functions.as_deref(), Some(Path::new(".")));
        for (text, complaint) in [
            ("", "f:1: host: is missing"),
            ("[[host]]\nname = \"a\"", "f:1: host.address: is missing"),
            ("[[host]]\nname = \"a\"\naddress = \"-x\"", "f:3: host.address: \"-x\" is not valid"),
            ("[[host]]\nname = \"a\"\naddress = \"x\"\nport = 3", "f:4: host.port: unknown key"),
            (&format!("{good}{good}"), "the name a comes twice"),
        ] {
            let error = parse_fleet("f", text).expect_err(complaint);
            assert!(error.message.contains(complaint), "{}", error.message);
        }
    }
}
