//! A burst in stages: prefetch all, parse all, look up all, and only then process one after the
//! other (see [`super::ingress`]), so that the memory of one frame's connection is on its way while
//! another's is worked on.

use super::Engine;
use crate::app::App;
use crate::flow::FlowKey;
use crate::frame::Frame;
use crate::wire::Malformed;
use crate::wire::segment::{self, Body, Packet};

/// So many frames before a connection's turn its memory is asked for. It is five lines, and of
/// those that come from afar a processor waits for some twenty: what more it is asked for it
/// forgets.
const ASKED: usize = 5;

/// A frame between the stages: what is wrong with it, if anything is; the key of its connection
/// with the hash of that; where that connection most likely is, in the table or in the SYN cache;
/// and where one is whose turn comes soon.
#[derive(Clone, Copy)]
pub struct Staged {
    pub fault: Option<Malformed>,
    pub key: Option<(FlowKey, u64)>,
    pub place: Option<u32>,
    pub half_open: Option<u32>,
    pub soon: Option<u32>,
}

impl<A: App> Engine<A> {
    /// Brings frames as far as to be processed.
    #[inline(always)]
    pub(super) fn stage(
        &mut self,
        frames: &[Frame],
        packets: &mut [Packet],
        staged: &mut Vec<Staged>,
    ) {
        self.parse(frames, packets, staged);
        if self.look_up(staged) {
            self.ask_ahead(staged);
        }
    }

    /// Parses frames, and stages each with the key of its connection.
    #[inline(never)] // So its sums have registers of their own.
    fn parse(&mut self, frames: &[Frame], packets: &mut [Packet], staged: &mut Vec<Staged>) {
        for frame in frames {
            frame.prefetch();
        }
        let mut bytes = 0;
        staged.extend(frames.iter().zip(&mut *packets).map(|(frame, packet)| {
            bytes += frame.bytes().len() as u64;
            let fault = segment::parse_into(frame.bytes(), self.config.verify, packet).err();
            let key = match (fault, &packet.body) {
                (None, Body::Tcp(segment)) => self.table.hosts.key_of_received(segment),
                (None | Some(_), _) => None,
            };
            let key = key.map(|key| (key, self.table.hash(&key)));
            Staged { fault, key, place: None, half_open: None, soon: None }
        }));
        self.counters.rx_bytes += bytes;
    }

    /// Finds whose memory each frame will need, without waiting for that memory. Whether some of it
    /// is of connections that stay, and so is far away and yet to be asked for.
    #[inline(always)]
    fn look_up(&self, staged: &mut [Staged]) -> bool {
        for stage in &mut *staged {
            let Some((_, hash)) = stage.key else { continue };
            stage.place = self.table.guess(hash);
            if let Some(place) = stage.place {
                self.table.prefetch(place);
                continue;
            }
            // Before the large index, which is far away.
            stage.half_open = self.syns.guess(hash);
            if stage.half_open.is_none() {
                self.table.prefetch_hashed(hash);
                self.syns.prefetch_hashed(hash);
                self.waits.prefetch_hashed(hash);
            }
        }
        // Now the lines of the large index have come, or are on their way.
        let mut far = false;
        for stage in staged {
            if let (Some((_, hash)), None, None) = (stage.key, stage.place, stage.half_open) {
                stage.place = self.table.guess_far(hash);
                far |= stage.place.is_some();
            }
        }
        far
    }

    /// Asks for the memory of the first few frames' connections, and has that of each other asked
    /// for a few frames before.
    #[inline(never)] // Out of the way of what comes and goes.
    fn ask_ahead(&self, staged: &mut [Staged]) {
        staged.iter().take(ASKED).filter_map(|stage| stage.place).for_each(|at| self.ask_for(at));
        for later in ASKED..staged.len() {
            staged[later - ASKED].soon = staged[later].place;
        }
    }

    /// Asks for the memory of the connection at a place.
    #[inline(always)]
    pub(super) fn ask_for(&self, place: u32) {
        self.table.prefetch(place);
        self.wheel.prefetch(place);
    }
}
