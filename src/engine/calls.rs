//! What the user of TCP can ask for (RFC 9293 s3.9.1): OPEN, active and passive; CLOSE in LISTEN;
//! STATUS; and any other call, by way of what the application marks.

use super::expire::Candidate;
use super::{Engine, Listener, NO_LISTENER};
use crate::app::{App, Conn, Refusal};
use crate::flow::{Endpoints, FlowKey};
use crate::tcp::{self, State};
use crate::time::Instant;
use std::net::IpAddr;

impl<A: App> Engine<A> {
    /// Opens the connection between `endpoints`, local one included (RFC 9293 s3.10.1, MUST-43).
    ///
    /// # Errors
    /// The remote address is no single host's, the four-tuple is in use, or the table is full.
    pub fn connect(
        &mut self,
        now: Instant,
        endpoints: &Endpoints,
        state: A::State,
    ) -> Result<(), Refusal> {
        let candidate = self.candidate(*endpoints);
        if self.is_taken(&candidate) {
            return Err(Refusal::NoTuple);
        }
        self.open(now, &candidate, state)
    }

    /// [`Engine::connect`] on a four-tuple that is free.
    #[inline]
    pub(super) fn open(
        &mut self,
        now: Instant,
        candidate: &Candidate,
        state: A::State,
    ) -> Result<(), Refusal> {
        let Candidate { endpoints, keyed } = candidate;
        let (key, hash) = match *keyed {
            Some(keyed) => keyed,
            None => {
                let key = self.table.hosts.hold(endpoints);
                let key = key.ok_or_else(|| self.why_not(endpoints.remote.ip()))?;
                (key, self.table.hash(&key))
            }
        };
        let neighbor = match self.neighbors.way(&key) {
            Some(neighbor) => neighbor,
            None => self.find_way(now, &key, endpoints)?,
        };
        let slot = self.table.insert(&key, hash, state).ok_or(Refusal::TableFull)?;
        let tcb = &mut self.table.tcbs[slot as usize];
        (tcb.listener, tcb.neighbor) = (NO_LISTENER, neighbor);
        tcb.open_active(tcp::isn(&self.secret, endpoints, now), now);
        self.neighbors.hold(neighbor);
        self.counters.active_opens += 1;
        self.ready.push(&mut self.table.tcbs, slot);
        Ok(())
    }

    /// The next hop of a connection (MUST-46: to one host only). Where there is none, its key is
    /// given back.
    #[inline(never)] // Out of the way of ways that are remembered.
    fn find_way(
        &mut self,
        now: Instant,
        key: &FlowKey,
        endpoints: &Endpoints,
    ) -> Result<u16, Refusal> {
        let (local, remote) = (endpoints.local.ip(), endpoints.remote.ip());
        let neighbor = match self.routes.is_one_host(remote) {
            true => self.neighbors.number(self.routes.next_hop(local, remote), None, now),
            false => None,
        };
        let Some(neighbor) = neighbor else {
            self.table.hosts.leave(key);
            return Err(self.why_not(remote));
        };
        self.neighbors.remember(key, neighbor);
        Ok(neighbor)
    }

    /// Why no connection can be opened to `remote`: it is no host, or else there is no room.
    fn why_not(&self, remote: IpAddr) -> Refusal {
        if self.routes.is_one_host(remote) { Refusal::TableFull } else { Refusal::NotAHost }
    }

    /// Listens on another port from now on (passive OPEN, RFC 9293 s3.10.1), whatever connections
    /// that port has (MUST-41, MUST-42); answers the place of the listener, which `Conn::listener`
    /// will name. `None` if the port has a listener, or if there were too many. Allocates.
    pub fn listen(&mut self, listener: Listener) -> Option<u16> {
        let place = u16::try_from(self.config.listeners.len()).ok()?;
        let taken = &mut self.listeners[usize::from(listener.port)];
        if place == NO_LISTENER || *taken != NO_LISTENER {
            return None;
        }
        *taken = place;
        self.config.listeners.push(listener);
        Some(place)
    }

    /// Listens on `port` no more (CLOSE in LISTEN, RFC 9293 s3.10.4). Connections that came of it
    /// stay what they are.
    pub fn unlisten(&mut self, port: u16) {
        self.listeners[usize::from(port)] = NO_LISTENER;
    }

    /// Lets `act` mark something on the connection between `endpoints` outside of any event, as a
    /// user's call would. False if there is no such connection, or it is in TIME-WAIT.
    pub fn prod(
        &mut self,
        now: Instant,
        endpoints: &Endpoints,
        act: impl FnOnce(&mut A, &mut Conn<'_, A::State>),
    ) -> bool {
        let slot = self.find(endpoints).map(|place| self.awake(place, now)).or_else(|| {
            // Whom the user speaks to has to have a slot.
            let (place, hash) = self.half_open_between(endpoints)?;
            self.give_slot(now, place, hash)
        });
        match slot {
            Some(slot) if self.tcb(slot).state() != State::TimeWait => {
                self.tell(slot, now, act);
                self.settle(slot, now);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The state of the connection between `endpoints`; `Closed` if there is none.
    pub fn state_of(&self, endpoints: &Endpoints) -> State {
        match self.find(endpoints) {
            Some(place) if self.table.is_resting(place) => State::Established,
            Some(slot) => self.tcb(slot).state(),
            None if self.half_open_between(endpoints).is_some() => State::SynReceived,
            None if self.waiting(endpoints).is_some() => State::TimeWait,
            None => State::Closed,
        }
    }

    /// What a key that a [`Conn`] has told stands for, as long as there is the connection.
    pub fn endpoints(&self, key: &FlowKey) -> Endpoints {
        self.table.hosts.endpoints(key)
    }

    /// No new connections: SYNs are refused with RST, launches stop, and every idle connection is
    /// closed.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.drain_at = 0;
        self.app.stop();
    }
}
