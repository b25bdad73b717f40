//! The start of a server that takes over from another one: what it was left, looked at closely.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Server;
use crate::api::{self, Api};
use crate::error::Error;
use crate::host::spawn;
use crate::io::{Io, pass};
use crate::limits::{UPGRADE_HELLO_MAX, UPGRADE_KEYS_MAX};
use crate::runtime::launch::WorkerKey;

/// The variable that says whose successor a server is: a process id.
pub const PREDECESSOR: &str = "HOB_PREDECESSOR";
/// The number of the socket to the predecessor.
const CHANNEL: i32 = 3;
/// What a successor says once it serves.
pub const READY: &[u8] = b"ready";

/// What a server leaves to its successor.
pub struct Legacy {
    /// Connections come on it, and it ends with the predecessor.
    pub channel: OwnedFd,
    /// The TCP socket, which listens.
    pub tcp: OwnedFd,
    /// The Unix socket, which does as well.
    pub unix: OwnedFd,
    /// The data directory's lock, which is held.
    pub lock: File,
    /// What its workers sign with, and those of its own predecessors.
    pub keys: Vec<WorkerKey>,
}

impl Legacy {
    /// What was left to this process; `None` if it is nobody's successor.
    pub fn take() -> Result<Option<Legacy>, Error> {
        let Ok(pid) = std::env::var(PREDECESSOR) else { return Ok(None) };
        let read = || -> Result<Legacy, String> {
            let pid: i32 = pid.parse().map_err(|_| format!("{pid:?} is no process id"))?;
            let missing = || format!("descriptor {CHANNEL} is not open");
            Legacy::receive(spawn::inherited(CHANNEL).ok_or_else(missing)?, pid)
        };
        read().map(Some).map_err(|why| {
            Error::usage(format!("{PREDECESSOR} is set by a server for its successor: {why}"))
        })
    }

    fn receive(channel: OwnedFd, predecessor: i32) -> Result<Legacy, String> {
        let fail = |error: rustix::io::Errno| format!("descriptor {CHANNEL}: {error}");
        let maker = rustix::net::sockopt::socket_peercred(&channel).map_err(fail)?;
        if maker.pid.as_raw_nonzero().get() != predecessor
            || maker.uid != rustix::process::geteuid()
        {
            return Err(format!("descriptor {CHANNEL} is not from process {predecessor}"));
        }
        let mut hello = [0; UPGRADE_HELLO_MAX];
        let (length, passed) = pass::receive(&channel, &mut hello).map_err(fail)?;
        let Ok([tcp, unix, lock]) = <[OwnedFd; 3]>::try_from(passed) else {
            return Err("it left something else than two sockets and a lock".to_owned());
        };
        for socket in [&tcp, &unix] {
            if !rustix::net::sockopt::socket_acceptconn(socket).map_err(fail)? {
                return Err("it left a socket that does not listen".to_owned());
            }
        }
        let keys = keys_of(&String::from_utf8_lossy(&hello[..length]));
        Ok(Legacy { channel, tcp, unix, lock: lock.into(), keys })
    }
}

impl Server {
    /// Serves on the sockets of the predecessor, once that is no less than what it did; false if
    /// told to stop before.
    pub(super) async fn succeed(
        &self,
        api: &Rc<Api>,
        sockets: [OwnedFd; 2],
        channel: OwnedFd,
    ) -> Result<bool, Error> {
        let start = |error: std::io::Error| Error::doing("start", "a successor", error);
        self.host.has_predecessor.set(true);
        let read = async {
            self.reload.read().await;
            true
        };
        let told = async {
            self.told_to_stop().await;
            false
        };
        if !smol::future::or(read, told).await {
            return Ok(false);
        }
        self.open(api, sockets)?;
        if let Err(error) = pass::send(&channel, READY, &[]) {
            log::debug!("tell the server before this one: {error}");
        }
        rustix::io::ioctl_fionbio(&channel, true).map_err(|error| start(error.into()))?;
        let channel = Io::new(&self.host.reactor, channel).map_err(start)?;
        let (api, peers, store) = (Rc::clone(api), Rc::clone(&self.peers), Rc::clone(&self.store));
        let take_over = async move {
            let host = &api.host;
            let serve = |connection| api::serve(Rc::clone(&api), connection);
            peers.take_over(&host.executor, &channel, serve).await;
            log::info!("the server before this one is gone");
            host.has_predecessor.set(false);
            host.has_unused();
            let _turn = host.changes.lock().await;
            host.discard_unused(store.data()).await;
        };
        self.host.executor.spawn(take_over).detach();
        Ok(true)
    }
}

/// What a successor is told besides descriptors: lines that begin with a word. A line that another
/// version does not know says nothing to it.
pub fn hello(keys: &[WorkerKey]) -> String {
    let keys = &keys[keys.len().saturating_sub(UPGRADE_KEYS_MAX)..];
    let lines = keys.iter().map(|key| format!("key {} {}\n", key.id, key.secret));
    ["hob\n".to_owned()].into_iter().chain(lines).collect()
}

fn keys_of(hello: &str) -> Vec<WorkerKey> {
    let pairs = hello.lines().filter_map(|line| line.strip_prefix("key ")?.split_once(' '));
    let key =
        |(id, secret): (&str, &str)| WorkerKey { id: id.to_owned(), secret: secret.to_owned() };
    pairs.map(key).take(UPGRADE_KEYS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_passed_on_and_not_without_end() {
        let keys: Vec<WorkerKey> =
            (0..40).map(|_| WorkerKey::random().expect("random numbers")).collect();
        let told = hello(&keys);
        assert!(told.len() < UPGRADE_HELLO_MAX);
        let read = keys_of(&told);
        assert_eq!(read.len(), UPGRADE_KEYS_MAX);
        let last = keys.last().expect("there");
        assert!(read.iter().any(|key| key.id == last.id && key.secret == last.secret));
        assert!(keys_of("hob\nnews from later\nkey\nkey x\n").is_empty());
    }

    #[test]
    fn what_was_not_left_by_that_process_is_refused() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let (here, there) = pass::pair().expect("a pair");
        let refused = Legacy::receive(there, own + 1).err().expect("another process");
        assert!(refused.contains("is not from process"), "{refused}");
        drop(here);
        let (here, there) = pass::pair().expect("a pair");
        pass::send(&here, b"hob\n", &[]).expect("sent");
        let refused = Legacy::receive(there, own).err().expect("nothing left");
        assert!(refused.contains("something else"), "{refused}");
    }
}
