//! Hands what was computed to the cache: whole blocks as soon as they are complete, the rest when the sequence ends.

use std::ops::Range;

use prefixd_engine::Engine;

use super::sequence::Sequence;
use super::step::Scheduler;

/// A remainder shorter than this is cheaper to compute again than to keep.
const MIN_TAIL_TOKENS: usize = 16;

impl<E: Engine> Scheduler<E> {
    /// Keeps every whole block of a row's first `in_kv` tokens that is not kept yet.
    pub(super) fn keep_blocks(&mut self, row: usize, in_kv: usize) {
        loop {
            let kept = self.rows[row].sequence.kept_tokens;
            let whole = kept + self.options.block_tokens;
            if whole > in_kv || !self.keep(row, kept..whole) {
                return;
            }
        }
    }

    /// Keeps all that a decoding row has in KV, the part of a block at the end included.
    pub(super) fn keep_everything(&mut self, row: usize) {
        // The last token was chosen, not computed.
        let in_kv = self.rows[row].sequence.tokens.len() - 1;
        self.keep_blocks(row, in_kv);
        let kept = self.rows[row].sequence.kept_tokens;
        if in_kv >= kept + MIN_TAIL_TOKENS {
            self.keep(row, kept..in_kv);
        }
    }

    /// Keeps one block. False when there is no cache or the engine cannot export it: then nothing after it is kept.
    fn keep(&mut self, row: usize, range: Range<usize>) -> bool {
        let sequence = &mut self.rows[row].sequence;
        let (Some(cache), Some(lease)) = (&mut self.cache, &mut sequence.lease) else { return false };
        let tokens = &sequence.tokens[range.clone()];
        if !cache.advance(lease, tokens) {
            match self.engine.export(&self.batch, row, range.clone()) {
                Ok(payload) => {
                    cache.insert(lease, tokens, payload);
                }
                Err(error) => {
                    tracing::warn!(%error, ?range, "a block could not be exported; the rest of this sequence is not kept");
                    return false;
                }
            }
        }
        sequence.kept_tokens = lease.tokens();
        true
    }

    /// Does what the request asks to keep on purpose. `answered`: the answer came to its end.
    pub(super) fn hold(&mut self, sequence: &Sequence, answered: bool) {
        let request = &sequence.request;
        for pin in &request.hold.pins {
            let Some(cache) = &mut self.cache else { break };
            let prefix = &request.prompt[..pin.tokens.min(request.prompt.len())];
            // The block in which the prefix ends may hold more of this sequence than the prefix.
            let whole = cache.pin(&request.tenant, prefix, pin.time);
            tracing::debug!(?whole, tokens = pin.tokens, "a prefix was pinned");
        }
        self.note_turn(sequence, answered);
    }

    /// Gives the sequence's hold on its blocks back.
    pub(super) fn give_back(&mut self, sequence: &mut Sequence) {
        if let (Some(cache), Some(lease)) = (&mut self.cache, sequence.lease.take()) {
            cache.release(lease);
        }
    }

    /// Ends a sequence.
    pub(super) fn release(&mut self, mut sequence: Sequence) {
        self.give_back(&mut sequence);
    }
}
