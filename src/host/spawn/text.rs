//! Giving back the memory of the program's text.

use std::cell::OnceCell;
use std::io::{BufRead, BufReader};
use std::ptr;

use rustix::mm::{Advice, madvise};

/// The program that this process runs and the libraries that it uses, as far as they are mapped
/// and stand in their files unchanged.
#[derive(Default)]
pub struct Text {
    ranges: OnceCell<Vec<(usize, usize)>>,
}

impl Text {
    /// Gives their memory back. What is needed of it comes again from the page cache, or from the
    /// disk if the kernel had a better use for the memory meanwhile.
    pub fn give_back(&self) {
        for (start, end) in self.ranges.get_or_init(Text::find) {
            // SAFETY: a private mapping of a file that cannot be written through it and of which
            // no page was changed: the next use of a page reads the same bytes again.
            let result = unsafe {
                let start = ptr::with_exposed_provenance_mut(*start);
                madvise(start, end - start.addr(), Advice::LinuxDontNeed)
            };
            if let Err(error) = result {
                log::debug!("give back the program's memory: {error}");
            }
        }
    }

    fn find() -> Vec<(usize, usize)> {
        let Ok(file) = std::fs::File::open("/proc/self/smaps") else { return Vec::new() };
        let mut found = Vec::new();
        let mut mapping = None;
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next(), words.nth(3)) {
                // Relocated pages differ from the file, read-only as they may be by now.
                (Some("Anonymous:"), Some("0"), _) => found.extend(mapping.take()),
                (Some(range), Some("r-xp" | "r--p"), path) if !range.ends_with(':') => {
                    mapping = path.filter(|path| path.starts_with('/')).and_then(|_| {
                        let (start, end) = range.split_once('-')?;
                        let hex = |text| usize::from_str_radix(text, 16).ok();
                        hex(start).zip(hex(end))
                    });
                }
                (Some(range), Some(_), _) if !range.ends_with(':') => mapping = None,
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_back_text_comes_again() {
        let mapped = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"));
            let kib = line.expect("a line").trim().trim_end_matches(" kB");
            kib.parse().expect("a number")
        };
        let text = Text::default();
        let before = mapped();
        text.give_back();
        let after = mapped();
        assert!(after < before, "{before} KiB, then {after} KiB");
        // Formatting, allocation and the C library were in what is gone.
        assert_eq!(format!("{:.3}", std::f64::consts::PI.sqrt()), "1.772");
        assert!(!text.ranges.get().expect("found").is_empty());
    }
}
