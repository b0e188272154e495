//! A proof on the loaded model, at start-up: what a cache relies on holds here, or serving is refused with the reason.
//!
//! 1. A prompt computed in chunks gives the logits of the prompt computed at once, and so does the next token.
//! 2. A row that was exported and imported again, its snapshot included, goes on as the row that was not.
//! 3. It takes about as long as loading did: the prompt is the shorter, the more weights there are.

use std::ops::Range;

use prefixd_engine::{Engine, EngineError, ImportBlock, RowWork, Steps, Wanted};

use super::backend::Backend;
use super::engine::MlxEngine;
use super::weights::{LoadProgress, LoadStage};

/// Relative distance allowed where the hardware's products depend on their shapes (GPUs): so much, or so many times what the
/// same prompt differs by when it shares its products with another row, but never more than the most. A mask that is wrong changes
/// everything. (The embedded model's chunks were 0.053 off on an H100.)
const TOLERANCE: f32 = 0.1;
const TIMES: f32 = 4.0;
const MOST_TOLERANCE: f32 = 0.3;

/// Multiply-adds with weights that the check may take on processor cores, and on a GPU: seconds.
const WORK: [f64; 2] = [5e11, 5e13];
/// Tokens of prompts that are computed beside a row before anybody waits for one, by powers of two. The first prompt
/// beside a stream took 3.7 s on a GPU and the third 0.3; it is likely that libraries load kernels when they first meet a size.
const LEAST_RIDING: usize = 64;
const MOST_RIDING: usize = 2048;
/// However large the model, so many tokens are checked: three chunks, and blocks to export.
const LEAST_TOKENS: usize = 32;

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

/// Checks a loaded model with a prompt of its own: longer than the widest window where `prompt_limit` and the model's size
/// allow.
pub fn self_check(
    engine: &mut MlxEngine,
    prompt_limit: usize,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<SelfCheck, SelfCheckError> {
    let (vocab, context, window) = {
        let info = engine.info();
        (info.vocab, info.context_tokens, info.state.window_tokens())
    };
    let block = engine.block_tokens();
    let work = WORK[usize::from(engine.backend() != Backend::Cpu)];
    // Every token is computed twice.
    let affordable = (work / 2.0 / engine.elements().max(1) as f64) as usize;
    let length = window.map_or(96, |window| window + 72).min(affordable.max(LEAST_TOKENS));
    let length = length.min(prompt_limit).min(context.saturating_sub(2)).max(2);
    let (mut checked, total) = (0, 2 * length as u64 + 3);
    let mut advance = |tokens: usize| {
        checked += tokens as u64;
        progress(LoadProgress { stage: LoadStage::Check, done: checked, total });
    };
    tracing::info!(tokens = length, "checking the model");
    advance(0);
    let tokens: Vec<u32> = (0..length).map(|i| ((i * 7919 + 13) % vocab) as u32).collect();
    let mut worst = 0.0_f32;

    let mut whole = engine.start()?;
    let expected = engine.prefill(&mut whole, &tokens)?;
    advance(length);
    let tolerance = if engine.backend() == Backend::Cpu {
        0.0
    } else {
        let mut noise = 0.0_f32;
        // One more token may be multiplied by the same kernels; twice as many more likely are not.
        for others in [1, length] {
            let beside = beside(engine, &tokens, &tokens[..others])?;
            noise = noise.max(distance(&expected, &beside).0);
        }
        (TIMES * noise).clamp(TOLERANCE, MOST_TOLERANCE)
    };
    let mut chunked = engine.start()?;
    let (mut found, mut payloads, mut done) = (Vec::new(), Vec::new(), 0);
    // Uneven on purpose: borders inside blocks and inside the window.
    for chunk in tokens.chunks(length.div_ceil(3)) {
        found = engine.prefill(&mut chunked, chunk)?;
        done += chunk.len();
        advance(chunk.len());
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
    if engine.info().state.has_snapshots() {
        let snapshot = engine.snapshot(&chunked, 0)?;
        engine.resume(&mut imported, 0, &snapshot)?;
    }
    let next = [tokens[length / 2]];
    let expected = engine.decode(&mut whole, &next)?.remove(0);
    let after_chunks = engine.decode(&mut chunked, &next)?.remove(0);
    let after_import = engine.decode(&mut imported, &next)?.remove(0);
    advance(3);
    compare("the token after a prompt in chunks", &expected, &after_chunks, tolerance, &mut worst)?;
    compare("the token after export and import", &after_chunks, &after_import, 0.0, &mut worst)?;
    if engine.backend() == Backend::Cuda {
        let most = MOST_RIDING.min(prompt_limit).min(context.saturating_sub(2));
        for riding in (LEAST_RIDING..=most).filter(|tokens| tokens.is_power_of_two()) {
            let prompt: Vec<u32> = (0..riding).map(|i| (i % vocab) as u32).collect();
            beside(engine, &prompt, &tokens[..1])?;
        }
    }
    Ok(SelfCheck { prompt_tokens: length, distance: worst, tolerance })
}

/// The logits of a prompt that shares a step with another row's tokens.
fn beside(engine: &mut MlxEngine, prompt: &[u32], others: &[u32]) -> Result<Vec<f32>, SelfCheckError> {
    let mut rows = engine.start()?;
    let neighbour = engine.start()?;
    engine.extend(&mut rows, neighbour)?;
    let work = [prompt, others].into_iter().enumerate();
    let work: Vec<_> = work.map(|(row, tokens)| RowWork { row, tokens, wanted: Wanted::Last }).collect();
    Ok(engine.step(&mut rows, &work)?.swap_remove(0).swap_remove(0))
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
    let (distance, range) = distance(expected, found);
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

/// The largest difference over the largest logit, and that.
fn distance(expected: &[f32], found: &[f32]) -> (f32, f32) {
    let range = expected.iter().fold(0.0_f32, |range, logit| range.max(logit.abs())).max(f32::MIN_POSITIVE);
    (expected.iter().zip(found).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs())) / range, range)
}

fn top(logits: &[f32]) -> usize {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}
