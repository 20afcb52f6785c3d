//! Scripts: what a peer sends and what must come back, in packetdrill's notation, run against one
//! [`Engine`](crate::engine::Engine) under a virtual clock. No device, no peer stack.
//!
//! ```text
//! // Goal: what this script shows.
//! --msl=30s
//! +0 listen(80)
//! +0 < S 0:0(0) win 65535 <mss 1460>
//! +0 > S. 0:0(0) ack 1 <mss 1460>
//! +.1 < . 1:1(0) ack 1
//! +0 state(ESTABLISHED)
//! ```
//!
//! Sequence numbers are relative to the first SYN of their side. Times are seconds after the line
//! before. Whatever the engine sends must be expected by the next line: silence is checked always.
//! `[ect0]`, `[ce]` or `[dscp 46]` before the flags is what the IP header says; nothing is zero.
//! A script is the same over IPv4 and IPv6, unless it says `--ip_version`. Payload is a pattern
//! that both sides verify. `parse` knows the notation, `run` the meaning, `notation` what a segment
//! looks like, `witness` what the application was told, `icmp` what an error is in each family.

mod icmp;
mod notation;
mod parse;
mod run;
mod witness;

use crate::tcp::State;
use crate::wire::Family;
use std::fmt;

/// A script that did not go as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Name of the script.
    pub script: String,
    /// Where in the script, from 1.
    pub line: usize,
    /// Expected and got.
    pub what: String,
}

/// Runs the script `text`, called `name` in failures, over IPv4 and over IPv6, or over the one that
/// it names (`--ip_version=ipv4`). Answers the changes of the connection's state
/// that were seen, in order; LISTEN, which is no connection's, shows as CLOSED.
///
/// # Errors
/// The first line that is not understood, or that did not go as written.
///
/// # Panics
/// If a law of the engine does not hold ([`Engine::check`](crate::engine::Engine::check)).
pub fn run(name: &str, text: &str) -> Result<Vec<(State, State)>, Failure> {
    let failure = |(line, what)| Failure { script: name.to_owned(), line, what };
    let script = parse::script(text).map_err(failure)?;
    let mut steps = Vec::new();
    for family in [Family::V4, Family::V6] {
        if script.setup.family.is_none_or(|only| only == family) {
            let over = |(line, what)| failure((line, format!("{what}\n  over {family}")));
            steps = run::run(&script, family).map_err(over)?;
        }
    }
    Ok(steps)
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.script, self.line, self.what)
    }
}

impl std::error::Error for Failure {}

/// Why a line failed, without its number.
type Outcome<T> = Result<T, String>;

#[cfg(test)]
mod tests {
    use super::*;

    fn what(text: &str) -> String {
        run("test", text).unwrap_err().to_string()
    }

    const OPEN: &str = "// A handshake.
        +0 listen(80)
        +0 < S 0:0(0)
        +0 > S. 0:0(0) ack 1 <mss 1460>
        +.1 < . 1:1(0) ack 1
        ";

    #[test]
    fn a_handshake_goes_as_written() {
        let text = format!("{OPEN}+0 state(ESTABLISHED)\n+0 ended(none)\n+0 connections(1)");
        let opened = (State::Closed, State::SynReceived);
        let established = (State::SynReceived, State::Established);
        assert_eq!(run("test", &text), Ok(vec![opened, established]));
    }

    #[test]
    fn a_segment_that_differs_is_shown_next_to_the_one_expected() {
        let text = OPEN.replace("ack 1 <mss 1460>", "ack 2 <mss 1460>");
        let what = what(&text);
        assert!(what.starts_with("test:4: "), "{what}");
        assert!(what.contains("expected  > S. 0:0(0) ack 2 <mss 1460>"), "{what}");
        assert!(what.contains("got       > S. 0:0(0) ack 1 win 65535 <mss 1460>"), "{what}");
    }

    #[test]
    fn marks_in_the_ip_header_are_compared_too() {
        let marked = OPEN.replace("> S.", "> [dscp 46 ect0] S.");
        let what = what(&marked);
        assert!(what.contains("expected  > [dscp 46 ect0] S. 0:0(0)"), "{what}");
        assert!(what.contains("got       > S. 0:0(0)"), "{what}");
        let unmarked = OPEN.replace("> S.", "> [dscp 0 noecn] S.").replace("< .", "< [ce] .");
        assert!(super::run("test", &unmarked).is_ok());
    }

    #[test]
    fn a_segment_that_does_not_come_or_comes_late_is_missed() {
        let missing = what(&format!("{OPEN}+0 > . 1:1(0) ack 1"));
        assert!(missing.contains("got       nothing"), "{missing}");
        let late = "// A SYN again.\n--rto=2s\n+0 connect(80)\n+0 > S 0:0(0) <...>
            +1 > S 0:0(0) <...>";
        assert!(what(late).starts_with("test:5: "), "{}", what(late));
        let early = late.replace("+1 >", "+3 >");
        assert!(what(&early).contains("0.999 s too early"), "{}", what(&early));
    }

    #[test]
    fn a_segment_that_nobody_expects_is_a_failure_of_the_next_line() {
        let text = "// No word about the SYN-ACK.\n+0 listen(80)\n+0 < S 0:0(0)\n+0 close()";
        let what = what(text);
        assert!(what.starts_with("test:4: sent, but not expected: > S. 0:0(0) ack 1"), "{what}");
        let last = text.strip_suffix("+0 close()").unwrap();
        assert!(super::run("test", last).unwrap_err().what.contains("not expected"));
        let quiet = format!("{last}+0 > S. 0:0(0) ack 1 <...>\n+0 > nothing for 2s");
        assert!(super::run("test", &quiet).unwrap_err().what.contains("not expected"));
    }

    #[test]
    fn claims_that_do_not_hold_say_what_is_so_instead() {
        let cases = [
            ("state(SYN-SENT)", "state is ESTABLISHED"),
            ("established(no)", "established is yes"),
            ("received(1)", "received is 0"),
            ("acknowledged(1)", "acknowledged is 0"),
            ("peer_closed(yes)", "peer_closed is no"),
            ("ended(reset)", "ended is none"),
            ("connections(0)", "connections is 1"),
            ("counter(PassiveOpens, 2)", "PassiveOpens is 1"),
        ];
        for (claim, so) in cases {
            let what = what(&format!("{OPEN}+0 {claim}"));
            assert!(what.contains(so), "{claim}: {what}");
        }
    }

    #[test]
    fn lines_that_are_not_understood_are_named_with_the_reason() {
        let cases = [
            ("+0 listen(80)", "goal"),
            ("// G.\n+0 dance()", "dance"),
            ("// G.\n+x listen(80)", "+x"),
            ("// G.\n--nothing=1", "nothing"),
            ("// G.\n--msl=1parsec", "parsec"),
            ("// G.\n+0 < S 0:5(0)", "0:5(0)"),
            ("// G.\n+0 < Q 0:0(0)", "Q"),
            ("// G.\n+0 < . 0:0(0)", "ack"),
            ("// G.\n+0 < S 0:0(0) <mss>", "mss"),
            ("// G.\n+0 state(OPEN)", "OPEN"),
            ("// G.\n+0 ended(badly)", "badly"),
            ("// G.\n+0 counter(Nothing, 1)", "Nothing"),
            ("// G.\n+0 < S *:*(0)", "*"),
            ("// G.\n+0 < [ect3] S 0:0(0)", "ect3"),
            ("// G.\n+0 < [dscp 64] S 0:0(0)", "64"),
            ("// G.\n+0 < [ce S 0:0(0)", "]"),
            ("// G.\n+0 icmp(nonsense, 1)", "nonsense"),
        ];
        for (text, part) in cases {
            let what = what(text);
            assert!(what.contains(part), "{text}: {what}");
        }
    }
}
