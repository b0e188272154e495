//! The token index: from the beginnings of texts to their tokens.
//!
//! Every turn of a conversation sends the whole of it, and only its end is new. So the tokens of rendered texts are remembered,
//! by hashes of their beginnings, and a text that begins like a known one costs the tokenizer its new end alone.
//!
//! A model need not write an answer in the tokens that the tokenizer would cut it into. When the answer comes back as part of
//! the next prompt, other tokens would find nothing of what is cached. So a text that ended with an answer is remembered with
//! the tokens that the answer really has.
//!
//! 1. Texts are cut behind tokens that end messages, and only where the tokenizer cannot join what lies on both sides
//!    ([`Tokenizer::splits_at`]). What lies behind a cut is encoded with the token before it, so that it is not taken for the
//!    beginning of a text. Without answers the tokens are those of the text as a whole; with them they spell it, byte by byte.
//! 2. An answer is remembered only if it has the special tokens that the tokenizer finds in its text, no others: letters
//!    that spell a special token stay letters in the answer, and do not become letters in what a client sends.
//! 3. What a tenant sent is found by that tenant alone. Memory is bounded; texts used longest ago leave.
//!
//! Used by connections' threads; the lock is held for looks into a table.

use std::collections::HashMap;
use std::sync::Arc;

use blake3::Hash;
use parking_lot::Mutex;
use prefixd_cache::Tenant;

use super::tokenizer::{Tokenizer, TokenizerError};

/// Tokens of all texts together at most: 32 MB.
const MOST_TOKENS: usize = 8 << 20;

/// See the module's documentation. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct TokenIndex {
    /// Tokens that texts are cut behind.
    splitters: Arc<[(u32, String)]>,
    keeps_answers: bool,
    table: Arc<Mutex<Table>>,
}

/// A place in a text, behind a token of the splitters.
struct Cut {
    /// Bytes before it.
    end: usize,
    /// The splitter, by its place among them.
    splitter: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// By the hash of a beginning: the text that has it.
    beginnings: HashMap<Hash, u64>,
    texts: HashMap<u64, Text>,
    /// Of all texts.
    tokens: usize,
    uses: u64,
}

#[derive(Debug)]
struct Text {
    tokens: Arc<[u32]>,
    /// Its beginnings, in order: their hashes and their numbers of tokens.
    cuts: Vec<(Hash, usize)>,
    /// How many of these lead to it; others lead to a newer text.
    leading: usize,
    last_use: u64,
}

impl TokenIndex {
    /// For texts whose messages end with `stops`. `keeps_answers`: answers are remembered with the tokens they have.
    pub fn new(tokenizer: &Tokenizer, stops: &[u32], keeps_answers: bool) -> Self {
        let splitters = stops.iter().filter(|id| tokenizer.splits_at(**id));
        let splitters = splitters.filter_map(|id| Some((*id, tokenizer.token_name(*id)?)));
        Self { splitters: splitters.collect(), keeps_answers, table: Arc::default() }
    }

    /// Tokens of a rendered prompt.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        tenant: &Tenant,
        text: &str,
    ) -> Result<Vec<u32>, TokenizerError> {
        let cuts = self.cuts(text);
        let hashes = hashes(tenant, text, &cuts);
        let (mut known, mut tokens) = self.table.lock().longest(&hashes);
        let first_new = known.last().and_then(|(hash, _)| hashes.iter().rposition(|other| other == hash));
        let first_new = first_new.map_or(0, |at| at + 1);
        for at in first_new..=cuts.len() {
            let before = at.checked_sub(1).map(|at| &cuts[at]);
            let end = cuts.get(at).map_or(text.len(), |cut| cut.end);
            if !self.encode_behind(
                tokenizer,
                before,
                &text[before.map_or(0, |cut| cut.end)..end],
                &mut tokens,
            )? {
                return tokenizer.encode_rendered(text);
            }
            known.extend(hashes.get(at).map(|hash| (*hash, tokens.len())));
        }
        if first_new < cuts.len() {
            let beginning = known.last().map_or(0, |(_, count)| *count);
            self.table.lock().add(tokens[..beginning].into(), known);
        }
        Ok(tokens)
    }

    /// Appends the tokens of `piece`, which lies behind the cut `before`. False when it cannot be told where they begin.
    fn encode_behind(
        &self,
        tokenizer: &Tokenizer,
        before: Option<&Cut>,
        piece: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<bool, TokenizerError> {
        let Some(Cut { splitter, .. }) = before else {
            tokens.extend(tokenizer.encode_rendered(piece)?);
            return Ok(true);
        };
        let (id, name) = &self.splitters[*splitter];
        let with_splitter = tokenizer.encode_rendered(&[name, piece].concat())?;
        let Some(behind) = with_splitter.strip_prefix(&[*id]) else { return Ok(false) };
        tokens.extend(behind);
        Ok(true)
    }

    /// Remembers that `prompt` was answered with `answer`, a stop token at its end, if the tokenizer would write the
    /// answer otherwise.
    pub fn note(&self, tokenizer: &Tokenizer, tenant: &Tenant, prompt: &[u32], answer: &[u32]) {
        if !self.keeps_answers
            || !answer.last().is_some_and(|last| self.splitters.iter().any(|(id, _)| id == last))
        {
            return;
        }
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
        let hash = hasher(tenant).update(text.as_bytes()).finalize();
        let tokens = [prompt, answer].concat();
        let cuts = vec![(hash, tokens.len())];
        self.table.lock().add(tokens.into(), cuts);
    }

    /// Where `text` is cut, in order.
    fn cuts(&self, text: &str) -> Vec<Cut> {
        let of = |splitter: usize| {
            let name = &self.splitters[splitter].1;
            text.match_indices(name.as_str()).map(move |(at, _)| Cut { end: at + name.len(), splitter })
        };
        let mut cuts: Vec<Cut> = (0..self.splitters.len()).flat_map(of).collect();
        cuts.sort_unstable_by_key(|cut| cut.end);
        cuts
    }
}

impl Table {
    /// The longest known beginning: its cuts, each with its number of tokens, and its tokens.
    fn longest(&mut self, hashes: &[Hash]) -> (Vec<(Hash, usize)>, Vec<u32>) {
        self.uses += 1;
        let found = hashes.iter().rev().find_map(|hash| Some((hash, *self.beginnings.get(hash)?)));
        let Some((hash, text)) = found.and_then(|(hash, id)| Some((hash, self.texts.get_mut(&id)?))) else {
            return (Vec::new(), Vec::new());
        };
        text.last_use = self.uses;
        let last = text.cuts.iter().position(|(other, _)| other == hash).unwrap_or_default();
        let cuts = text.cuts[..=last].to_vec();
        (cuts, text.tokens[..text.cuts[last].1].to_vec())
    }

    /// Its beginnings lead to this text from now on.
    fn add(&mut self, tokens: Arc<[u32]>, cuts: Vec<(Hash, usize)>) {
        if tokens.len() > MOST_TOKENS / 2 {
            return;
        }
        self.uses += 1;
        let id = self.uses;
        self.tokens += tokens.len();
        for (hash, _) in &cuts {
            if let Some(older) = self.beginnings.insert(*hash, id) {
                self.release(older);
            }
        }
        self.texts.insert(id, Text { tokens, leading: cuts.len(), cuts, last_use: id });
        if self.tokens > MOST_TOKENS {
            self.forget();
        }
    }

    /// One beginning less leads to a text; without any it is of no use.
    fn release(&mut self, id: u64) {
        let Some(text) = self.texts.get_mut(&id) else { return };
        text.leading -= 1;
        if text.leading == 0 {
            self.tokens -= text.tokens.len();
            self.texts.remove(&id);
        }
    }

    /// Keeps the texts that were used last, as many as half the room holds.
    fn forget(&mut self) {
        let mut all: Vec<(u64, u64)> = self.texts.iter().map(|(id, text)| (text.last_use, *id)).collect();
        all.sort_unstable();
        for (_, id) in all {
            if self.tokens <= MOST_TOKENS / 2 {
                break;
            }
            if let Some(text) = self.texts.remove(&id) {
                self.tokens -= text.tokens.len();
            }
        }
        self.beginnings.retain(|_, id| self.texts.contains_key(id));
    }
}

/// The hashes of a tenant's text up to each cut.
fn hashes(tenant: &Tenant, text: &str, cuts: &[Cut]) -> Vec<Hash> {
    let (mut hasher, mut from) = (hasher(tenant), 0);
    let of = |cut: &Cut| {
        hasher.update(&text.as_bytes()[from..cut.end]);
        from = cut.end;
        hasher.finalize()
    };
    cuts.iter().map(of).collect()
}

fn hasher(tenant: &Tenant) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tenant.as_bytes());
    hasher
}

fn spelled(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|id| tokenizer.spelled(*id)).collect()
}

#[cfg(test)]
mod tests;
