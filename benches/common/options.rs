//! What was asked for on the command line.

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Enough for figures.
    Full,
    /// Enough to see that it works. Its figures mean little.
    Quick,
    /// Nothing: cargo asks for the names of tests, and there are none.
    List,
}

/// `cargo bench` says `--bench`; without that it is `cargo test`, which wants to know only whether it works.
pub fn mode() -> Mode {
    let has = |option: &str| std::env::args().any(|argument| argument == option);
    match (has("--list"), has("--bench") && !has("--quick")) {
        (true, _) => Mode::List,
        (_, true) => Mode::Full,
        (_, false) => Mode::Quick,
    }
}

impl Mode {
    /// One of two, by mode.
    pub fn pick<T>(self, full: T, quick: T) -> T {
        if self == Self::Full { full } else { quick }
    }
}
