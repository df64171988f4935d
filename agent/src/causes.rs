//! Errors with all that lies behind them: the libraries' own say "transport error" and leave the cause to be asked for.

use std::error::Error;

/// The error and its causes, outermost first.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
