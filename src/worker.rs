//! One core's program: rx, poll, tx, over values that can't be in two places.

use crate::app::App;
use crate::device::Device;
use crate::engine::Engine;
use crate::frame::{Burst, Pool};
use crate::time::Instant;

/// A device, an engine, and the frames that go between them.
pub struct Worker<D, A: App> {
    pub dev: D,
    pub engine: Engine<A>,
    pub pool: Pool,
    rx: Burst,
    tx: Burst,
}

impl<D: Device, A: App> Worker<D, A> {
    pub fn new(dev: D, engine: Engine<A>, pool: Pool) -> Worker<D, A> {
        Worker { dev, engine, pool, rx: Burst::new(), tx: Burst::new() }
    }

    /// One turn. The only place where the three parts meet; answers true if any frame moved.
    pub fn turn(&mut self, now: Instant) -> bool {
        self.dev.rx(now, &mut self.pool, &mut self.rx);
        let received = self.rx.len();
        self.engine.poll(now, &mut self.pool, &mut self.rx, &mut self.tx);
        let sent = self.tx.len();
        self.dev.tx(now, &mut self.pool, &mut self.tx);
        received + sent > 0
    }

    /// Law 1: every frame is in the pool, in a burst, or with the device.
    pub fn frames(&self) -> usize {
        self.pool.len() + self.rx.len() + self.tx.len() + self.dev.lent()
    }
}
