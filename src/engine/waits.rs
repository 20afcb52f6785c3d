//! Connections in TIME-WAIT that owe nothing: out of the table, so that its slots are for those
//! that still do something, and out of the wheel, because all wait equally long.
//!
//! They stand in a queue in the order in which they end. One that ends early, by RST or by the SYN
//! of its successor, leaves its place empty until the front of the queue comes to it; one that
//! begins anew, by a FIN that was sent again, stays where it is until it is the oldest, and goes to
//! the end.
//! When every place is used the oldest gives way, and is counted: to keep it would be to refuse
//! somebody who is here now. (The kernel, at `tcp_max_tw_buckets`, gives up the newest.)
//!
//! The queue is made of chunks, and the one that was emptied last is used next: so few connections
//! stay in few lines of the processor's caches, and memory is touched for the first time (which is
//! to wait for the kernel, 4 ms for 2 MB of it in a virtual machine) only when there are more in
//! TIME-WAIT than there ever were.

use super::lines::{Lines, tag};
use crate::flow::FlowKey;
use crate::rng::Secret;
use crate::sys::pages::reserved;
use crate::tcp::TimeWait;
use crate::time::Instant;
use crate::wire::Family;
use std::collections::VecDeque;

/// The connections of an engine that are in TIME-WAIT and owe nothing.
pub struct Waits {
    secret: Secret,
    index: Lines,
    /// In chunks. Grows as it is used, within memory that was reserved at the start.
    places: Vec<TimeWait>,
    /// The chunks of the queue, oldest first.
    queue: VecDeque<u32>,
    /// Those that are in no use, the one that was emptied last on top.
    free: Vec<u32>,
    max: usize,
    /// The place of the oldest, if there is one.
    head: usize,
    /// The place of who comes next, if the last chunk has one left.
    tail: usize,
    /// Places from the head on that are in use, empty ones among them.
    used: usize,
}

/// Places of a chunk: 2.3 kB.
const CHUNK: usize = if cfg!(test) { 3 } else { 64 };

/// Chunks that are touched at the start, if there are so many: 2.4 MB.
const READY_CHUNKS: usize = 1024;

/// How far ahead an end is prepared for: a few of them take as long as memory does.
const SOON: usize = 8;

impl Waits {
    /// Room for `max`, found by the same secret as in the table.
    ///
    /// # Panics
    /// If `max` is zero.
    pub fn new(max: u32, secret: Secret) -> Waits {
        assert!(max > 0);
        let (index, chunks) = (Lines::for_few(max as usize), places_for(max) / CHUNK);
        let mut places = reserved(chunks * CHUNK);
        let ready = chunks.min(READY_CHUNKS);
        places.resize(ready * CHUNK, TimeWait::default());
        let mut free = Vec::with_capacity(chunks);
        free.extend((0..ready as u32).rev());
        let (queue, max) = (VecDeque::with_capacity(chunks), max as usize);
        Waits { secret, index, places, queue, free, max, head: 0, tail: 0, used: 0 }
    }

    /// Files one that ends after all that are here, or little before, by the hash of its key;
    /// answers the one that gave way to it.
    #[inline]
    pub fn push(&mut self, wait: TimeWait, hash: u64) -> Option<TimeWait> {
        let given_up = if self.used == self.max { self.pop() } else { None };
        if self.tail.is_multiple_of(CHUNK) {
            self.begin_chunk();
        }
        let place = self.tail;
        self.places[place] = wait;
        (self.tail, self.used) = (place + 1, self.used + 1);
        self.index.insert(tag(hash), place as u32);
        given_up
    }

    /// Asks for the cache line where a hash is looked for first, if anything is there.
    #[inline]
    pub fn prefetch_hashed(&self, hash: u64) {
        if !self.index.is_empty() {
            self.index.prefetch(tag(hash));
        }
    }

    /// Asks for the cache line where a key is filed.
    #[inline]
    pub fn prefetch(&self, key: &FlowKey) {
        self.index.prefetch(tag(key.bucket(&self.secret)));
    }

    /// The place of `key`, whose hash is `hash`.
    #[inline]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        if self.index.is_empty() {
            return None;
        }
        self.index.find(tag(hash), |place| self.places[place as usize].key == *key)
    }

    /// What waits at a place that [`Waits::find`] answered.
    pub fn get(&self, place: u32) -> &TimeWait {
        &self.places[place as usize]
    }

    /// Changes what waits at a place: all but its key.
    pub fn set(&mut self, place: u32, mut wait: TimeWait) {
        let known = &mut self.places[place as usize];
        assert!(known.key == wait.key);
        wait.set_renewed(known.is_renewed() || !known.ends_with(&wait));
        *known = wait;
    }

    /// Takes out what waits at a place that [`Waits::find`] answered.
    pub fn take(&mut self, place: u32) -> TimeWait {
        let wait = std::mem::take(&mut self.places[place as usize]);
        assert!(self.index.remove(tag(wait.key.bucket(&self.secret)), place), "it is filed");
        wait
    }

    /// Hands out those whose time is over, oldest first; looks at `limit` places at the most.
    pub fn expire(&mut self, now: Instant, limit: usize, mut over: impl FnMut(TimeWait)) {
        for _ in 0..limit.min(self.used) {
            let mut oldest = self.places[self.head];
            if is_empty(&oldest) {
                self.pop();
            } else if oldest.until(now) <= now {
                self.pop();
                over(oldest);
            } else if oldest.is_renewed() {
                // Others that were filed later end before it.
                self.pop();
                oldest.set_renewed(false);
                self.push(oldest, oldest.key.bucket(&self.secret));
            } else {
                return;
            }
        }
    }

    /// When [`Waits::expire`] will next have something to do, or a little earlier.
    pub fn next(&self, now: Instant) -> Instant {
        if self.used == 0 {
            return Instant::NEVER;
        }
        let oldest = &self.places[self.head];
        if is_empty(oldest) || oldest.is_renewed() { now } else { oldest.until(now) }
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Room, in connections.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Bytes that one takes, its share of the index included.
    pub fn bytes_each(&self) -> usize {
        size_of::<TimeWait>() + self.index.bytes() / self.max
    }

    /// Ends of connections that have an address with a number.
    pub fn numbers(&self) -> usize {
        let six = |wait: &&TimeWait| wait.key.family() == Family::V6;
        2 * self.filed().map(|(_, wait)| wait).filter(six).count()
    }

    /// Every connection is found by its key, and there are as many as are filed.
    ///
    /// # Panics
    /// If not: a bug of ours.
    pub fn check(&self) {
        let mut live = 0;
        for (place, wait) in self.filed() {
            live += 1;
            let found = self.find(&wait.key, wait.key.bucket(&self.secret));
            assert_eq!(found, Some(place as u32), "{wait:?} is found");
        }
        assert_eq!(live, self.len());
        assert!(live <= self.used && self.used <= self.max);
        assert_eq!((self.queue.len() + self.free.len()) * CHUNK, self.places.len());
    }

    /// Those that wait, with their places, in order.
    fn filed(&self) -> impl Iterator<Item = (usize, &TimeWait)> {
        let chunk = |&chunk: &u32| (chunk as usize * CHUNK..).take(CHUNK);
        let places = self.queue.iter().flat_map(chunk);
        places.map(|place| (place, &self.places[place])).filter(|(_, wait)| !is_empty(wait))
    }

    /// Puts a chunk at the end of the queue.
    #[cold]
    fn begin_chunk(&mut self) {
        let chunk = self.free.pop().unwrap_or_else(|| {
            let chunk = self.places.len() / CHUNK;
            self.places.resize((chunk + 1) * CHUNK, TimeWait::default());
            chunk as u32
        });
        self.queue.push_back(chunk);
        self.tail = chunk as usize * CHUNK;
        if self.used == 0 {
            self.head = self.tail;
        }
    }

    /// Takes the chunk from the front of the queue whose places have all been freed.
    #[cold]
    fn end_chunk(&mut self) {
        self.free.extend(self.queue.pop_front());
        self.head = self.queue.front().map_or(self.tail, |&chunk| chunk as usize * CHUNK);
    }

    /// Frees the place of the oldest; answers who was there, if anybody still was.
    #[inline]
    fn pop(&mut self) -> Option<TimeWait> {
        let place = self.head;
        // Which line of the index this one's successors need is known long before their end.
        if let Some(soon) = self.soon() {
            self.prefetch(&soon.key);
        }
        (self.head, self.used) = (place + 1, self.used - 1);
        if self.head.is_multiple_of(CHUNK) {
            self.end_chunk();
        }
        (!is_empty(&self.places[place])).then(|| self.take(place as u32))
    }

    /// Who stands [`SOON`] behind the head, in its chunk or the next.
    #[inline]
    fn soon(&self) -> Option<&TimeWait> {
        let later = self.head % CHUNK + SOON;
        let chunk = *self.queue.get(later / CHUNK)? as usize;
        self.places.get(chunk * CHUNK + later % CHUNK)
    }
}

/// Places numbered where there is room for `max`: the first chunk of the queue and the last may
/// both be in use in part.
pub fn places_for(max: u32) -> usize {
    ((max as usize).div_ceil(CHUNK) + 1) * CHUNK
}

/// No connection has port 0.
fn is_empty(wait: &TimeWait) -> bool {
    wait.key == FlowKey::NONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::Config;
    use crate::tcp::time_wait::tests::in_time_wait;
    use crate::time::Span;
    use proptest::prelude::*;

    fn key(port: u16) -> FlowKey {
        FlowKey::v4(([10, 0, 0, 1], port), ([10, 0, 0, 2], 80))
    }

    fn wait(port: u16, until: Instant) -> TimeWait {
        in_time_wait(key(port), until).freeze(&Config::default())
    }

    fn push(waits: &mut Waits, port: u16, until: Instant) -> Option<TimeWait> {
        waits.push(wait(port, until), key(port).bucket(&waits.secret))
    }

    proptest! {
        /// The model is a queue of (port, when it began): pushed in order, taken from anywhere.
        #[test]
        fn it_does_what_a_queue_does(
            acts in prop::collection::vec((0u8..4, 1u16..12, 0u64..40), 1..200),
        ) {
            let secret = Secret::from_seed(1);
            let mut waits = Waits::new(8, secret);
            let mut model: VecDeque<(u16, Instant)> = VecDeque::new();
            let mut now = Instant::ZERO;
            let length = Span::from_millis(60);
            let hash = |port| key(port).bucket(&secret);
            for (act, port, pass) in acts {
                let known = model.iter().position(|(other, _)| *other == port);
                let found = waits.find(&key(port), hash(port));
                prop_assert_eq!(found.is_some(), known.is_some());
                match (act, known) {
                    (0 | 1, None) => {
                        let given_up = waits.push(wait(port, now + length), hash(port));
                        if let Some(given_up) = given_up {
                            let oldest = model.pop_front().map(|(port, _)| key(port));
                            prop_assert_eq!(Some(given_up.key), oldest);
                        }
                        model.push_back((port, now));
                    }
                    (2, Some(at)) => {
                        let place = found.expect("it is known");
                        prop_assert_eq!(waits.get(place).key, key(port));
                        waits.take(place);
                        model.remove(at);
                    }
                    (3, _) => {
                        now += Span::from_millis(pass);
                        let mut over = Vec::new();
                        waits.expire(now, 99, |wait| over.push(wait.key));
                        for over in over {
                            let (port, began) = model.pop_front().expect("the model has it too");
                            prop_assert_eq!(over, key(port));
                            prop_assert!(began + length <= now);
                        }
                        // What is left is not over, or by less than a tick.
                        let left = model.front().map(|&(_, began)| began + length);
                        prop_assert!(left.is_none_or(|end| end + Span::from_micros(66) > now));
                    }
                    _ => {}
                }
                waits.check();
                prop_assert_eq!(waits.len(), model.len());
                let next = waits.next(now);
                prop_assert!(model.is_empty() == (next == Instant::NEVER) || next == now);
            }
        }
    }

    #[test]
    fn the_oldest_gives_way_when_every_place_is_used() {
        let mut waits = Waits::new(2, Secret::from_seed(1));
        let at = |seconds| Instant::ZERO + Span::from_secs(seconds);
        assert_eq!(push(&mut waits, 1, at(1)), None);
        assert_eq!(push(&mut waits, 2, at(2)), None);
        assert_eq!(push(&mut waits, 3, at(3)).map(|it| it.key), Some(key(1)));
        // Ends are kept in ticks, rounded up.
        let tick = Span::from_micros(66);
        assert_eq!(over(&mut waits, at(1) + tick), []);
        assert_eq!(over(&mut waits, at(2) + tick), [key(2)]);
        assert_eq!(waits.len(), 1);
        assert!(waits.next(at(2)) >= at(3) && waits.next(at(2)) < at(3) + tick);
    }

    /// Who is over, looking at up to ten places.
    fn over(waits: &mut Waits, now: Instant) -> Vec<FlowKey> {
        let mut keys = Vec::new();
        waits.expire(now, 10, |wait| keys.push(wait.key));
        waits.check();
        keys
    }

    #[test]
    fn one_that_begins_anew_over_and_over_holds_nobody_up_and_takes_one_place() {
        let secret = Secret::from_seed(1);
        let mut waits = Waits::new(3, secret);
        let at = |seconds| Instant::ZERO + Span::from_secs(seconds);
        (1..=3).for_each(|port| assert_eq!(push(&mut waits, port, at(u64::from(port))), None));
        for seconds in 4..100 {
            let place = waits.find(&key(1), key(1).bucket(&secret)).expect("it waits");
            waits.set(place, wait(1, at(seconds)));
        }
        assert_eq!(waits.len(), 3);
        assert_eq!(over(&mut waits, at(50)), [key(2), key(3)]);
        assert_eq!(over(&mut waits, at(100)), [key(1)]);
    }

    #[test]
    fn one_call_looks_at_no_more_places_than_it_may() {
        let mut waits = Waits::new(100, Secret::from_seed(1));
        (1..=100).for_each(|port| assert_eq!(push(&mut waits, port, Instant::ZERO), None));
        let calls = (0..10).map(|_| over(&mut waits, Instant::ZERO + Span::from_secs(1)).len());
        assert!(calls.eq([10; 10]));
    }
}
