//! The program that a board gets: what it was built for, and where it comes from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::look::Look;
use crate::error::Error;
use crate::function::elf::{ARM_V6_MACHINE, Elf, LOOK, Target, is_beyond_arm_v6, within};

/// What a board runs, by the words of `cross/build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM from version 7 on, hard float.
    Armv7,
    /// 32-bit ARM version 6, hard float.
    Armv6,
    /// 64-bit RISC-V with double floats.
    Riscv64,
    /// A PC.
    X86_64,
}

impl Arch {
    /// What this board runs.
    pub fn of(look: &Look) -> Option<Arch> {
        match (look.arch.as_str(), look.bits) {
            ("x86_64", 64) => Some(Arch::X86_64),
            ("aarch64" | "arm64", 64) => Some(Arch::Aarch64),
            ("aarch64" | "arm64" | "armv8l" | "armv7l" | "armv7", 32) => Some(Arch::Armv7),
            (ARM_V6_MACHINE | "armv6", 32) => Some(Arch::Armv6),
            ("riscv64", 64) => Some(Arch::Riscv64),
            _ => None,
        }
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Aarch64 => "aarch64",
            Arch::Armv7 => "armv7",
            Arch::Armv6 => "armv6",
            Arch::Riscv64 => "riscv64",
            Arch::X86_64 => "x86_64",
        }
    }

    fn target(self) -> Target {
        let (machine, wide) = match self {
            Arch::Aarch64 => (183, true),
            Arch::Armv7 | Arch::Armv6 => (40, false),
            Arch::Riscv64 => (243, true),
            Arch::X86_64 => (62, true),
        };
        Target { machine, wide, little: true }
    }

    /// What `e_flags` must have, of these bits: how floats are handed over.
    fn floats(self) -> (u32, u32) {
        match self {
            Arch::Armv7 | Arch::Armv6 => (0x400, 0x400),
            Arch::Riscv64 => (0x6, 0x4),
            Arch::Aarch64 | Arch::X86_64 => (0, 0),
        }
    }

    /// What this program was built for, as far as it can be told apart: a 32-bit ARM one may be
    /// for version 6, which version 7 runs.
    fn own() -> Option<Arch> {
        [Arch::Aarch64, Arch::Riscv64, Arch::X86_64]
            .into_iter()
            .find(|arch| arch.target() == Target::own())
    }

    /// Why a hob of this kind does not run there.
    fn check(self, elf: &Elf, bytes: &[u8], look: &Look) -> Result<(), String> {
        if elf.target != self.target() {
            return Err(self.other(elf));
        }
        self.check_handler(elf, bytes, look)
    }

    fn other(self, elf: &Elf) -> String {
        format!("it is for {}, the board is {}", elf.target.name(), self.target().name())
    }

    /// Why a handler does not run there: a 64-bit board may have 32-bit ones.
    pub fn check_handler(self, elf: &Elf, bytes: &[u8], look: &Look) -> Result<(), String> {
        if !self.target().runs(elf.target) {
            return Err(self.other(elf));
        }
        let at = if elf.target.wide { 48 } else { 36 };
        let flags = bytes
            .get(at..at + 4)
            .map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")));
        let (bits, wanted) = self.floats();
        if elf.target == self.target() && flags & bits != wanted {
            return Err("it hands floats over in another way than the board's programs".into());
        }
        if self == Arch::Armv6 && is_beyond_arm_v6(within(bytes)) {
            return Err("it is for a later version of ARM than the board's, which is 6".into());
        }
        match &elf.interpreter {
            Some(path) if !look.there.contains(path) => {
                let libc =
                    if look.libc.is_empty() { "no C library" } else { &look.libc.join(", ") };
                Err(format!("it needs {path}, the board has {libc}; a static one needs nothing"))
            }
            _ => Ok(()),
        }
    }
}

/// A program, whole.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Where it is.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
    /// What it was built for.
    pub elf: Elf,
}

impl Binary {
    /// Reads a file, which must be an executable.
    pub fn read(path: &Path) -> Result<Binary, Error> {
        let bytes = std::fs::read(path).map_err(|error| {
            Error::usage(format!("read the binary {}: {error}", path.display()))
        })?;
        let elf = Elf::parse(&bytes[..LOOK.min(bytes.len())]).ok_or_else(|| {
            Error::usage(format!(
                "{}: not an ELF executable, allowed: hob for the board",
                path.display()
            ))
        })?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Binary { path: path.to_owned(), bytes, sha256, elf })
    }

    /// Its version's name.
    pub fn version(&self) -> &str {
        &self.sha256[..16]
    }

    /// Why it does not run there.
    pub fn check(&self, arch: Arch, look: &Look) -> Result<(), String> {
        let wrong = arch.check(&self.elf, &self.bytes, look);
        wrong.map_err(|why| format!("{} does not run there: {why}", self.path.display()))
    }
}

/// Programs that must be on the board for what might be deployed: asked for with the look.
pub fn interpreters(given: Option<&Binary>) -> Vec<String> {
    let own = || std::env::current_exe().ok().and_then(|path| Binary::read(&path).ok());
    let elf = given.map(|binary| binary.elf.clone()).or_else(|| own().map(|binary| binary.elf));
    elf.and_then(|elf| elf.interpreter).into_iter().collect()
}

/// The program for this board: this one itself if it runs there, otherwise the project builds it.
pub fn find(arch: Arch, look: &Look, say: &dyn Fn(&str)) -> Result<Binary, String> {
    if Arch::own() == Some(arch) {
        let own = std::env::current_exe().map_err(|error| format!("find this program: {error}"))?;
        let own = Binary::read(&own).map_err(|error| error.message)?;
        if own.check(arch, look).is_ok() {
            return Ok(own);
        }
    }
    build(arch, say)
}

/// One build at a time: boards of one kind share it, and others would only be slower beside it.
static BUILDING: Mutex<()> = Mutex::new(());

fn build(arch: Arch, say: &dyn Fn(&str)) -> Result<Binary, String> {
    let name = arch.name();
    let source = std::env::var_os("HOB_SOURCE").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let program = source.join("cross/build");
    if !program.exists() {
        return Err(format!(
            "there is no hob for {name} here: run this in a checkout of hob (or set HOB_SOURCE to \
             one), or build one with `cross/build {name}` and name it with --binary"
        ));
    }
    let _one = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    say(&format!("cross/build {name}"));
    let program = std::path::absolute(&program).unwrap_or(program);
    let built =
        Command::new(program).arg(name).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("run cross/build: {error}"))?;
    let text = String::from_utf8_lossy(&built.stdout);
    match text.lines().last() {
        Some(path) if built.status.success() => {
            Binary::read(&source.join(path)).map_err(|error| error.message)
        }
        _ => Err(format!("cross/build {name} failed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::elf::tests::{V7, arm as arm_program};

    fn look(arch: &str, bits: u32) -> Look {
        Look { arch: arch.into(), bits, ..Look::default() }
    }

    #[test]
    fn boards_are_told_apart() {
        for (arch, bits, name) in [
            ("aarch64", 64, Some("aarch64")),
            ("aarch64", 32, Some("armv7")),
            ("armv7l", 32, Some("armv7")),
            ("armv6l", 32, Some("armv6")),
            ("riscv64", 64, Some("riscv64")),
            ("x86_64", 64, Some("x86_64")),
            ("x86_64", 32, None),
            ("mips", 32, None),
        ] {
            assert_eq!(Arch::of(&look(arch, bits)).map(Arch::name), name, "{arch} {bits}");
        }
    }

    #[test]
    fn a_binary_for_another_board_is_refused_with_the_reason() {
        let mut header = vec![0u8; 64];
        let elf = |target, interpreter: Option<&str>| Elf {
            target,
            interpreter: interpreter.map(str::to_owned),
        };
        let board = Look { there: vec!["/lib/ld.so".into()], ..look("armv7l", 32) };
        let arm = Arch::Armv7;
        let wrong = arm.check(&elf(Arch::X86_64.target(), None), &header, &board);
        assert_eq!(wrong, Err("it is for x86-64 (64-bit), the board is ARM (32-bit)".into()));
        assert!(
            arm.check(&elf(arm.target(), None), &header, &board)
                .expect_err("soft")
                .contains("floats")
        );
        header[36..40].copy_from_slice(&0x0500_0400u32.to_le_bytes());
        assert_eq!(arm.check(&elf(arm.target(), None), &header, &board), Ok(()));
        assert_eq!(arm.check(&elf(arm.target(), Some("/lib/ld.so")), &header, &board), Ok(()));
        let mut v7 = arm_program(V7);
        v7[36..40].copy_from_slice(&0x0500_0400u32.to_le_bytes());
        assert_eq!(arm.check(&elf(arm.target(), None), &v7, &board), Ok(()));
        let older = Arch::Armv6.check(&elf(arm.target(), None), &v7, &board);
        assert!(older.expect_err("too new").contains("later version of ARM"));
        let missing = arm.check(&elf(arm.target(), Some("/lib/ld-other.so")), &header, &board);
        assert!(missing.expect_err("missing").contains("/lib/ld-other.so"));
    }
}
