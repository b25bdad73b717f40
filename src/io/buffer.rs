//! Buffers for payloads: reused, moved instead of copied, and bounded in sum.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use crate::limits::{BODY_SMALL_MAX, BUFFER_KEPT_MAX, BUFFER_SIZE, BUFFERS_KEPT, HEAD_MAX};

/// Where buffers come from and go back to.
pub struct Buffers {
    kept: RefCell<Vec<Vec<u8>>>,
    /// Capacity of all buffers that are out.
    bytes: Cell<usize>,
    bytes_limit: usize,
}

/// All buffers together would exceed their limit, or the machine has no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Buffers {
    /// A source of buffers whose capacities sum up to at most `bytes_limit`.
    pub fn new(bytes_limit: usize) -> Rc<Buffers> {
        Rc::new(Buffers { kept: RefCell::default(), bytes: Cell::new(0), bytes_limit })
    }

    /// An empty buffer with some capacity.
    pub fn take(self: &Rc<Self>) -> Result<Buffer, NoRoom> {
        let kept = self.kept.borrow_mut().pop();
        let mut buffer = Buffer { bytes: Vec::new(), home: Rc::clone(self) };
        match kept {
            Some(bytes) => {
                self.charge(0, bytes.capacity(), self.bytes_limit)?;
                buffer.bytes = bytes;
            }
            None => buffer.reserve(BUFFER_SIZE)?,
        }
        Ok(buffer)
    }

    /// Gives the memory of the buffers that are kept for reuse back to the system.
    pub fn give_back(&self) {
        self.kept.borrow_mut().clear();
    }

    /// Capacity of all buffers that are out.
    pub fn in_use(&self) -> usize {
        self.bytes.get()
    }

    /// Up to what sum a client's body may grow to `size` bytes. Small ones may go on where large
    /// ones must stop, and both leave a rest to heads, to workers and to their replies.
    fn clients_limit(&self, size: usize) -> usize {
        let eighths = if size <= BODY_SMALL_MAX { 7 } else { 6 };
        self.bytes_limit / 8 * eighths
    }

    /// Largest body of a client that finds room if nobody else takes any.
    pub fn body_max(&self) -> usize {
        self.clients_limit(usize::MAX).saturating_sub(HEAD_MAX)
    }

    /// True if there is room for a client's body that takes a buffer of `size` bytes.
    pub fn has_room_for_client(&self, size: usize) -> bool {
        self.bytes.get().saturating_add(size) <= self.clients_limit(size)
    }

    fn charge(&self, from: usize, to: usize, limit: usize) -> Result<(), NoRoom> {
        let sum = self.bytes.get() - from + to;
        if to > from && sum > limit {
            return Err(NoRoom);
        }
        self.bytes.set(sum);
        Ok(())
    }
}

/// Bytes that grow within the limit of their [`Buffers`] and go back there when dropped.
pub struct Buffer {
    bytes: Vec<u8>,
    home: Rc<Buffers>,
}

impl Buffer {
    /// Makes room for `more` bytes beyond the present ones.
    pub fn reserve(&mut self, more: usize) -> Result<(), NoRoom> {
        self.grow(more, usize::MAX, self.home.bytes_limit)
    }

    /// As [`Buffer::reserve`], for a body that will not be longer than to `most`: no more than that
    /// is taken in advance.
    pub fn reserve_up_to(&mut self, more: usize, most: usize) -> Result<(), NoRoom> {
        self.grow(more, most, self.home.bytes_limit)
    }

    /// As [`Buffer::reserve_up_to`], for a client's body, which leaves room to others.
    pub fn reserve_for_client(&mut self, more: usize, most: usize) -> Result<(), NoRoom> {
        let limit = self.home.clients_limit(self.bytes.len().saturating_add(more));
        self.grow(more, most, limit)
    }

    fn grow(&mut self, more: usize, most: usize, limit: usize) -> Result<(), NoRoom> {
        let (length, before) = (self.bytes.len(), self.bytes.capacity());
        let wanted = length.checked_add(more).ok_or(NoRoom)?;
        if wanted <= before {
            return Ok(());
        }
        // Doubling keeps the copying linear; the exact size ends it for a known length.
        let target = wanted.max((before * 2).min(most)).min(wanted.next_power_of_two());
        self.home.charge(before, target, limit)?;
        let grown = self.bytes.try_reserve_exact(target - length);
        self.home.bytes.set(self.home.bytes.get() - target + self.bytes.capacity());
        grown.map_err(|_| NoRoom)
    }

    /// Bytes that it holds or has room for.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.reserve(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The bytes, to read into their spare capacity or to take some away. Growing them here
    /// would escape the limit: [`Buffer::reserve`] first.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        self.home.bytes.set(self.home.bytes.get() - bytes.capacity());
        let mut kept = self.home.kept.borrow_mut();
        if bytes.capacity() > 0 && bytes.capacity() <= BUFFER_KEPT_MAX && kept.len() < BUFFERS_KEPT
        {
            bytes.clear();
            kept.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_are_reused_and_large_ones_given_back() {
        let home = Buffers::new(1 << 20);
        let mut first = home.take().expect("room");
        first.extend(b"x").expect("room");
        let address = first.as_ptr();
        drop(first);
        let second = home.take().expect("room");
        assert_eq!((second.as_ptr(), second.len()), (address, 0));
        let mut large = home.take().expect("room");
        large.reserve(BUFFER_KEPT_MAX + 1).expect("room");
        drop((large, second));
        assert_eq!(home.in_use(), 0);
        assert_eq!(home.kept.borrow().len(), 1);
        home.give_back();
        assert!(home.kept.borrow().is_empty());
    }

    #[test]
    fn the_sum_is_bounded_and_a_refusal_changes_nothing() {
        let home = Buffers::new(3 * BUFFER_SIZE);
        let mut one = home.take().expect("room");
        let two = home.take().expect("room");
        one.extend(b"kept").expect("room");
        assert_eq!(one.reserve(3 * BUFFER_SIZE), Err(NoRoom));
        assert_eq!(&*one, b"kept");
        assert_eq!(home.in_use(), 2 * BUFFER_SIZE);
        drop(two);
        assert_eq!(one.reserve(2 * BUFFER_SIZE), Ok(()));
    }

    #[test]
    fn bodies_of_clients_leave_room_to_others_and_take_no_more_than_announced() {
        let home = Buffers::new(1 << 20);
        let mut large = home.take().expect("room");
        large.vec().resize(BUFFER_SIZE, 0);
        assert!(!home.has_room_for_client(800_000));
        large.reserve_for_client(390_000, 700_000).expect("room");
        large.vec().resize(390_000, 0);
        large.reserve_for_client(200_000, 700_000).expect("room");
        assert_eq!(home.in_use(), 700_000);
        assert_eq!(large.reserve_for_client(400_000, 800_000), Err(NoRoom));
        assert!(!home.has_room_for_client(100_000) && home.has_room_for_client(50_000));
        let mut small = [home.take().expect("room"), home.take().expect("room")];
        small[0].reserve_for_client(60_000, 60_000).expect("room");
        small[1].vec().resize(BUFFER_SIZE, 0);
        assert_eq!(small[1].reserve_for_client(100_000, 110_000), Err(NoRoom));
        let mut reply = home.take().expect("room");
        reply.reserve(250_000).expect("what they leave");
    }
}
