//! Which of a number of things are so, and where the next is: two levels of words.

/// Bits, and a bit for each word of them that is not zero. Up to 64 words.
#[derive(Clone, Copy)]
pub struct Bitmap<const WORDS: usize> {
    words: [u64; WORDS],
    summary: u64,
}

impl<const WORDS: usize> Bitmap<WORDS> {
    /// No bit is set.
    pub const EMPTY: Self = Bitmap { words: [0; WORDS], summary: 0 };

    pub fn is_empty(&self) -> bool {
        self.summary == 0
    }

    pub fn set(&mut self, bit: usize) {
        self.words[bit / 64] |= 1 << (bit % 64);
        self.summary |= 1 << (bit / 64);
    }

    pub fn clear(&mut self, bit: usize) {
        self.words[bit / 64] &= !(1 << (bit % 64));
        if self.words[bit / 64] == 0 {
            self.summary &= !(1 << (bit / 64));
        }
    }

    /// The first that is set from a bit on, and around.
    ///
    /// # Panics
    /// If none is.
    #[inline(always)]
    pub fn next(&self, from: usize) -> usize {
        let word = from / 64;
        let here = self.words[word] & u64::MAX << (from % 64);
        if here != 0 {
            return word * 64 + here.trailing_zeros() as usize;
        }
        let after = self.summary & u64::MAX << word << 1;
        let word = if after != 0 { after } else { self.summary }.trailing_zeros() as usize;
        word * 64 + self.words[word].trailing_zeros() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_next_is_the_next_of_a_set(
            acts in prop::collection::vec((0..256usize, any::<bool>(), 0..256usize), 1..60),
        ) {
            let (mut bitmap, mut model) = (Bitmap::<4>::EMPTY, BTreeSet::new());
            for (bit, set, from) in acts {
                match set {
                    true => (bitmap.set(bit), model.insert(bit)).1,
                    false => (bitmap.clear(bit), model.remove(&bit)).1,
                };
                prop_assert_eq!(bitmap.is_empty(), model.is_empty());
                let next = model.range(from..).next().or(model.first());
                prop_assert!(next.is_none_or(|&next| bitmap.next(from) == next));
            }
        }
    }
}
