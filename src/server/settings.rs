//! `hob.toml`, `HOB_*` variables and flags: one table of keys, read three ways.
//!
//! A flag wins over a variable, a variable over the file, the file over the board's profile, and that
//! over the defaults.

mod auth;
mod keys;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::api::auth::{Auth, Credentials};
use crate::board::budget::Budget;
use crate::board::{Board, Machine, memory_kib};
use crate::config::{Section, Source};
use crate::error::Error;
use crate::function::name::Home;
use crate::host::catalog::Defaults;
use crate::host::process::Reaper;
use crate::limits::{DRAIN_LIMIT_S_DEFAULT, UPGRADE_WAIT_S_DEFAULT};
pub use keys::{KEYS, Key, Kind};

/// A key's value, from wherever.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(i64),
    Text(String),
}

/// Everything a server is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// TCP address.
    pub listen: String,
    /// Unix socket.
    pub socket: PathBuf,
    /// Code and state.
    pub data: PathBuf,
    /// Function folders.
    pub functions: Option<PathBuf>,
    /// The board that this machine is taken for.
    pub board: Board,
    /// Memory for the server and its workers, and for how many of these.
    pub budget: Budget,
    /// Limits that hold where a function says nothing.
    pub defaults: Defaults,
    /// How long running invocations get at the end.
    pub drain_limit_s: u32,
    /// How long a successor may take until it serves.
    pub upgrade_wait_s: u32,
    /// Region and account.
    pub home: Home,
    /// How exits become known; `None`: whatever this kernel has.
    pub reaper: Option<Reaper>,
    /// Hot functions get a worker made beforehand.
    pub spares: bool,
    /// Workers that may be frozen get a control group where that is possible.
    pub cgroups: bool,
    /// Workers get the real paths of code and layers, also where others are possible.
    pub real_paths: bool,
    /// Who may call.
    pub auth: Auth,
    /// Keys that were given and that this build does not act upon yet.
    pub not_in_force: Vec<&'static str>,
    said: Said,
}

/// What was said about the board, and in place of what its profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    board: Option<String>,
    slots: Option<u16>,
    memory_budget_mb: Option<u32>,
}

impl Settings {
    /// What holds when nobody says anything, but for what the board's profile says.
    fn new() -> Settings {
        let root = rustix::process::geteuid().is_root();
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || variable("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let data = if root {
            PathBuf::from("/var/lib/hob")
        } else {
            variable("XDG_STATE_HOME")
                .map_or_else(|| home().join(".local/state"), PathBuf::from)
                .join("hob")
        };
        let etc = Path::new("/etc/hob/functions");
        Settings {
            listen: "127.0.0.1:4620".into(),
            socket: default_socket(),
            data,
            functions: (root && etc.is_dir()).then(|| etc.to_owned()),
            board: Board::default(),
            budget: Budget::of(0, 0),
            defaults: Defaults::default(),
            drain_limit_s: DRAIN_LIMIT_S_DEFAULT,
            upgrade_wait_s: UPGRADE_WAIT_S_DEFAULT,
            home: Home { region: "us-east-1".into(), account: "000000000000".into() },
            reaper: None,
            spares: true,
            cgroups: true,
            real_paths: false,
            auth: Auth::Open,
            not_in_force: Vec::new(),
            said: Said::default(),
        }
    }

    /// Reads the file, the environment and the flags, in this order.
    pub fn read(
        config: Option<&Path>,
        flags: &[(&'static str, String)],
    ) -> Result<Settings, Error> {
        let mut settings = Settings::new();
        let standard = default_config();
        if let Some(path) = config.or_else(|| standard.exists().then_some(&standard)) {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Error::usage(format!("read configuration {}: {error}", path.display()))
            })?;
            let file = path.display().to_string();
            let read = Source::new(&file, &text).read(|section| settings.read_file(section));
            read.map_err(|issues| {
                let lines: Vec<String> = issues.iter().map(ToString::to_string).collect();
                Error::usage(lines.join("\n"))
            })?;
        }
        for key in &KEYS {
            let variable = format!("HOB_{}", key.name.to_ascii_uppercase());
            if let Ok(text) = std::env::var(&variable) {
                settings.set_text(key, &variable, &text)?;
            }
        }
        if let Ok(token) = std::env::var("HOB_TOKEN") {
            let token = Some(Auth::digest(&token));
            settings.auth = Auth::Credentials(match settings.auth {
                Auth::Open => Credentials { token, ..Credentials::default() },
                Auth::Credentials(others) => Credentials { token, ..others },
            });
        }
        for (name, text) in flags {
            let key = KEYS.iter().find(|key| key.name == *name).expect("flags come from KEYS");
            settings.set_text(key, &format!("--{}", key.flag), text)?;
        }
        settings.make_absolute()?;
        settings.take_board();
        Ok(settings)
    }

    /// Lets the board's profile say what nobody else did.
    fn take_board(&mut self) {
        let wanted = self.said.board.as_deref().unwrap_or("auto");
        self.board = Board::choose(wanted, &Machine::this()).expect("the name passed its check");
        self.budget = Budget::of(
            self.said.memory_budget_mb.unwrap_or(self.board.memory_budget_mb),
            self.said.slots.unwrap_or(self.board.slots),
        );
    }

    /// Refuses a memory budget that the machine does not have, or that is not enough.
    pub fn check_budget(&self) -> Result<(), Error> {
        let (budget, board) = (self.budget, self.board.id);
        let memory_mb = memory_kib() / 1024;
        if u64::from(budget.whole_mb) > memory_mb {
            return Err(Error::usage(format!(
                "memory_budget_mb: {} MB (board {board}) are more than the {memory_mb} MB that this \
                 machine has",
                budget.whole_mb
            )));
        }
        if !budget.fits() {
            let most = Budget::slots_max(budget.whole_mb);
            let fewer = match Budget::of(budget.whole_mb, most).fits() {
                true => format!("slots up to {most}, or "),
                false => String::new(),
            };
            return Err(Error::usage(format!(
                "{} slots do not fit into memory_budget_mb (board {board}): {budget}; allowed: \
                 {fewer}a larger budget",
                budget.slots,
            )));
        }
        Ok(())
    }

    /// Helpers and workers run in other directories than the server: a path, from wherever it
    /// comes, is one from the root.
    fn make_absolute(&mut self) -> Result<(), Error> {
        let own = [&mut self.socket, &mut self.data];
        for path in own.into_iter().chain(&mut self.functions) {
            *path = std::path::absolute(&*path)
                .map_err(|error| Error::doing("find", path.display(), error))?;
        }
        Ok(())
    }

    fn read_file(&mut self, section: &Section<'_>) {
        for key in &KEYS {
            let value = match key.kind {
                Kind::Integer(low, high) => {
                    section.integer(key.name, low..=high).map(Value::Number)
                }
                Kind::Text(check, allowed) => {
                    section.text(key.name, allowed, check).map(|text| Value::Text(text.to_owned()))
                }
                Kind::Choice(words) => {
                    section.choice(key.name, words).map(|n| Value::Text(words[n].to_owned()))
                }
            };
            if let Some(value) = value {
                self.set(key.name, value);
            }
        }
        if let Some(credentials) = section.table("auth", auth::read) {
            self.auth = Auth::Credentials(credentials);
        }
        if section.table("mqtt", read_mqtt).is_some() {
            self.not_in_force.push("mqtt");
        }
    }

    /// Sets a key from text, as it comes from a flag or a variable.
    fn set_text(&mut self, key: &Key, place: &str, text: &str) -> Result<(), Error> {
        let bad = |allowed: &str| {
            Error::usage(format!("{place}: {text:?} is not valid, allowed: {allowed}"))
        };
        let value = match key.kind {
            Kind::Integer(low, high) => {
                let number = text.parse().ok().filter(|n| (low..=high).contains(n));
                Value::Number(number.ok_or_else(|| bad(&format!("{low}..{high}")))?)
            }
            Kind::Text(check, allowed) if !check(text) => return Err(bad(allowed)),
            Kind::Choice(words) if !words.contains(&text) => return Err(bad(&words.join(", "))),
            Kind::Text(..) | Kind::Choice(_) => Value::Text(text.to_owned()),
        };
        self.set(key.name, value);
        Ok(())
    }

    /// Sets a key to a value that was checked.
    fn set(&mut self, name: &str, value: Value) {
        match (name, value) {
            ("listen", Value::Text(text)) => self.listen = text,
            ("socket", Value::Text(text)) => self.socket = text.into(),
            ("data", Value::Text(text)) => self.data = text.into(),
            ("functions", Value::Text(text)) => self.functions = Some(text.into()),
            ("board", Value::Text(text)) => self.said.board = Some(text),
            ("slots", Value::Number(n)) => self.said.slots = u16::try_from(n).ok(),
            ("memory_budget_mb", Value::Number(n)) => {
                self.said.memory_budget_mb = u32::try_from(n).ok();
            }
            ("queue_wait_ms", Value::Number(n)) => {
                self.defaults.queue_wait_ms = u32::try_from(n).unwrap_or(u32::MAX);
            }
            ("idle_timeout_s", Value::Number(n)) => {
                self.defaults.idle_timeout_s = u32::try_from(n).unwrap_or(u32::MAX);
            }
            ("init_limit_s", Value::Number(n)) => {
                self.defaults.init_limit_s = u32::try_from(n).unwrap_or(u32::MAX);
            }
            ("freeze_ms", Value::Number(n)) => {
                self.defaults.freeze_ms = u32::try_from(n).unwrap_or(u32::MAX);
            }
            ("drain_limit_s", Value::Number(n)) => {
                self.drain_limit_s = u32::try_from(n).unwrap_or(u32::MAX);
            }
            ("upgrade_wait_s", Value::Number(n)) => {
                self.upgrade_wait_s = u32::try_from(n).unwrap_or(u32::MAX);
            }
            ("region", Value::Text(text)) => self.home.region = text,
            ("account", Value::Text(text)) => self.home.account = text,
            ("reaper", Value::Text(text)) => {
                self.reaper = match text.as_str() {
                    "pidfd" => Some(Reaper::Pidfd),
                    "sigchld" => Some(Reaper::Sigchld),
                    _ => None,
                };
            }
            ("spares", Value::Text(text)) => self.spares = text == "auto",
            ("freezer", Value::Text(text)) => self.cgroups = text == "auto",
            ("paths", Value::Text(text)) => self.real_paths = text == "real",
            (name, value) => unreachable!("{name} = {value:?} passed its check"),
        }
    }
}

/// Where the command line looks for the server unless told otherwise.
pub fn default_socket() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/hob/hob.sock");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        Some(directory) => Path::new(&directory).join("hob.sock"),
        None => makeshift_directory().join("hob.sock"),
    }
}

/// Where a user's socket is if the system gives the user no directory for such things.
fn makeshift_directory() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let directory = std::env::temp_dir().join(format!("hob-{user}"));
    std::path::absolute(&directory).unwrap_or(directory)
}

/// True if this socket stands where everybody may make directories: one of this name need not be
/// the user's.
pub fn is_makeshift(socket: &Path) -> bool {
    socket.parent() == Some(&makeshift_directory())
}

/// Refuses a makeshift socket that somebody else may have put there.
pub fn check_makeshift(socket: &Path) -> std::io::Result<()> {
    let Some(directory) = socket.parent().filter(|_| is_makeshift(socket)) else { return Ok(()) };
    let metadata = std::fs::symlink_metadata(directory)?;
    let refused = |what: &str| {
        Err(std::io::Error::other(format!("its directory {what}: set another socket's path")))
    };
    if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return refused("is somebody else's");
    }
    if metadata.mode() & 0o077 != 0 {
        return refused("is open to others (allowed: mode 0700)");
    }
    Ok(())
}

fn default_config() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/etc/hob/hob.toml");
    }
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    std::env::var_os("XDG_CONFIG_HOME")
        .filter(|value| !value.is_empty())
        .map_or_else(|| home().join(".config"), PathBuf::from)
        .join("hob/hob.toml")
}

fn read_mqtt(section: &Section<'_>) {
    let is_broker = |text: &str| text.starts_with("mqtt://") || text.starts_with("mqtts://");
    section.text("broker", "mqtt://HOST:PORT or mqtts://HOST:PORT", is_broker);
    if !section.has("broker") {
        section.refuse("broker", "is missing");
    }
    for key in ["user", "password", "client_id", "ca", "group"] {
        section.text(key, "text", |text| !text.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, flags: &[(&'static str, &str)]) -> Result<Settings, Error> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let flags: Vec<_> = flags.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        Settings::read(Some(file.path()), &flags)
    }

    #[test]
    fn the_whole_file_is_read_and_flags_win() {
        let text = r#"
listen = "127.0.0.1:1"
socket = "/s"
data = "/d"
functions = "/f"
board = "auto"
slots = 4
memory_budget_mb = 100
queue_wait_ms = 5
idle_timeout_s = 6
init_limit_s = 20
freeze_ms = 9
drain_limit_s = 7
upgrade_wait_s = 11
region = "eu-west-1"
account = "123456789012"
reaper = "sigchld"
spares = "off"
freezer = "signals"
paths = "real"
[auth]
keys = [{ id = "AKIA", secret = "s", scope = "admin", functions = ["*"] }]
token = "t"
[mqtt]
broker = "mqtt://host:1883"
user = "u"
password = "p"
client_id = "c"
ca = "/ca"
group = "hob"
"#;
        let settings = read(text, &[("slots", "8")]).expect("valid");
        assert_eq!((settings.budget, settings.drain_limit_s), (Budget::of(100, 8), 7));
        assert_eq!(settings.upgrade_wait_s, 11);
        assert_eq!(
            settings.defaults,
            Defaults { queue_wait_ms: 5, idle_timeout_s: 6, init_limit_s: 20, freeze_ms: 9 }
        );
        let Auth::Credentials(credentials) = settings.auth else { panic!("there is [auth]") };
        assert_eq!(credentials.token, Some(Auth::digest("t")));
        assert_eq!(credentials.keys[0].id, "AKIA");
        assert_eq!(settings.not_in_force, ["mqtt"]);
        assert_eq!((settings.reaper, settings.real_paths), (Some(Reaper::Sigchld), true));
        assert!(!settings.spares && !settings.cgroups);
    }

    #[test]
    fn what_the_board_says_is_the_lowest_level() {
        let budget =
            |text: &str, flags: &[(&'static str, &str)]| read(text, flags).expect("valid").budget;
        let duo = "board = \"milkv-duo\"\n";
        assert_eq!(budget(duo, &[]), Budget::of(12, 4));
        assert_eq!(budget(duo, &[("board", "pi-zero")]), Budget::of(240, 8));
        assert_eq!(budget(&format!("slots = 2\n{duo}"), &[]), Budget::of(12, 2));
        assert_eq!(budget(duo, &[("memory_budget_mb", "40")]), Budget::of(40, 4));
        let settings = read("memory_budget_mb = 9\nslots = 40", &[]).expect("valid");
        let error = settings.check_budget().expect_err("too much").message;
        assert!(error.starts_with("40 slots do not fit into memory_budget_mb (board "), "{error}");
        assert!(
            error.contains("40 slots 7.5 = 13.2 of 9 MB; allowed: slots up to 17, or a larger"),
            "{error}"
        );
    }

    #[test]
    fn every_path_is_one_from_the_root() {
        let settings = read("socket = \"s\"\ndata = \"./d\"", &[("functions", "f")]);
        let settings = settings.expect("valid");
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(settings.socket, here.join("s"));
        assert_eq!(settings.data, here.join("d"));
        assert_eq!(settings.functions, Some(here.join("f")));
    }

    #[test]
    fn bad_settings_name_their_place() {
        for (text, flags, complaint) in [
            ("slots = 0", &[][..], ":1: slots: 0 is out of range, allowed: 1..256"),
            ("listn = 1", &[], ":1: listn: unknown key, allowed: account, auth, board, data, "),
            ("account = \"1\"", &[], ":1: account: \"1\" is not valid, allowed: twelve digits"),
            ("[auth]\nkeys = [{ id = \"a\" }]", &[], ":2: auth.keys.secret: is missing"),
            ("[mqtt]\nuser = \"a\"", &[], ":1: mqtt.broker: is missing"),
            (
                "board = \"pi-9\"",
                &[],
                ":1: board: \"pi-9\" is not valid, allowed: auto, beaglebone, ",
            ),
            (
                "",
                &[("board", "pi-9")],
                "--board: \"pi-9\" is not valid, allowed: auto, beaglebone, ",
            ),
            ("", &[("slots", "x")], "--slots: \"x\" is not valid, allowed: 1..256"),
            ("", &[("listen", "80")], "--listen: \"80\" is not valid, allowed: HOST:PORT"),
        ] {
            let error = read(text, flags).expect_err(complaint);
            assert!(error.message.contains(complaint), "{}", error.message);
            assert_eq!(error.code, crate::error::ExitCode::Usage);
        }
    }
}
