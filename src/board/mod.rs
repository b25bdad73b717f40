//! Boards: what `boards/*.toml` says of each, and which of them this machine is.
//!
//! A profile is the lowest level of settings: slots and a memory budget that its board can bear.
//! The files are built in as they are; who adds one names it in [`BOARDS`].

pub mod budget;

use std::fmt;

use crate::config::{Issue, Section, Source};
use crate::limits::{
    GENERIC_MEMORY_PART, GENERIC_SLOTS_PER_CORE, MEMORY_BUDGET_MB_MAX, SLOTS_DEFAULT, SLOTS_MAX,
};
use budget::Budget;

macro_rules! boards {
    ($($name:literal)*) => {
        /// Every board: its name for `--board`, and its file.
        pub const BOARDS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../boards/", $name, ".toml")))),*];

        /// What `--board` may be.
        pub const ALLOWED: &str = concat!("auto" $(, ", ", $name)*);
    };
}

boards! {
    "beaglebone" "lab-x86_64" "milkv-duo" "pi-3" "pi-4" "pi-5" "pi-zero" "pi-zero-2" "visionfive-2"
}

/// The words of `cross/build`.
pub const TARGETS: [&str; 5] = ["aarch64", "armv7", "armv6", "riscv64", "x86_64"];

/// The profile of machines that have no device tree, where that is usual.
const LAB: &str = "lab-x86_64";
/// In place of the name of a board.
const GENERIC: &str = "generic";

/// What a file in `boards/` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// For people.
    pub name: String,
    /// What the device tree's model contains.
    pub model: Vec<String>,
    /// What `cross/build` is told.
    pub target: String,
    /// qemu's model of its processor.
    pub cpu: String,
    /// Its cores.
    pub cores: u16,
    /// The memory that is on it, at the least.
    pub memory_mb: u32,
    /// What Linux has of that.
    pub usable_mb: u32,
    /// What its disk is: `sd`, `emmc`, `nand`, `ssd`.
    pub storage: String,
    /// Processes at one time.
    pub slots: u16,
    /// Memory for the server and its workers.
    pub memory_budget_mb: u32,
    /// What starts its services: `systemd`, `openrc`, `busybox`.
    pub init: String,
    /// Where the figures come from.
    pub source: String,
}

impl Profile {
    /// Reads the text of `file`.
    pub fn parse(file: &str, text: &str) -> Result<Profile, Vec<Issue>> {
        Source::new(file, text).read(read).map(|profile| profile.expect("every key is there"))
    }

    /// The profile with this name for `--board`.
    pub fn named(id: &str) -> Option<Profile> {
        let (id, text) = BOARDS.iter().find(|(name, _)| *name == id)?;
        Some(Profile::parse(id, text).expect("a test reads every file"))
    }

    /// The board whose device tree has this model. Models begin like those of other boards: the
    /// longest text that fits counts.
    pub fn of_model(model: &str) -> Option<(&'static str, Profile)> {
        let fits = |(id, _): &(&'static str, &str)| {
            let profile = Profile::named(id)?;
            let texts = profile.model.iter().filter(|text| model.contains(&***text));
            let longest = texts.map(String::len).max()?;
            Some((longest, *id, profile))
        };
        let best = BOARDS.iter().filter_map(fits).max_by_key(|(longest, ..)| *longest);
        best.map(|(_, id, profile)| (id, profile))
    }
}

/// Reads a profile; `None` if a key is missing, which was then complained about.
fn read(section: &Section<'_>) -> Option<Profile> {
    let is_said = |text: &str| !text.trim().is_empty();
    let text = |key| section.text(key, "text", is_said).map(str::to_owned);
    let word = |key, words: &[&str]| section.choice(key, words).map(|n| words[n].to_owned());
    let megabytes = |key| section.integer(key, 1..=i64::from(MEMORY_BUDGET_MB_MAX));
    let slots = i64::try_from(SLOTS_MAX).unwrap_or(i64::MAX);
    let profile = Profile {
        name: text("name").unwrap_or_default(),
        model: section.texts("model", "texts", is_said).unwrap_or_default(),
        target: word("target", &TARGETS).unwrap_or_default(),
        cpu: text("cpu").unwrap_or_default(),
        cores: section.integer("cores", 1..=1024).unwrap_or_default(),
        memory_mb: megabytes("memory_mb").unwrap_or_default(),
        usable_mb: megabytes("usable_mb").unwrap_or_default(),
        storage: word("storage", &["sd", "emmc", "nand", "ssd"]).unwrap_or_default(),
        slots: section.integer("slots", 1..=slots).unwrap_or_default(),
        memory_budget_mb: megabytes("memory_budget_mb").unwrap_or_default(),
        init: word("init", &["systemd", "openrc", "busybox"]).unwrap_or_default(),
        source: text("source").unwrap_or_default(),
    };
    let mut is_whole = true;
    for key in KEYS {
        if !section.has(key) {
            section.refuse(key, "is missing");
            is_whole = false;
        }
    }
    is_whole.then_some(profile)
}

const KEYS: [&str; 12] = [
    "name",
    "model",
    "target",
    "cpu",
    "cores",
    "memory_mb",
    "usable_mb",
    "storage",
    "slots",
    "memory_budget_mb",
    "init",
    "source",
];

/// What this machine says of itself.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What its device tree calls it, if it has one.
    pub model: Option<String>,
    /// As Rust calls it: `x86_64`, `arm`.
    pub arch: &'static str,
    /// The memory that Linux has.
    pub memory_mb: u32,
    /// Tells its cores: that is asked only where no board is known, and reads half a dozen files.
    pub cores: fn() -> u16,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let places = ["/proc/device-tree/model", "/sys/firmware/devicetree/base/model"];
        let model = places.iter().find_map(|place| std::fs::read(place).ok());
        let model = model.map(|bytes| model_text(&bytes)).filter(|model| !model.is_empty());
        Machine {
            model,
            arch: std::env::consts::ARCH,
            memory_mb: u32::try_from(memory_kib() / 1024).unwrap_or(u32::MAX),
            cores,
        }
    }
}

fn cores() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores).unwrap_or(u16::MAX)
}

/// KiB of memory that Linux has on this machine.
pub fn memory_kib() -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "32 bits wide on some machines")]
    let bytes = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
    bytes / 1024
}

/// A model as device trees have it: text up to a zero.
fn model_text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

/// The board that a server takes this machine for, and what it gives where nobody says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// Its name for `--board`, or `generic`.
    pub id: &'static str,
    /// For people.
    pub name: String,
    /// How that came about, for people.
    pub how: String,
    /// Processes at one time.
    pub slots: u16,
    /// Memory for the server and its workers.
    pub memory_budget_mb: u32,
}

impl Board {
    /// The board of this name, as its file says; `auto` is whatever `machine` is, with a budget in
    /// proportion to its memory. `None` if there is no such board.
    pub fn choose(wanted: &str, machine: &Machine) -> Option<Board> {
        if wanted == "auto" {
            return Some(Board::of(machine));
        }
        let (id, _) = BOARDS.iter().find(|(id, _)| *id == wanted)?;
        let Profile { name, slots, memory_budget_mb, .. } = Profile::named(id)?;
        Some(Board { id, name, how: "as told".into(), slots, memory_budget_mb })
    }

    /// True if a file in `boards/` says what it is.
    pub fn is_known(&self) -> bool {
        self.id != GENERIC
    }

    fn of(machine: &Machine) -> Board {
        let by_model = machine.model.as_ref().and_then(|model| {
            let (id, profile) = Profile::of_model(model)?;
            Some((id, profile, format!("its device tree says {model}")))
        });
        let by_arch = || {
            let profile = Profile::named(LAB).filter(|_| machine.arch == "x86_64")?;
            Some((LAB, profile, "it is an x86_64".to_owned()))
        };
        match by_model.or_else(by_arch) {
            Some((id, profile, how)) => {
                let memory_budget_mb = scaled(&profile, machine.memory_mb);
                let slots = profile.slots.min(Budget::slots_max(memory_budget_mb));
                Board { id, name: profile.name, how, slots, memory_budget_mb }
            }
            None => Board::generic(machine),
        }
    }

    fn generic(machine: &Machine) -> Board {
        let memory_budget_mb = (machine.memory_mb / GENERIC_MEMORY_PART).max(1);
        let cores = (machine.cores)();
        let slots = cores.saturating_mul(GENERIC_SLOTS_PER_CORE).min(SLOTS_DEFAULT);
        let model = machine.model.as_deref().unwrap_or("it has no device tree");
        Board {
            id: GENERIC,
            name: format!("{} with {cores} cores", machine.arch),
            how: format!("no board is known for it: {model}"),
            slots: slots.min(Budget::slots_max(memory_budget_mb)),
            memory_budget_mb,
        }
    }
}

/// A profile's budget on a board with so much memory, which may be a larger one of its kind.
fn scaled(profile: &Profile, memory_mb: u32) -> u32 {
    let whole = u64::from(profile.memory_budget_mb) * u64::from(memory_mb);
    let part = whole / u64::from(profile.usable_mb);
    u32::try_from(part).unwrap_or(u32::MAX).clamp(1, MEMORY_BUDGET_MB_MAX)
}

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.id, self.name, self.how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(model: Option<&str>, arch: &'static str, memory_mb: u32) -> Machine {
        Machine { model: model.map(str::to_owned), arch, memory_mb, cores: || 4 }
    }

    #[test]
    fn boards_are_known_by_what_their_device_trees_say() {
        for (model, id) in [
            ("Raspberry Pi Zero W Rev 1.1", "pi-zero"),
            ("Raspberry Pi Zero 2 W Rev 1.0", "pi-zero-2"),
            ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi-3"),
            ("Raspberry Pi 3 Model A Plus Rev 1.0", "pi-zero-2"),
            ("Raspberry Pi 4 Model B Rev 1.4", "pi-4"),
            ("Raspberry Pi 400 Rev 1.0", "pi-4"),
            ("Raspberry Pi Compute Module 4 Rev 1.0", "pi-4"),
            ("Raspberry Pi 5 Model B Rev 1.0", "pi-5"),
            ("TI AM335x BeagleBone Black", "beaglebone"),
            ("StarFive VisionFive 2 v1.3B", "visionfive-2"),
            ("Milk-V Duo", "milkv-duo"),
            ("Cvitek. CV180X ASIC. C906.", "milkv-duo"),
        ] {
            let found = Profile::of_model(model).map(|(id, _)| id);
            assert_eq!(found, Some(id), "{model}");
        }
        assert_eq!(Profile::of_model("linux,dummy-virt"), None);
        assert_eq!(
            model_text(b"Raspberry Pi 4 Model B Rev 1.1\0"),
            "Raspberry Pi 4 Model B Rev 1.1"
        );
        assert_eq!(model_text(b"\xff\0x"), "\u{fffd}");
    }

    #[test]
    fn a_larger_board_of_its_kind_has_a_larger_budget() {
        let four =
            |memory_mb| Board::of(&machine(Some("Raspberry Pi 4 Model B"), "arm", memory_mb));
        assert_eq!((four(900).memory_budget_mb, four(3_600).memory_budget_mb), (512, 2_048));
        assert_eq!((four(3_600).id, four(3_600).slots), ("pi-4", 32));
        let named = Board::choose("pi-4", &machine(None, "x86_64", 3_600)).expect("known");
        assert_eq!((named.slots, named.memory_budget_mb), (32, 512), "told so: as the file says");
    }

    #[test]
    fn whatever_a_machine_is_what_it_gets_by_itself_fits() {
        for memory_mb in [8, 16, 28, 63, 98, 440, 900, 8_000, 64_000, u32::MAX] {
            for (model, arch, id) in [
                (None, "aarch64", "generic"),
                (Some("riscv-virtio,qemu"), "riscv64", "generic"),
                (None, "x86_64", "lab-x86_64"),
                (Some("Raspberry Pi Zero W"), "arm", "pi-zero"),
                (Some("Milk-V Duo"), "riscv64", "milkv-duo"),
            ] {
                let machine = machine(model, arch, memory_mb);
                let board = Board::choose("auto", &machine).expect("always");
                assert_eq!(board.id, id);
                assert!(board.slots >= 1 && board.memory_budget_mb <= memory_mb, "{board:?}");
                let budget = Budget::of(board.memory_budget_mb, board.slots);
                assert!(budget.fits() || memory_mb < 20, "{memory_mb} MB: {budget}");
            }
        }
    }

    #[test]
    fn a_profile_says_everything_and_nothing_else() {
        let complaints = |text: &str| match Profile::parse("b.toml", text) {
            Ok(_) => Vec::new(),
            Err(issues) => issues.iter().map(Issue::to_string).collect::<Vec<_>>(),
        };
        let (_, whole) = BOARDS[0];
        assert!(complaints(whole).is_empty());
        let without = whole.replace("cores = 1", "");
        assert_eq!(complaints(&without), ["b.toml:1: cores: is missing"]);
        assert!(complaints(&whole.replace("armv7", "armv8"))[0].contains("\"armv8\" is not valid"));
        assert!(complaints(&format!("{whole}colour = \"red\""))[0].contains("unknown key"));
        assert_eq!(Board::choose("pi-9", &machine(None, "x86_64", 900)), None);
        assert!(ALLOWED.starts_with("auto, beaglebone, lab-x86_64, milkv-duo"));
    }
}
