//! The text of names and ids. They are compared, copied and looked up far more often than read, and almost all are short: up
//! to 22 bytes are kept in place, so that neither needs another place in memory.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

const IN_PLACE: usize = 22;

/// A text that does not change, in 24 bytes. Ordered and equal as the text is.
#[derive(Clone)]
pub(crate) enum Text {
    /// Zeroes follow the text.
    Short {
        len: u8,
        bytes: [u8; IN_PLACE],
    },
    Long(Arc<str>),
}

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            // It was text before it was cut into bytes, so this cannot fail.
            Self::Short { .. } => std::str::from_utf8(self.bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(text) => text.as_bytes(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; IN_PLACE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Short { len, bytes }, Self::Short { len: their_len, bytes: theirs }) => {
                len == their_len && as_number(bytes) == as_number(theirs)
            }
            _ => self.bytes() == other.bytes(),
        }
    }
}

impl Eq for Text {}

/// The bytes as one number in two parts, which is compared as the text is, in a few instructions.
#[inline]
fn as_number(bytes: &[u8; IN_PLACE]) -> (u128, u64) {
    let (first, rest) = bytes.split_at(16);
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
    (u128::from_be_bytes(first.try_into().unwrap_or_default()), u64::from_be_bytes(last))
}

impl Ord for Text {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Without a detour by the lengths: what is longer has something where the other has zeroes.
            (Self::Short { len, bytes }, Self::Short { len: their_len, bytes: theirs }) => {
                as_number(bytes).cmp(&as_number(theirs)).then(len.cmp(their_len))
            }
            _ => self.bytes().cmp(other.bytes()),
        }
    }
}

impl PartialOrd for Text {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_ordered_as_it_reads(one in "\\PC{0,40}", other in "\\PC{0,40}", same in "[a-c\u{0}]{0,24}") {
            let text = |text: &String| Text::from(text.as_str());
            for (one, other) in [(&one, &other), (&one, &one), (&one, &same), (&same, &other)] {
                let read = text(one);
                prop_assert_eq!(read.as_str(), one);
                prop_assert_eq!(text(one).cmp(&text(other)), one.cmp(other));
                prop_assert_eq!(text(one) == text(other), one == other);
            }
        }
    }

    #[test]
    fn it_takes_three_words() {
        assert_eq!(size_of::<Text>(), 24);
    }
}
