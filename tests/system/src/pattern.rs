//! Bytes that tell where they belong: whatever is lost, doubled, moved or changed shows.

/// A pattern without a short period, so that a piece in the wrong place is seen: each 8-byte word
/// is its position, mixed. `start` is a multiple of 8.
pub(crate) fn fill(block: &mut [u8], start: u64) {
    let (words, rest) = block.as_chunks_mut::<8>();
    let mut at = start;
    for word in words {
        *word = mixed(at).to_le_bytes();
        at += 8;
    }
    rest.copy_from_slice(&mixed(at).to_le_bytes()[..rest.len()]);
}

/// How many bytes are not those of the pattern at `start`; `room` is as long as `block`.
pub(crate) fn wrong(block: &[u8], start: u64, room: &mut [u8]) -> u64 {
    fill(room, start);
    if block == room {
        return 0;
    }
    block.iter().zip(room).filter(|(a, b)| a != b).count() as u64
}

fn mixed(position: u64) -> u64 {
    let mixed = position.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_in_the_wrong_place_is_seen() {
        let (mut whole, mut piece) = (vec![0; 4096], vec![0; 1024]);
        fill(&mut whole, 0);
        fill(&mut piece, 2048);
        assert_eq!(whole[2048..3072], piece);
        let equal = |at: usize| whole[at..at + 1024] == piece;
        assert!((0..3072).filter(|at| equal(*at)).eq([2048]));
    }

    #[test]
    fn wrong_bytes_are_counted() {
        let (mut block, mut room) = (vec![0; 1001], vec![0; 1001]);
        fill(&mut block, 8);
        assert_eq!(wrong(&block, 8, &mut room), 0);
        block[1000] ^= 1;
        block[0] ^= 0x80;
        assert_eq!(wrong(&block, 8, &mut room), 2);
    }
}
