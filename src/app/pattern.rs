//! Synthetic payload: bytes that follow from their stream offset alone, written and checked at the
//! speed of a copy.

/// 2^64 over the golden ratio, odd: its multiples are all different, and those next to each other
/// differ in many bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes of a word of the pattern.
const WORD: usize = 8;

/// Copies the bytes at offsets `offset..offset + out.len()` of the endless repetition of `period`.
pub fn repeat(period: &[u8], offset: u64, mut out: &mut [u8]) {
    let mut at = (offset % period.len() as u64) as usize;
    while !out.is_empty() {
        let bytes = out.len().min(period.len() - at);
        let (now, later) = out.split_at_mut(bytes);
        now.copy_from_slice(&period[at..at + bytes]);
        out = later;
        at = 0;
    }
}

/// Writes what a stream with this `salt` holds at `offset`: words of eight bytes, little-endian,
/// word `i` of which is `x ^ x >> 32` with `x = (i + 1 + salt * 2^40) * 0x9e3779b97f4a7c15` in 64
/// bits. No two words of 8 TiB are alike, so a block that is lost, doubled or moved shows, and so
/// does one of another stream.
pub fn fill(salt: u32, offset: u64, out: &mut [u8]) {
    let mut words = Words::at(salt, offset);
    let (head, body) = out.split_at_mut(to_next_word(offset).min(out.len()));
    if !head.is_empty() {
        head.copy_from_slice(&words.partial(offset)[..head.len()]);
    }
    let mut chunks = body.chunks_exact_mut(WORD);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&words.next().to_le_bytes());
    }
    let tail = chunks.into_remainder();
    tail.copy_from_slice(&words.next().to_le_bytes()[..tail.len()]);
}

/// Number of bytes of `data`, received at `offset`, that [`fill`] would not have written there.
pub fn mismatches(salt: u32, offset: u64, data: &[u8]) -> u64 {
    let mut words = Words::at(salt, offset);
    let (head, body) = data.split_at(to_next_word(offset).min(data.len()));
    let mut wrong = 0;
    if !head.is_empty() {
        wrong += different(head, &words.partial(offset));
    }
    let (chunks, tail) = body.as_chunks::<WORD>();
    // First whether anything differs at all, which takes no branch.
    let start = words.clone();
    let mut differs = 0;
    for chunk in chunks {
        differs |= u64::from_le_bytes(*chunk) ^ words.next();
    }
    if differs != 0 {
        let mut words = start;
        wrong +=
            chunks.iter().map(|chunk| different(chunk, &words.next().to_le_bytes())).sum::<u64>();
    }
    wrong + different(tail, &words.next().to_le_bytes())
}

fn different(data: &[u8], expected: &[u8]) -> u64 {
    data.iter().zip(expected).filter(|(a, b)| a != b).count() as u64
}

/// Bytes from `offset` to the end of its word, none at the start of one.
fn to_next_word(offset: u64) -> usize {
    (offset.wrapping_neg() % WORD as u64) as usize
}

/// The words of one stream, one after the other: the multiples are added up.
#[derive(Clone)]
struct Words(u64);

impl Words {
    /// From the word that `offset` lies in.
    fn at(salt: u32, offset: u64) -> Words {
        let index = (offset / WORD as u64).wrapping_add(u64::from(salt) << 40);
        Words(index.wrapping_mul(STEP))
    }

    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        self.0 ^ self.0 >> 32
    }

    /// The rest of the word that `offset` lies in, in front.
    fn partial(&mut self, offset: u64) -> [u8; WORD] {
        let mut bytes = self.next().to_le_bytes();
        bytes.rotate_left((offset % WORD as u64) as usize);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_range_of_the_pattern_agrees_with_the_whole(
            salt: u32,
            from in 0usize..9000,
            len in 0usize..9000,
        ) {
            let mut whole = vec![0; 18_000];
            fill(salt, 0, &mut whole);
            let mut part = vec![0; len];
            fill(salt, from as u64, &mut part);
            prop_assert_eq!(&part, &whole[from..from + len]);
            prop_assert_eq!(mismatches(salt, from as u64, &part), 0);
        }

        #[test]
        fn every_wrong_byte_is_counted(
            salt: u32,
            offset in 0u64..1 << 40,
            wrong in prop::collection::btree_set(0usize..5000, 0..40),
        ) {
            let mut data = vec![0; 5000];
            fill(salt, offset, &mut data);
            for &at in &wrong {
                data[at] ^= 0x80;
            }
            prop_assert_eq!(mismatches(salt, offset, &data), wrong.len() as u64);
        }

        #[test]
        fn a_block_moved_by_any_distance_is_noticed(
            salt: u32, offset in 0u64..1 << 40, distance in 1u64..1 << 40,
        ) {
            let mut data = vec![0; 1460];
            fill(salt, offset, &mut data);
            prop_assert!(mismatches(salt, offset + distance, &data) > 1000);
            prop_assert!(mismatches(salt.wrapping_add(1), offset, &data) > 1000);
        }
    }

    /// The formula is a promise: a peer in another language computes it too.
    #[test]
    fn the_words_are_those_of_the_formula() {
        let mut data = [0; 24];
        fill(3, 0, &mut data);
        for (index, chunk) in data.chunks(8).enumerate() {
            let x = (index as u64 + 1 + (3 << 40)).wrapping_mul(STEP);
            assert_eq!(chunk, (x ^ x >> 32).to_le_bytes());
        }
    }
}
