//! Queues of numbers that share one memory, in chunks of a cache line.
//!
//! Not chained one to the next: with a million entries what each stands for is somewhere else in
//! memory, and a chunk tells a dozen of them at once, so that they can be asked for together.

use crate::sys::cpu::prefetch;
use crate::sys::pages::zeroed;
#[cfg(test)]
use std::collections::BTreeMap;

/// The number of the chunk behind it, how many entries are in it, and these.
type Chunk = [u32; 16];

const NEXT: usize = 0;
const COUNT: usize = 1;
const ENTRIES: usize = 2;

/// Entries in a chunk.
pub const CHUNK_ENTRIES: usize = size_of::<Chunk>() / size_of::<u32>() - ENTRIES;
pub const CHUNK_BYTES: usize = size_of::<Chunk>();

/// A fixed number of queues.
pub struct Queues {
    /// The first is no queue's: its number ends each.
    chunks: Vec<Chunk>,
    queues: Vec<Queue>,
    /// Chunks that were used and are not any more, as a list; and the first that never was.
    free: u32,
    fresh: u32,
}

#[derive(Clone, Copy, Default)]
struct Queue {
    /// The first and the last chunk, zero while it is empty.
    first: u32,
    last: u32,
    /// How many more entries the last one takes.
    room: u16,
    parity: u16,
}

/// What [`Queues::front`] tells: a queue's first chunk as it is now.
pub struct Front {
    pub chunk: u32,
    copy: Chunk,
}

impl Queues {
    /// Queues for so many entries in all. All memory is allocated here, and not touched but for 12
    /// bytes a queue.
    pub fn new(queues: usize, entries: usize) -> Queues {
        Queues {
            chunks: zeroed(Self::chunks(queues, entries)),
            queues: vec![Queue::default(); queues],
            free: 0,
            fresh: 1,
        }
    }

    /// The most chunks that are ever in use: in each queue the first, the last, and the last when
    /// it was [closed](Queues::close) may be in part empty.
    fn chunks(queues: usize, entries: usize) -> usize {
        1 + entries / CHUNK_ENTRIES + 3 * entries.min(queues)
    }

    /// Bytes of memory at the most.
    pub fn bytes_max(queues: usize, entries: usize) -> usize {
        queues * size_of::<Queue>() + Self::chunks(queues, entries) * CHUNK_BYTES
    }

    /// Touches the memory of a chunk that was never used.
    pub fn touch(&mut self, chunk: usize) {
        std::hint::black_box(&mut self.chunks[chunk])[NEXT] = 0;
    }

    pub fn is_empty(&self, queue: usize) -> bool {
        self.queues[queue].first == 0
    }

    /// Puts an entry at the end of a queue.
    #[inline(always)]
    pub fn push(&mut self, queue: usize, entry: u32) {
        if self.queues[queue].room == 0 {
            self.extend(queue);
        }
        let queue = &mut self.queues[queue];
        let count = CHUNK_ENTRIES - queue.room as usize;
        queue.room -= 1;
        // The chunk is written and not read: it may be far away, and nothing waits for it.
        let chunk = &mut self.chunks[queue.last as usize];
        chunk[ENTRIES + count] = entry;
        chunk[COUNT] = count as u32 + 1;
    }

    /// An empty chunk at the end of a queue.
    fn extend(&mut self, queue: usize) {
        let number = match self.free {
            0 => {
                self.fresh += 1;
                self.fresh - 1
            }
            free => {
                self.free = self.chunks[free as usize][NEXT];
                free
            }
        };
        let queue = &mut self.queues[queue];
        match queue.last {
            0 => queue.first = number,
            last => self.chunks[last as usize][NEXT] = number,
        }
        (queue.last, queue.room) = (number, CHUNK_ENTRIES as u16);
        self.chunks[number as usize][NEXT] = 0;
    }

    /// The first chunk, if there is one.
    #[inline(always)]
    pub fn front(&self, queue: usize) -> Option<Front> {
        let chunk = self.queues[queue].first;
        (chunk != 0).then(|| Front { chunk, copy: self.chunks[chunk as usize] })
    }

    /// The entries of the second chunk, as far as there is one; asks for the memory of the third.
    #[inline(always)]
    pub fn behind(&self, front: &Front) -> &[u32] {
        let behind = &self.chunks[front.copy[NEXT] as usize];
        prefetch(&self.chunks[behind[NEXT] as usize]);
        &behind[ENTRIES..][..behind[COUNT] as usize]
    }

    /// Asks for the memory of the first chunk.
    #[inline(always)]
    pub fn prefetch(&self, queue: usize) {
        prefetch(&self.chunks[self.queues[queue].first as usize]);
    }

    /// Takes the first chunk out with all that is in it.
    pub fn remove_front(&mut self, queue: usize) {
        let queue = &mut self.queues[queue];
        let number = queue.first;
        queue.first = std::mem::replace(&mut self.chunks[number as usize][NEXT], self.free);
        self.free = number;
        if queue.first == 0 {
            (queue.last, queue.room) = (0, 0);
        }
    }

    /// Takes the first `count` entries out of the first chunk, which has more.
    pub fn remove_entries(&mut self, queue: usize, count: usize) {
        let queue = &mut self.queues[queue];
        let chunk = &mut self.chunks[queue.first as usize];
        chunk[ENTRIES..].copy_within(count.., 0);
        chunk[COUNT] -= count as u32;
        if queue.first == queue.last {
            queue.room = 0;
        }
    }

    /// Changes the queue's parity, and sees to it that no chunk has entries of before and of after.
    /// The number of its last chunk now, zero if it is empty; until that is taken out the queue may
    /// not be closed again, for there is no room for ever more chunks that are not full.
    pub fn close(&mut self, queue: usize) -> u32 {
        let queue = &mut self.queues[queue];
        queue.room = 0;
        queue.parity ^= 1;
        queue.last
    }

    /// Zero or one.
    #[inline(always)]
    pub fn parity(&self, queue: usize) -> u32 {
        u32::from(self.queues[queue].parity)
    }
}

impl Front {
    /// What is in it, first to last.
    #[inline(always)]
    pub fn entries(&self) -> &[u32] {
        &self.copy[ENTRIES..][..self.copy[COUNT] as usize]
    }
}

#[cfg(test)]
impl Queues {
    /// That each chunk is in one queue or free, and none is empty. The entries of each queue that
    /// has any.
    pub fn check(&self) -> BTreeMap<usize, Vec<u32>> {
        let (mut chunks, mut all) = (1, BTreeMap::new());
        for (at, queue) in self.queues.iter().enumerate().filter(|(_, queue)| queue.first != 0) {
            let (mut last, mut number, mut entries) = (0, queue.first, Vec::new());
            while number != 0 {
                let chunk = &self.chunks[number as usize];
                assert!(chunk[COUNT] > 0);
                entries.extend_from_slice(&chunk[ENTRIES..][..chunk[COUNT] as usize]);
                chunks += 1;
                (last, number) = (number, chunk[NEXT]);
            }
            assert_eq!(queue.last, last);
            let count = self.chunks[last as usize][COUNT] as usize;
            assert!(queue.room == 0 || count + queue.room as usize == CHUNK_ENTRIES);
            all.insert(at, entries);
        }
        let mut free = self.free;
        while free != 0 {
            chunks += 1;
            free = self.chunks[free as usize][NEXT];
        }
        assert!(chunks == self.fresh && chunks as usize <= self.chunks.len());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUEUES: usize = 3;

    proptest! {
        /// In rounds: entries are put in, then taken from the front, whole chunks or a part of one,
        /// and at times a queue is closed.
        #[test]
        fn each_is_a_queue(
            acts in prop::collection::vec((0..QUEUES, 0..4u32, 1..40usize), 1..200),
        ) {
            let mut queues = Queues::new(QUEUES, 100);
            let mut model: [Vec<u32>; QUEUES] = Default::default();
            let mut closed = [0; QUEUES];
            for (number, (queue, act, count)) in acts.into_iter().enumerate() {
                match act {
                    0 | 1 => {
                        let filed: usize = model.iter().map(Vec::len).sum();
                        for entry in 0..count.min(100 - filed) as u32 {
                            queues.push(queue, number as u32 + entry);
                            model[queue].push(number as u32 + entry);
                        }
                    }
                    2 if closed[queue] != 0 => {}
                    2 => {
                        let (before, last) = (queues.parity(queue), queues.queues[queue].last);
                        closed[queue] = queues.close(queue);
                        prop_assert_eq!(closed[queue], last);
                        prop_assert_ne!(queues.parity(queue), before);
                    }
                    _ => {
                        let Some(front) = queues.front(queue) else {
                            prop_assert!(model[queue].is_empty() && queues.is_empty(queue));
                            continue;
                        };
                        let entries = front.entries();
                        let behind = queues.behind(&front);
                        let read = entries.iter().chain(behind);
                        prop_assert!(read.zip(&model[queue]).all(|(one, other)| one == other));
                        let taken = count.min(entries.len());
                        model[queue].drain(..taken);
                        if taken < entries.len() {
                            queues.remove_entries(queue, taken);
                        } else {
                            queues.remove_front(queue);
                            closed[queue] *= u32::from(closed[queue] != front.chunk);
                        }
                    }
                }
                let filed = queues.check();
                for (queue, entries) in model.iter().enumerate() {
                    prop_assert_eq!(filed.get(&queue).map_or(&[][..], Vec::as_slice), entries);
                }
            }
        }
    }
}
