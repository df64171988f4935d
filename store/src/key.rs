//! Names of values, and of groups of values.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::StoreError;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;

/// The name of a value: parts joined by slashes, such as `agents/a1-7`. A part is not empty and has no control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Parses a key.
    ///
    /// # Errors
    /// The text is empty, longer than [`MAX_KEY`], or a part of it is not one.
    pub fn new(text: impl AsRef<str>) -> Result<Self, StoreError> {
        let text = text.as_ref();
        let part = |part: &str| !part.is_empty() && !part.chars().any(char::is_control);
        match text.len() <= MAX_KEY && text.split('/').all(part) {
            true => Ok(Self(text.into())),
            false => Err(StoreError::Key { text: text.chars().take(80).collect() }),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of this name below this one.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn join(&self, part: impl fmt::Display) -> Result<Self, StoreError> {
        Self::new(format!("{self}/{part}"))
    }

    /// All keys below this one, not itself.
    #[must_use]
    pub fn below(&self) -> Prefix {
        Prefix(format!("{self}/").into())
    }

    /// A key that has been one before.
    pub(crate) fn trusted(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = StoreError;
    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::new(text)
    }
}

/// A group of keys: all keys, or all below one of them. Made by [`Prefix::all`] and [`Key::below`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self("".into())
    }

    /// What the keys of the group start with: nothing, or text that ends with a slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key is in the group.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(self.as_str())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parts_joined_by_slashes() {
        let (longest, longer) = ("x".repeat(MAX_KEY), "x".repeat(MAX_KEY + 1));
        for text in ["a", "agents/a1-7", "a b/é", ".", longest.as_str()] {
            assert_eq!(Key::new(text).unwrap().as_str(), text);
        }
        for text in ["", "/", "a/", "/a", "a//b", "a\n", "a\0/b", longer.as_str()] {
            assert!(Key::new(text).is_err(), "{text:?} is taken");
        }
        assert!(Key::new("a").unwrap().join("b/c").unwrap().as_str() == "a/b/c");
        assert!(Key::new("a").unwrap().join("").is_err());
    }
}
