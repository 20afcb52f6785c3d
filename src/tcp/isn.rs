//! Initial sequence numbers (RFC 6528; RFC 9293 s3.4.1).

use super::Seq;
use crate::flow::Endpoints;
use crate::rng::Secret;
use crate::time::Instant;

/// `ISN = M + F(four-tuple, secret)`: M ticks every 4 µs (SHLD-1), so the numbers of one four-tuple
/// move forward for 4.8 hours before they wrap (MUST-8); F is a keyed hash that outsiders can't
/// compute (MUST-9).
pub fn isn(secret: &Secret, endpoints: &Endpoints, now: Instant) -> Seq {
    let clock = (now.as_nanos() / 4_000) as u32;
    Seq((endpoints.prf(secret) as u32).wrapping_add(clock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    fn four(remote_port: u16) -> Endpoints {
        let local = ([10, 0, 0, 1], 80).into();
        Endpoints { local, remote: ([10, 0, 0, 2], remote_port).into() }
    }

    fn six(last: u16) -> Endpoints {
        let address = |last| [0xfd00, 0, 0, 0, 0, 0, 0, last];
        Endpoints { local: (address(1), 80).into(), remote: (address(last), 1).into() }
    }

    #[test]
    fn numbers_of_one_tuple_move_forward_by_the_clock() {
        let secret = Secret::from_seed(1);
        let first = isn(&secret, &four(1), Instant::ZERO);
        let later = isn(&secret, &four(1), Instant::ZERO + Span::from_millis(4));
        assert_eq!(later.since(first), 1000);
    }

    #[test]
    fn tuples_and_secrets_do_not_share_numbers() {
        let (ours, theirs) = (Secret::from_seed(1), Secret::from_seed(2));
        let now = Instant::ZERO;
        assert_ne!(isn(&ours, &four(1), now), isn(&ours, &four(2), now));
        assert_ne!(isn(&ours, &four(1), now), isn(&theirs, &four(1), now));
        assert_ne!(isn(&ours, &six(2), now), isn(&ours, &six(3), now));
        assert_ne!(isn(&ours, &six(2), now), isn(&theirs, &six(2), now));
    }
}
