//! An edge-triggered epoll reactor for one thread.
//!
//! A descriptor is registered once, when its [`Io`] is made; the kernel then tells every change
//! exactly once, and the flags kept here say what may be tried. Waiting costs no system call but
//! the one `epoll_wait` that all tasks share. Only the first wait to write says so to the kernel:
//! most descriptors never have one, and each would be told when it is new, and a worker's whenever
//! the worker has read.

mod leave;
mod timer;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use smol::LocalExecutor;

use super::clock::Clock;
use crate::pool::Instant;

/// Events taken with one `epoll_wait`.
const BATCH: usize = 64;

/// Task polls between two looks at the descriptors, so that busy tasks cannot starve them.
const TICKS_MAX: usize = 256;

/// Descriptors that room is made for at one time. Doubling would leave half of the room empty.
const SOURCES_STEP: usize = 32;

/// What may be tried on a descriptor without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Reading, or accepting.
    Read,
    /// Writing.
    Write,
    /// Nothing: wait for the peer to send no more.
    Ended,
    /// Nothing: wait for the peer to be gone in both directions.
    Gone,
}

#[derive(Default)]
struct Source {
    /// Guards against events of a descriptor that was closed within the same batch.
    generation: u32,
    used: bool,
    readable: bool,
    writable: bool,
    /// The kernel tells when it may be written to.
    tells_writable: bool,
    /// The peer will send no more.
    ended: bool,
    /// The connection is gone in both directions, or failed.
    gone: bool,
    read: Option<Waker>,
    write: Option<Waker>,
    watch: Option<Waker>,
}

/// What is done once nothing has happened for a while.
struct Rest {
    quiet_ms: u64,
    what: Box<dyn Fn()>,
}

/// The reactor: one per thread, shared by every [`Io`] on it.
pub struct Reactor {
    epoll: OwnedFd,
    clock: Clock,
    /// What the clocks showed when the running task first asked.
    now: Cell<Option<Instant>>,
    unix_ms: Cell<Option<u64>>,
    sources: RefCell<Vec<Source>>,
    unused: RefCell<Vec<u32>>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    timer_serial: Cell<u64>,
    alarm: Cell<Option<Instant>>,
    alarm_waker: RefCell<Option<Waker>>,
    /// The running task has done much: others, and the descriptors, have their turn now.
    overdue: Cell<bool>,
    /// Where something is read that does not stay there.
    pub scratch: Cell<Vec<u8>>,
    rest: RefCell<Option<Rest>>,
    /// Nothing has happened since that was done.
    resting: Cell<bool>,
}

impl Reactor {
    /// A reactor with nothing to wait for.
    pub fn new() -> io::Result<Rc<Reactor>> {
        Ok(Rc::new(Reactor {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clock: Clock::start(),
            now: Cell::default(),
            unix_ms: Cell::default(),
            sources: RefCell::default(),
            unused: RefCell::default(),
            timers: RefCell::default(),
            timer_serial: Cell::new(0),
            alarm: Cell::new(None),
            alarm_waker: RefCell::new(None),
            overdue: Cell::new(false),
            scratch: Cell::default(),
            rest: RefCell::new(None),
            resting: Cell::new(false),
        }))
    }

    /// Does `what` each time that nothing has happened for `ms`: once, until something happens.
    pub fn when_quiet(&self, ms: u32, what: impl Fn() + 'static) {
        *self.rest.borrow_mut() = Some(Rest { quiet_ms: ms.into(), what: Box::new(what) });
    }

    /// Runs the executor's tasks and waits for their descriptors and timers until `main` is done.
    pub fn run<'a, T: 'a>(
        &self,
        executor: &LocalExecutor<'a>,
        main: impl Future<Output = T> + 'a,
    ) -> io::Result<T> {
        let main = executor.spawn(main);
        self.time_goes_on();
        loop {
            let mut ticks = 0;
            while ticks < TICKS_MAX && executor.try_tick() {
                self.time_goes_on();
                ticks = if self.overdue.take() { TICKS_MAX } else { ticks + 1 };
            }
            if main.is_finished() {
                return Ok(smol::future::block_on(main));
            }
            self.wait(ticks == TICKS_MAX)?;
        }
    }

    /// Lets all others have their turn, those too whose descriptors have not been looked at yet:
    /// for a task that goes on and on without ever having to wait.
    pub async fn give_way(&self) {
        self.overdue.set(true);
        smol::future::yield_now().await;
    }

    /// Waits for events (not at all if `busy`) and wakes whom they concern.
    fn wait(&self, busy: bool) -> io::Result<()> {
        let mut timeout_ms = if busy { Some(0) } else { self.timeout_ms() };
        let rest = self.rest.borrow();
        let quiet = |rest: &&Rest| timeout_ms.is_none_or(|ms| ms > rest.quiet_ms);
        if let Some(rest) = rest.as_ref().filter(quiet).filter(|_| !self.resting.get()) {
            if self.look(Some(rest.quiet_ms))? {
                return Ok(());
            }
            timeout_ms = timeout_ms.map(|ms| ms - rest.quiet_ms);
            self.resting.set(true);
            (rest.what)();
            // Nothing else runs before all is quiet again, and so nothing else is in memory.
        }
        self.look(timeout_ms).map(drop)
    }

    /// Waits for events for so long, and wakes whom they concern. False if there were none.
    fn look(&self, timeout_ms: Option<u64>) -> io::Result<bool> {
        let timeout = timeout_ms.map(|ms| Timespec {
            tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1000).expect("below 1000") * 1_000_000,
        });
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let waited = epoll::wait(&self.epoll, &mut space, timeout.as_ref());
        self.time_goes_on();
        let events = match waited {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        self.resting.set(false);
        for event in &*events {
            self.deliver(event.data.u64(), event.flags);
        }
        self.ring();
        Ok(!events.is_empty())
    }

    /// Milliseconds to the nearest timer, rounded up so that it has passed when they are over.
    fn timeout_ms(&self) -> Option<u64> {
        let timer = self.timers.borrow().first_key_value().map(|((at, _), _)| *at);
        let nearest = match (timer, self.alarm.get()) {
            (Some(timer), Some(alarm)) => timer.min(alarm),
            (timer, alarm) => timer.or(alarm)?,
        };
        Some(nearest.micros_since(self.now()).div_ceil(1000))
    }

    fn deliver(&self, key: u64, flags: epoll::EventFlags) {
        use epoll::EventFlags as F;
        let mut sources = self.sources.borrow_mut();
        let (index, generation) = (key & 0xFFFF_FFFF, key >> 32);
        let index = usize::try_from(index).expect("32 bits");
        let Some(source) = sources.get_mut(index) else { return };
        if !source.used || u64::from(source.generation) != generation {
            return;
        }
        let gone = flags.intersects(F::HUP | F::ERR);
        source.gone |= gone;
        source.ended |= gone || flags.contains(F::RDHUP);
        source.readable |= gone || flags.intersects(F::IN | F::RDHUP);
        source.writable |= gone || flags.contains(F::OUT);
        let mut wake = [None, None, None];
        if source.readable {
            wake[0] = source.read.take();
        }
        if source.writable {
            wake[1] = source.write.take();
        }
        if source.ended {
            wake[2] = source.watch.take();
        }
        drop(sources);
        wake.into_iter().flatten().for_each(Waker::wake);
    }

    /// Wakes the timers that are due.
    fn ring(&self) {
        if self.alarm.get().is_none() && self.timers.borrow().is_empty() {
            return;
        }
        let now = self.now();
        if self.alarm.get().is_some_and(|at| at <= now) {
            self.alarm.set(None);
            if let Some(waker) = self.alarm_waker.take() {
                waker.wake();
            }
        }
        loop {
            let mut timers = self.timers.borrow_mut();
            let Some(first) = timers.first_entry().filter(|first| first.key().0 <= now) else {
                return;
            };
            let waker = first.remove();
            drop(timers);
            waker.wake();
        }
    }

    fn register(&self, fd: impl AsFd) -> io::Result<(u32, u32)> {
        let mut sources = self.sources.borrow_mut();
        let index = match self.unused.borrow_mut().pop() {
            Some(index) => index,
            None => {
                if sources.len() == sources.capacity() {
                    sources.reserve_exact(SOURCES_STEP);
                }
                sources.push(Source::default());
                u32::try_from(sources.len() - 1).expect("fewer descriptors than that")
            }
        };
        let slot = &mut sources[index as usize];
        let generation = slot.generation.wrapping_add(1);
        *slot = Source { generation, used: true, writable: true, ..Source::default() };
        if let Err(error) = epoll::add(&self.epoll, fd, key(index, generation), CHANGES) {
            slot.used = false;
            self.unused.borrow_mut().push(index);
            return Err(error.into());
        }
        Ok((index, generation))
    }

    fn with<R>(&self, index: u32, look: impl FnOnce(&mut Source) -> R) -> R {
        look(&mut self.sources.borrow_mut()[index as usize])
    }
}

/// What the kernel tells of every descriptor.
const CHANGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);

/// By what the kernel names a descriptor in its events.
fn key(index: u32, generation: u32) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(generation) << 32 | u64::from(index))
}

/// A descriptor that does not block, registered with the reactor until it is dropped.
pub struct Io<T: AsFd> {
    fd: T,
    index: u32,
    reactor: Rc<Reactor>,
}

impl Io<OwnedFd> {
    /// Two stream sockets that are connected: ours, and one for a process that we start.
    pub fn pair(reactor: &Rc<Reactor>) -> io::Result<(Io<OwnedFd>, OwnedFd)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        // Theirs blocks, as programs expect it.
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Io::new(reactor, ours)?, theirs))
    }
}

impl<T: AsFd> Io<T> {
    /// Registers `fd`, which must be non-blocking.
    pub fn new(reactor: &Rc<Reactor>, fd: T) -> io::Result<Io<T>> {
        let (index, _) = reactor.register(&fd)?;
        Ok(Io { fd, index, reactor: Rc::clone(reactor) })
    }

    /// The descriptor.
    pub fn get(&self) -> &T {
        &self.fd
    }

    /// The reactor it is registered with.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Waits until `interest` is worth trying.
    pub async fn ready(&self, interest: Interest) {
        poll_fn(|cx| self.poll_ready(cx, interest)).await;
    }

    /// As [`Io::ready`], for those who wait for several things in one place.
    pub fn poll_ready(&self, cx: &Context<'_>, interest: Interest) -> Poll<()> {
        self.reactor.with(self.index, |source| {
            let (ready, waker) = match interest {
                Interest::Read => (source.readable, &mut source.read),
                Interest::Write => (source.writable, &mut source.write),
                Interest::Ended => (source.ended, &mut source.watch),
                Interest::Gone => (source.gone, &mut source.watch),
            };
            if ready {
                return Poll::Ready(());
            }
            if interest == Interest::Write && !source.tells_writable {
                source.tells_writable = true;
                let key = key(self.index, source.generation);
                // If it may be written to by now, that is told at once.
                epoll::modify(&self.reactor.epoll, &self.fd, key, CHANGES | epoll::EventFlags::OUT)
                    .expect("it is registered, and for that no memory is needed");
            }
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// True if reading is worth trying: something came since it was last read empty.
    pub fn is_readable(&self) -> bool {
        self.reactor.with(self.index, |source| source.readable)
    }

    /// True if the peer is known to send no more.
    pub fn has_ended(&self) -> bool {
        self.reactor.with(self.index, |source| source.ended)
    }

    /// Makes the next read try, whatever the flags say: for the end of a process, which may become
    /// known before the events of what it wrote last.
    pub fn look_again(&self) {
        self.reactor.with(self.index, |source| source.readable = true);
    }

    /// Takes the connection for gone, since it was just shut down: who waits for it learns before
    /// the kernel tells.
    pub fn give_up(&self) {
        let wake = self.reactor.with(self.index, |source| {
            (source.readable, source.writable, source.ended, source.gone) =
                (true, true, true, true);
            [source.read.take(), source.write.take(), source.watch.take()]
        });
        wake.into_iter().flatten().for_each(Waker::wake);
    }

    /// Reads into the spare capacity of `bytes`, which must have some. 0 is the end.
    pub async fn read_into(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            if let Some(n) = self.try_read_into(bytes)? {
                return Ok(n);
            }
            self.ready(Interest::Read).await;
        }
    }

    /// As [`Io::read_into`], or `None` if there is nothing to read yet.
    pub fn try_read_into(&self, bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
        if !self.is_readable() {
            return Ok(None);
        }
        let space = bytes.capacity() - bytes.len();
        loop {
            match rustix::io::read(&self.fd, rustix::buffer::spare_capacity(bytes)) {
                Ok(n) => {
                    // A read that leaves room took all there was; the next byte is a new edge.
                    // The end is not, if it was told already.
                    if n > 0 && n < space {
                        self.reactor.with(self.index, |source| source.readable = source.ended);
                    }
                    return Ok(Some(n));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.reactor.with(self.index, |source| source.readable = false);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Runs `operation` as soon and as often as `interest` allows, until it does not block.
    pub async fn run<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&T) -> rustix::io::Result<R>,
    ) -> io::Result<R> {
        loop {
            self.ready(interest).await;
            if let Some(result) = self.attempt(interest, &mut operation)? {
                return Ok(result);
            }
        }
    }

    /// Runs `operation` once; `None` if it would block.
    pub fn attempt<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&T) -> rustix::io::Result<R>,
    ) -> io::Result<Option<R>> {
        loop {
            match operation(&self.fd) {
                Ok(result) => return Ok(Some(result)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.reactor.with(self.index, |source| match interest {
                        Interest::Read => source.readable = false,
                        Interest::Write => source.writable = false,
                        Interest::Ended | Interest::Gone => {}
                    });
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes as much of the parts as goes without waiting; returns how much that was.
    pub fn try_write(&self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let operation = |fd: &T| rustix::io::writev(fd, parts);
        Ok(self.attempt(Interest::Write, operation)?.unwrap_or(0))
    }

    /// Writes all parts.
    pub async fn write_all(&self, mut parts: &mut [io::IoSlice<'_>]) -> io::Result<()> {
        io::IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let n = self.run(Interest::Write, |fd| rustix::io::writev(fd, parts)).await?;
            io::IoSlice::advance_slices(&mut parts, n);
        }
        Ok(())
    }
}

impl<T: AsFd> Drop for Io<T> {
    fn drop(&mut self) {
        // Closing the descriptor takes it out of the epoll set; the generation covers events that
        // were fetched already.
        self.reactor.with(self.index, |source| {
            source.used = false;
            (source.read, source.write, source.watch) = (None, None, None);
        });
        self.reactor.unused.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests;
