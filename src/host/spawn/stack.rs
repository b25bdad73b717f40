//! Giving back the memory of the stack.

use std::ptr;

use rustix::io::Result;
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Below [`discard`]'s own variable: what its frame and those of its calls may take.
const MARGIN: usize = 4096;

/// Gives back what deeper calls have left below the present ones: a start, or a large configuration,
/// goes many times as deep as a server that waits. Of the first thread alone, whose stack has a name
/// of its own in the kernel's list.
pub fn give_back_stack() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    let range = stack.and_then(|line| line.split_ascii_whitespace().next()?.split_once('-'));
    let hex = |text| usize::from_str_radix(text, 16).ok();
    let Some((Some(start), Some(end))) = range.map(|(start, end)| (hex(start), hex(end))) else {
        return;
    };
    if let Err(error) = discard(start, end) {
        log::debug!("give back the stack's memory: {error}");
    }
}

/// Discards what of the stack from `start` to `end` is below this very call. Not a part of its caller,
/// whose frame could be longer than the margin.
#[inline(never)]
fn discard(start: usize, end: usize) -> Result<()> {
    let here = 0u8;
    let here = ptr::from_ref(&here).addr();
    let unused = here.saturating_sub(MARGIN) & !(page_size() - 1);
    if !(start..end).contains(&here) || unused <= start {
        return Ok(());
    }
    // SAFETY: private memory of this thread's own stack, which grows downwards, that is below every
    // frame in use: whoever gets there writes before it reads.
    unsafe {
        madvise(ptr::with_exposed_provenance_mut(start), unused - start, Advice::LinuxDontNeed)
    }
}
