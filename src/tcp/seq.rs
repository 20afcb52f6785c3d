//! Sequence numbers: 32 bits that wrap (RFC 9293 s3.4). No `Ord`: order is only meaningful between
//! numbers less than 2^31 apart, so it has names of its own.

/// A sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// This number moved forward by `count`, wrapping.
    pub const fn plus(self, count: u32) -> Seq {
        Seq(self.0.wrapping_add(count))
    }

    /// This number moved back by `count`, wrapping.
    pub const fn minus(self, count: u32) -> Seq {
        Seq(self.0.wrapping_sub(count))
    }

    /// How far this number is past `earlier`, wrapping. Meaningful when it is not before it.
    pub const fn since(self, earlier: Seq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// True if this number comes before `other`.
    pub const fn before(self, other: Seq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// True if this number comes after `other`.
    pub const fn after(self, other: Seq) -> bool {
        other.before(self)
    }

    /// True if `low <= self < low + count`.
    pub const fn within(self, low: Seq, count: u32) -> bool {
        self.0.wrapping_sub(low.0) < count
    }

    /// The later of the two.
    pub const fn max(self, other: Seq) -> Seq {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    pub const fn min(self, other: Seq) -> Seq {
        if self.before(other) { self } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_survives_the_wrap(base: u32, step in 1u32..0x7fff_ffff) {
            let (low, high) = (Seq(base), Seq(base).plus(step));
            prop_assert!(low.before(high) && high.after(low) && !high.before(low));
            prop_assert_eq!(high.since(low), step);
            prop_assert_eq!(high.minus(step), low);
            prop_assert_eq!(low.max(high), high);
            prop_assert_eq!(low.min(high), low);
            prop_assert!(low.within(low, 1));
            prop_assert!(!high.within(low, step) && high.within(low, step + 1));
        }
    }

    #[test]
    fn a_number_is_not_before_itself() {
        assert!(!Seq(5).before(Seq(5)) && !Seq(5).after(Seq(5)));
        assert!(!Seq(5).within(Seq(5), 0));
    }
}
