//! The waiting line: invocations that have no worker yet, oldest first.
//!
//! A waiter is either loose (its queue wait runs) or bound to one slot that will serve it soon
//! (a worker that starts, one about to ask for more, or one on its way out).

use heapless::Vec;

use super::event::{InvocationId, VersionId};
use super::time::Instant;
use crate::limits::WAITING_MAX;

/// A waiter's place in the line's table. Reused; never kept beyond the waiter.
pub type Ticket = u16;

const NONE: Ticket = Ticket::MAX;

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// For anything, until its queue wait is over.
    Loose,
    /// For a worker that starts for it. No deadline of its own: the start has one.
    Start(u16),
    /// For a worker that has replied and is about to ask for more, until this instant.
    Soon(u16, Instant),
    /// For a slot whose worker is on its way out. No deadline of its own: the grace has one.
    Stop(u16),
}

impl Bound {
    /// The slot it is bound to.
    pub fn slot(self) -> Option<u16> {
        match self {
            Bound::Loose => None,
            Bound::Start(slot) | Bound::Soon(slot, _) | Bound::Stop(slot) => Some(slot),
        }
    }
}

/// One invocation without a worker.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// What waits.
    pub invocation: InvocationId,
    /// What it wants to run.
    pub version: VersionId,
    /// What it waits for.
    pub bound: Bound,
    /// End of its queue wait; counts while it is loose.
    pub until: Instant,
    /// Starts that failed for it.
    pub failed: u8,
    /// It may still wait a moment for a worker that is about to be ready.
    pub patient: bool,
}

struct Node {
    waiter: Option<Waiter>,
    prev: Ticket,
    next: Ticket,
}

/// All waiters, in order of arrival.
pub struct Line {
    nodes: Vec<Node, WAITING_MAX>,
    head: Ticket,
    tail: Ticket,
    /// Head of the list of unused nodes, linked by `next`.
    unused: Ticket,
    len: usize,
}

impl Line {
    pub(super) const fn new() -> Line {
        Line { nodes: Vec::new(), head: NONE, tail: NONE, unused: NONE, len: 0 }
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The waiters with their tickets, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiter)> {
        let mut at = self.head;
        core::iter::from_fn(move || {
            let node = self.nodes.get(usize::from(at))?;
            let ticket = at;
            at = node.next;
            Some((ticket, node.waiter.as_ref().expect("linked nodes hold waiters")))
        })
    }

    /// The ticket behind this one, or the first.
    pub(super) fn after(&self, ticket: Option<Ticket>) -> Option<Ticket> {
        let next = ticket.map_or(self.head, |t| self.nodes[usize::from(t)].next);
        (next != NONE).then_some(next)
    }

    /// Appends a waiter; `None` if the line is full.
    pub(super) fn push(&mut self, waiter: Waiter) -> Option<Ticket> {
        let ticket = if self.unused != NONE {
            let ticket = self.unused;
            self.unused = self.nodes[usize::from(ticket)].next;
            ticket
        } else {
            let ticket = Ticket::try_from(self.nodes.len()).expect("WAITING_MAX fits a ticket");
            self.nodes.push(Node { waiter: None, prev: NONE, next: NONE }).ok()?;
            ticket
        };
        self.nodes[usize::from(ticket)] =
            Node { waiter: Some(waiter), prev: self.tail, next: NONE };
        match self.nodes.get_mut(usize::from(self.tail)) {
            Some(last) => last.next = ticket,
            None => self.head = ticket,
        }
        self.tail = ticket;
        self.len += 1;
        Some(ticket)
    }

    /// Takes a waiter out, wherever it stands.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Waiter {
        let node = &mut self.nodes[usize::from(ticket)];
        let waiter = node.waiter.take().expect("a ticket names a waiter");
        let (prev, next) = (node.prev, node.next);
        node.next = self.unused;
        self.unused = ticket;
        match self.nodes.get_mut(usize::from(prev)) {
            Some(node) => node.next = next,
            None => self.head = next,
        }
        match self.nodes.get_mut(usize::from(next)) {
            Some(node) => node.prev = prev,
            None => self.tail = prev,
        }
        self.len -= 1;
        waiter
    }

    pub(super) fn get(&self, ticket: Ticket) -> &Waiter {
        self.nodes[usize::from(ticket)].waiter.as_ref().expect("a ticket names a waiter")
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> &mut Waiter {
        self.nodes[usize::from(ticket)].waiter.as_mut().expect("a ticket names a waiter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(n: u64) -> Waiter {
        Waiter {
            invocation: InvocationId(n),
            version: VersionId(0),
            bound: Bound::Loose,
            until: Instant::ZERO,
            failed: 0,
            patient: true,
        }
    }

    fn order(line: &Line) -> std::vec::Vec<u64> {
        line.iter().map(|(_, w)| w.invocation.0).collect()
    }

    #[test]
    fn keeps_arrival_order_through_removals_anywhere() {
        let mut line = Line::new();
        let tickets: std::vec::Vec<Ticket> =
            (0..5).map(|n| line.push(waiter(n)).expect("room")).collect();
        line.remove(tickets[2]);
        line.remove(tickets[0]);
        line.remove(tickets[4]);
        assert_eq!(order(&line), [1, 3]);
        line.push(waiter(9));
        assert_eq!(order(&line), [1, 3, 9]);
        assert_eq!(line.len(), 3);
    }

    #[test]
    fn full_is_an_answer_and_room_comes_back() {
        let mut line = Line::new();
        for n in 0..WAITING_MAX as u64 {
            assert!(line.push(waiter(n)).is_some());
        }
        assert_eq!(line.push(waiter(1000)), None);
        let first = line.after(None).expect("not empty");
        line.remove(first);
        assert!(line.push(waiter(1001)).is_some());
        assert_eq!(line.len(), WAITING_MAX);
    }
}
