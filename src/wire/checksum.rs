//! The Internet checksum (RFC 1071).
//!
//! Sums are of 16-bit words in network order, held wide and folded once at the end. A 32-bit word
//! may be added whole, because 2^16 is 1 modulo 65535: whoever has a header's words in registers
//! adds those, and memory is read only for payload. A valid packet's words, checksum included, fold
//! to 0xffff.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The sum of words that hold their bytes in network order, first byte highest.
#[inline]
pub fn sum_words(words: &[u32]) -> u64 {
    words.iter().map(|&word| u64::from(word)).sum()
}

/// The sum of `bytes` as 16-bit words in network order; a last odd byte counts as if a zero
/// followed it.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    // Most segments carry nothing: no call for those.
    if bytes.is_empty() { 0 } else { sum_some(bytes) }
}

/// Bytes from which on lanes are faster than words one after the other.
const LINES_FROM: usize = 256;

/// Byte order does not matter to a one's complement sum (RFC 1071 s2 B), so memory is added as it
/// lies and swapped once.
#[inline(never)]
fn sum_some(bytes: &[u8]) -> u64 {
    let (lines, rest) = if bytes.len() < LINES_FROM { (&[][..], bytes) } else { bytes.as_chunks() };
    let mut total = u128::from(sum_lines(lines));
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        total += u128::from(u64::from_ne_bytes(*word));
    }
    let (words, tail) = rest.as_chunks::<4>();
    for word in words {
        total += u128::from(u32::from_ne_bytes(*word));
    }
    let last = match *tail {
        [] => [0; 4],
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c, ..] => [a, b, c, 0],
    };
    total += u128::from(u32::from_ne_bytes(last));
    let (total, carry) = (total as u64).overflowing_add((total >> 64) as u64);
    u64::from(u16::from_be(fold(total.wrapping_add(u64::from(carry)))))
}

/// Eight lanes that the compiler keeps in vector registers. A lane would overflow only after 2^32
/// words.
#[inline]
fn sum_lines(lines: &[[u8; 32]]) -> u64 {
    if lines.is_empty() {
        return 0;
    }
    let mut lanes = [0u64; 8];
    for line in lines {
        for (lane, word) in lanes.iter_mut().zip(line.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    lanes.iter().sum()
}

/// The sum of a TCP pseudo-header: `length_bytes` is that of header and data (RFC 9293 s3.1).
#[inline]
pub fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, length_bytes: u16) -> u64 {
    u64::from(src.to_bits())
        + u64::from(dst.to_bits())
        + u64::from(protocol)
        + u64::from(length_bytes)
}

/// The sum of a pseudo-header over IPv6 (RFC 8200 s8.1).
#[inline]
pub fn pseudo_header_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, length_bytes: u16) -> u64 {
    wide(src.to_bits()) + wide(dst.to_bits()) + u64::from(protocol) + u64::from(length_bytes)
}

/// The sum of the four words of an IPv6 address.
#[inline]
fn wide(bits: u128) -> u64 {
    let (high, low) = ((bits >> 64) as u64, bits as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

/// The value for the checksum field of a packet whose other words add up to `sum`.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// True if `sum`, taken over a packet with its checksum, says that nothing was changed on the way.
#[inline]
pub fn holds(sum: u64) -> bool {
    fold(sum) == 0xffff
}

/// Folds to 16 bits with end-around carry.
#[inline]
fn fold(sum: u64) -> u16 {
    let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
    let sum = sum + u32::from(carry);
    // What the lower halves carry goes into the upper ones.
    (sum.wrapping_add(sum.rotate_right(16)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 s4.1, word by word: the slow truth.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_what_it_says() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(finish(sum(&bytes)), 0x220d);
    }

    #[test]
    fn nothing_sums_to_nothing() {
        assert_eq!(sum(&[]), 0);
        assert_eq!(finish(0), 0xffff);
    }

    #[test]
    fn the_largest_datagram_does_not_overflow() {
        let bytes = vec![0xff; 65_535];
        assert_eq!(fold(sum(&bytes)), plain(&bytes));
    }

    proptest! {
        #[test]
        fn any_length_at_any_alignment_sums_as_word_by_word(
            bytes in prop::collection::vec(any::<u8>(), 0..200), skip in 0usize..8,
        ) {
            let bytes = &bytes[skip.min(bytes.len())..];
            prop_assert_eq!(fold(sum(bytes)), plain(bytes));
        }

        #[test]
        fn words_in_registers_sum_as_bytes_in_memory(words: [u32; 5]) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            let registers = words.iter().map(|&word| u64::from(word)).sum();
            prop_assert_eq!(fold(registers), plain(&bytes));
        }

        #[test]
        fn a_packet_with_its_checksum_holds_and_no_single_flipped_bit_passes(
            mut words in prop::collection::vec(any::<u16>(), 1..40), bit in 0usize..640,
        ) {
            let total: u64 = words.iter().map(|&word| u64::from(word)).sum();
            words.push(finish(total));
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            prop_assert!(holds(sum(&bytes)));
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!holds(sum(&bytes)));
        }
    }
}
