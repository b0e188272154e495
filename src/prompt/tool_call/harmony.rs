//! `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>`: gpt-oss's calls, as the filter of its channels
//! hands them on.

/// Begins a message; who speaks follows.
pub const START: &str = "<|start|>";
/// The channel of a message follows.
pub const CHANNEL: &str = "<|channel|>";
/// The type of its text follows.
pub const CONSTRAIN: &str = "<|constrain|>";
/// Its text follows.
pub const MESSAGE: &str = "<|message|>";
/// Ends a message after which another follows.
pub const END: &str = "<|end|>";
/// Ends a call.
pub const CALL: &str = "<|call|>";
/// Ends the answer.
pub const RETURN: &str = "<|return|>";

/// A call up to its name.
pub const OPEN: &str = "<|channel|>commentary to=functions.";

/// Tokens that an answer is written with.
pub const MARKUP: [&str; 7] = [START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN];

/// A template writes messages with channels.
pub fn is_shown(source: &str) -> bool {
    source.contains(CHANNEL) && source.contains(MESSAGE)
}
