//! A worker's life after its start: it gets work, asks for more, is told to go, and is gone.

use std::rc::Rc;

use super::Host;
use super::logs::Entry;
use super::spawn::Exit;
use super::worker::{Talk, Worker};
use crate::limits::{HANG_UP_MS, PIPE_BYTES};
use crate::pool::{Cause, Event, Instant, InvocationId, WorkerId};

impl Host {
    pub(super) fn dispatch(self: &Rc<Self>, now: Instant, id: WorkerId, invocation: InvocationId) {
        let worker = self.worker(id).expect("the pool dispatches to live workers");
        // What it wrote until now belongs to its start, or to what it ran before.
        worker.output.drain(PIPE_BYTES, |line| worker.said(self, line));
        worker.thaw();
        self.begin(now, &worker, invocation);
        match &worker.talk {
            Talk::Exec(_) => unreachable!("one-shot workers get their invocation at spawn"),
            Talk::Native(talk) => talk.dispatch(self, &worker, invocation),
            Talk::Provided(seat) => seat.dispatch(self, &worker, invocation),
        }
        if let Some(crew) = &worker.crew {
            let timeout_ms = worker.version.settings(self.defaults.get()).timeout_ms;
            crew.is_due(Some(now.after_ms(timeout_ms)));
            if let Some(seat) = &crew.seat {
                seat.announce(self, &worker, invocation);
            }
        }
    }

    /// Takes note that a worker begins an invocation.
    pub(super) fn begin(&self, now: Instant, worker: &Worker, id: InvocationId) {
        worker.running.set(Some(id));
        worker.used.set(now);
        let first = worker.served.get() == 0;
        worker.served.set(worker.served.get() + 1);
        let mut invocations = self.invocations.borrow_mut();
        let invocation = invocations.get(id);
        invocation.dispatched = Some(now);
        invocation.version = Rc::clone(&worker.version);
        invocation.deadline_ms =
            self.reactor.unix_ms() + u64::from(worker.version.config.timeout_s) * 1000;
        if let Some(ready) = worker.ready.get().filter(|_| first && !worker.provisioned) {
            invocation.init_us = Some(ready.micros_since(worker.spawned));
        }
        let request = invocation.request.0;
        drop(invocations);
        self.note(
            &worker.version.name,
            request,
            Some(id),
            Entry::Start { version: &worker.version.label },
        );
    }

    pub(super) fn stop(self: &Rc<Self>, id: WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        if worker.served.get() == 0 && worker.ready.get().is_none() {
            self.init_stopped(&worker);
        }
        // What it ran was settled before: an answer that comes now is late.
        worker.running.set(None);
        worker.stopping.set(true);
        let share_ms = worker.crew.as_deref().map(|crew| self.prepare_farewell(&worker, crew));
        let reactor = Rc::clone(&self.reactor);
        // A task's turn comes after that of whoever waits for what the worker has answered: its end
        // would take the processor first.
        let task = async move {
            worker.process.stop();
            // What is frozen does not hear it.
            worker.thaw();
            reactor.sleep_ms(HANG_UP_MS).await;
            worker.hang_up();
            if let (Some(share_ms), Some(crew)) = (share_ms, &worker.crew) {
                reactor.sleep_ms(share_ms.saturating_sub(HANG_UP_MS)).await;
                if !crew.is_without_runtime() {
                    worker.process.kill();
                }
            }
        };
        self.executor.spawn(task).detach();
    }

    /// A worker cannot go on.
    pub(super) fn fail(self: &Rc<Self>, worker: &Worker) {
        if let Some(crew) = &worker.crew {
            crew.failed();
        }
        self.step(Event::Failed { worker: worker.id });
    }

    /// A runtime on the wire asks for work; its worker does so once its extensions do as well.
    pub fn asked(self: &Rc<Self>, worker: &Worker) {
        match worker.crew.as_ref().and_then(|crew| crew.seat.as_ref()) {
            None => self.ready(worker),
            Some(seat) => seat.rest(self, worker),
        }
    }

    /// A worker asks for work.
    pub fn ready(self: &Rc<Self>, worker: &Worker) {
        // What it wrote before it asked belongs to what it did before.
        worker.output.drain(PIPE_BYTES, |line| worker.said(self, line));
        let now = self.reactor.now();
        worker.used.set(now);
        if worker.ready.get().is_none() {
            worker.ready.set(Some(now));
            self.note_crew(worker);
        }
        if let Some(crew) = &worker.crew {
            crew.is_due(None);
        }
        self.step(Event::Ready { worker: worker.id });
        self.freeze_later(now);
    }

    /// A worker's process is gone.
    pub(super) fn exited(self: &Rc<Self>, worker: &Worker, exit: Exit) {
        self.lost(worker, exit);
        self.vanished(worker, Cause::Reaped);
    }

    /// A worker has no process any more, or never got one.
    pub(super) fn vanished(self: &Rc<Self>, worker: &Worker, cause: Cause) {
        self.workers.borrow_mut()[usize::from(worker.id.slot)] = None;
        if let Some(cgroup) = &worker.cgroup {
            self.processes.end(cgroup.members().into_iter());
            cgroup.remove();
        }
        self.step(Event::Exited { worker: worker.id, cause });
        // A process that it left behind may go on talking in its name.
        worker.running.set(None);
        worker.hang_up();
        if let Some(seat) = worker.seat() {
            seat.end();
        }
        self.dismiss_built_in(&worker.version);
    }
}
