//! Packets longer than a chunk that AF_XDP takes: the kernel deals in fragments, the engine in
//! whole frames, and this copies between the two.
//!
//! The engine's memory is not registered with the socket then; the fragments lie in chunks of the
//! queue's own. Invariant: at most one packet is half received, and it is in `partial`.

use crate::frame::{Burst, Frame, HEADROOM_BYTES, Pool};
use crate::sys::socket::Socket;
use std::io;

/// The largest chunk that AF_XDP takes, in bytes.
pub(super) const CHUNK_BYTES_MAX: u32 = 4096;

/// Payload of one fragment that we send, in bytes.
const FRAGMENT_BYTES: usize = CHUNK_BYTES_MAX as usize - HEADROOM_BYTES as usize;

pub(super) struct Fragments {
    /// What is lent to the socket.
    pub pool: Pool,
    partial: Option<Frame>,
    /// The packet that is being received does not fit a frame: the rest of it is dropped too.
    skipping: bool,
    /// Received packets that were longer than a frame of the engine's, and are lost.
    pub too_long: u64,
}

impl Fragments {
    /// With `frames` chunks of its own.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn new(frames: u32) -> io::Result<Fragments> {
        let pool = Pool::of_chunks(frames, CHUNK_BYTES_MAX)?;
        Ok(Fragments { pool, partial: None, skipping: false, too_long: 0 })
    }

    /// Frames of the engine's that are here.
    pub fn lent(&self) -> usize {
        usize::from(self.partial.is_some())
    }

    /// Takes what has arrived, and puts what is whole into `rx`.
    pub fn receive(&mut self, socket: &mut Socket, pool: &mut Pool, rx: &mut Burst) {
        // A fragment ends one packet at the most, and begins one at the most.
        let most = rx.room().min(pool.len() + self.lent());
        socket.receive(most as u32, |fragment, goes_on| {
            self.gather(fragment.bytes(), goes_on, pool, rx);
            self.pool.put(fragment);
        });
    }

    fn gather(&mut self, bytes: &[u8], goes_on: bool, pool: &mut Pool, rx: &mut Burst) {
        let begins = self.partial.is_none() && !self.skipping;
        if begins {
            self.partial = pool.take().map(|mut frame| {
                frame.reset(0);
                frame
            });
        }
        if let Some(mut frame) = self.partial.take() {
            let at = frame.bytes().len();
            if at + bytes.len() <= frame.capacity() {
                frame.reset(at + bytes.len());
                frame.bytes_mut()[at..].copy_from_slice(bytes);
                match goes_on {
                    true => self.partial = Some(frame),
                    false => rx.push(frame),
                }
                return;
            }
            pool.put(frame);
            self.too_long += 1;
        }
        self.skipping = goes_on;
    }

    /// Sends from `tx` what fits; the frames are the engine's again at once.
    pub fn send(&mut self, socket: &mut Socket, pool: &mut Pool, tx: &mut Burst) {
        let mut sent = 0;
        for frame in tx.frames() {
            let count = frame.bytes().len().div_ceil(FRAGMENT_BYTES);
            if self.pool.len() < count || (socket.send_room(count as u32) as usize) < count {
                break;
            }
            let parts = frame.bytes().chunks(FRAGMENT_BYTES).enumerate();
            socket.send(parts.map_while(|(index, part)| {
                let mut fragment = self.pool.take()?;
                fragment.reset(part.len());
                fragment.bytes_mut().copy_from_slice(part);
                if let (0, Some(at)) = (index, frame.unsummed_at()) {
                    fragment.leave_unsummed(at);
                }
                Some((fragment, index + 1 < count))
            }));
            sent += 1;
        }
        tx.drain(sent).for_each(|frame| pool.put(frame));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_become_one_frame_and_what_is_too_long_is_dropped_whole() {
        let mut fragments = Fragments::new(1).unwrap();
        let (mut pool, mut rx) = (Pool::for_mtu(2, 9000).unwrap(), Burst::new());
        let mut gather = |bytes: &[u8], goes_on| {
            fragments.gather(bytes, goes_on, &mut pool, &mut rx);
            (fragments.lent(), rx.len(), fragments.too_long)
        };
        assert_eq!(gather(&[1; 3000], true), (1, 0, 0));
        assert_eq!(gather(&[2; 3000], true), (1, 0, 0));
        assert_eq!(gather(&[3; 100], false), (0, 1, 0));
        for _ in 0..5 {
            gather(&[4; 3500], true);
        }
        assert_eq!(gather(&[4; 3500], false), (0, 1, 1));
        assert_eq!(gather(&[5; 60], false), (0, 2, 1), "the next packet is whole");
        let lens: Vec<usize> = rx.frames().iter().map(|frame| frame.bytes().len()).collect();
        assert_eq!(lens, [6100, 60]);
        let first = rx.frames()[0].bytes();
        assert_eq!((first[0], first[3000], first[6099]), (1, 2, 3));
        rx.drain(2).for_each(|frame| pool.put(frame));
    }
}
