//! A number for the names of an end, which tells most ends apart from those that a pod filter asks for without a look at
//! their names.

/// Bytes of the pod's name in a mark.
const NAME: usize = 4;

/// Of the namespace a hash in the upper half, of the pod's name the first bytes in the lower.
pub fn mark(namespace: &str, pod_name: &str) -> u64 {
    u64::from(hash(namespace)) << u32::BITS | u64::from(first_bytes(pod_name))
}

/// What the mark of an end must have, so that it may be one with this prefix in this namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    mask: u64,
    value: u64,
}

impl Pattern {
    /// No namespace stands for any.
    pub(super) fn new(namespace: &str, prefix: &str) -> Self {
        let of_namespace = if namespace.is_empty() { 0 } else { u64::from(u32::MAX) << u32::BITS };
        let left = (NAME - prefix.len().min(NAME)) as u32 * u8::BITS;
        let of_name = u32::MAX.checked_shl(left).unwrap_or(0);
        let mask = of_namespace | u64::from(of_name);
        Self { mask, value: mark(namespace, prefix) & mask }
    }

    #[inline]
    pub(super) fn fits(self, mark: u64) -> bool {
        mark & self.mask == self.value
    }
}

fn first_bytes(text: &str) -> u32 {
    let mut bytes = [0; NAME];
    bytes.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    u32::from_be_bytes(bytes)
}

/// FNV-1a.
pub(super) fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_what_the_name_begins_with() {
        for (namespace, prefix, fits) in [
            ("web", "front", true),
            ("web", "fro", true),
            ("web", "f", true),
            ("web", "", true),
            ("", "front", true),
            ("", "", true),
            ("web", "fritz", false),
            ("web", "r", false),
            ("shop", "front", false),
            ("", "back", false),
        ] {
            let pattern = Pattern::new(namespace, prefix);
            assert_eq!(pattern.fits(mark("web", "frontend-1")), fits, "{namespace}/{prefix}");
        }
        assert!(!Pattern::new("web", "front").fits(mark("web", "fro")), "a name that is shorter");
    }
}
