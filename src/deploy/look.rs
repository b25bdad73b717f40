//! What the board said about itself: lines of `KEY VALUE`, read strictly, since they come from
//! outside.

/// A board as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// `uname -m`.
    pub arch: String,
    /// 64 or 32, of the programs rather than of the kernel.
    pub bits: u32,
    /// musl, glibc: those that are there.
    pub libc: Vec<String>,
    /// The device tree's name of the board.
    pub model: String,
    /// The user there.
    pub uid: u32,
    /// systemd, openrc, init, none.
    pub service: String,
    /// Where versions are.
    pub lib: String,
    /// Space there.
    pub free_kib: u64,
    /// Whether it can be written.
    pub writable: bool,
    /// The version in force.
    pub current: Option<String>,
    /// The one before.
    pub previous: Option<String>,
    /// All that are there, whole.
    pub versions: Vec<String>,
    /// What came of interrupted uploads: version and bytes.
    pub parts: Vec<(String, u64)>,
    /// Whether a server answers.
    pub running: bool,
    /// When the version in force was confirmed, by the board's clock.
    pub since: String,
    /// How the last deployment ended.
    pub outcome: String,
    /// Functions that came from a deployment, with their content.
    pub functions: Vec<(String, String)>,
    /// Paths that were asked for and are there.
    pub there: Vec<String>,
}

/// Lines that are read; a board has two versions, a few parts, and its functions.
const LINES_MAX: usize = 2048;
/// Characters of a value that are shown.
const VALUE_MAX: usize = 300;

/// The name of a version: the first digits of its SHA-256.
pub fn is_version(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Without what could play with a terminal.
pub fn plain(text: &str) -> String {
    let shown = text.chars().take(VALUE_MAX);
    shown.map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

impl Look {
    /// Reads it; what a login prints before is skipped. `None` if it is not whole or makes no sense.
    pub fn parse(text: &str) -> Option<Look> {
        let mut lines = text.lines().skip_while(|line| *line != "hob-look 1");
        lines.next()?;
        let mut look = Look::default();
        for line in lines.take(LINES_MAX) {
            if line == "end" {
                return (!look.arch.is_empty() && look.bits != 0).then_some(look);
            }
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            look.set(key, value)?;
        }
        None
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let version = || is_version(value).then(|| value.to_owned());
        match key {
            "arch" => self.arch = plain(value),
            "bits" => self.bits = value.parse().ok().filter(|bits| [32, 64].contains(bits))?,
            "libc" => self.libc.push(plain(value)),
            "model" => self.model = plain(value),
            "uid" => self.uid = value.parse().ok()?,
            "service" => self.service = plain(value),
            "lib" => self.lib = plain(value),
            "free_kib" => self.free_kib = value.parse().ok()?,
            "writable" => self.writable = value == "yes",
            "current" => self.current = Some(version()?),
            "previous" => self.previous = Some(version()?),
            "version" => self.versions.push(version()?),
            "part" => {
                let (version, bytes) = value.split_once(' ')?;
                self.parts.push((version.to_owned(), bytes.parse().ok()?));
            }
            "function" => self.functions.push(super::functions::parse(value)?),
            "running" => self.running = value == "yes",
            "since" => self.since = plain(value),
            // The attempt's number is of no interest to people.
            "outcome" => self.outcome = plain(value.split_once(' ').map_or("", |(_, rest)| rest)),
            "there" => self.there.push(value.to_owned()),
            // A later board.sh may say more.
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "Welcome!\nhob-look 1\narch armv7l\nbits 32\nlibc glibc\nmodel Pi\x1b[2J 3\nuid 0\n\
        service init\nlib /usr/local/lib/hob\nfree_kib 100\nwritable yes\ncurrent 0123456789abcdef\n\
        version 0123456789abcdef\npart fedcba9876543210 77\nrunning yes\noutcome 42 done it serves\n\
        there /lib/ld.so\nend\n";

    #[test]
    fn what_a_board_says_is_read_and_cleaned() {
        let look = Look::parse(BOARD).expect("valid");
        assert_eq!((look.arch.as_str(), look.bits, look.free_kib), ("armv7l", 32, 100));
        assert_eq!(look.model, "Pi [2J 3");
        assert_eq!(look.current.as_deref(), Some("0123456789abcdef"));
        assert_eq!(look.parts, [("fedcba9876543210".to_owned(), 77)]);
        assert_eq!((look.outcome.as_str(), look.running), ("done it serves", true));
    }

    #[test]
    fn half_of_it_or_nonsense_is_none() {
        for at in 0..BOARD.len() - 1 {
            if BOARD.is_char_boundary(at) && !BOARD[..at].ends_with("end") {
                assert_eq!(Look::parse(&BOARD[..at]), None, "{at}");
            }
        }
        for (from, to) in [
            ("bits 32", "bits 33"),
            ("current 0", "current /"),
            (" 77", " -7"),
            ("arch armv7l\n", ""),
        ] {
            assert_eq!(Look::parse(&BOARD.replacen(from, to, 1)), None, "{to}");
        }
    }
}
