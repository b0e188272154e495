//! Chooses the next token of one sequence from its logits, on host floats.
//!
//! Order of operations: repetition, presence and frequency penalties, logit bias, temperature, top-k, min-p, top-p,
//! draw. The same seed, parameters and logits choose the same tokens, whatever else runs in the batch.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::constraint::{Allowed, ConstraintError};

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keep the smallest set of tokens whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Keep this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep tokens at least this probable relative to the most probable; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen in prompt or answer (Keskar et al. 2019); 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from tokens that the answer holds (OpenAI's definition); 0 is off.
    pub presence_penalty: f32,
    /// Subtracted per occurrence in the answer (OpenAI's definition); 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes draws repeatable. `None` draws a fresh seed.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// A parameter out of its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field} is {found}; expected {expected}")]
pub struct SamplingError {
    /// The parameter's name on the wire.
    pub field: &'static str,
    /// What was given.
    pub found: f32,
    /// The range it must be in.
    pub expected: &'static str,
}

impl Sampling {
    fn penalizes_repetition(&self) -> bool {
        (self.repetition_penalty - 1.0).abs() > f32::EPSILON
    }

    /// Refuses parameters out of range.
    pub fn check(&self) -> Result<(), SamplingError> {
        let rules: [(&'static str, f32, bool, &'static str); 6] = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "0 to 100"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0,
                "above 0, at most 100",
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                (-2.0..=2.0).contains(&self.presence_penalty),
                "-2 to 2",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                (-2.0..=2.0).contains(&self.frequency_penalty),
                "-2 to 2",
            ),
        ];
        for (field, found, fine, expected) in rules {
            if !fine {
                return Err(SamplingError { field, found, expected });
            }
        }
        Ok(())
    }
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenChoice {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability, when asked for. Taken from the logits as the model gave them.
    pub logprob: Option<f32>,
    /// The most probable tokens and their log probabilities, most probable first.
    pub top: Vec<(u32, f32)>,
}

/// The model's own logits and what is told of them.
struct Report {
    top: Vec<(u32, f32)>,
    norm: f32,
    raw: Vec<f32>,
}

/// The state of one sequence's choices.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// Occurrences in the answer.
    generated: HashMap<u32, u32>,
    /// Tokens of the prompt, kept only when a repetition penalty needs them.
    prompt: Vec<u32>,
    top_logprobs: Option<usize>,
}

impl Sampler {
    /// A sampler for one sequence that continues `prompt`.
    pub fn new(sampling: Sampling, prompt: &[u32], top_logprobs: Option<usize>) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(sampling.seed.unwrap_or_else(|| rand::rng().random()));
        let mut seen = if sampling.penalizes_repetition() { prompt.to_vec() } else { Vec::new() };
        seen.sort_unstable();
        seen.dedup();
        Self { sampling, rng, generated: HashMap::new(), prompt: seen, top_logprobs }
    }

    /// Chooses from `logits` `[vocab]`, which it changes; tokens in `banned` are not chosen.
    pub fn choose(&mut self, logits: &mut [f32], banned: &[u32]) -> TokenChoice {
        let report = self.report(logits);
        self.adjust(logits, banned);
        self.pick(logits, report)
    }

    /// Chooses from `logits` `[vocab]`, which it changes, among the tokens that are allowed.
    pub fn choose_allowed(
        &mut self,
        logits: &mut [f32],
        allowed: &Allowed,
        stop_tokens: &[u32],
    ) -> Result<TokenChoice, ConstraintError> {
        let report = self.report(logits);
        self.adjust(logits, &[]);
        allowed.apply(logits, stop_tokens)?;
        Ok(self.pick(logits, report))
    }

    /// What is told of the model's own logits, when it is asked for.
    fn report(&self, logits: &[f32]) -> Option<Report> {
        let count = self.top_logprobs?;
        Some(Report { top: log_softmax_top(logits, count), norm: log_sum_exp(logits), raw: logits.to_vec() })
    }

    fn pick(&mut self, logits: &[f32], report: Option<Report>) -> TokenChoice {
        let id = if self.sampling.temperature == 0.0 { argmax(logits) } else { self.draw(logits) };
        *self.generated.entry(id).or_default() += 1;
        match report {
            Some(Report { top, norm, raw }) => {
                TokenChoice { id, logprob: raw.get(id as usize).map(|logit| logit - norm), top }
            }
            None => TokenChoice { id, logprob: None, top: Vec::new() },
        }
    }

    fn adjust(&self, logits: &mut [f32], banned: &[u32]) {
        let s = &self.sampling;
        if s.penalizes_repetition() {
            let answered = self.generated.keys().filter(|id| self.prompt.binary_search(id).is_err());
            for id in self.prompt.iter().chain(answered) {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit = if *logit > 0.0 {
                        *logit / s.repetition_penalty
                    } else {
                        *logit * s.repetition_penalty
                    };
                }
            }
        }
        if s.presence_penalty != 0.0 || s.frequency_penalty != 0.0 {
            for (id, count) in &self.generated {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit -= s.presence_penalty + s.frequency_penalty * *count as f32;
                }
            }
        }
        for (id, bias) in &s.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        for id in banned {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let s = &self.sampling;
        let mut candidates: Vec<(u32, f32)> = logits
            .iter()
            .enumerate()
            .filter(|(_, logit)| logit.is_finite())
            .map(|(id, logit)| (id as u32, logit / s.temperature))
            .collect();
        // Equal logits order by id, so that a draw never depends on the sort.
        candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if s.top_k > 0 {
            candidates.truncate(s.top_k);
        }
        let Some(&(best, highest)) = candidates.first() else { return argmax(logits) };
        for candidate in &mut candidates {
            candidate.1 = (candidate.1 - highest).exp();
        }
        candidates.retain(|(_, weight)| *weight >= s.min_p);
        if s.top_p < 1.0 {
            let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
            let mut mass = 0.0;
            let kept = candidates.iter().take_while(|(_, weight)| {
                let wanted = mass < s.top_p * total;
                mass += weight;
                wanted
            });
            let kept = kept.count().max(1);
            candidates.truncate(kept);
        }
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut point = self.rng.random::<f32>() * total;
        for (id, weight) in &candidates {
            point -= weight;
            if point < 0.0 {
                return *id;
            }
        }
        candidates.last().map_or(best, |(id, _)| *id)
    }
}

/// The index of the highest logit; of several, the first. NaN loses.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0 as u32
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    highest + logits.iter().map(|logit| (logit - highest).exp()).sum::<f32>().ln()
}

fn log_softmax_top(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let norm = log_sum_exp(logits);
    let mut order: Vec<(u32, f32)> =
        logits.iter().enumerate().map(|(id, logit)| (id as u32, logit - norm)).collect();
    let count = count.min(order.len());
    if count == 0 {
        return Vec::new();
    }
    order.select_nth_unstable_by(count - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order.truncate(count);
    order.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choices(sampling: Sampling, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling, &[], None);
        (0..count).map(|_| sampler.choose(&mut logits.to_vec(), &[]).id).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(choices(Sampling::default(), &[0.0, 3.0, 3.0, f32::NAN], 3), [1, 1, 1]);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens_and_another_does_not() {
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
        let with = |seed| {
            choices(Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() }, &logits, 40)
        };
        assert_eq!(with(7), with(7));
        assert_ne!(with(7), with(8));
    }

    #[test]
    fn draws_follow_the_softmax() {
        let sampling = Sampling { temperature: 1.0, seed: Some(1), ..Sampling::default() };
        let drawn = choices(sampling, &[0.0, 3.0_f32.ln()], 20_000);
        let share = drawn.iter().filter(|id| **id == 1).count() as f64 / 20_000.0;
        assert!((share - 0.75).abs() < 0.02, "expected three in four, drew {share}");
    }

    #[test]
    fn top_k_min_p_and_top_p_each_cut_the_tail() {
        let logits = [2.0, 1.9, 1.0, -1.0];
        let warm = Sampling { temperature: 1.0, seed: Some(3), ..Sampling::default() };
        let drawn = |s: Sampling| choices(s, &logits, 500).into_iter().max();
        assert_eq!(drawn(Sampling { top_k: 2, ..warm.clone() }), Some(1));
        assert_eq!(drawn(Sampling { min_p: 0.3, ..warm.clone() }), Some(2));
        assert_eq!(drawn(Sampling { top_p: 0.3, ..warm.clone() }), Some(0));
        assert_eq!(drawn(warm), Some(3));
    }

    #[test]
    fn penalties_and_bias_move_the_choice() {
        let logits = [1.0, 0.9, 0.0];
        let frequent = Sampling { frequency_penalty: 0.2, ..Sampling::default() };
        assert_eq!(choices(frequent, &logits, 3), [0, 1, 0]);
        let mut repeated =
            Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::default() }, &[0], None);
        assert_eq!(repeated.choose(&mut logits.to_vec(), &[]).id, 1);
        let biased = Sampling { logit_bias: vec![(2, 5.0), (99, 5.0)], ..Sampling::default() };
        assert_eq!(choices(biased, &logits, 1), [2]);
    }

    #[test]
    fn a_banned_token_is_not_chosen() {
        let mut sampler = Sampler::new(Sampling::default(), &[], None);
        assert_eq!(sampler.choose(&mut [3.0, 2.0, 1.0], &[0]).id, 1);
    }

    #[test]
    fn only_an_allowed_token_is_chosen_and_told_with_its_own_probability() {
        let allowed = Allowed { tokens: vec![0b100], ..Allowed::default() };
        let mut sampler = Sampler::new(Sampling::default(), &[], Some(1));
        let choice = sampler.choose_allowed(&mut [3.0, 2.0, 1.0], &allowed, &[0]).unwrap();
        assert_eq!((choice.id, choice.top[0].0), (2, 0));
        assert!(choice.logprob.unwrap() < choice.top[0].1);
    }

    #[test]
    fn log_probabilities_are_those_of_the_model_not_of_the_adjusted_logits() {
        let sampling = Sampling { logit_bias: vec![(1, 50.0)], ..Sampling::default() };
        let choice = Sampler::new(sampling, &[], Some(2)).choose(&mut [1.0, 0.0], &[]);
        let expected = -(1.0 + 1.0_f32.exp()).ln();
        assert_eq!(choice.id, 1);
        assert!((choice.logprob.unwrap() - expected).abs() < 1e-6);
        assert_eq!(choice.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1]);
    }

    proptest! {
        #[test]
        fn any_valid_parameters_choose_a_token_of_the_vocabulary(
            logits in prop::collection::vec(-50.0_f32..50.0, 1..40),
            temperature in 0.0_f32..3.0, top_p in 0.01_f32..=1.0, top_k in 0_usize..50, min_p in 0.0_f32..=1.0, seed: u64,
        ) {
            let sampling = Sampling { temperature, top_p, top_k, min_p, seed: Some(seed), ..Sampling::default() };
            prop_assert!(sampling.check().is_ok());
            let mut sampler = Sampler::new(sampling, &[0], Some(3));
            let choice = sampler.choose(&mut logits.clone(), &[]);
            prop_assert!((choice.id as usize) < logits.len());
        }
    }
}
