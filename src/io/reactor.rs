//! An edge-triggered epoll reactor for one thread.
//!
//! A descriptor is registered once, when its [`Io`] is made; the kernel then tells every change
//! exactly once, and the flags kept here say what may be tried. Waiting costs no system call but
//! the one `epoll_wait` that all tasks share. Only the first wait to write says so to the kernel:
//! most descriptors never have one, and each would be told when it is new, and a worker's whenever
//! the worker has read.

mod descriptor;
mod timer;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use smol::LocalExecutor;

use super::clock::Clock;
use crate::pool::Instant;
pub use descriptor::Io;

/// Events taken with one `epoll_wait`.
const BATCH: usize = 64;

/// Task polls between two looks at the descriptors, so that busy tasks cannot starve them.
const TICKS_MAX: usize = 256;

/// Task polls that see the same time on the clock. They take microseconds.
const TICKS_AT_ONE_TIME: usize = 4;

/// The longest wait: 32 bits hold it in microseconds.
const HOUR_US: u32 = 3_600_000_000;

/// What the alarm is let be late by, before that is rounded up to a whole millisecond, if nothing else wakes
/// the server until then: what is due is mostly done with what came anyway, and another CPU need not be
/// woken for it again.
const ALARM_SLACK_US: u64 = 500;

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
    quiet_ms: u32,
    what: Box<dyn Fn()>,
}

/// The reactor: one per thread, shared by every [`Io`] on it.
pub struct Reactor {
    epoll: OwnedFd,
    clock: Clock,
    /// What the clock showed when a task first asked, of those that run without a look at it.
    now: Cell<Option<Instant>>,
    /// When the wall clock was last read, and the milliseconds that it showed.
    wall: Cell<(Instant, u64)>,
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
            wall: Cell::default(),
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
        *self.rest.borrow_mut() = Some(Rest { quiet_ms: ms, what: Box::new(what) });
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
                ticks = if self.overdue.take() { TICKS_MAX } else { ticks + 1 };
                if ticks % TICKS_AT_ONE_TIME == 0 {
                    self.time_goes_on();
                }
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
        let timeout_ms = if busy { Some(0) } else { self.timeout_ms() };
        let rest = self.rest.borrow();
        let quiet = |rest: &&Rest| timeout_ms.is_none_or(|ms| ms > rest.quiet_ms);
        let epoll = self.epoll.as_fd();
        match rest.as_ref().filter(quiet).filter(|_| !self.resting.get()) {
            Some(rest) => self.rest(epoll, rest, timeout_ms),
            None => self.look(epoll, timeout_ms.map(timespec).as_ref()).map(drop),
        }
    }

    /// Waits, and does what is done in a quiet if there is one. What runs from then on until something
    /// happens is all of the program that stays in memory, with what stands around it. So this is a
    /// function of its own, has the descriptor from its caller, divides before, and waits by `poll`: epoll
    /// would have its milliseconds from a function somewhere else.
    #[inline(never)]
    fn rest(&self, epoll: BorrowedFd, rest: &Rest, timeout_ms: Option<u32>) -> io::Result<()> {
        if self.look(epoll, Some(&timespec(rest.quiet_ms)))? {
            return Ok(());
        }
        let after = timeout_ms.map(|ms| timespec(ms - rest.quiet_ms));
        self.resting.set(true);
        (rest.what)();
        match poll(&mut [PollFd::from_borrowed_fd(epoll, PollFlags::IN)], after.as_ref()) {
            Ok(_) | Err(Errno::INTR) => self.look(epoll, Some(&timespec(0))).map(drop),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for events for so long, and wakes whom they concern. False if there were none.
    fn look(&self, epoll: BorrowedFd, timeout: Option<&Timespec>) -> io::Result<bool> {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let waited = epoll::wait(epoll, &mut space, timeout);
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

    /// Milliseconds to the nearest timer, rounded up so that it has passed when they are over; an
    /// hour to one that is farther away. In 32 bits: no 32-bit board divides 64 by itself.
    fn timeout_ms(&self) -> Option<u32> {
        let timer = self.timers.borrow().first_key_value().map(|((at, _), _)| *at);
        let alarm = self.alarm.get().map(|at| at.after_us(ALARM_SLACK_US));
        let nearest = match (timer, alarm) {
            (Some(timer), Some(alarm)) => timer.min(alarm),
            (timer, alarm) => timer.or(alarm)?,
        };
        let us = u32::try_from(nearest.micros_since(self.now())).unwrap_or(u32::MAX).min(HOUR_US);
        Some(us.div_ceil(1000))
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

fn timespec(ms: u32) -> Timespec {
    Timespec { tv_sec: (ms / 1000).into(), tv_nsec: i64::from(ms % 1000) * 1_000_000 }
}

/// What the kernel tells of every descriptor.
const CHANGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);

/// By what the kernel names a descriptor in its events.
fn key(index: u32, generation: u32) -> epoll::EventData {
    epoll::EventData::new_u64(u64::from(generation) << 32 | u64::from(index))
}

#[cfg(test)]
mod tests;
