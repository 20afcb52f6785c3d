//! The summary for people, in the order in which they ask: did it work; how much of what was asked;
//! how fast; what became of the connections; where packets were lost; do both ends agree; on what
//! machine.

use super::live::short;
use super::report::{Experience, Side};
use crate::device;
use crate::stats::Counters;
use crate::time::Span;
use std::fmt::Write;

/// Counters of drops, by the hop at which a frame is lost; those at zero are not shown.
const DROPS: &[&str] = &[
    "rx_ring_full",
    "rx_fill_ring_empty_descs",
    "rx_dropped",
    "rx_invalid_descs",
    "tx_invalid_descs",
    "tx_ring_full_total",
    "impair_lost_total",
    "impair_corrupted_total",
];

/// Writes the part of the summary that concerns one side.
pub fn side(name: &str, side: &Side, verbose: bool) -> String {
    let mut out = String::new();
    let mut line = |label: &str, text: String| {
        // Writing to a string can't fail.
        let _ = writeln!(out, "  {label:<10} {text}");
    };
    line("achieved", achieved(side));
    if let Some(client) = &side.client {
        if let Some(shortfall) = shortfall(side, client) {
            line("shortfall", shortfall);
        }
        line("handshake", latency(&client.handshake));
        if client.transactions > 0 {
            let rate = short(side.per_second(client.transactions));
            line("requests", format!("{} ({rate}/s)", client.transactions));
            line("response", latency(&client.transaction));
        }
        for (name, count) in client.errors.iter().filter(|(_, count)| *count > 0) {
            line("wrong", format!("{name}: {count}"));
        }
    }
    if let Some(goodput) = goodput(side) {
        line("goodput", goodput);
    }
    line("outcomes", outcomes(side));
    line("packets", packets(side));
    line("lost", lost(side));
    line("machine", machine(side));
    if verbose {
        for ((name, doc), value) in Counters::TABLE.iter().zip(side.found.counters.values()) {
            if value > 0 {
                line("", format!("{name:<28} {value:>12}  {doc}"));
            }
        }
        for (name, value) in &side.found.device.counters {
            line("", format!("{name:<28} {value:>12}"));
        }
    }
    format!("{name}\n{out}")
}

fn achieved(side: &Side) -> String {
    let asked = match side.client.as_ref().and_then(|client| client.rate) {
        Some(rate) => format!(" of {}/s asked", short(rate)),
        None => String::new(),
    };
    format!(
        "{} handshakes/s{asked} over {} ({} opened, {} established)",
        short(side.handshakes_per_second()),
        side.found.ran,
        side.opened(),
        side.found.counters.established,
    )
}

/// What was carried, if anything was.
fn goodput(side: &Side) -> Option<String> {
    let c = &side.found.counters;
    let ways = [
        ("sent", side.tx_bits_per_second(), c.tx_payload_bytes),
        ("received", side.rx_bits_per_second(), c.rx_payload_bytes),
    ];
    let carried = ways.into_iter().filter(|(_, _, bytes)| *bytes > 0);
    let mut parts: Vec<_> = carried
        .map(|(way, rate, bytes)| format!("{way} {bytes} bytes at {}bit/s", short(rate)))
        .collect();
    if parts.is_empty() {
        return None;
    }
    if c.retrans_segs > 0 {
        let percent = (1.0 - side.tcp_efficiency()) * 100.0;
        parts.push(format!("{percent:.2} % of segments sent again"));
    }
    Some(parts.join(", "))
}

/// What was asked for and not launched, why, and what would help.
fn shortfall(side: &Side, client: &Experience) -> Option<String> {
    let [(_, no_tuple), (_, table_full), (_, not_a_host)] = side.not_launched();
    let mut parts = Vec::new();
    if no_tuple > 0 {
        parts.push(format!(
            "{no_tuple} launches found every four-tuple in use or in TIME-WAIT (more --addr or --sport, \
             --close rst, a shorter --tcp-msl)"
        ));
    }
    if table_full > 0 {
        parts.push(format!("{table_full} found the table full (--max-connections)"));
    }
    if not_a_host > 0 {
        parts.push(format!(
            "{not_a_host} found that a target is the link's broadcast address (--target)"
        ));
    }
    if client.launched_late > 0 {
        parts.push(format!(
            "{} launches came late, by up to {} (raise -c, or ask for less)",
            client.launched_late, client.lag_max
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn latency(summary: &crate::stats::histogram::Summary) -> String {
    if summary.count == 0 {
        return "none measured".to_string();
    }
    let crate::stats::histogram::Summary { p50, p90, p99, p999, max, mean, count } = *summary;
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}, mean {mean} ({count})")
}

fn outcomes(side: &Side) -> String {
    let mut text = format!(
        "{} closed by FIN, {} by our RST",
        side.found.counters.end_finished, side.found.counters.end_aborted
    );
    for (reason, count) in side.failures().into_iter().filter(|(_, count)| *count > 0) {
        let _ = write!(text, ", {count} {}", reason.replace('_', " "));
    }
    let _ = write!(
        text,
        "; {} still open, {} in TIME-WAIT at the end",
        side.found.live_left, side.found.time_wait_left
    );
    text
}

fn packets(side: &Side) -> String {
    let c = &side.found.counters;
    let per_connection = |count: u64| count as f64 / side.opened().max(1) as f64;
    let mut text = format!(
        "{} received, {} sent, {:.2} a connection",
        c.rx_frames,
        c.tx_frames,
        per_connection(c.rx_frames + c.tx_frames)
    );
    if let Some(syscalls) = side.device_counter("syscalls_total") {
        let _ = write!(text, "; {syscalls} syscalls, {:.3} a connection", per_connection(syscalls));
    }
    text
}

fn lost(side: &Side) -> String {
    let c = &side.found.counters;
    let malformed = c.rx_truncated
        + c.rx_ip_header
        + c.rx_ip_length
        + c.rx_ip_checksum
        + c.rx_fragment
        + c.rx_martian
        + c.rx_tcp_header
        + c.rx_tcp_checksum
        + c.rx_tcp_option
        + c.rx_tcp_port;
    let mut parts = vec![
        ("resent", c.retrans_segs),
        ("malformed", malformed),
        ("ahead of order", c.ofo_dropped),
        ("listen overflow", c.listen_overflows),
        ("pool empty", c.tx_no_frame),
    ];
    let devices = DROPS.iter().filter_map(|&name| Some((name, side.device_counter(name)?)));
    parts.extend(devices);
    parts.retain(|(_, count)| *count > 0);
    let mut text = match parts.is_empty() {
        true => "nothing".to_string(),
        false => parts.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", "),
    };
    if c.rx_tcp_checksum > 0 && c.rx_tcp_checksum * 2 > c.in_segs {
        text += " (checksums: the peer leaves them to hardware that is not there; run `ethtool -K PEER tx off` \
                 there, or say --no-verify-tcp-checksum here)";
    }
    text
}

/// What a device is: `AF_XDP copy on veth`.
pub(super) fn via(device: &device::Report) -> String {
    let driver = &device.driver;
    match device.mode {
        "memory" => "memory".to_string(),
        "packet" => format!("AF_PACKET on {driver}"),
        mode => format!("AF_XDP {mode} on {driver}"),
    }
}

fn machine(side: &Side) -> String {
    let workers = side.workers;
    format!(
        "{}, {workers} {}, {:.0} % of turns busy, {} bytes a connection, {} at rest",
        via(&side.found.device),
        if workers == 1 { "worker" } else { "workers" },
        side.busy_ratio() * 100.0,
        side.found.bytes_per_connection,
        side.found.bytes_per_idle
    )
}

/// Whether a bench's two ends agree: everything opened was established and closed, on both.
///
/// # Errors
/// Every disagreement, with its numbers.
pub fn reconcile(client: &Side, server: &Side, impaired: bool) -> Result<String, String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, left: u64, right: u64| {
        if left != right {
            wrong.push(format!("{what}: {left} against {right}"));
        }
    };
    let opened = client.opened();
    // Over a bad link a connection may end otherwise at one end than at the other, by RFC 9293's
    // own rules; what must hold even then is that nothing is left, lost or wrong.
    if !impaired {
        same("opened and established by the client", opened, client.found.counters.established);
        same("opened by the client and closed", opened, client.closed());
        same("opened by the client and accepted by the server", opened, server.opened());
        same("accepted and established by the server", opened, server.found.counters.established);
        // A client's RST is a close as it was asked for; the server can only see that it came.
        let server_closed = server.found.counters.end_finished + server.found.counters.end_reset;
        same("accepted and closed by the server", opened, server_closed);
        for (way, from, to) in [("up", client, server), ("down", server, client)] {
            let (from, to) = (&from.found.counters, &to.found.counters);
            same(&format!("payload bytes {way}"), from.tx_payload_bytes, to.rx_payload_bytes);
        }
        let (sent, received) = (client.found.counters.end_aborted, server.found.counters.end_reset);
        same("RST sent and received", sent, received);
    }
    for (name, side) in [("client", client), ("server", server)] {
        same(&format!("connections left open at the {name}"), side.found.live_left, 0);
        same(&format!("frames missing at the {name}"), side.found.frames_missing.unsigned_abs(), 0);
        same(&format!("payload bytes wrong at the {name}"), side.verify_errors, 0);
    }
    if opened == 0 {
        wrong.push("no connection was opened".to_string());
    }
    if !wrong.is_empty() {
        return Err(format!("the two ends disagree: {}", wrong.join("; ")));
    }
    Ok(match impaired {
        false => {
            format!("ok: all {opened} connections opened, established and closed on both sides")
        }
        true => format!(
            "ok: {opened} connections opened over a bad link, {} established, {} closed, none left",
            client.found.counters.established,
            client.closed()
        ),
    })
}

/// A lone client's verdict.
///
/// # Errors
/// If connections were opened and none was ever established.
pub fn client_verdict(client: &Side) -> Result<String, String> {
    let (opened, established) = (client.opened(), client.found.counters.established);
    if client.verify_errors > 0 {
        return Err(format!("{} received bytes were not the ones sent", client.verify_errors));
    }
    if opened > 0 && established == 0 {
        return Err(format!("none of {opened} connections was established: {}", outcomes(client)));
    }
    let failed = client.failed();
    Ok(match failed {
        0 => format!("ok: {established} of {opened} connections established, none failed"),
        _ => format!("{established} of {opened} connections established, {failed} failed"),
    })
}

/// A lone server's verdict: it served what came.
pub fn server_verdict(server: &Side) -> String {
    let (opened, failed) = (server.opened(), server.failed());
    format!("ok: {opened} connections accepted, {} closed, {failed} failed", server.closed())
}

/// A length of time that a report gives next to a setting.
pub fn time_wait(msl: Span) -> String {
    match msl {
        Span::ZERO => "TIME-WAIT is off: a late segment may meet a new connection".to_string(),
        msl => format!("TIME-WAIT lasts {}", msl.times(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::finding;
    use super::*;
    use crate::app::results::Served;

    fn pair(finished: u64) -> (Side, Side) {
        let client =
            Counters { active_opens: 10, established: 10, end_finished: 10, ..Counters::default() };
        let server = Counters {
            passive_opens: 10,
            established: 10,
            end_finished: finished,
            ..Counters::default()
        };
        let (results, served) = Default::default();
        let client = Side::client(&[finding(client, "memory")], Some(1e6), &results);
        let server = Side::server(&[finding(server, "memory")], &served);
        (client.unwrap(), server.unwrap())
    }

    #[test]
    fn ends_that_agree_are_ok_and_one_lost_connection_is_not() {
        let (client, server) = pair(10);
        assert!(reconcile(&client, &server, false).unwrap().contains("all 10 connections"));
        let (client, server) = pair(9);
        let error = reconcile(&client, &server, false).unwrap_err();
        assert!(error.contains("accepted and closed by the server: 10 against 9"), "{error}");
        assert!(reconcile(&client, &server, true).unwrap().contains("over a bad link"));
    }

    #[test]
    fn a_close_by_rst_is_a_close() {
        let (mut client, mut server) = pair(0);
        client.found.counters.end_finished = 0;
        client.found.counters.end_aborted = 10;
        server.found.counters.end_reset = 10;
        assert!(reconcile(&client, &server, false).is_ok());
    }

    #[test]
    fn a_run_without_connections_is_not_ok() {
        let found = [finding(Counters::default(), "memory")];
        let empty = || Side::server(&found, &Served::default()).unwrap();
        assert!(
            reconcile(&empty(), &empty(), true).unwrap_err().contains("no connection was opened")
        );
    }

    #[test]
    fn a_shortfall_is_told_with_its_reason_and_its_remedy() {
        let (mut client, _) = pair(10);
        client.found.counters.launch_no_tuple = 3;
        let text = side("client", &client, false);
        assert!(text.contains("of 1.00M/s asked"), "{text}");
        assert!(text.contains("3 launches found every four-tuple"), "{text}");
        client.found.counters.rx_tcp_checksum = 9;
        client.found.counters.in_segs = 10;
        assert!(side("client", &client, false).contains("--no-verify-tcp-checksum"));
    }

    #[test]
    fn a_client_that_reached_nobody_failed() {
        let (mut client, _) = pair(10);
        assert!(client_verdict(&client).unwrap().starts_with("ok: 10 of 10"));
        client.found.counters.established = 0;
        client.found.counters.end_refused = 10;
        assert!(client_verdict(&client).unwrap_err().contains("10 refused"));
    }
}
