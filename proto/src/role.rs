//! Role paths: who resources are divided among, as a tree (`eng/ads/prod`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;
use crate::text::Text;

/// The path of a role. `*` is the default role; it has no parent and no children.
///
/// The rules are those of Mesos (docs/roles.md): no leading, trailing or double slash; a part is neither empty, `.`,
/// `..` nor `*`, does not start with `-`, and has no white space, backslash or control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RolePath(Text);

impl RolePath {
    /// Parses a path.
    ///
    /// # Errors
    /// The path breaks one of the rules above.
    pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
        let text = text.as_ref();
        let fine =
            text == "*" || (text.len() <= crate::ids::MAX_ID_LEN && text.split('/').all(Self::part_is_valid));
        if !fine {
            return Err(Invalid::new(
                "role",
                text,
                "`*`, or names joined by single slashes, such as `eng/ads/prod`",
            ));
        }
        Ok(Self(Text::from(text)))
    }

    fn part_is_valid(part: &str) -> bool {
        !part.is_empty()
            && !matches!(part, "." | ".." | "*")
            && !part.starts_with('-')
            && !part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\')
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The names along the path, outermost first.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.as_str().split('/')
    }

    /// The role that this one is a child of, if it is not at the top.
    #[must_use]
    pub fn parent(&self) -> Option<RolePath> {
        self.as_str().rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// This role and all above it, outermost first: `a`, `a/b`, `a/b/c`.
    #[must_use]
    pub fn lineage(&self) -> Vec<RolePath> {
        let ends = self.as_str().match_indices('/').map(|(at, _)| at).chain([self.as_str().len()]);
        ends.filter_map(|end| self.as_str().get(..end)).map(|path| Self(path.into())).collect()
    }

    /// Whether `other` is this role or lies below it.
    #[must_use]
    pub fn contains(&self, other: &RolePath) -> bool {
        other
            .as_str()
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for RolePath {
    fn default() -> Self {
        Self("*".into())
    }
}

impl fmt::Display for RolePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for RolePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RolePath {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl TryFrom<String> for RolePath {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<RolePath> for String {
    fn from(role: RolePath) -> String {
        role.as_str().to_owned()
    }
}
