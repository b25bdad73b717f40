//! What is to be done, from what the board has and what it is to have. Pure.

use super::look::Look;

/// Space that is left free beside the upload, for settings and logs.
const MARGIN_KIB: u64 = 1024;

/// What is to be done on one board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The version that it is to have.
    pub version: String,
    /// The version that it has.
    pub was: Option<String>,
    /// Bytes that are there already, if there is something to upload.
    pub upload_from: Option<u64>,
    /// Bytes of the whole.
    pub size: u64,
    /// Whether the version in force changes, or a server has to be started.
    pub activate: bool,
}

impl Plan {
    /// Decides; or says why it cannot be.
    pub fn new(look: &Look, version: &str, size: u64) -> Result<Plan, String> {
        let there = look.versions.iter().any(|other| other == version);
        let part = look.parts.iter().find(|(other, _)| other == version).map_or(0, |(_, n)| *n);
        // A part that is longer than the whole is not its beginning.
        let part = if part > size { 0 } else { part };
        let activate = look.current.as_deref() != Some(version) || !look.running || !there;
        let upload_from = (!there).then_some(part);
        if (activate || !there) && !look.writable {
            return Err(format!(
                "{} cannot be written: a read-only disk, or not this user's",
                look.lib
            ));
        }
        let needed = if there { 0 } else { (size - part).div_ceil(1024) } + MARGIN_KIB;
        if activate && look.free_kib < needed {
            let free = look.free_kib;
            return Err(format!("{} has {free} KiB free, {needed} KiB are needed", look.lib));
        }
        let was = look.current.clone();
        Ok(Plan { version: version.to_owned(), was, upload_from, size, activate })
    }

    /// For people: one line a step.
    pub fn steps(&self, look: &Look) -> Vec<String> {
        let mut steps = Vec::new();
        let kib = |bytes: u64| bytes.div_ceil(1024);
        match self.upload_from {
            Some(0) => steps.push(format!("upload {} ({} KiB)", self.version, kib(self.size))),
            Some(from) => steps.push(format!(
                "upload the rest of {} ({} of {} KiB)",
                self.version,
                kib(self.size - from),
                kib(self.size)
            )),
            None => {}
        }
        if self.activate {
            let by = match look.service.as_str() {
                "systemd" if look.uid == 0 => "a systemd unit",
                "systemd" => "a systemd unit of this user",
                "openrc" => "an OpenRC service",
                "init" => "an init script",
                _ => "a plain start",
            };
            steps.push(format!("install it below {} with {by}", look.lib));
            match &self.was {
                Some(was) if *was != self.version => {
                    steps.push(format!(
                        "replace {was} by {}, back if it does not answer",
                        self.version
                    ));
                }
                _ => steps.push(format!("start {}", self.version)),
            }
        }
        if steps.is_empty() {
            steps.push(format!("nothing: {} serves already", self.version));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "1111111111111111";
    const OLD: &str = "0000000000000000";

    fn board() -> Look {
        Look {
            writable: true,
            free_kib: 10_000,
            lib: "/l".into(),
            service: "init".into(),
            current: Some(OLD.into()),
            versions: vec![OLD.into()],
            running: true,
            ..Look::default()
        }
    }

    #[test]
    fn only_what_is_missing_is_done() {
        let plan = |look: &Look| Plan::new(look, NEW, 4096 * 1024).map(|plan| plan.steps(look));
        let install = "install it below /l with an init script".to_owned();
        let replace = format!("replace {OLD} by {NEW}, back if it does not answer");
        let upload = format!("upload {NEW} (4096 KiB)");
        assert_eq!(plan(&board()), Ok(vec![upload.clone(), install.clone(), replace.clone()]));
        let part = Look { parts: vec![(NEW.into(), 1024 * 1024)], ..board() };
        let rest = format!("upload the rest of {NEW} (3072 of 4096 KiB)");
        assert_eq!(plan(&part), Ok(vec![rest, install.clone(), replace.clone()]));
        let spoiled = Look { parts: vec![(NEW.into(), 1 << 40)], ..board() };
        assert_eq!(plan(&spoiled), Ok(vec![upload, install.clone(), replace.clone()]));
        let both = Look { versions: vec![OLD.into(), NEW.into()], ..board() };
        assert_eq!(plan(&both), Ok(vec![install.clone(), replace]));
        let same = Look { current: Some(NEW.into()), ..both.clone() };
        assert_eq!(plan(&same), Ok(vec![format!("nothing: {NEW} serves already")]));
        let stopped = Look { running: false, ..same };
        assert_eq!(plan(&stopped), Ok(vec![install, format!("start {NEW}")]));
    }

    #[test]
    fn what_cannot_be_is_said_before() {
        let why = |look: &Look| Plan::new(look, NEW, 4096 * 1024).expect_err("refused");
        let read_only = Look { writable: false, ..board() };
        assert_eq!(why(&read_only), "/l cannot be written: a read-only disk, or not this user's");
        let full = Look { free_kib: 5119, ..board() };
        assert_eq!(why(&full), "/l has 5119 KiB free, 5120 KiB are needed");
        // A deployment that changes nothing needs nothing.
        let same = Look { current: Some(NEW.into()), versions: vec![NEW.into()], ..full };
        assert!(Plan::new(&Look { writable: false, ..same }, NEW, 1).is_ok());
    }
}
