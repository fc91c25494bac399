//! Short texts compared by words. A call of libc's comparison takes longer than names of fields take to compare.

/// Whether a text begins with another.
#[inline]
pub(super) fn begins_with(text: &[u8], begin: &[u8]) -> bool {
    text.get(..begin.len()).is_some_and(|text| is_same(text, begin))
}

/// Whether two texts are the same.
#[inline]
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    // The last word may overlap the one before it.
    match (one.last_chunk::<8>(), other.last_chunk::<8>()) {
        (Some(last), Some(other_last)) => {
            let (words, other_words) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
            words.iter().zip(other_words).all(|(word, other)| word == other) && last == other_last
        }
        _ => match (ends::<4>(one), ends::<4>(other)) {
            (Some(ends), Some(other_ends)) => ends == other_ends,
            _ => one.iter().zip(other).all(|(byte, other)| byte == other),
        },
    }
}

/// The first and the last bytes, which may overlap.
#[inline]
fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
    text.first_chunk().zip(text.last_chunk())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_told_apart_by_each_of_their_bytes() {
        let text: Vec<u8> = (0..40).collect();
        for length in 0..text.len() {
            let one = &text[..length];
            assert!(is_same(one, one) && begins_with(&text, one), "{length}");
            assert!(!is_same(one, &text[..=length]) && !begins_with(one, &text[..=length]), "{length}");
            for at in 0..length {
                let mut other = one.to_vec();
                other[at] ^= 0x80;
                assert!(!is_same(one, &other) && !begins_with(&text, &other), "{at} of {length}");
            }
        }
    }
}
