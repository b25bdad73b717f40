//! Signals as events of the loop.

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};

use super::reactor::{Interest, Io, Reactor};

/// What the server listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain, and the second time stop at once.
    Stop,
    /// SIGHUP: read configuration and functions again.
    Reload,
    /// SIGUSR2: hand over to a successor.
    Upgrade,
    /// SIGCHLD: a child changed state.
    Child,
}

const KINDS: [(i32, Signal); 5] = [
    (SIGTERM, Signal::Stop),
    (SIGINT, Signal::Stop),
    (SIGHUP, Signal::Reload),
    (SIGUSR2, Signal::Upgrade),
    (SIGCHLD, Signal::Child),
];

/// The signals that came since they were last asked for.
pub struct Signals {
    pipe: Io<UnixStream>,
    came: Vec<(Arc<AtomicBool>, Signal)>,
}

impl Signals {
    /// Takes over the handling of these signals.
    pub fn new(reactor: &Rc<Reactor>, wanted: &[Signal]) -> io::Result<Signals> {
        let (reading, writing) = UnixStream::pair()?;
        reading.set_nonblocking(true)?;
        let mut came = Vec::new();
        for (number, signal) in KINDS {
            if !wanted.contains(&signal) {
                continue;
            }
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: when the pipe wakes us, it says which signal it was.
            signal_hook::flag::register(number, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(number, writing.try_clone()?)?;
            came.push((flag, signal));
        }
        Ok(Signals { pipe: Io::new(reactor, reading)?, came })
    }

    /// Waits for the next signal.
    pub async fn next(&self) -> Signal {
        loop {
            for (flag, signal) in &self.came {
                if flag.swap(false, Ordering::Relaxed) {
                    return *signal;
                }
            }
            self.pipe.ready(Interest::Read).await;
            let mut sink = Vec::with_capacity(64);
            // An empty pipe is all that matters; its bytes say nothing.
            while let Ok(Some(1..)) = self.pipe.try_read_into(&mut sink) {
                sink.clear();
            }
        }
    }
}
