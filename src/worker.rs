//! One core's program: rx, poll, tx, over values that can't be in two places. And the [`ring`] of a
//! run's workers.
//!
//! A peer spreads its frames over our queues by a hash of its own, so a frame may arrive at a
//! worker that has no connection for it. It is handed round the ring until a worker has, past those
//! that can't; the last that it comes to answers it as a stack without that connection would.
//! Connections never move, and a run with one worker has no ring.
//!
//! Two things a ring does not mend. A SYN that is sent again and comes to another worker opens a
//! second half-open block: the peer's ACK fits one of the two and is handed on by the other, which
//! stays until its SYN-ACK's tries are used up. And TIME-WAIT holds a four-tuple back only where
//! its connection was: elsewhere a SYN opens it at once (its ISN is past the old numbers, by the
//! clock that workers share), and segments of the new connection that later stray to the old place
//! are acknowledged there and lost.

use crate::app::App;
use crate::device::Device;
use crate::engine::Engine;
use crate::frame::{BURST_FRAMES_MAX, Burst, CHUNK_BYTES, Frame, HEADROOM_BYTES, Pool};
use crate::time::Instant;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// A device, an engine, and the frames that go between them.
pub struct Worker<D, A: App> {
    pub dev: D,
    pub engine: Engine<A>,
    pub pool: Pool,
    rx: Burst,
    tx: Burst,
    place: Option<Place>,
}

/// A worker's place in a [`ring`].
pub struct Place {
    index: u16,
    /// One for each worker.
    inboxes: Arc<[Inbox]>,
}

/// What waits for a worker, and the letters that it has emptied: whoever hands on takes one of
/// those, so that nothing is allocated and what moves between cores is a pointer and the bytes
/// written. 16 ns for a frame of 60 bytes within a core, and 175 where the letter itself moved.
struct Inbox {
    full: ArrayQueue<Box<Stray>>,
    empty: ArrayQueue<Box<Stray>>,
}

/// A frame on its way between workers: copied, because each worker has memory of its own, so that
/// frames which stay pay nothing. With a peer that keeps a connection on one queue strays are rare;
/// of what a kernel sent to two workers of a client over a veth, every second frame was one.
struct Stray {
    passes: u16,
    len: u16,
    bytes: [u8; STRAY_BYTES_MAX],
}

/// The longest packet that fits a frame.
const STRAY_BYTES_MAX: usize = CHUNK_BYTES as usize - HEADROOM_BYTES as usize;

/// As many as wait for a worker in the ring of a queue: one that is held up for longer loses frames
/// there too. 1 MB.
const INBOX_FRAMES: usize = 512;

/// Strays taken a turn, so that they and what the device has do not starve each other.
const STRAYS_MAX: usize = BURST_FRAMES_MAX / 2;

/// Places for the `workers` workers of one run, in order; after the last comes the first. All
/// memory is allocated here.
pub fn ring(workers: u16) -> Vec<Place> {
    let inboxes: Arc<[Inbox]> = (0..workers).map(|_| Inbox::new()).collect();
    (0..workers).map(|index| Place { index, inboxes: Arc::clone(&inboxes) }).collect()
}

impl Inbox {
    fn new() -> Inbox {
        let (full, empty) = (ArrayQueue::new(INBOX_FRAMES), ArrayQueue::new(INBOX_FRAMES));
        for _ in 0..INBOX_FRAMES {
            let letter = Stray { passes: 0, len: 0, bytes: [0; STRAY_BYTES_MAX] };
            assert!(empty.push(Box::new(letter)).is_ok(), "each queue has room for all letters");
        }
        Inbox { full, empty }
    }

    /// Leaves a copy of `frame`; false if the worker has not emptied a letter for it.
    fn put(&self, frame: &Frame) -> bool {
        let Some(mut letter) = self.empty.pop() else { return false };
        let bytes = frame.bytes();
        (letter.passes, letter.len) = (frame.passes(), bytes.len() as u16);
        letter.bytes[..bytes.len()].copy_from_slice(bytes);
        assert!(self.full.push(letter).is_ok(), "each queue has room for all letters");
        true
    }

    /// Copies what has waited longest into `frame`; false if nothing waits.
    fn take(&self, frame: &mut Frame) -> bool {
        let Some(letter) = self.full.pop() else { return false };
        let Stray { passes, len, bytes } = &*letter;
        frame.reset(usize::from(*len));
        frame.bytes_mut().copy_from_slice(&bytes[..usize::from(*len)]);
        frame.set_passes(*passes);
        assert!(self.empty.push(letter).is_ok(), "each queue has room for all letters");
        true
    }
}

impl<D: Device, A: App> Worker<D, A> {
    pub fn new(dev: D, engine: Engine<A>, pool: Pool) -> Worker<D, A> {
        Worker { dev, engine, pool, rx: Burst::new(), tx: Burst::new(), place: None }
    }

    /// Takes its place among the workers of a run. The only place of a ring is as none.
    pub fn join(&mut self, place: Place) {
        let workers = place.inboxes.len();
        self.engine.join(workers as u16);
        self.place = (workers > 1).then_some(place);
    }

    /// One turn. The only place where the three parts meet; answers true if any frame moved.
    pub fn turn(&mut self, now: Instant) -> bool {
        self.collect_strays();
        self.dev.rx(now, &mut self.pool, &mut self.rx);
        let received = self.rx.len();
        self.engine.poll(now, &mut self.pool, &mut self.rx, &mut self.tx);
        self.hand_on_strays();
        let ready = self.tx.len();
        self.dev.tx(now, &mut self.pool, &mut self.tx);
        // What found no room has not moved: whoever is to make some may be waiting for this core.
        received > 0 || self.tx.len() < ready
    }

    /// Takes what other workers left here, ahead of what the device has: it is older.
    #[inline(never)]
    fn collect_strays(&mut self) {
        let Some(Place { index, inboxes }) = &self.place else { return };
        let inbox = &inboxes[usize::from(*index)];
        let most = inbox.full.len().min(STRAYS_MAX).min(self.rx.room()).min(self.pool.len());
        for _ in 0..most {
            let mut frame = self.pool.take().expect("the pool holds at least `most` frames");
            assert!(inbox.take(&mut frame), "nobody else takes from it");
            self.rx.push(frame);
            self.engine.counters.strays_in += 1;
        }
    }

    #[inline(never)]
    fn hand_on_strays(&mut self) {
        let Some(Place { index, inboxes }) = &self.place else { return };
        for (places, frame) in self.engine.strays.drain(..) {
            let to = usize::from(*index) + usize::from(places);
            let inbox = &inboxes[to % inboxes.len()];
            self.engine.counters.strays_dropped += u64::from(!inbox.put(&frame));
            self.pool.put(frame);
        }
    }

    /// Law 1: every frame is in the pool, in a burst, or with the device.
    pub fn frames(&self) -> usize {
        let bursts = self.rx.len() + self.tx.len() + self.engine.strays.len();
        self.pool.len() + bursts + self.dev.lent()
    }
}
