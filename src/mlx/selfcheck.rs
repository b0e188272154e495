//! A proof on the loaded model, at start-up: what a cache relies on holds here, or serving is refused with the reason.
//!
//! 1. A prompt computed in chunks gives the logits of the prompt computed at once, and so does the next token.
//! 2. A row that was exported and imported again goes on as the row that was not.

use std::ops::Range;

use prefixd_engine::{Engine, EngineError, ImportBlock, Steps};

use super::backend::Backend;
use super::engine::MlxEngine;

/// Relative distance allowed where the hardware's products depend on their shapes (GPUs).
const TOLERANCE: f32 = 5e-2;

/// What was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfCheck {
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// Largest relative distance seen; 0 when all bits agree.
    pub distance: f32,
    /// Largest distance allowed.
    pub tolerance: f32,
}

/// Why the model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// Two ways to the same logits disagree.
    #[error("{what}: the logits differ by {distance:e} of their range, allowed is {tolerance:e}")]
    Distance {
        /// The two ways.
        what: &'static str,
        /// Largest difference over the largest logit.
        distance: f32,
        /// What would have been fine.
        tolerance: f32,
    },
    /// Two ways to the same logits choose different tokens.
    #[error("{what}: the likeliest token is {found} instead of {expected}")]
    Choice {
        /// The two ways.
        what: &'static str,
        /// What the second way chose.
        found: usize,
        /// What the first way chose.
        expected: usize,
    },
    /// A logit is not a number.
    #[error("{what}: a logit is not finite")]
    NotFinite {
        /// Where.
        what: &'static str,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Checks a loaded model with a prompt of its own: longer than the widest window where `prompt_limit` allows.
pub fn self_check(engine: &mut MlxEngine, prompt_limit: usize) -> Result<SelfCheck, SelfCheckError> {
    let (vocab, context, window) = {
        let info = engine.info();
        (info.vocab, info.context_tokens, info.state.window_tokens())
    };
    let block = engine.block_tokens();
    let length =
        window.map_or(96, |window| window + 72).min(prompt_limit).min(context.saturating_sub(2)).max(2);
    let tokens: Vec<u32> = (0..length).map(|i| ((i * 7919 + 13) % vocab) as u32).collect();
    let tolerance = if engine.backend() == Backend::Cpu { 0.0 } else { TOLERANCE };
    let mut worst = 0.0_f32;

    let mut whole = engine.start()?;
    let expected = engine.prefill(&mut whole, &tokens)?;
    let mut chunked = engine.start()?;
    let (mut found, mut payloads, mut done) = (Vec::new(), Vec::new(), 0);
    // Uneven on purpose: borders inside blocks and inside the window.
    for chunk in tokens.chunks(length.div_ceil(3)) {
        found = engine.prefill(&mut chunked, chunk)?;
        done += chunk.len();
        while let Some(range) = next_block(payloads.len() * block, block, done, length) {
            let tokens = range.len();
            payloads.push((engine.export(&chunked, 0, range)?, tokens));
        }
    }
    compare("a prompt in chunks against the same prompt at once", &expected, &found, tolerance, &mut worst)?;

    let blocks: Vec<_> = payloads
        .iter()
        .map(|(payload, tokens)| ImportBlock { payload, block_tokens: *tokens, used_tokens: *tokens })
        .collect();
    let mut imported = engine.import(&blocks)?;
    let next = [tokens[length / 2]];
    let expected = engine.decode(&mut whole, &next)?.remove(0);
    let after_chunks = engine.decode(&mut chunked, &next)?.remove(0);
    let after_import = engine.decode(&mut imported, &next)?.remove(0);
    compare("the token after a prompt in chunks", &expected, &after_chunks, tolerance, &mut worst)?;
    compare("the token after export and import", &after_chunks, &after_import, 0.0, &mut worst)?;
    Ok(SelfCheck { prompt_tokens: length, distance: worst, tolerance })
}

/// The next block to export: whole ones as they fill, the rest when the prompt has ended.
fn next_block(start: usize, block: usize, done: usize, length: usize) -> Option<Range<usize>> {
    let end = (start + block).min(length);
    (start < length && end <= done).then_some(start..end)
}

fn compare(
    what: &'static str,
    expected: &[f32],
    found: &[f32],
    tolerance: f32,
    worst: &mut f32,
) -> Result<(), SelfCheckError> {
    if expected.iter().chain(found).any(|logit| !logit.is_finite()) {
        return Err(SelfCheckError::NotFinite { what });
    }
    let range = expected.iter().fold(0.0_f32, |range, logit| range.max(logit.abs())).max(f32::MIN_POSITIVE);
    let distance = expected.iter().zip(found).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs())) / range;
    *worst = worst.max(distance);
    if distance > tolerance {
        return Err(SelfCheckError::Distance { what, distance, tolerance });
    }
    let (expected_top, found_top) = (top(expected), top(found));
    // Within the tolerance two tokens may stand so close that neither is wrong.
    if expected_top != found_top && expected[expected_top] - expected[found_top] > tolerance * range {
        return Err(SelfCheckError::Choice { what, found: found_top, expected: expected_top });
    }
    Ok(())
}

fn top(logits: &[f32]) -> usize {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}
