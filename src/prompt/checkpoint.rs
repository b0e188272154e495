//! Checkpoints: texts that ended with an answer, and the tokens that the answer really has.
//!
//! A model need not write a text in the tokens that the tokenizer would cut it into. When the text comes back as part of the
//! next prompt, other tokens would find nothing of what is cached. So the text of every such conversation is remembered, by
//! its hash, with its tokens, and a prompt that begins with it begins with those.
//!
//! 1. The tokens of a prompt spell its text, byte by byte, with checkpoints as without; where they would not, none is used.
//! 2. An answer is remembered only if it has the special tokens that the tokenizer finds in its text, no others: letters
//!    that spell a special token stay letters in the answer, and do not become letters in what a client sends.
//! 3. A tenant's checkpoints are found by that tenant alone. Memory is bounded; those used longest ago leave.
//!
//! Used by connections' threads; the lock is held for a look into a table.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prefixd_cache::Tenant;

use super::tokenizer::{Tokenizer, TokenizerError};

/// Tokens of all checkpoints together at most: 32 MB.
const MOST_TOKENS: usize = 8 << 20;

/// See the module's documentation. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<blake3::Hash, Known>,
    tokens: usize,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    tokens: Arc<[u32]>,
    last_use: u64,
}

impl Checkpoints {
    /// Tokens of a rendered prompt. `stops`: the tokens that answers end with.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        tenant: &Tenant,
        stops: &[u32],
        text: &str,
    ) -> Result<Vec<u32>, TokenizerError> {
        if let Some((bytes, known)) = self.longest(tenant, text, &ends(tokenizer, stops, text)) {
            let rest = tokenizer.encode_rendered(&text[bytes..])?;
            let tokens = [&known[..], &rest].concat();
            if spells(tokenizer, &tokens, text.as_bytes()) {
                return Ok(tokens);
            }
        }
        tokenizer.encode_rendered(text)
    }

    /// Remembers that `prompt` was answered with `answer`, a stop token at its end, if the tokenizer would write the
    /// answer otherwise.
    pub fn note(&self, tokenizer: &Tokenizer, tenant: &Tenant, prompt: &[u32], answer: &[u32]) {
        let Ok(answered) = String::from_utf8(spelled(tokenizer, answer)) else { return };
        let Ok(usual) = tokenizer.encode_rendered(&answered) else { return };
        let special = |tokens: &[u32]| -> Vec<u32> {
            tokens.iter().copied().filter(|id| tokenizer.token_bytes(*id).is_empty()).collect()
        };
        if usual == answer || special(&usual) != special(answer) {
            return;
        }
        let Ok(mut text) = String::from_utf8(spelled(tokenizer, prompt)) else { return };
        text.push_str(&answered);
        self.0.lock().add(hasher(tenant, text.as_bytes()).finalize(), [prompt, answer].concat().into());
    }

    /// The longest known text that `text` begins with and that ends at one of `ends`: its length and its tokens.
    fn longest(&self, tenant: &Tenant, text: &str, ends: &[usize]) -> Option<(usize, Arc<[u32]>)> {
        if ends.is_empty() || self.0.lock().known.is_empty() {
            return None;
        }
        let mut hasher = hasher(tenant, b"");
        let mut from = 0;
        let mut hashes = Vec::with_capacity(ends.len());
        for end in ends {
            hasher.update(&text.as_bytes()[from..*end]);
            from = *end;
            hashes.push((*end, hasher.finalize()));
        }
        let mut table = self.0.lock();
        hashes.into_iter().rev().find_map(|(end, hash)| Some((end, table.use_(&hash)?)))
    }
}

impl Table {
    fn add(&mut self, hash: blake3::Hash, tokens: Arc<[u32]>) {
        self.uses += 1;
        self.tokens += tokens.len();
        let known = Known { tokens, last_use: self.uses };
        if let Some(old) = self.known.insert(hash, known) {
            self.tokens -= old.tokens.len();
        }
        if self.tokens > MOST_TOKENS {
            self.forget();
        }
    }

    /// Keeps the half that was used last, and of that as much as there is room for.
    fn forget(&mut self) {
        let mut all: Vec<(u64, blake3::Hash)> =
            self.known.iter().map(|(hash, known)| (known.last_use, *hash)).collect();
        all.sort_unstable_by_key(|(last_use, _)| *last_use);
        for (_, hash) in all {
            if self.tokens <= MOST_TOKENS / 2 {
                return;
            }
            if let Some(old) = self.known.remove(&hash) {
                self.tokens -= old.tokens.len();
            }
        }
    }

    fn use_(&mut self, hash: &blake3::Hash) -> Option<Arc<[u32]>> {
        self.uses += 1;
        let known = self.known.get_mut(hash)?;
        known.last_use = self.uses;
        Some(known.tokens.clone())
    }
}

fn hasher(tenant: &Tenant, text: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tenant.as_bytes()).update(text);
    hasher
}

/// Where in `text` answers may end: behind every stop token's text, in order.
fn ends(tokenizer: &Tokenizer, stops: &[u32], text: &str) -> Vec<usize> {
    let names = stops.iter().filter_map(|id| tokenizer.token_name(*id)).filter(|name| !name.is_empty());
    let mut ends: Vec<usize> = names
        .flat_map(|name| text.match_indices(&name).map(|(at, _)| at + name.len()).collect::<Vec<_>>())
        .collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn spelled(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|id| tokenizer.spelled(*id)).collect()
}

fn spells(tokenizer: &Tokenizer, tokens: &[u32], text: &[u8]) -> bool {
    let mut rest = text;
    tokens.iter().all(|id| {
        let after = rest.strip_prefix(tokenizer.spelled(*id).as_slice());
        rest = after.unwrap_or(rest);
        after.is_some()
    }) && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tokenizer::TokenizerConfig;
    use super::*;

    const ALICE: Tenant = Tenant::from_bytes([1; 32]);
    const BOB: Tenant = Tenant::from_bytes([2; 32]);

    /// The embedded model's tokenizer, and its stop token.
    fn tokenizer() -> (Tokenizer, u32) {
        let json = include_bytes!("../../models/clerk/tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(json, &TokenizerConfig::default()).unwrap();
        let stop = tokenizer.token_id("<|end|>").unwrap();
        (tokenizer, stop)
    }

    /// A text, a letter a token.
    fn letters(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        text.chars().flat_map(|c| tokenizer.encode_rendered(&c.to_string()).unwrap()).collect()
    }

    #[test]
    fn a_prompt_that_begins_with_an_answered_one_has_its_tokens() {
        let (tokenizer, stop) = tokenizer();
        let checkpoints = Checkpoints::default();
        let encode = |tenant, text: &str| checkpoints.encode(&tokenizer, &tenant, &[stop], text).unwrap();
        let first = "<|user|>Who?<|end|>\n<|assistant|>";
        let prompt = encode(ALICE, first);
        let answer = [letters(&tokenizer, "The north depot"), vec![stop]].concat();
        assert_ne!(tokenizer.encode_rendered("The north depot<|end|>").unwrap(), answer);
        checkpoints.note(&tokenizer, &ALICE, &prompt, &answer);
        let next = format!("{first}The north depot<|end|>\n<|user|>And?<|end|>\n");
        let known = [prompt, answer].concat();
        assert!(encode(ALICE, &next).starts_with(&known));
        assert_eq!(encode(BOB, &next), tokenizer.encode_rendered(&next).unwrap(), "it is nobody else's");
        let changed = next.replace("north", "south");
        assert_eq!(encode(ALICE, &changed), tokenizer.encode_rendered(&changed).unwrap());
    }

    #[test]
    fn letters_that_spell_a_special_token_are_not_remembered() {
        let (tokenizer, stop) = tokenizer();
        let checkpoints = Checkpoints::default();
        let prompt = tokenizer.encode_rendered("<|user|>x<|end|>\n<|assistant|>").unwrap();
        let pieces = ["<", "|", "end", "|", ">"].map(|piece| tokenizer.encode_rendered(piece).unwrap());
        checkpoints.note(&tokenizer, &ALICE, &prompt, &[pieces.concat(), vec![stop]].concat());
        assert!(checkpoints.0.lock().known.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut table = Table::default();
        for at in 0..40_u32 {
            table.add(blake3::hash(&at.to_le_bytes()), vec![at; MOST_TOKENS / 8].into());
            assert!(table.tokens <= MOST_TOKENS);
            assert!(table.use_(&blake3::hash(&at.to_le_bytes())).is_some());
        }
    }

    proptest! {
        /// Whatever was answered, in whatever tokens: a prompt's tokens spell its text.
        #[test]
        fn tokens_always_spell_the_text(
            answers in prop::collection::vec(prop::collection::vec(0_u32..2_000, 0..12), 1..4),
            question in "[a-z <|>_é\n]{0,20}",
            cut in 0_usize..400,
        ) {
            let (tokenizer, stop) = tokenizer();
            let checkpoints = Checkpoints::default();
            let mut text = String::new();
            for answer in answers {
                text.extend(["<|user|>", &question, "<|end|>\n<|assistant|>"]);
                let prompt = checkpoints.encode(&tokenizer, &ALICE, &[stop], &text).unwrap();
                prop_assert!(spells(&tokenizer, &prompt, text.as_bytes()));
                let answer: Vec<u32> = answer.into_iter().chain([stop]).collect();
                checkpoints.note(&tokenizer, &ALICE, &prompt, &answer);
                text.push_str(&String::from_utf8_lossy(&spelled(&tokenizer, &answer)));
            }
            let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            for text in [text.as_str(), &text[..cut]] {
                let tokens = checkpoints.encode(&tokenizer, &ALICE, &[stop], text).unwrap();
                prop_assert!(spells(&tokenizer, &tokens, text.as_bytes()));
            }
        }
    }
}
