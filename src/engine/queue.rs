//! First-in-first-out lists threaded through the items themselves: nothing is allocated, and an
//! item is in one queue at most.

/// Not in a [`Queue`].
pub const UNQUEUED: u32 = u32::MAX;

/// The last of a [`Queue`], or of another list through the same links. No place's number.
pub const LAST: u32 = u32::MAX - 1;

/// What a [`Queue`] may be threaded through: it keeps the place of the next one, or [`UNQUEUED`].
pub trait Linked {
    fn link(&self) -> u32;
    fn set_link(&mut self, link: u32);
}

/// A list of places in a slab of items.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    head: u32,
    tail: u32,
}

impl Queue {
    pub const fn new() -> Queue {
        Queue { head: LAST, tail: LAST }
    }

    pub fn is_empty(&self) -> bool {
        self.head == LAST
    }

    /// Adds an item at the end, unless it is in this or another queue already.
    pub fn push<L: Linked>(&mut self, items: &mut [L], place: u32) {
        if items[place as usize].link() != UNQUEUED {
            return;
        }
        items[place as usize].set_link(LAST);
        if self.head == LAST {
            self.head = place;
        } else {
            items[self.tail as usize].set_link(place);
        }
        self.tail = place;
    }

    /// The first item; it stays.
    pub fn front(&self) -> Option<u32> {
        (self.head != LAST).then_some(self.head)
    }

    /// Removes the first item.
    pub fn pop<L: Linked>(&mut self, items: &mut [L]) -> Option<u32> {
        let place = self.front()?;
        self.head = items[place as usize].link();
        items[place as usize].set_link(UNQUEUED);
        Some(place)
    }

    /// Moves all of `other` to the end, in order. O(1).
    pub fn append<L: Linked>(&mut self, items: &mut [L], other: Queue) {
        if self.is_empty() {
            *self = other;
        } else if !other.is_empty() {
            items[self.tail as usize].set_link(other.head);
            self.tail = other.tail;
        }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(u32);

    impl Linked for Item {
        fn link(&self) -> u32 {
            self.0
        }

        fn set_link(&mut self, link: u32) {
            self.0 = link;
        }
    }

    #[test]
    fn a_queue_keeps_order_and_takes_an_item_once() {
        let mut items = [Item(UNQUEUED), Item(UNQUEUED), Item(UNQUEUED)];
        let (mut ready, mut parked) = (Queue::new(), Queue::new());
        for place in [2, 0, 1] {
            parked.push(&mut items, place);
            parked.push(&mut items, place);
            ready.push(&mut items, place);
        }
        assert!(ready.is_empty());
        ready.append(&mut items, std::mem::take(&mut parked));
        let popped: Vec<u32> = std::iter::from_fn(|| ready.pop(&mut items)).collect();
        assert_eq!(popped, [2, 0, 1]);
        assert!(ready.is_empty() && parked.is_empty());
    }
}
