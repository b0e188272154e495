//! Stop strings: where the answer ends in the text, whatever the borders of tokens.
//!
//! 1. No part of a stop string is let through: text that may be the start of one is held back until it is not.
//! 2. The stop string that is complete first ends the text, before its first character; of two complete at once, the
//!    longer. So the cut depends on the text alone, not on the pieces it comes in.

/// Cuts a stream of text at the first stop string.
#[derive(Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    /// Text that is the start of a stop string, or could be.
    held: String,
}

/// What a piece of text led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// No stop string is complete; this text is certain.
    No(String),
    /// This text is the last; `stops[by]` came after it.
    Yes {
        /// The rest of the answer.
        text: String,
        /// Index of the stop string.
        by: usize,
    },
}

impl StopFilter {
    /// Stops at any of `stops`; empty ones are never found.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes a piece of text.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.stops.is_empty() {
            return Stopped::No(text.to_owned());
        }
        self.held.push_str(text);
        if let Some((start, by)) = self.first_complete() {
            self.held.truncate(start);
            return Stopped::Yes { text: std::mem::take(&mut self.held), by };
        }
        let keep = self.stops.iter().map(|stop| held_suffix(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Stopped::No(std::mem::replace(&mut self.held, rest))
    }

    /// The end of the answer: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and index of the stop string that ends first.
    fn first_complete(&self) -> Option<(usize, usize)> {
        let found =
            self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()).filter_map(|(by, stop)| {
                let start = self.held.find(stop.as_str())?;
                Some((start + stop.len(), start, by))
            });
        found.min().map(|(_, start, by)| (start, by))
    }
}

/// Bytes at the end of `text` that are a beginning of `word`, the whole word excluded.
pub(super) fn held_suffix(text: &str, word: &str) -> usize {
    let longest = text.len().min(word.len().saturating_sub(1));
    (1..=longest).rev().find(|len| word.is_char_boundary(*len) && text.ends_with(&word[..*len])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the pieces; returns what was let through and whether a stop string ended it.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut filter = StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            match filter.push(piece) {
                Stopped::No(text) => out.push(text),
                Stopped::Yes { text, by } => {
                    out.push(text);
                    return (out, Some(by));
                }
            }
        }
        out.push(filter.finish());
        (out, None)
    }

    #[test]
    fn a_stop_string_across_pieces_is_cut_and_never_shown_in_part() {
        let (out, by) = run(&["\n\nUser:"], &["Hi", "\n", "\nUs", "er", ": x"]);
        assert_eq!((out.concat().as_str(), by), ("Hi", Some(0)));
        assert_eq!(out, ["Hi", "", "", "", ""]);
    }

    #[test]
    fn what_only_began_like_a_stop_string_is_shown() {
        let (out, by) = run(&["END"], &["E", "N", "x", "EN"]);
        assert_eq!(
            (out, by),
            (vec![String::new(), String::new(), "ENx".into(), String::new(), "EN".into()], None)
        );
    }

    #[test]
    fn the_first_complete_wins_and_of_two_the_longer() {
        assert_eq!(run(&["abcd", "bc"], &["xabcd"]), (vec!["xa".into()], Some(1)));
        assert_eq!(run(&["c", "bc"], &["abc"]), (vec!["a".into()], Some(1)));
    }

    #[test]
    fn a_stop_string_may_be_longer_than_a_character() {
        assert_eq!(run(&["é你"], &["aé", "好é", "你"]).0.concat(), "aé好");
    }

    /// The rule, character by character.
    fn reference(stops: &[String], text: &str) -> String {
        for (end, _) in text.char_indices().map(|(at, c)| (at + c.len_utf8(), c)) {
            let longest =
                stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(String::len).max();
            if let Some(len) = longest {
                return text[..end - len].to_owned();
            }
        }
        text.to_owned()
    }

    proptest! {
        #[test]
        fn the_cut_depends_on_the_text_alone(
            stops in prop::collection::vec("[abé]{1,4}", 0..4), pieces in prop::collection::vec("[abcé]{0,4}", 0..12),
        ) {
            let names: Vec<&str> = stops.iter().map(String::as_str).collect();
            let parts: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = reference(&stops, &pieces.concat());
            prop_assert_eq!(run(&names, &parts).0.concat(), whole);
        }
    }
}
