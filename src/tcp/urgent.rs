//! Urgent data (RFC 9293 s3.8.5, RFC 6093): a pointer, and nothing else. The bytes stand in the
//! stream like all others and are delivered with it. The pointer is to the octet that follows the
//! urgent data (MUST-62).

use super::output::Transmit;
use super::path::Paths;
use super::tcb::{Tcb, owed};
use super::{Arrival, Seq};
use crate::wire::segment::Segment;
use crate::wire::tcp::Flags;

/// What is urgent on a path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Urgent {
    /// RCV.UP, once the peer has sent one.
    heard: Option<Seq>,
    /// SND.UP as a stream offset, once the application has marked one.
    said: Option<u64>,
}

impl Tcb {
    /// Step six (MUST-30): "RCV.UP <- max(RCV.UP,SEG.UP), and signal the user that the remote side
    /// has urgent data if the urgent pointer is in advance of the data consumed", once for each
    /// pointer (MUST-31, MUST-32). Without a path nothing can be remembered, and the user hears
    /// each time.
    #[inline(always)]
    pub(super) fn hears_urgent(
        &mut self,
        segment: &Segment,
        paths: &mut Paths,
        arrival: &mut Arrival,
    ) {
        if segment.flags.has(Flags::URG) {
            self.hears_pointer(segment, paths, arrival);
        }
    }

    #[cold]
    fn hears_pointer(&mut self, segment: &Segment, paths: &mut Paths, arrival: &mut Arrival) {
        let pointer = Seq(segment.seq).plus(u32::from(segment.urgent));
        if !pointer.after(self.rcv_nxt) || !self.receives() {
            return;
        }
        if let Some(path) = paths.lend(self) {
            let known = path.urgent.heard.filter(|heard| heard.after(self.rcv_nxt));
            if known.is_some_and(|known| !pointer.after(known)) {
                return;
            }
            path.urgent.heard = Some(pointer);
        }
        arrival.urgent_bytes = pointer.since(self.rcv_nxt);
    }

    /// SEND with the URGENT flag (RFC 9293 s3.10.2): all that was promised up to now is urgent
    /// (MUST-30). False if there is no path to remember it: then it is sent as any other text.
    pub fn urge(&mut self, paths: &mut Paths) -> bool {
        let end = self.promised;
        let Some(path) = paths.lend(self) else { return false };
        path.urgent.said = Some(end);
        // The peer is to hear of it even while its window keeps the text back.
        self.owed |= owed::ACK;
        true
    }

    /// Points to the end of the urgent data that is ahead of the segment. One that is further ahead
    /// than the field can say is pointed at as far as it can.
    /// MUST-62: "the sequence number of the octet following the urgent data".
    #[cold]
    pub(super) fn mark_urgent(&mut self, transmit: &mut Transmit, paths: &mut Paths) {
        let said = paths.of(self).and_then(|path| path.urgent.said);
        let Some(end) = said.map(|end| end.min(self.promised)) else { return };
        let bare =
            !transmit.segment.flags.has(Flags::SYN) && !transmit.segment.flags.has(Flags::RST);
        if !bare || Seq(transmit.segment.seq).before(self.snd_una) {
            return;
        }
        let at = self.una_offset + u64::from(Seq(transmit.segment.seq).since(self.snd_una));
        if end > at {
            transmit.segment.flags = transmit.segment.flags | Flags::URG;
            transmit.segment.urgent = (end - at).min(u64::from(u16::MAX)) as u16;
        }
    }
}
