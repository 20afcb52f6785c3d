//! ARP and neighbor discovery on an address that we share with the kernel.

use super::{Counts, Program};
use crate::device::steering::{self, Wanted};
use crate::frame::{Burst, Frame, Pool};
use crate::sys::packet::PacketSocket;
use std::io;

/// On shared addresses ARP is looked for each time this many turns went by: well below a
/// millisecond under load, and a small part of a system call a turn.
const ARP_TURNS: u32 = 256;
/// ARP frames taken at such a look; the rest waits for the next.
const ARP_FRAMES_MAX: usize = 8;

/// On an address that we share, ARP and neighbor discovery are the kernel's: it gets the replies to
/// our questions. We listen in through AF_PACKET, which copies and takes nothing away. An ARP
/// request is then answered twice, with the same MAC address.
pub(super) struct Eavesdropper {
    socket: PacketSocket,
    turns: u32,
    free: Vec<Frame>,
}

impl Eavesdropper {
    /// One, if the program shares addresses with the kernel.
    pub fn open(program: &Program) -> io::Result<Option<Eavesdropper>> {
        let shared = &program.steering.shared;
        if shared.is_empty() {
            return Ok(None);
        }
        let filter = steering::filter(Wanted::Resolution, shared);
        let socket = PacketSocket::bind(program.interface.index, &filter)?;
        let free = Vec::with_capacity(ARP_FRAMES_MAX);
        Ok(Some(Eavesdropper { socket, turns: 0, free }))
    }

    /// Now and then, looks whether ARP came.
    pub fn listen(&mut self, pool: &mut Pool, rx: &mut Burst, counts: &mut Counts) {
        self.turns = self.turns.wrapping_add(1);
        if !self.turns.is_multiple_of(ARP_TURNS) || rx.room() == 0 {
            return;
        }
        counts.arp_looks += 1;
        self.free.extend((0..ARP_FRAMES_MAX).map_while(|_| pool.take()));
        self.socket.receive(&mut self.free, rx.room(), |frame| match frame {
            Ok(frame) => rx.push(frame),
            Err(frame) => pool.put(frame),
        });
        self.free.drain(..).for_each(|frame| pool.put(frame));
    }
}
