//! Buffers for payloads: reused, moved instead of copied, and bounded in sum.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use crate::limits::{BUFFER_KEPT_MAX, BUFFER_SIZE, BUFFERS_KEPT};

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
                self.charge(0, bytes.capacity())?;
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

    fn charge(&self, from: usize, to: usize) -> Result<(), NoRoom> {
        let sum = self.bytes.get() - from + to;
        if to > from && sum > self.bytes_limit {
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
        let (length, before) = (self.bytes.len(), self.bytes.capacity());
        let wanted = length.checked_add(more).ok_or(NoRoom)?;
        if wanted <= before {
            return Ok(());
        }
        // Doubling keeps the copying linear; the exact size ends it for a known length.
        let target = wanted.max(before * 2).min(wanted.next_power_of_two());
        self.home.charge(before, target)?;
        let grown = self.bytes.try_reserve_exact(target - length);
        self.home.bytes.set(self.home.bytes.get() - target + self.bytes.capacity());
        grown.map_err(|_| NoRoom)
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
}
