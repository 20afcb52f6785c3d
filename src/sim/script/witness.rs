//! The application of a script: it does what the script says, and remembers what it was told.

use crate::app::{App, Conn, SoftError};
use crate::tcp::End;
use crate::time::Instant;

/// What was said about one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub established: bool,
    /// Bytes received, all of them as the pattern has it.
    pub received: u64,
    /// Bytes acknowledged.
    pub acknowledged: u64,
    pub peer_closed: bool,
    /// Stream offset of the end of the last urgent data.
    pub urgent: u64,
    /// ICMP errors that end nothing.
    pub soft_errors: u64,
    pub ended: Option<End>,
}

/// Remembers; what it must never be told is a complaint.
#[derive(Debug, Default)]
pub struct Witness {
    told: Vec<Told>,
    pub complaint: Option<&'static str>,
    /// Bytes that it still takes; `u32::MAX` for any number.
    pub room: u32,
    /// The code point of what it sends, if not the configured one.
    pub dscp: Option<u8>,
    close_on_fin: bool,
}

/// Place of the connection in what was told, from 1; 0 if nothing was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place(usize);

/// The payload byte at a stream offset, in either direction. Of its low 32 bits, so that it follows
/// from a relative sequence number too.
pub fn payload_byte(offset: u32) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9) >> 24) as u8
}

impl Witness {
    pub fn new(close_on_fin: bool) -> Witness {
        Witness { room: u32::MAX, close_on_fin, ..Witness::default() }
    }

    /// What was told about the latest connection.
    pub fn latest(&self) -> Told {
        self.told.last().copied().unwrap_or_default()
    }

    fn told(&mut self, place: &mut Place) -> &mut Told {
        if place.0 == 0 {
            self.told.push(Told::default());
            place.0 = self.told.len();
        }
        &mut self.told[place.0 - 1]
    }

    fn complain_if(&mut self, wrong: bool, complaint: &'static str) {
        if wrong {
            self.complaint.get_or_insert(complaint);
        }
    }
}

impl App for Witness {
    type State = Place;
    type Idle = ();

    fn established(&mut self, conn: &mut Conn<'_, Place>) {
        let told = self.told(conn.state);
        let wrong = told.established || told.ended.is_some();
        told.established = true;
        self.complain_if(wrong, "established was told twice, or after the end");
    }

    fn received(&mut self, conn: &mut Conn<'_, Place>, data: &[u8]) {
        let told = self.told(conn.state);
        let order = !told.established || told.peer_closed || told.ended.is_some();
        let at = told.received as u32;
        let same = data.iter().zip(at..).all(|(&byte, offset)| byte == payload_byte(offset));
        told.received += data.len() as u64;
        self.complain_if(order, "data was told before ESTABLISHED, or after FIN or the end");
        self.complain_if(!same, "received bytes are not those that were sent");
        self.complain_if(data.len() as u64 > u64::from(self.room), "more data than there is room");
        if self.room != u32::MAX {
            self.room = self.room.saturating_sub(data.len() as u32);
        }
    }

    fn soft_error(&mut self, conn: &mut Conn<'_, Place>, _error: SoftError) {
        self.told(conn.state).soft_errors += 1;
    }

    fn dscp(&self, _state: &Place, usual: u8) -> u8 {
        self.dscp.unwrap_or(usual)
    }

    fn urgent(&mut self, conn: &mut Conn<'_, Place>, bytes: u32) {
        let told = self.told(conn.state);
        let end = told.received + u64::from(bytes);
        let wrong = bytes == 0 || end <= told.urgent;
        told.urgent = end;
        self.complain_if(wrong, "urgent data was told again");
    }

    fn peer_closed(&mut self, conn: &mut Conn<'_, Place>) {
        let told = self.told(conn.state);
        let wrong = !told.established || told.peer_closed || told.ended.is_some();
        told.peer_closed = true;
        if self.close_on_fin {
            conn.close();
        }
        self.complain_if(wrong, "FIN was told twice, before ESTABLISHED, or after the end");
    }

    fn acknowledged(&mut self, conn: &mut Conn<'_, Place>, acked: u64) {
        let told = self.told(conn.state);
        let wrong = acked <= told.acknowledged || told.ended.is_some();
        told.acknowledged = acked;
        self.complain_if(wrong, "acknowledged bytes did not grow, or after the end");
    }

    fn ended(&mut self, _now: Instant, state: &mut Place, end: End) {
        let told = self.told(state);
        let wrong = told.ended.is_some();
        told.ended = Some(end);
        self.complain_if(wrong, "the end was told twice");
    }

    fn payload(&self, _state: &Place, offset: u64, out: &mut [u8]) {
        for (byte, offset) in out.iter_mut().zip(offset..) {
            *byte = payload_byte(offset as u32);
        }
    }

    fn window(&self, _state: &Place) -> u32 {
        self.room
    }
}
