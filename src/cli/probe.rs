//! `hob helper probe`: the worker of the built-in function `hob-probe`, which tells what a server is.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::parent_id;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::handler;
use crate::limits::PROBE_READ;

/// Answers every event with what it finds out about the server that started it.
pub fn run() -> Result<(), Error> {
    // The server may be gone before its last invocation is answered.
    let server = parent_id();
    let result = handler::run(|_, _| {
        let answer = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "digest": digest()?,
            "server_pid": server,
            "pid": std::process::id(),
            "uptime_s": uptime_s(server)?,
        });
        Ok(answer.to_string().into_bytes())
    });
    result.map_err(|error| Error::failed(format!("speak the wire: {error}")))
}

/// The SHA-256 of our own program, which is the server's: it was started from the server's
/// `/proc/self/exe`, and not from whatever has its name on the disk.
fn digest() -> io::Result<String> {
    let mut file = File::open("/proc/self/exe")?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PROBE_READ];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&piece[..n]),
        }
    }
}

/// Seconds since a process was started.
fn uptime_s(pid: u32) -> io::Result<u64> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "strange numbers in /proc");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: state is the third field, the start the 22nd.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).ok_or_else(strange)?;
    let started = fields.split(' ').nth(19).and_then(|ticks| ticks.parse::<u64>().ok());
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let now = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    let started = started.ok_or_else(strange)? / rustix::param::clock_ticks_per_second();
    Ok(now.ok_or_else(strange)?.saturating_sub(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_process_is_known() {
        let own = uptime_s(std::process::id()).expect("told");
        assert!(own < 24 * 3600, "{own}");
        assert!(uptime_s(1).expect("told") >= own);
        assert_eq!(digest().expect("hashed").len(), 64);
    }
}
