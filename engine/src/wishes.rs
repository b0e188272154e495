//! What a model meant by a token that its format forbids, as far as the format allows it.
//!
//! A token may end a value and go on: `",` closes a string and begins the next key. Where no further key may come, the whole
//! token is forbidden; without more the model would write on in the string, and the value would be another than it meant. So the
//! probability of such a token goes to the one that writes its allowed beginning, `"`. In the same way a number that may not be
//! followed by `}` here ends with the `,` that may.

/// What may stand behind a value.
const SEPARATORS: [u8; 3] = [b',', b'}', b']'];

/// The tokens of one vocabulary that end a value and go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A token, and the one that writes its beginning.
    beginnings: Vec<(u32, u32)>,
    /// Of each separator: the token that is nothing else, and those that begin with it.
    separators: Vec<(u32, Vec<u32>)>,
}

impl Wishes {
    /// For a vocabulary of these words, by id.
    pub fn new(words: &[Vec<u8>]) -> Self {
        let id = |word: &[u8]| words.iter().position(|known| known == word).map(|id| id as u32);
        let known: std::collections::HashMap<&[u8], u32> =
            words.iter().enumerate().rev().map(|(id, word)| (word.as_slice(), id as u32)).collect();
        let mut beginnings = Vec::new();
        for (token, word) in words.iter().enumerate() {
            let quote = word.iter().position(|byte| *byte == b'"');
            let ends =
                quote.map(|at| at + 1).or((SEPARATORS.contains(word.first().unwrap_or(&0))).then_some(1));
            let Some(end) = ends.filter(|end| *end < word.len()) else { continue };
            // The letters before the quote, where no token closes behind them.
            let first = known.get(&word[..end]).or_else(|| known.get(&word[..end - 1]).filter(|_| end > 1));
            beginnings.extend(first.map(|first| (token as u32, *first)));
        }
        let separators = SEPARATORS.iter().filter_map(|separator| {
            let starting = |word: &&[u8]| word.first() == Some(separator);
            let starting = known.iter().filter(|(word, _)| starting(word)).map(|(_, id)| *id);
            let mut starting: Vec<u32> = starting.collect();
            starting.sort_unstable();
            Some((id(&[*separator])?, starting))
        });
        Self { beginnings, separators: separators.collect() }
    }

    /// Moves the probability of forbidden tokens in `logits` `[vocab]` to the allowed ones that the model meant.
    pub fn grant(&self, logits: &mut [f32], allowed: impl Fn(u32) -> bool) {
        for (token, first) in &self.beginnings {
            if !allowed(*token) && allowed(*first) {
                give(logits, *token, *first);
            }
        }
        let by_logit = |a: &&(u32, Vec<u32>), b: &&(u32, Vec<u32>)| {
            let logit = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
            logit(a.0).total_cmp(&logit(b.0))
        };
        let open = self.separators.iter().filter(|(separator, _)| allowed(*separator));
        let Some((end, _)) = open.max_by(by_logit) else { return };
        for (_, starting) in self.separators.iter().filter(|(separator, _)| !allowed(*separator)) {
            starting.iter().filter(|token| !allowed(**token)).for_each(|token| give(logits, *token, *end));
        }
    }
}

/// Adds the probability of one token to another's.
fn give(logits: &mut [f32], from: u32, to: u32) {
    let Some(&more) = logits.get(from as usize).filter(|logit| logit.is_finite()) else { return };
    if let Some(logit) = logits.get_mut(to as usize).filter(|logit| !logit.is_nan()) {
        let (high, low) = if more > *logit { (more, *logit) } else { (*logit, more) };
        *logit = high + (low - high).exp().ln_1p();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 9] = ["a", "\"", "\",", ",", "}", "a\",", "},", "1", "]"];

    fn granted(logits: [f32; 9], allowed: &[&str]) -> Vec<f32> {
        let words: Vec<Vec<u8>> = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
        let mut logits = logits.to_vec();
        Wishes::new(&words).grant(&mut logits, |id| allowed.contains(&WORDS[id as usize]));
        logits
    }

    #[test]
    fn a_forbidden_token_counts_for_its_allowed_beginning() {
        let mut logits = [0.0; 9];
        (logits[2], logits[5]) = (8.0, 9.0);
        let now = granted(logits, &["a", "\""]);
        assert!((now[1] - 8.000_335).abs() < 1e-4, "{now:?}");
        // No token closes the string behind the letter.
        assert!((now[0] - 9.000_123).abs() < 1e-4, "{now:?}");
        assert_eq!(granted(logits, &WORDS), logits, "what is allowed keeps its own");
    }

    #[test]
    fn a_value_that_may_not_end_one_way_ends_the_other() {
        let mut logits = [0.0; 9];
        (logits[4], logits[6]) = (7.0, 7.0);
        let now = granted(logits, &["1", ","]);
        assert!(now[3] > 7.6 && now[7] == 0.0, "{now:?}");
    }
}
