//! SIGUSR2: the server starts its own program anew, which may be another version by then, hands its
//! sockets over to it, and goes once its own invocations have ended.
//!
//! Two servers have one data directory for that time. What is kept there is changed by one of them:
//! by this one until it asks for a successor, by the successor once it serves. See ARCHITECTURE.md.

use std::ffi::{CString, OsString};
use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use sd_notify::NotifyState;
use smol::lock::MutexGuard;

use super::successor::{PREDECESSOR, READY, hello};
use super::{Server, notify};
use crate::host::spawn::{Exit, Launch, Seat};
use crate::io::reactor::Interest;
use crate::io::{Io, pass};

/// A successor that serves.
pub struct Succession<'a> {
    /// Connections go there.
    pub channel: Rc<Io<OwnedFd>>,
    /// Nobody here changes functions any more.
    _turn: MutexGuard<'a, ()>,
}

/// An upgrade on its way: the successor, or why there is none, in one line.
pub type Upgrade<'a> = Pin<Box<dyn Future<Output = Result<Succession<'a>, String>> + 'a>>;

impl Server {
    /// Starts a successor and waits until it serves.
    pub(super) async fn upgrade(&self) -> Result<Succession<'_>, String> {
        self.host.is_succeeded.set(true);
        let result = self.try_upgrade().await;
        self.host.is_succeeded.set(result.is_ok());
        result
    }

    async fn try_upgrade(&self) -> Result<Succession<'_>, String> {
        let reactor = &self.host.reactor;
        let until = reactor.now().after_ms(self.upgrade_wait_ms);
        let turn = reactor.by(until, self.host.changes.lock()).await;
        let turn = turn.ok_or("a change of functions takes too long")?;
        let channel = self.start_successor()?;
        let heir = self.heir.borrow().clone().expect("just started");
        let ready = async {
            let mut message = [0; 16];
            let receive = |channel: &OwnedFd| pass::receive(channel, &mut message);
            match channel.run(Interest::Read, receive).await {
                Ok((length, _)) if message[..length] == *READY => Ok(()),
                // It is about to end.
                Ok((0, _)) | Err(_) => std::future::pending().await,
                Ok(_) => Err("it speaks another language".to_owned()),
            }
        };
        let ended = async { Err(how(poll_fn(|cx| heir.poll_exited(cx)).await)) };
        let outcome = reactor.by(until, smol::future::or(ready, ended)).await;
        let too_long = || Err("it takes too long".to_owned());
        if let Err(why) = outcome.unwrap_or_else(too_long) {
            self.end_successor().await;
            return Err(format!("successor {}: {why}", heir.pid()));
        }
        log::info!("upgrade: process {} serves", heir.pid());
        // What was said of an earlier attempt holds no more.
        let main_pid = NotifyState::MainPid(heir.pid().unsigned_abs());
        notify(&[main_pid, NotifyState::Status("")]);
        Ok(Succession { channel: Rc::new(channel), _turn: turn })
    }

    fn start_successor(&self) -> Result<Io<OwnedFd>, String> {
        let fail = |error: std::io::Error| error.to_string();
        let (ours, theirs) = pass::pair().map_err(|error| fail(error.into()))?;
        let keys = match self.host.has_predecessor.get() {
            true => &self.keys[..],
            false => &self.keys[self.keys.len().saturating_sub(1)..],
        };
        {
            let doors = self.doors.borrow();
            let sockets = doors.iter().map(|(listener, _)| listener.socket());
            let left: Vec<_> = sockets.chain([self.lock.as_fd()]).collect();
            pass::send(&ours, hello(keys).as_bytes(), &left).map_err(|error| fail(error.into()))?;
        }
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| fail(error.into()))?;
        let channel = Io::new(&self.host.reactor, ours).map_err(fail)?;
        let program = &self.origin.program;
        log::info!("upgrade: start {}", program.display());
        let launch = launch(program).map_err(|error| fail(error.into()))?;
        let own = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let stdio = [own.0.as_fd(), own.1.as_fd(), own.2.as_fd(), theirs.as_fd()];
        let seat = Seat { environment: &[], stdio: &stdio, join: None, cgroup: None };
        let heir = self.host.processes.spawn_heir(&launch, &seat);
        let heir = heir.map_err(|error| format!("start {}: {error}", program.display()))?;
        *self.heir.borrow_mut() = Some(Rc::new(heir));
        Ok(channel)
    }

    /// Ends a successor that does not serve.
    pub(super) async fn end_successor(&self) {
        let heir = self.heir.borrow_mut().take();
        if let Some(heir) = heir {
            heir.kill();
            poll_fn(|cx| heir.poll_exited(cx)).await;
        }
    }

    /// Leaves the doors, and the connections as soon as they come to rest, to the successor.
    pub(super) fn leave(&self, succession: &Succession<'_>) -> smol::Task<()> {
        for (listener, _) in self.doors.take() {
            listener.leave();
        }
        drop(self.watchdog.take());
        self.peers.leave();
        let (peers, channel) = (Rc::clone(&self.peers), Rc::clone(&succession.channel));
        self.host.executor.spawn(async move {
            if let Err(error) = peers.hand_over(&channel).await {
                log::warn!("hand connections over: {error}");
                peers.end_all_idle();
            }
        })
    }
}

fn how(exit: Exit) -> String {
    match (exit.status, exit.signal) {
        (Some(status), _) => format!("it ended with status {status}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// The same as this process was started as.
fn launch(program: &Path) -> Result<Launch, std::ffi::NulError> {
    let c = |text: OsString| CString::new(text.into_vec());
    let variables = std::env::vars_os().filter(|(name, _)| {
        // What systemd says about the watchdog holds for the successor as well.
        name != PREDECESSOR && name != "WATCHDOG_PID"
    });
    let own = std::process::id();
    let variables = variables.map(|(name, value)| [name, "=".into(), value].into_iter().collect());
    let environment = variables.chain([OsString::from(format!("{PREDECESSOR}={own}"))]).map(c);
    Ok(Launch {
        program: CString::new(program.as_os_str().as_bytes())?,
        arguments: std::env::args_os().map(c).collect::<Result<_, _>>()?,
        environment: environment.collect::<Result<_, _>>()?,
        directory: CString::from(c"."),
        namespace: None,
    })
}

/// Where the program that was started is, links and all: they may lead elsewhere by the next start.
pub fn program() -> PathBuf {
    let name = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let found = if name.components().count() > 1 {
        std::path::absolute(&name).ok()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut all = std::env::split_paths(&path).map(|place| place.join(&name));
        all.find(|path| path.is_file()).and_then(|path| std::path::absolute(path).ok())
    };
    let is_there = |path: &PathBuf| path.is_file();
    let itself = || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    found.filter(is_there).unwrap_or_else(itself)
}
