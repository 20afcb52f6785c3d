//! Randomness as a value: a seeded generator and the keyed hash. No OS entropy is read after start.

use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// A small, fast, seeded generator (splitmix64: 64 bits of state, period 2^64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)] // it never ends, and nobody wants an Option of it
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, uniform but for a bias under 2^-32 at the bounds used here. Zero
    /// when `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// True with probability `p` (clamped to 0..=1).
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) < p
    }
}

/// The secret of one run: whoever does not know it can neither guess an ISN nor choose our hash
/// buckets.
#[derive(Clone, Copy, Debug)]
pub struct Secret {
    k0: u64,
    k1: u64,
}

impl Secret {
    /// Stretches a seed to a secret. The seed comes from the OS at start, or from the test.
    pub fn from_seed(seed: u64) -> Secret {
        let mut rng = Rng::new(seed);
        Secret { k0: rng.next(), k1: rng.next() }
    }

    /// SipHash-2-4 of `words` and `last` under this secret: the pseudo-random function that RFC
    /// 6528 s3 asks for. Each word is a block; `last` stands in the closing one, beside the length.
    #[inline]
    pub fn prf<const WORDS: usize>(&self, words: [u64; WORDS], last: u32) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.k0, self.k1);
        for word in words {
            hasher.write_u64(word);
        }
        hasher.write_u32(last);
        hasher.finish()
    }

    /// A keyed hash of two words, for hash-table buckets: two rounds of folded multiplication.
    /// Cheaper than [`Secret::prf`] and not a PRF: good enough that a peer who never sees hash
    /// values can't aim at one bucket.
    pub fn bucket(&self, a: u64, b: u64) -> u64 {
        let first = fold(a ^ self.k0, b ^ self.k1);
        fold(first ^ 0xa076_1d64_78bd_642f, self.k0 ^ self.k1.rotate_left(32))
    }
}

/// Multiplies to 128 bits and folds the halves together.
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.next() == b.next()));
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[rng.below(7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn chance_is_close_to_its_probability() {
        let mut rng = Rng::new(3);
        let hits = (0..100_000).filter(|_| rng.chance(0.3)).count();
        assert!((29_000..31_000).contains(&hits), "{hits}");
        assert!(!Rng::new(1).chance(0.0));
        assert!(Rng::new(1).chance(1.0));
    }

    #[test]
    fn buckets_differ_between_secrets() {
        let (a, b) = (Secret::from_seed(1), Secret::from_seed(2));
        assert_ne!(a.bucket(1, 2), b.bucket(1, 2));
        assert_ne!(a.prf([1], 2), b.prf([1], 2));
    }

    #[test]
    fn neighbouring_ports_spread_over_the_buckets() {
        let secret = Secret::from_seed(9);
        let mut load = [0u32; 256];
        for port in 0..65_536u64 {
            load[(secret.bucket(0x0a00_0001_0a00_0002, port) & 0xff) as usize] += 1;
        }
        assert!(load.iter().all(|&n| (150..400).contains(&n)), "{load:?}");
    }
}
