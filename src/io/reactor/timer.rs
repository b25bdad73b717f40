//! What time it is, and waiting for a time.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::Reactor;
use crate::io::Clock;
use crate::pool::Instant;

/// How long the wall clock goes with the other one.
const WALL_LOOK_US: u32 = 10_000;

impl Reactor {
    /// Now, on the clock that its timers use. Time stands still while a task runs and for a few after
    /// it, until all wait: a warm invocation asks for it a dozen times, and on an ARMv6 each reading is
    /// a system call.
    pub fn now(&self) -> Instant {
        let now = self.now.get().unwrap_or_else(|| self.clock.now());
        self.now.set(Some(now));
        now
    }

    /// Now in Unix time, in milliseconds. For a moment it is as much later as [`Reactor::now`] is, and
    /// then read again: somebody may set that clock, or the board may have slept.
    pub fn unix_ms(&self) -> u64 {
        let (now, (read, unix_ms)) = (self.now(), self.wall.get());
        // In 32 bits: no 32-bit board divides 64 by itself.
        let passed_us = u32::try_from(now.micros_since(read)).unwrap_or(u32::MAX);
        if unix_ms > 0 && passed_us < WALL_LOOK_US {
            return unix_ms + u64::from(passed_us / 1000);
        }
        let unix_ms = Clock::unix_ms();
        self.wall.set((now, unix_ms));
        unix_ms
    }

    /// The clock is read again.
    pub(super) fn time_goes_on(&self) {
        self.now.set(None);
    }

    /// Sets the one alarm that [`Reactor::alarm`] waits for; `None`: no alarm. Once it is due it rings with
    /// what wakes the server anyway, or else at most a millisecond and a half later.
    pub fn set_alarm(&self, at: Option<Instant>) {
        self.alarm.set(at);
    }

    /// Waits until the alarm has rung. It may have been set anew since, so its time is to be looked at.
    /// For one waiting task: a timer that is moved often and costs nothing to move.
    pub async fn alarm(&self) {
        let mut armed = false;
        poll_fn(|cx| {
            if armed && self.alarm_waker.borrow().is_none() {
                return Poll::Ready(());
            }
            armed = true;
            *self.alarm_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until `at`.
    pub async fn sleep_until(&self, at: Instant) {
        let mut timer = Timer { reactor: self, at, serial: None };
        poll_fn(|cx| timer.poll(cx)).await;
    }

    /// Waits for `ms` milliseconds.
    pub async fn sleep_ms(&self, ms: u32) {
        self.sleep_until(self.now().after_ms(ms)).await;
    }

    /// Runs `future`, but not beyond `at`; `None` if it was not done by then.
    pub async fn by<T>(&self, at: Instant, future: impl Future<Output = T>) -> Option<T> {
        smol::future::or(async { Some(future.await) }, async {
            self.sleep_until(at).await;
            None
        })
        .await
    }
}

struct Timer<'a> {
    reactor: &'a Reactor,
    at: Instant,
    serial: Option<u64>,
}

impl Timer<'_> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.reactor.now() >= self.at {
            return Poll::Ready(());
        }
        let serial = *self.serial.get_or_insert_with(|| {
            let serial = self.reactor.timer_serial.get();
            self.reactor.timer_serial.set(serial + 1);
            serial
        });
        self.reactor.timers.borrow_mut().insert((self.at, serial), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(serial) = self.serial {
            self.reactor.timers.borrow_mut().remove(&(self.at, serial));
        }
    }
}
