//! What a run found, merged over its workers: the one source of the summary for people and of the
//! JSON for programs.
//!
//! JSON names carry their unit; `_total` is since start; durations are in seconds. `SCHEMA_VERSION`
//! grows when a name goes or changes its meaning, not when one is added.

use super::live;
use super::runner::Finding;
use crate::app::results::{Results, Served};
use crate::stats::Counters;
use crate::stats::histogram::Summary;
use crate::time::Span;
use serde_json::{Map, Value, json};

pub const SCHEMA_VERSION: u32 = 1;

/// One end of a run: a client's or a server's workers together.
#[derive(Clone, Debug)]
pub struct Side {
    pub workers: usize,
    /// Of all workers.
    pub found: Finding,
    /// What only a client sees.
    pub client: Option<Experience>,
    /// Received payload bytes that were not the ones expected, where the application compares.
    pub verify_errors: u64,
}

/// What only a client sees.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    /// Connections a second that were asked for; `None` for as many as fit.
    pub rate: Option<f64>,
    /// From the connection's scheduled start, or its SYN without a rate, to ESTABLISHED.
    pub handshake: Summary,
    /// From request to the end of its response.
    pub transaction: Summary,
    pub transactions: u64,
    /// Connections launched more than 1 ms after they were due, and the worst of them.
    pub launched_late: u64,
    pub lag_max: Span,
    /// Held connections that ended and were opened anew.
    pub reopened: u64,
    /// What was wrong with responses, by name.
    pub errors: [(&'static str, u64); 5],
}

impl Experience {
    /// From what the workers' clients found out together.
    pub fn new(rate: Option<f64>, results: &Results) -> Experience {
        Experience {
            rate,
            handshake: results.handshake.summary(),
            transaction: results.transaction.summary(),
            transactions: results.transactions,
            launched_late: results.launched_late,
            lag_max: results.lag_max,
            reopened: results.reopened,
            errors: [
                ("status", results.status_errors),
                ("length", results.length_errors),
                ("protocol", results.protocol_errors),
                ("incomplete", results.incomplete),
                ("bytes", results.verify_errors),
            ],
        }
    }
}

impl Side {
    /// A client's workers, of which there is at least one.
    pub fn client(found: &[Finding], rate: Option<f64>, results: &Results) -> Option<Side> {
        let client = Some(Experience::new(rate, results));
        Side::new(found, client, results.verify_errors)
    }

    /// A server's.
    pub fn server(found: &[Finding], served: &Served) -> Option<Side> {
        Side::new(found, None, served.stream.verify_errors)
    }

    /// `None` if nothing was found: there were no workers.
    fn new(all: &[Finding], client: Option<Experience>, verify_errors: u64) -> Option<Side> {
        let (first, others) = all.split_first()?;
        let mut found = first.clone();
        others.iter().for_each(|other| found.add(other));
        Some(Side { workers: all.len(), found, client, verify_errors })
    }

    pub fn opened(&self) -> u64 {
        self.found.counters.active_opens + self.found.counters.passive_opens
    }

    /// Connections ended by FIN from both sides, or by our own application's RST.
    pub fn closed(&self) -> u64 {
        self.found.counters.end_finished + self.found.counters.end_aborted
    }

    pub fn failed(&self) -> u64 {
        live::failed(&self.found.counters)
    }

    /// Failed connections by reason, in the order of `tcp::End`.
    pub fn failures(&self) -> [(&'static str, u64); 7] {
        let c = &self.found.counters;
        [
            ("reset", c.end_reset),
            ("refused", c.end_refused),
            ("syn_timeout", c.end_syn_timeout),
            ("data_timeout", c.end_data_timeout),
            ("keepalive_timeout", c.end_keepalive_timeout),
            ("fin_wait2_timeout", c.end_fin_wait2_timeout),
            ("unreachable", c.end_unreachable),
        ]
    }

    /// Connections that were asked for and not launched, by reason.
    pub fn not_launched(&self) -> [(&'static str, u64); 3] {
        let c = &self.found.counters;
        [
            ("no_tuple", c.launch_no_tuple),
            ("table_full", c.launch_table_full),
            ("not_a_host", c.launch_not_a_host),
        ]
    }

    pub fn handshakes_per_second(&self) -> f64 {
        self.per_second(self.found.counted.established)
    }

    /// Payload that the peer acknowledged up to the stop, in bits a second: RFC 6349's throughput.
    pub fn tx_bits_per_second(&self) -> f64 {
        self.per_second(self.found.counted.tx_payload_bytes) * 8.0
    }

    /// Payload that reached our application up to the stop, in bits a second.
    pub fn rx_bits_per_second(&self) -> f64 {
        self.per_second(self.found.counted.rx_payload_bytes) * 8.0
    }

    /// Share of the segments we sent that were sent for the first time, 0 to 1 (RFC 6349 s4.2's TCP
    /// efficiency, taken over segments).
    pub fn tcp_efficiency(&self) -> f64 {
        let c = &self.found.counters;
        let all = c.out_segs + c.retrans_segs;
        if all == 0 { 1.0 } else { c.out_segs as f64 / all as f64 }
    }

    /// `count` events until the stop, as a rate.
    pub fn per_second(&self, count: u64) -> f64 {
        let seconds = self.found.ran.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }

    /// Share of turns that moved a frame, 0 to 1: how busy the cores really were.
    pub fn busy_ratio(&self) -> f64 {
        if self.found.turns == 0 {
            0.0
        } else {
            self.found.busy_turns as f64 / self.found.turns as f64
        }
    }

    /// How often a frame was handed from one worker to the next, per frame received.
    pub fn stray_ratio(&self) -> f64 {
        let Counters { strays_in, rx_frames, .. } = self.found.counters;
        strays_in as f64 / rx_frames.max(1) as f64
    }

    /// A counter of the device, if it has it.
    pub fn device_counter(&self, name: &str) -> Option<u64> {
        self.found.device.counters.iter().find(|(known, _)| *known == name).map(|&(_, value)| value)
    }

    /// This side as JSON.
    pub fn json(&self) -> Value {
        let (c, device) = (&self.found.counters, &self.found.device);
        let nothing = Summary::default();
        let handshake = self.client.as_ref().map_or(&nothing, |client| &client.handshake);
        let mut side = json!({
            "workers": self.workers,
            "duration_seconds": self.found.ran.as_secs_f64(),
            "drain_seconds": self.found.drained.as_secs_f64(),
            "connections_opened_total": self.opened(),
            "connections_established_total": c.established,
            "connections_closed_total": self.closed(),
            "connections_failed_total": self.failed(),
            "connections_failed_by_reason": object(&self.failures()),
            "connections_not_launched_by_reason": object(&self.not_launched()),
            "connections_left_open": self.found.live_left,
            "connections_left_in_time_wait": self.found.time_wait_left,
            "handshakes_per_second": self.handshakes_per_second(),
            "handshake_seconds": summary(handshake),
            "tx_goodput_bits_per_second": self.tx_bits_per_second(),
            "rx_goodput_bits_per_second": self.rx_bits_per_second(),
            "tx_payload_bytes_total": c.tx_payload_bytes,
            "rx_payload_bytes_total": c.rx_payload_bytes,
            "segments_retransmitted_total": c.retrans_segs,
            "tcp_efficiency_ratio": self.tcp_efficiency(),
            "verify_errors_total": self.verify_errors,
            "strays_per_packet": self.stray_ratio(),
            "rx_packets_total": c.rx_frames,
            "tx_packets_total": c.tx_frames,
            "tx_kicks_total": self.device_counter("tx_kicks_total").unwrap_or(0),
            "syscalls": self.device_counter("syscalls_total"),
            "device": {
                "driver": device.driver,
                "mode": device.mode,
                "tx_checksum": if device.sums { "device" } else { "software" },
                "counters": object(&device.counters),
            },
            "bytes_per_connection": self.found.bytes_per_connection,
            "bytes_per_idle": self.found.bytes_per_idle,
            "bytes_per_time_wait": self.found.bytes_per_time_wait,
            "busy_ratio": self.busy_ratio(),
            "frames_missing": self.found.frames_missing,
            "counters": counters(c),
        });
        if let (Some(client), Value::Object(map)) = (&self.client, &mut side) {
            map.insert("rate_asked_per_second".into(), json!(client.rate));
            map.insert("launched_late_total".into(), json!(client.launched_late));
            map.insert("launch_lag_max_seconds".into(), json!(client.lag_max.as_secs_f64()));
            map.insert("reopened_total".into(), json!(client.reopened));
            map.insert("transactions_total".into(), json!(client.transactions));
            map.insert("transaction_seconds".into(), summary(&client.transaction));
            map.insert("response_errors_by_reason".into(), object(&client.errors));
        }
        side
    }
}

/// The whole document: what every run says, then `sections`.
pub fn document(
    command: &str,
    verdict: &Result<String, String>,
    sections: Map<String, Value>,
) -> Value {
    let (state, text) = match verdict {
        Ok(text) => ("ok", text),
        Err(text) => ("failed", text),
    };
    let mut map = Map::new();
    map.insert("schema_version".into(), json!(SCHEMA_VERSION));
    map.insert(
        "program".into(),
        json!({ "name": "shakedown", "version": env!("CARGO_PKG_VERSION") }),
    );
    map.insert("command".into(), json!(command));
    map.insert("verdict".into(), json!({ "state": state, "text": text }));
    map.extend(sections);
    Value::Object(map)
}

fn counters(counters: &Counters) -> Value {
    let names = Counters::TABLE.iter().map(|(name, _)| name.to_string());
    names
        .zip(counters.values())
        .map(|(name, value)| (name, json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

fn object(pairs: &[(&'static str, u64)]) -> Value {
    pairs
        .iter()
        .map(|&(name, value)| (name.to_string(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}

/// Percentiles in seconds; null where nothing was recorded.
fn summary(summary: &Summary) -> Value {
    let Summary { p50, p90, p99, p999, max, mean, count } = *summary;
    let seconds = |span: Span| (count > 0).then(|| span.as_secs_f64());
    json!({
        "p50": seconds(p50), "p90": seconds(p90), "p99": seconds(p99), "p999": seconds(p999),
        "max": seconds(max), "mean": seconds(mean), "count": count,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::device::Report;

    pub fn finding(counters: Counters, mode: &'static str) -> Finding {
        Finding {
            ran: Span::from_secs(2),
            drained: Span::from_millis(10),
            counted: counters,
            counters,
            turns: 100,
            busy_turns: 25,
            live_left: 0,
            time_wait_left: 0,
            frames_missing: 0,
            bytes_per_connection: 200,
            bytes_per_idle: 84,
            bytes_per_time_wait: 48,
            device: Report {
                driver: "veth".to_string(),
                mode,
                sums: false,
                counters: vec![("tx_kicks_total", 5), ("syscalls_total", 7)],
            },
            pcap_error: None,
        }
    }

    #[test]
    fn workers_are_added_up_and_the_slowest_mode_is_told() {
        let counters = Counters {
            active_opens: 10,
            established: 10,
            end_finished: 8,
            end_reset: 2,
            ..Counters::default()
        };
        let findings = [finding(counters, "zerocopy"), finding(counters, "skb")];
        let side = Side::client(&findings, None, &Results::default()).unwrap();
        assert_eq!((side.opened(), side.closed(), side.failed()), (20, 16, 4));
        assert_eq!(
            (side.found.device.mode, side.device_counter("tx_kicks_total")),
            ("skb", Some(10))
        );
        assert_eq!(side.handshakes_per_second(), 10.0);
        assert_eq!(side.busy_ratio(), 0.25);
    }

    #[test]
    fn the_json_holds_what_the_contract_lists() {
        let side = Side::server(&[finding(Counters::default(), "copy")], &Served::default());
        let side = side.unwrap().json();
        for name in [
            "connections_opened_total",
            "connections_established_total",
            "connections_closed_total",
            "connections_failed_total",
            "handshakes_per_second",
            "rx_packets_total",
            "tx_packets_total",
            "tx_kicks_total",
            "syscalls",
            "duration_seconds",
            "bytes_per_connection",
        ] {
            assert!(side[name].is_number(), "{name}");
        }
        for name in ["p50", "p90", "p99", "p999", "max", "mean", "count"] {
            assert!(side["handshake_seconds"].get(name).is_some(), "{name}");
        }
        assert_eq!(side["device"]["mode"], "copy");
        for (name, _) in Counters::TABLE {
            assert_eq!(side["counters"][name], 0, "{name}");
        }
        for name in ["tx_goodput_bits_per_second", "rx_goodput_bits_per_second"] {
            assert!(side[name].is_number(), "{name}");
        }
        let whole = document("client", &Ok("fine".to_string()), Map::new());
        assert_eq!(whole["schema_version"], SCHEMA_VERSION);
        assert_eq!(whole["verdict"]["state"], "ok");
    }
}
