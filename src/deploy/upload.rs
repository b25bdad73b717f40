//! Bringing a version to the board: appended to what is there of it, resumed when the link breaks,
//! and taken only if its digest is right.

use std::time::Duration;

use super::run::Link;
use super::ssh::Trouble;

/// Attempts in a row that bring nothing before it is given up.
const ATTEMPTS_MAX: u32 = 6;
/// Time before the next attempt, doubled each time.
const RETRY_MS: u64 = 500;
/// What is sent with one command: a broken link loses at most what was on its way of it.
const PIECE: usize = 4 * 1024 * 1024;

/// What is uploaded.
pub struct Upload<'a> {
    /// Where it goes: a version's name, or `zip-CONTENT`.
    pub id: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
    /// Its SHA-256 in hexadecimal.
    pub sha256: &'a str,
    /// The version that takes the digest where the board has no tool for that.
    pub by: &'a str,
}

/// Uploads; `from` bytes are said to be there.
pub fn upload(link: &mut Link<'_>, what: &Upload<'_>, from: u64) -> Result<(), Trouble> {
    let mut offset = usize::try_from(from).unwrap_or(0);
    for last in [false, true] {
        pieces(link, what, offset)?;
        let kept = link.steady(&["keep", what.id, what.sha256, what.by])?;
        match kept.trim() {
            "kept" => return Ok(()),
            "spoiled" if !last => {
                link.say("what arrived is not what was sent: once more");
                offset = 0;
            }
            _ => {}
        }
    }
    Err(Trouble::Board("what arrived is not what was sent, twice".into()))
}

fn pieces(link: &mut Link<'_>, what: &Upload<'_>, from: usize) -> Result<(), Trouble> {
    let total = what.bytes.len();
    let (mut offset, mut attempts) = (from, 0);
    while offset < total {
        let end = (offset + PIECE).min(total);
        let sent = link.call(&["put", what.id, &offset.to_string()], &what.bytes[offset..end]);
        let there = match sent {
            Ok(answer) => size(&answer, total)?,
            Err(Trouble::Link(why)) => {
                attempts += 1;
                if attempts >= ATTEMPTS_MAX {
                    return Err(Trouble::Link(why));
                }
                link.say(&format!("the link broke ({why}), trying again"));
                std::thread::sleep(Duration::from_millis(RETRY_MS << attempts.min(5)));
                match link.again().and_then(|()| link.call(&["put", what.id, "size"], b"")) {
                    Ok(answer) => size(&answer, total)?,
                    Err(Trouble::Link(_)) => offset,
                    Err(trouble) => return Err(trouble),
                }
            }
            Err(trouble) => return Err(trouble),
        };
        if there > offset {
            attempts = 0;
            // Most functions are there at once.
            if total > PIECE {
                link.say(&format!("{} of {} KiB are there", there / 1024, total.div_ceil(1024)));
            }
        }
        offset = there;
    }
    Ok(())
}

/// What the board has. More than the whole makes no sense; then it has nothing.
fn size(answer: &str, total: usize) -> Result<usize, Trouble> {
    let line = answer.lines().rfind(|line| line.starts_with("size "));
    let size: Option<usize> = line.and_then(|line| line[5..].trim().parse().ok());
    size.filter(|size| *size <= total)
        .ok_or_else(|| Trouble::Board("it does not tell how much of the upload it has".into()))
}
