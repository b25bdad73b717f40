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

/// `e_machine` of 32-bit ARM.
pub const ARM: u16 = 40;

/// What the kernel calls a machine whose processor is an ARM of version 6.
pub const ARM_V6_MACHINE: &str = "armv6l";

/// True for a program that a processor of ARM version 6 cannot run, such as that of a Raspberry Pi
/// Zero or 1. `read` takes an offset in the file and a length.
pub fn is_beyond_arm_v6(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> bool {
    // Up to v6KZ, and v6K.
    arm_architecture(read).is_some_and(|version| !matches!(version, 0..=7 | 9))
}

/// Reads from a file that is in memory.
pub fn within(bytes: &[u8]) -> impl Fn(u64, usize) -> Option<Vec<u8>> {
    |at, length| {
        let at = usize::try_from(at).ok()?;
        bytes.get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
    }
}

/// `Tag_CPU_arch` of a little-endian program for 32-bit ARM: the least version of the architecture
/// that runs it, as the ABI's addenda number them (6: v6, 7: v6KZ, 10: v7). `None` if the file does
/// not say it.
fn arm_architecture(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<u64> {
    const ARM_ATTRIBUTES: u32 = 0x7000_0003;
    const SECTION: usize = 40;
    const SECTIONS_MAX: u64 = 1000;
    const ATTRIBUTES_MAX: usize = 4096;
    let head = read(0, 52)?;
    let head = Reader { bytes: &head, little: true };
    let (table, size) = (u64::from(head.u32(32)?), u64::from(head.u16(46)?));
    let count = u64::from(head.u16(48)?).min(SECTIONS_MAX);
    let section = |n| {
        let header = read(table + n * size, SECTION)?;
        let header = Reader { bytes: &header, little: true };
        Some((header.u32(4)?, header.u32(16)?, header.u32(20)?))
    };
    let (_, start, length) =
        (0..count).map_while(section).find(|(kind, ..)| *kind == ARM_ATTRIBUTES)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= ATTRIBUTES_MAX)?;
    let attributes = read(start.into(), length)?;
    let mut rest = attributes.strip_prefix(b"A")?;
    while let Some((vendor, next)) = cut(rest, 0) {
        rest = next;
        let Some(mut parts) = vendor.strip_prefix(b"aeabi\0") else { continue };
        // What is said of the whole file; there may be parts on single sections.
        while let Some((part, next)) = cut(parts, 1) {
            let whole = parts[0] == 1;
            parts = next;
            if let Some(version) = whole.then(|| cpu_architecture(part)).flatten() {
                return Some(version);
            }
        }
    }
    None
}

/// Cuts off a piece of attributes, after a tag of `before` bytes and a length that counts all of it.
fn cut(bytes: &[u8], before: usize) -> Option<(&[u8], &[u8])> {
    let (length, _) = bytes.get(before..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    Some((bytes.get(before + 4..length)?, bytes.get(length..)?))
}

/// Looks for `Tag_CPU_arch` among attributes.
fn cpu_architecture(mut bytes: &[u8]) -> Option<u64> {
    const CPU_ARCH: u64 = 6;
    loop {
        let tag = number(&mut bytes)?;
        // Two names and, from 33 on, the odd ones are text; 32 is a number and text.
        let value = if matches!(tag, 4 | 5) || tag > 32 && tag % 2 == 1 {
            None
        } else {
            Some(number(&mut bytes)?)
        };
        if tag == CPU_ARCH {
            return value;
        }
        if value.is_none() || tag == 32 {
            let end = bytes.iter().position(|byte| *byte == 0)?;
            bytes = &bytes[end + 1..];
        }
    }
}

/// Takes a number of seven bits a byte.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
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
pub(crate) mod tests {
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

    /// What LLVM says of version 7: what it conforms to comes first.
    pub(crate) const V7: &[u8] = b"A\x18\0\0\0aeabi\0\x01\x0e\0\0\0\x432.09\0\x06\x0a\x07A";

    /// An ARM program of nothing but attributes.
    pub(crate) fn arm(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 52 + 40];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x01");
        bytes[18] = 40;
        (bytes[32], bytes[46], bytes[48]) = (52, 40, 1);
        bytes[52 + 4..52 + 8].copy_from_slice(&0x7000_0003u32.to_le_bytes());
        bytes[52 + 16] = 92;
        bytes[52 + 20..52 + 24]
            .copy_from_slice(&u32::try_from(attributes.len()).expect("few").to_le_bytes());
        [&bytes, attributes].concat()
    }

    #[test]
    fn a_program_for_arm_says_for_which_version() {
        // GNU's tools give a name first.
        let gnu = b"A\x17\0\0\0aeabi\0\x01\x0d\0\0\0\x056KZ\0\x06\x07\x08\x01";
        let other = b"A\x09\0\0\0gnu\0\x01\x17\0\0\0aeabi\0\x01\x0d\0\0\0\x056KZ\0\x06\x07\x08\x01";
        for (attributes, version) in
            [(&gnu[..], Some(7)), (V7, Some(10)), (other, Some(7)), (b"A", None)]
        {
            let bytes = arm(attributes);
            assert_eq!(arm_architecture(within(&bytes)), version);
            assert_eq!(is_beyond_arm_v6(within(&bytes)), version == Some(10));
            // Cut or changed anywhere it says something else, or nothing.
            for at in 0..bytes.len() {
                let _ = arm_architecture(within(&bytes[..at]));
                for value in [0, 1, 0x7F, 0x80, 0xFF] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let _ = arm_architecture(within(&changed));
                }
            }
        }
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
