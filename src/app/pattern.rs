//! Synthetic payload: bytes that follow from their stream offset alone.

/// Length of the period that rr sends. Prime, so that no segment size, ring size or power of two is
/// a multiple of it: a block that is lost, doubled or moved shows.
const PRIME: usize = 251;

/// The period sixteen times over: all but the rarest segment is then one copy or one comparison.
static NUMBERS: [u8; PRIME * 16] = numbers();

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

/// Writes what a connection with this `salt` sends at `offset`. The salt tells one connection's
/// bytes from another's.
pub fn fill(salt: u8, offset: u64, out: &mut [u8]) {
    repeat(&NUMBERS, offset.wrapping_add(u64::from(salt)), out);
}

/// Number of bytes of `data`, received at `offset`, that [`fill`] would not have written there.
pub fn mismatches(salt: u8, offset: u64, mut data: &[u8]) -> u64 {
    let mut at = (offset.wrapping_add(u64::from(salt)) % NUMBERS.len() as u64) as usize;
    let mut wrong = 0;
    while !data.is_empty() {
        let (now, later) = data.split_at(data.len().min(NUMBERS.len() - at));
        let expected = &NUMBERS[at..at + now.len()];
        if now != expected {
            wrong += now.iter().zip(expected).filter(|(a, b)| a != b).count() as u64;
        }
        data = later;
        at = 0;
    }
    wrong
}

const fn numbers() -> [u8; PRIME * 16] {
    let mut bytes = [0; PRIME * 16];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % PRIME) as u8;
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_range_of_the_pattern_agrees_with_the_whole(
            salt: u8,
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
        fn every_wrong_byte_is_counted(salt: u8, offset in 0u64..1 << 40, at in 0usize..5000) {
            let mut data = vec![0; 5000];
            fill(salt, offset, &mut data);
            data[at] ^= 0x80;
            prop_assert_eq!(mismatches(salt, offset, &data), 1);
        }
    }

    #[test]
    fn a_block_moved_by_any_likely_distance_is_noticed() {
        let mut data = vec![0; 1460];
        fill(3, 0, &mut data);
        for distance in [1, 2, 536, 1024, 1440, 1448, 1460, 2920, 4096, 16_384, 65_536] {
            assert!(mismatches(3, distance, &data) > 1000, "{distance}");
        }
    }
}
