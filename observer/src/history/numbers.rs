//! Numbers in few bytes: seven bits a byte, the lowest first.

/// Appends a number.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Small for numbers near zero, below it too.
#[inline]
pub(super) fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// What [`zigzag`] was given.
#[inline]
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Reads numbers one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers<'a>(pub(super) &'a [u8]);

impl<'a> Numbers<'a> {
    /// The next one, if there is one.
    #[inline]
    pub(super) fn next(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first < 0x80 {
            return Some(first.into());
        }
        self.long(first)
    }

    fn long(&mut self, first: u8) -> Option<u64> {
        let mut number = u64::from(first & 0x7f);
        for shift in (7..70).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// The next one, which is to fit.
    #[inline]
    pub(super) fn next_as<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.next()?).ok()
    }

    /// So many bytes as the next number says.
    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.next_as()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers in prop::collection::vec(prop_oneof![0..200u64, any::<u64>()], 0..20)) {
            let mut out = Vec::new();
            for number in &numbers {
                put(&mut out, *number);
            }
            let mut read = Numbers(&out);
            for number in numbers {
                prop_assert_eq!(read.next(), Some(number));
                prop_assert_eq!(zigzag(unzigzag(number)), number);
            }
            prop_assert_eq!(read.next(), None);
        }
    }

    #[test]
    fn what_takes_more_bits_than_there_are_is_no_number() {
        assert_eq!(Numbers(&[0xff; 9]).next(), None);
        assert_eq!(Numbers(&[[0xff; 9].as_slice(), &[1]].concat()).next(), Some(u64::MAX));
        assert_eq!(Numbers(&[[0xff; 9].as_slice(), &[2]].concat()).next(), None);
    }
}
