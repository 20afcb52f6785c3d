//! The client's application: opens connections, closed-loop or on a schedule, and has a workload go
//! on over each.
//!
//! At a rate, each connection has a due time that does not depend on the others. One that can't be
//! launched in time is launched as soon as it can be, and its latency counts from when it was due.

pub use super::load::{Close, Load, Workload};
use super::results::{Progress, Results};
use super::schedule::Schedule;
use super::{App, Conn, Launch, Owes, Refusal, get, rr, transfer};
use crate::tcp::End;
use crate::time::{Instant, Span};

/// Pause of a closed loop after a launch was refused, so that a full table is not asked again every
/// turn: long against a turn (µs), short against what frees tuples (TIME-WAIT, seconds).
const REFUSED_PAUSE: Span = Span::from_millis(1);

/// A launch this far behind its due time counts as late: above the jitter of a poll loop.
const LATE: Span = Span::from_millis(1);

/// A client.
pub struct Client {
    workload: Plan,
    load: Load,
    /// `None` in a closed loop.
    schedule: Option<Schedule>,
    /// A closed loop launches nothing before this.
    not_before: Instant,
    /// Connections launched and not ended, those to be held left out.
    active: u32,
    /// Connections to be held that were launched and have not ended.
    holding: u32,
    /// Those of them that are established.
    held: u32,
    /// As many as asked for were held once: the load has begun.
    ready: bool,
    /// Connections launched, and at a rate also those refused.
    offered: u64,
    salt: u32,
    stopped: bool,
    results: Results,
}

/// A connection of a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// When it was due, or launched.
    started: Instant,
    /// When the current request was marked.
    requested: Instant,
    /// Transactions done.
    done: u32,
    stage: Stage,
    /// Not of the workload: to be held.
    held: bool,
    exchange: Exchange,
}

const _: () = assert!(size_of::<State>() <= 72);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Opening,
    Running,
    /// Running, and to be closed after the current transaction.
    Last,
    /// Closed by our choice.
    Closed,
}

#[allow(clippy::large_enum_variant)] // there is one a worker, and a box would be a hop a call
#[derive(Clone, Debug)]
enum Plan {
    Handshake,
    Http(get::Plan, u32),
    Rr(rr::Plan, u32),
    Hold,
    Stream(transfer::Plan),
}

#[derive(Clone, Copy, Debug, Default)]
enum Exchange {
    #[default]
    None,
    Http(get::State),
    Rr(rr::State),
    Stream(transfer::State),
}

impl Client {
    /// A client that starts with the first turn. `seed` sets the phase of its schedule and the
    /// bytes it sends.
    ///
    /// # Panics
    /// If the load or the workload makes no sense: no connections, a rate that is not positive, no
    /// request, a host or path that can't stand in a request. The configuration has checked them.
    pub fn new(workload: Workload, load: Load, seed: u64) -> Client {
        assert!(load.connections > 0, "a client needs a connection");
        let workload = match workload {
            Workload::Handshake => Plan::Handshake,
            Workload::Http { host, path, requests, response_bytes } => {
                Plan::Http(get::Plan::new(&host, &path, requests, response_bytes), requests)
            }
            Workload::Rr { request_bytes, response_bytes, count } => {
                assert!(count > 0, "a connection makes a request");
                Plan::Rr(rr::Plan::new(request_bytes, response_bytes), count)
            }
            Workload::Hold => Plan::Hold,
            Workload::Stream { up_bytes, down_bytes } => {
                Plan::Stream(transfer::Plan::new(up_bytes, down_bytes))
            }
        };
        Client {
            workload,
            load,
            schedule: load.rate_per_second.map(|rate| Schedule::new(rate, seed)),
            not_before: Instant::ZERO,
            active: 0,
            holding: 0,
            held: 0,
            ready: load.held == 0,
            offered: 0,
            salt: seed as u32,
            stopped: false,
            results: Results::default(),
        }
    }

    /// What was found out so far.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Connections launched and not ended, those to be held left out.
    pub fn active(&self) -> u32 {
        self.active
    }

    /// The load has begun: what is to be held is.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// Connections that are due by `now` and were not launched, because of the limit of connections
    /// or the machine's. They are in nobody's latency.
    pub fn backlog(&self, now: Instant) -> u64 {
        let left = if self.has_all() { 0 } else { self.left() };
        self.schedule.as_ref().map_or(0, |schedule| schedule.backlog(now).min(left))
    }

    /// All connections that the load asks for were launched, or the run is stopping; and all have
    /// ended.
    pub fn done(&self) -> bool {
        self.left() == 0 && self.active == 0
    }

    /// All that were to be open, and to stay so, are.
    fn has_all(&self) -> bool {
        matches!(self.workload, Plan::Hold) && self.active >= self.load.connections
    }

    /// Connections still to be offered.
    fn left(&self) -> u64 {
        match self.load.count {
            _ if self.stopped => 0,
            Some(count) => count.saturating_sub(self.offered),
            None => u64::MAX,
        }
    }

    fn new_exchange(&mut self) -> Exchange {
        self.salt = self.salt.wrapping_add(1);
        match self.workload {
            Plan::Handshake | Plan::Hold => Exchange::None,
            Plan::Http(..) => Exchange::Http(get::State::new()),
            Plan::Rr(..) => Exchange::Rr(rr::State::new(self.salt)),
            Plan::Stream(_) => Exchange::Stream(transfer::State::new(self.salt)),
        }
    }

    /// Sends the next request.
    fn request(&mut self, conn: &mut Conn<'_, State>) {
        let index = conn.state.done;
        let owes = match (&self.workload, &mut conn.state.exchange) {
            (Plan::Http(plan, _), Exchange::Http(state)) => Owes::send(plan.begin(state, index)),
            (Plan::Rr(plan, _), Exchange::Rr(state)) => Owes::send(plan.begin(state)),
            (Plan::Stream(plan), Exchange::Stream(_)) => match self.load.close {
                Close::Fin => plan.begin(),
                // The RST comes when all is there.
                Close::Rst => Owes { close: false, ..plan.begin() },
            },
            _ => return,
        };
        conn.state.requested = conn.now();
        conn.owe(owes);
    }

    fn progress(&mut self, conn: &mut Conn<'_, State>, progress: Progress) {
        match progress {
            Progress::Waiting => {}
            Progress::Broken => {
                self.results.protocol_errors += 1;
                conn.abort();
            }
            Progress::Complete { good, last } => {
                self.complete(conn.now(), conn.state.requested, good);
                conn.state.done += 1;
                if last
                    || conn.state.stage == Stage::Last
                    || conn.state.done == self.transactions_max()
                {
                    self.close(conn);
                } else {
                    self.request(conn);
                }
            }
        }
    }

    /// Transactions of a connection.
    fn transactions_max(&self) -> u32 {
        match self.workload {
            Plan::Http(_, requests) => requests,
            Plan::Rr(_, count) => count,
            Plan::Stream(_) => 1,
            Plan::Handshake | Plan::Hold => 0,
        }
    }

    /// One that was to be held is over. Unless the run is, another takes its place.
    fn held_ended(&mut self, state: &State, end: End) {
        self.holding -= 1;
        self.held -= u32::from(state.stage != Stage::Opening);
        if end == End::Finished {
            self.results.finished += 1;
        } else if !(end == End::Aborted && state.stage == Stage::Closed) {
            self.results.failed.count(end);
        }
        self.results.reopened += u64::from(state.stage != Stage::Opening && !self.stopped);
    }

    /// The peer's FIN may be the end of the connection too, if ours was sent before: then it is
    /// told as that alone.
    fn conclude(&mut self, now: Instant, state: &mut State, end: End) {
        let open = matches!(state.stage, Stage::Running | Stage::Last);
        let (Plan::Stream(plan), Exchange::Stream(exchange)) = (&self.workload, &state.exchange)
        else {
            return;
        };
        if end != End::Finished || !open {
            return;
        }
        match plan.peer_closed(exchange) {
            Progress::Complete { good, last: _ } => self.complete(now, state.requested, good),
            Progress::Waiting | Progress::Broken => self.results.incomplete += 1,
        }
    }

    /// A transaction is over.
    fn complete(&mut self, now: Instant, requested: Instant, good: bool) {
        if good {
            self.results.transactions += 1;
            self.results.transaction.record(now.since(requested));
        }
    }

    fn close(&self, conn: &mut Conn<'_, State>) {
        conn.state.stage = Stage::Closed;
        conn.owe(match self.load.close {
            Close::Fin => Owes::CLOSE,
            Close::Rst => Owes::ABORT,
        });
    }
}

impl App for Client {
    type State = State;
    /// Whether it is one to be held beside the load.
    type Idle = bool;

    fn established(&mut self, conn: &mut Conn<'_, State>) {
        if conn.state.held {
            conn.state.stage = Stage::Running;
            self.held += 1;
            self.ready |= self.held == self.load.held;
            if self.stopped {
                self.close(conn);
            }
            return;
        }
        self.results.established += 1;
        self.results.handshake.record(conn.now().since(conn.state.started));
        conn.state.stage = Stage::Running;
        match self.workload {
            Plan::Handshake => self.close(conn),
            _ if self.stopped => self.close(conn),
            Plan::Http(..) | Plan::Rr(..) | Plan::Stream(_) => self.request(conn),
            Plan::Hold => {}
        }
    }

    fn received(&mut self, conn: &mut Conn<'_, State>, data: &[u8]) {
        self.results.received_bytes += data.len() as u64;
        if conn.state.stage == Stage::Closed {
            return;
        }
        let progress = match (&mut self.workload, &mut conn.state.exchange) {
            (Plan::Http(plan, _), Exchange::Http(state)) => {
                plan.received(state, data, &mut self.results)
            }
            (Plan::Rr(plan, _), Exchange::Rr(state)) => {
                plan.received(state, data, &mut self.results)
            }
            (Plan::Stream(plan), Exchange::Stream(state)) => {
                plan.received(state, data, &mut self.results)
            }
            _ => Progress::Waiting,
        };
        self.progress(conn, progress);
    }

    fn peer_closed(&mut self, conn: &mut Conn<'_, State>) {
        if conn.state.stage == Stage::Closed {
            return;
        }
        if conn.state.held {
            return self.close(conn);
        }
        let progress = match (&self.workload, &conn.state.exchange) {
            (Plan::Http(plan, _), Exchange::Http(state)) => {
                plan.peer_closed(state, &mut self.results)
            }
            (Plan::Stream(plan), Exchange::Stream(state)) => plan.peer_closed(state),
            _ => Progress::Waiting,
        };
        match self.workload {
            Plan::Handshake | Plan::Hold => self.close(conn),
            Plan::Http(..) | Plan::Rr(..) | Plan::Stream(_) if progress == Progress::Waiting => {
                self.results.incomplete += 1;
                self.close(conn);
            }
            Plan::Http(..) | Plan::Rr(..) | Plan::Stream(_) => self.progress(conn, progress),
        }
    }

    fn acknowledged(&mut self, conn: &mut Conn<'_, State>, acked: u64) {
        if conn.state.stage == Stage::Closed {
            return;
        }
        match (&self.workload, &mut conn.state.exchange) {
            (Plan::Rr(plan, _), Exchange::Rr(state)) => {
                let progress = plan.acknowledged(state, acked);
                self.progress(conn, progress);
            }
            (Plan::Stream(plan), Exchange::Stream(state)) => plan.acknowledged(state, acked),
            _ => {}
        }
    }

    fn ended(&mut self, now: Instant, state: &mut State, end: End) {
        if state.held {
            return self.held_ended(state, end);
        }
        if let (true, Some(schedule)) = (self.has_all(), &mut self.schedule) {
            // Until now there was nothing to be behind of.
            schedule.skip_to(now);
        }
        self.active -= 1;
        self.conclude(now, state, end);
        let by_choice = end == End::Aborted && state.stage == Stage::Closed;
        if end == End::Finished || by_choice {
            self.results.finished += 1;
        } else {
            self.results.failed.count(end);
        }
        let held = matches!(self.workload, Plan::Hold) && state.stage != Stage::Opening;
        self.results.reopened += u64::from(held && self.left() > 0);
    }

    fn payload(&self, state: &State, offset: u64, out: &mut [u8]) {
        match (&self.workload, &state.exchange) {
            (Plan::Http(plan, _), _) => plan.payload(offset, out),
            (Plan::Rr(..), Exchange::Rr(state)) => state.payload(offset, out),
            (Plan::Stream(plan), Exchange::Stream(state)) => plan.payload(state, offset, out),
            (Plan::Rr(..) | Plan::Stream(_) | Plan::Handshake | Plan::Hold, _) => {
                unreachable!("nothing was promised")
            }
        }
    }

    fn rest(&self, state: &State) -> Option<bool> {
        // One with an exchange waits for something.
        let open = state.stage == Stage::Running && matches!(state.exchange, Exchange::None);
        open.then_some(state.held)
    }

    fn wake(&self, held: bool) -> State {
        State { held, stage: Stage::Running, ..State::default() }
    }

    #[inline(always)] // What is handed over in memory, field by field, is waited for.
    fn launch(&mut self, now: Instant) -> Option<Launch<State>> {
        if self.left() == 0 {
            return None;
        }
        if self.holding < self.load.held && self.not_before <= now {
            self.holding += 1;
            let state = State { started: now, held: true, ..State::default() };
            return Some(Launch { state });
        }
        if !self.ready {
            return None;
        }
        if self.active >= self.load.connections {
            return None;
        }
        let started = match &mut self.schedule {
            Some(schedule) => schedule.due(now),
            None => self.not_before.max(now),
        };
        if started > now {
            return None;
        }
        if let Some(schedule) = &mut self.schedule {
            schedule.advance();
            let lag = now.since(started);
            self.results.lag_max = self.results.lag_max.max(lag);
            self.results.launched_late += u64::from(lag > LATE);
        }
        self.active += 1;
        self.offered += 1;
        self.results.launched += 1;
        let exchange = self.new_exchange();
        Some(Launch { state: State { started, exchange, ..State::default() } })
    }

    fn refused(&mut self, now: Instant, state: &mut State, why: Refusal) {
        if state.held {
            self.holding -= 1;
            self.results.refused(why);
            self.not_before = now + REFUSED_PAUSE;
            return;
        }
        self.active -= 1;
        self.results.launched -= 1;
        self.results.refused(why);
        if self.schedule.is_none() {
            self.offered -= 1;
            self.not_before = now + REFUSED_PAUSE;
        }
    }

    fn next_launch(&self, now: Instant) -> Instant {
        let to_hold = self.holding < self.load.held;
        if self.left() == 0 || !to_hold && self.active >= self.load.connections {
            return Instant::NEVER;
        }
        if to_hold || !self.ready {
            return if to_hold { self.not_before.max(now) } else { Instant::NEVER };
        }
        match &self.schedule {
            Some(schedule) => schedule.peek(now),
            None => self.not_before.max(now),
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn drain(&mut self, conn: &mut Conn<'_, State>) {
        match (conn.state.stage, &self.workload) {
            (Stage::Running, _) if conn.state.held => self.close(conn),
            (Stage::Running, Plan::Hold) => self.close(conn),
            (Stage::Running, Plan::Stream(plan)) => {
                if let (Exchange::Stream(state), Close::Fin) =
                    (&mut conn.state.exchange, self.load.close)
                {
                    let owes = plan.stop(state);
                    conn.owe(owes);
                } else {
                    self.close(conn);
                }
            }
            (Stage::Running, Plan::Http(..) | Plan::Rr(..)) => conn.state.stage = Stage::Last,
            (Stage::Opening | Stage::Last | Stage::Closed, _)
            | (Stage::Running, Plan::Handshake) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FlowKey;
    use crate::rng::Rng;

    const LOAD: Load =
        Load { rate_per_second: None, connections: 10, held: 0, count: None, close: Close::Fin };
    const RR: Workload = Workload::Rr { request_bytes: 8, response_bytes: 8, count: 2 };

    fn at_us(micros: u64) -> Instant {
        Instant::ZERO + Span::from_micros(micros)
    }

    fn http(requests: u32) -> Workload {
        Workload::Http { host: "a".into(), path: "/".into(), requests, response_bytes: Some(2) }
    }

    /// Lets `act` handle an event of the connection with `state`; answers what it marked.
    fn event(
        client: &mut Client,
        state: &mut State,
        now: Instant,
        act: impl FnOnce(&mut Client, &mut Conn<'_, State>),
    ) -> Owes {
        let key = FlowKey::v4(([10, 0, 0, 1], 4000), ([10, 0, 0, 1], 80));
        let mut conn = Conn::new(state, now, key, 0);
        act(client, &mut conn);
        conn.owes()
    }

    fn launch(client: &mut Client, now: Instant) -> State {
        client.launch(now).expect("a launch is due").state
    }

    #[test]
    fn a_closed_loop_keeps_its_number_of_connections_open_until_the_count_is_reached() {
        let mut client = Client::new(Workload::Handshake, Load { count: Some(15), ..LOAD }, 1);
        let mut open: Vec<State> = Vec::new();
        while let Some(launch) = client.launch(at_us(1)) {
            open.push(launch.state);
        }
        assert_eq!((open.len(), client.active()), (10, 10));
        assert_eq!(client.next_launch(at_us(1)), Instant::NEVER);
        for mut state in open {
            assert!(!client.done());
            assert_eq!(event(&mut client, &mut state, at_us(9), Client::established), Owes::CLOSE);
            client.ended(at_us(20), &mut state, End::Finished);
            if let Some(mut next) = client.launch(at_us(20)) {
                client.ended(at_us(30), &mut next.state, End::SynTimeout);
            }
        }
        assert!(client.done());
        let results = client.results();
        assert_eq!((results.launched, results.established, results.finished), (15, 10, 10));
        assert_eq!(results.failed.of(End::SynTimeout), 5);
        assert_eq!(results.handshake.summary().count, 10);
        assert_eq!(results.handshake.summary().max.as_micros(), 8);
    }

    /// Goal: at a rate, the number launched by any time is what the schedule says, whatever the
    /// times of the turns; each start is the due time, not the time of the turn.
    #[test]
    fn at_a_rate_connections_start_when_they_are_due_whenever_the_turns_come() {
        let load = Load { rate_per_second: Some(30_000.0), connections: 1_000_000, ..LOAD };
        let mut client = Client::new(Workload::Handshake, load, 5);
        let mut rng = Rng::new(1);
        let (mut now, mut starts) = (Instant::ZERO, Vec::new());
        while now < at_us(100_000) {
            while let Some(launch) = client.launch(now) {
                starts.push(launch.state.started);
            }
            assert_eq!(client.backlog(now), 0);
            assert!(client.next_launch(now) > now);
            now += Span::from_nanos(rng.below(200_000));
        }
        assert!((2990..=3000).contains(&starts.len()), "{}", starts.len());
        for (k, pair) in starts.windows(2).enumerate() {
            assert!((33_333..=33_334).contains(&pair[1].since(pair[0]).as_nanos()), "{k}");
        }
        assert!(client.results().lag_max < Span::from_micros(200));
        assert_eq!(client.results().launched_late, 0);
    }

    #[test]
    fn what_the_limit_holds_up_is_launched_later_with_its_due_time_and_counted() {
        let load = Load { rate_per_second: Some(1000.0), connections: 1, ..LOAD };
        let mut client = Client::new(Workload::Handshake, load, 0);
        let phase = client.schedule.as_mut().map(|schedule| schedule.due(Instant::ZERO));
        let due = phase.expect("there is a rate");
        let mut first = launch(&mut client, due);
        assert!(client.launch(due + Span::from_millis(5)).is_none());
        assert_eq!(client.backlog(due + Span::from_millis(5)), 5);
        client.ended(due + Span::from_millis(5), &mut first, End::Finished);
        let mut second = launch(&mut client, due + Span::from_millis(5));
        assert_eq!(second.started, due + Span::from_millis(1));
        event(&mut client, &mut second, due + Span::from_millis(6), Client::established);
        let results = client.results();
        assert_eq!((results.lag_max, results.launched_late), (Span::from_millis(4), 1));
        assert!(
            results.handshake.summary().max >= Span::from_millis(5),
            "counted from the due time"
        );
    }

    #[test]
    fn a_refused_launch_is_lost_at_a_rate_and_tried_again_after_a_pause_in_a_closed_loop() {
        let mut client = Client::new(Workload::Handshake, Load { count: Some(1), ..LOAD }, 0);
        let mut state = launch(&mut client, at_us(0));
        client.refused(at_us(0), &mut state, Refusal::NoTuple);
        assert!(client.launch(at_us(999)).is_none());
        assert_eq!(client.next_launch(at_us(999)), at_us(1000));
        launch(&mut client, at_us(1000));
        assert_eq!((client.results().launched, client.results().refused_no_tuple), (1, 1));

        let load = Load { rate_per_second: Some(1e6), count: Some(1), ..LOAD };
        let mut client = Client::new(Workload::Handshake, load, 0);
        assert!(client.launch(at_us(0)).is_none(), "the phase of this seed is not zero");
        let mut state = launch(&mut client, at_us(9));
        client.refused(at_us(9), &mut state, Refusal::TableFull);
        assert!(client.done());
        assert_eq!((client.results().launched, client.results().refused_table_full), (0, 1));
    }

    #[test]
    fn rr_sends_the_next_request_when_the_response_is_complete_and_closes_after_the_last() {
        let mut client = Client::new(RR, LOAD, 77);
        let mut state = launch(&mut client, at_us(0));
        assert_eq!(event(&mut client, &mut state, at_us(10), Client::established), Owes::send(8));
        let mut request = [0; 16];
        client.payload(&state, 0, &mut request);
        let answer = |client: &mut Client, state: &mut State, micros, data: &[u8]| {
            event(client, state, at_us(micros), |client, conn| client.received(conn, data))
        };
        assert_eq!(answer(&mut client, &mut state, 20, &request[..3]), Owes::NOTHING);
        assert_eq!(answer(&mut client, &mut state, 30, &request[3..8]), Owes::send(8));
        assert_eq!(answer(&mut client, &mut state, 45, &request[8..]), Owes::CLOSE);
        let results = client.results();
        assert_eq!(
            (results.transactions, results.verify_errors, results.received_bytes),
            (2, 0, 16)
        );
        let latency = results.transaction.summary();
        assert_eq!((latency.max.as_micros(), latency.count), (20, 2));
    }

    #[test]
    fn closing_by_rst_counts_as_finished_and_any_other_abort_as_failed() {
        let mut client = Client::new(RR, Load { close: Close::Rst, ..LOAD }, 0);
        let mut state = launch(&mut client, at_us(0));
        event(&mut client, &mut state, at_us(1), Client::established);
        let more = |client: &mut Client, conn: &mut Conn<'_, State>| client.received(conn, &[0; 9]);
        assert_eq!(event(&mut client, &mut state, at_us(2), more), Owes::ABORT);
        client.ended(at_us(3), &mut state, End::Aborted);
        assert_eq!((client.results().finished, client.results().failed.of(End::Aborted)), (0, 1));
        assert_eq!(client.results().protocol_errors, 1);

        let mut client = Client::new(Workload::Handshake, Load { close: Close::Rst, ..LOAD }, 0);
        let mut state = launch(&mut client, at_us(0));
        assert_eq!(event(&mut client, &mut state, at_us(1), Client::established), Owes::ABORT);
        client.ended(at_us(3), &mut state, End::Aborted);
        assert_eq!((client.results().finished, client.results().failed.total()), (1, 0));
    }

    #[test]
    fn an_http_server_that_closes_early_is_followed_and_its_cut_responses_are_counted() {
        let mut client = Client::new(http(5), LOAD, 0);
        for (text, incomplete, transactions) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 0, 1),
            ("HTTP/1.1 200 OK\r\n\r\nok", 0, 2),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", 1, 2),
            ("", 2, 2),
        ] {
            let mut state = launch(&mut client, at_us(0));
            assert!(event(&mut client, &mut state, at_us(1), Client::established).bytes > 0);
            let mut owes = event(&mut client, &mut state, at_us(2), |client, conn| {
                client.received(conn, text.as_bytes());
            });
            owes = owes.and(event(&mut client, &mut state, at_us(2), Client::peer_closed));
            assert_eq!(owes, Owes::CLOSE, "{text}");
            let results = client.results();
            assert_eq!(
                (results.incomplete, results.transactions),
                (incomplete, transactions),
                "{text}"
            );
        }
    }

    #[test]
    fn held_connections_stay_until_the_stop_and_those_that_end_are_opened_anew() {
        let load = Load { rate_per_second: Some(1000.0), connections: 1, ..LOAD };
        let mut client = Client::new(Workload::Hold, load, 0);
        assert!(client.launch(at_us(0)).is_none(), "the phase of this seed is not zero");
        let mut state = launch(&mut client, at_us(2000));
        assert_eq!(client.active(), 1);
        assert_eq!(event(&mut client, &mut state, at_us(2000), Client::established), Owes::NOTHING);
        assert!(client.launch(at_us(1_000_000)).is_none());
        client.ended(at_us(1_000_000), &mut state, End::Reset);
        assert_eq!(client.results().reopened, 1);
        let mut state = launch(&mut client, at_us(1_000_000));
        assert_eq!(client.results().lag_max.as_millis() / 10, 0, "holding is not being late");
        event(&mut client, &mut state, at_us(1_000_001), Client::established);
        client.stop();
        assert_eq!(event(&mut client, &mut state, at_us(1_000_002), Client::drain), Owes::CLOSE);
        client.ended(at_us(1_000_003), &mut state, End::Finished);
        assert!(client.done() && client.launch(at_us(2_000_000)).is_none());
        assert_eq!(client.results().reopened, 1);
    }

    #[test]
    fn a_stop_lets_the_transaction_under_way_finish() {
        let mut client = Client::new(RR, LOAD, 0);
        let mut state = launch(&mut client, at_us(0));
        event(&mut client, &mut state, at_us(1), Client::established);
        client.stop();
        assert_eq!(event(&mut client, &mut state, at_us(2), Client::drain), Owes::NOTHING);
        let mut data = [0; 8];
        client.payload(&state, 0, &mut data);
        let owes =
            event(&mut client, &mut state, at_us(3), |client, conn| client.received(conn, &data));
        assert_eq!(owes, Owes::CLOSE);
        assert_eq!(client.results().transactions, 1);
    }
}
