//! Hands what was computed to the cache: whole blocks as soon as they are complete, the rest when the sequence ends.

use super::sequence::Sequence;
use super::step::Scheduler;
use crate::engine::Engine;

/// A remainder shorter than this is cheaper to compute again than to keep.
const MIN_TAIL_TOKENS: usize = 16;

impl<E: Engine> Scheduler<E> {
    /// Keeps every whole block of the first `in_kv` tokens that is not kept yet. `kv` holds the sequence as `row`.
    pub(super) fn keep_blocks(&mut self, sequence: &mut Sequence, kv: &E::Kv, row: usize, in_kv: usize) {
        while sequence.kept_tokens + self.options.block_tokens <= in_kv {
            let range = sequence.kept_tokens..sequence.kept_tokens + self.options.block_tokens;
            if !self.keep(sequence, kv, row, range) {
                return;
            }
        }
    }

    /// Keeps all that is in KV, the part of a block at the end included.
    pub(super) fn keep_everything(&mut self, sequence: &mut Sequence, kv: &E::Kv, row: usize) {
        // The last token was chosen, not computed.
        let in_kv = sequence.tokens.len() - 1;
        self.keep_blocks(sequence, kv, row, in_kv);
        if in_kv >= sequence.kept_tokens + MIN_TAIL_TOKENS {
            self.keep(sequence, kv, row, sequence.kept_tokens..in_kv);
        }
    }

    /// Keeps one block. False when there is no cache or the engine cannot export it: then nothing after it is kept.
    fn keep(
        &mut self,
        sequence: &mut Sequence,
        kv: &E::Kv,
        row: usize,
        range: std::ops::Range<usize>,
    ) -> bool {
        let (Some(cache), Some(lease)) = (&mut self.cache, &mut sequence.lease) else { return false };
        let tokens = &sequence.tokens[range.clone()];
        if !cache.advance(lease, tokens) {
            match self.engine.export(kv, row, range.clone()) {
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
    pub(super) fn release(&mut self, sequence: &mut Sequence) {
        if let (Some(cache), Some(lease)) = (&mut self.cache, sequence.lease.take()) {
            cache.release(lease);
        }
    }
}
