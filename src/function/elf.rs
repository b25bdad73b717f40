//! Reading as much of an ELF file as tells whether this machine can run it.

/// The facts of an executable's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// What it was built for.
    pub target: Target,
    /// The dynamic loader it asks for; `None` for a static executable.
    pub interpreter: Option<String>,
}

/// An architecture as ELF tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// `e_machine`.
    pub machine: u16,
    /// 64 bits and not 32.
    pub wide: bool,
    /// Little endian and not big.
    pub little: bool,
}

/// Bytes at the start of a file that hold header and program headers in every executable that a
/// linker makes by itself.
pub const LOOK: usize = 4096;

const PT_INTERP: u32 = 3;

impl Elf {
    /// Reads the first [`LOOK`] bytes (or all) of a file; `None` if it is no ELF executable.
    pub fn parse(bytes: &[u8]) -> Option<Elf> {
        let ident = bytes.strip_prefix(b"\x7fELF")?;
        let wide = *ident.first()? == 2;
        let little = *ident.get(1)? == 1;
        let reader = Reader { bytes, little };
        let machine = reader.u16(18)?;
        let (at, size, count) = if wide {
            (reader.u64(32)?, reader.u16(54)?, reader.u16(56)?)
        } else {
            (u64::from(reader.u32(28)?), reader.u16(42)?, reader.u16(44)?)
        };
        let mut elf = Elf { target: Target { machine, wide, little }, interpreter: None };
        for n in 0..usize::from(count) {
            let header = usize::try_from(at).ok();
            let header = header.and_then(|at| at.checked_add(n * usize::from(size)));
            let kind = header.and_then(|at| Some((at, reader.u32(at)?)));
            // What points nowhere is none, whatever the width of this machine's words.
            let Some((header, kind)) = kind else { break };
            if kind == PT_INTERP {
                let (offset, length) = if wide {
                    (reader.u64(header + 8)?, reader.u64(header + 32)?)
                } else {
                    (u64::from(reader.u32(header + 4)?), u64::from(reader.u32(header + 16)?))
                };
                let start = usize::try_from(offset).ok()?;
                let path = bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)?;
                let path = path.strip_suffix(b"\0").unwrap_or(path);
                elf.interpreter = Some(String::from_utf8_lossy(path).into_owned());
            }
        }
        Some(elf)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Reader<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.array(at)?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.array(at)?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn u64(&self, at: usize) -> Option<u64> {
        let bytes = self.array(at)?;
        Some(if self.little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) })
    }
}

impl Target {
    /// What this program was built for.
    pub const fn own() -> Target {
        let machine = if cfg!(target_arch = "x86_64") {
            62
        } else if cfg!(target_arch = "aarch64") {
            183
        } else if cfg!(target_arch = "arm") {
            40
        } else if cfg!(any(target_arch = "riscv64", target_arch = "riscv32")) {
            243
        } else if cfg!(target_arch = "x86") {
            3
        } else {
            0
        };
        Target {
            machine,
            wide: cfg!(target_pointer_width = "64"),
            little: cfg!(target_endian = "little"),
        }
    }

    /// True if a kernel that runs programs for `self` runs those for `other` too.
    pub fn runs(self, other: Target) -> bool {
        // 64-bit kernels run the 32-bit programs of their family, as far as they were built to.
        let family = |machine| match machine {
            3 | 62 => 1,
            40 | 183 => 2,
            243 => 3,
            other => 1000 + u32::from(other),
        };
        self.little == other.little
            && family(self.machine) == family(other.machine)
            && (self.wide || !other.wide)
    }

    /// For people.
    pub fn name(self) -> String {
        let machine = match self.machine {
            3 => "x86",
            8 => "MIPS",
            21 => "PowerPC64",
            40 => "ARM",
            62 => "x86-64",
            183 => "AArch64",
            243 => "RISC-V",
            other => return format!("ELF machine {other}"),
        };
        let bits = if self.wide { "64-bit" } else { "32-bit" };
        format!("{machine} ({bits})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_runs_on_its_own_target() {
        let path = std::env::current_exe().expect("a path");
        let bytes = std::fs::read(path).expect("readable");
        let elf = Elf::parse(&bytes[..LOOK.min(bytes.len())]).expect("an ELF file");
        assert_eq!(elf.target, Target::own());
        let dynamic = elf.interpreter.is_some_and(|path| std::path::Path::new(&path).exists());
        assert!(dynamic || cfg!(target_feature = "crt-static"));
    }

    #[test]
    fn other_machines_are_told_apart_and_garbage_is_none() {
        let mut header = [0u8; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 183;
        let arm = Elf::parse(&header).expect("enough of a header").target;
        assert_eq!(arm.name(), "AArch64 (64-bit)");
        let own = Target { machine: 62, wide: true, little: true };
        assert!(!own.runs(arm));
        assert!(own.runs(Target { machine: 3, wide: false, little: true }));
        assert!(!Target { wide: false, machine: 40, ..own }.runs(arm));
        for length in 0..40 {
            assert_eq!(Elf::parse(&header[..length]), None, "{length} bytes");
        }
        assert_eq!(Elf::parse(b"#!/bin/sh\n"), None);
        // Program headers that point nowhere name no interpreter.
        header[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        header[54] = 56;
        header[56] = 9;
        assert_eq!(Elf::parse(&header).expect("a header").interpreter, None);
    }
}
