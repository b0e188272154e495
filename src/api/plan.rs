//! A checked request: ranges, defaults, and what the endpoints have in common on their way to the scheduler.

use std::sync::Arc;

use prefixd_engine::{Constraint, Sampling};

use super::error::ApiError;
use super::generation::AnswerOptions;
use super::options::{Options, Stop};
use super::usage::{Detail, UsageCount};
use super::{ApiSettings, ServedModel};
use crate::scheduler::Hold;

/// Choices of one request at most, all prompts together.
const MOST_CHOICES: u64 = 128;
/// Stop strings at most; each is looked for in every piece of text.
const MOST_STOPS: usize = 64;
/// Bytes of a stop string at most.
const LONGEST_STOP: usize = 4096;
/// Stop tokens at most; each is looked for in every row of logits.
const MOST_STOP_TOKENS: usize = 64;
/// Tokens with a bias at most; every choice keeps them.
const MOST_BIASES: usize = 4096;
/// Alternatives per token at most, as OpenAI has it.
const MOST_LOGPROBS: u64 = 20;

/// A checked request, but for its prompt.
#[derive(Debug)]
pub struct Plan {
    pub sampling: Sampling,
    pub max_tokens: usize,
    pub min_tokens: usize,
    pub stop_tokens: Arc<[u32]>,
    pub top_logprobs: Option<usize>,
    pub n: usize,
    pub stream: bool,
    pub include_usage: bool,
    pub detail: Detail,
    pub answer: AnswerOptions,
    /// What the answer must look like.
    pub constraint: Option<Box<dyn Constraint>>,
    /// What is kept on purpose.
    pub hold: Hold,
    /// What the client asked for and gets in part.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Checks the options that the endpoints share.
    pub fn new(options: Options, model: &ServedModel, settings: &ApiSettings) -> Result<Self, ApiError> {
        let sampling = sampling(&options, model)?;
        let read_only = options.read_only();
        let max_tokens = max_tokens(&options)?.unwrap_or(settings.max_tokens);
        let min_tokens = options.min_tokens.unwrap_or(0) as usize;
        if min_tokens > max_tokens {
            return Err(ApiError::field(
                "min_tokens",
                format!("min_tokens is {min_tokens}; expected at most max_tokens, {max_tokens}"),
            ));
        }
        let n = options.n.unwrap_or(1);
        if !(1..=MOST_CHOICES).contains(&n) {
            return Err(ApiError::field("n", format!("n is {n}; expected 1 to {MOST_CHOICES}")));
        }
        let answer =
            AnswerOptions { stops: stops(options.stop, "stop")?, min_tokens, ..AnswerOptions::default() };
        let extra = options.stop_token_ids.unwrap_or_default();
        check_count("stop_token_ids", extra.len(), MOST_STOP_TOKENS)?;
        let stop_tokens: Arc<[u32]> = match (options.ignore_eos.unwrap_or(false), extra.is_empty()) {
            (false, true) => model.text.stop_tokens.clone(),
            (false, false) => model.text.stop_tokens.iter().copied().chain(extra).collect(),
            (true, _) => extra.into(),
        };
        Ok(Self {
            sampling,
            max_tokens,
            min_tokens,
            stop_tokens,
            top_logprobs: None,
            n: n as usize,
            stream: options.stream.unwrap_or(false),
            include_usage: options.stream_options.and_then(|stream| stream.include_usage).unwrap_or(false),
            detail: if options.prefixd_usage == Some(true) { Detail::Full } else { Detail::Brief },
            answer,
            constraint: None,
            warnings: Vec::new(),
            hold: Hold {
                agent: options.session_id.map(|name| format!("oai_{name}")),
                read_only,
                ..Hold::default()
            },
        })
    }

    /// Asks for this many alternatives per token.
    pub fn with_logprobs(mut self, count: Option<u64>, param: &'static str) -> Result<Self, ApiError> {
        if let Some(count) = count {
            if count > MOST_LOGPROBS {
                return Err(ApiError::field(
                    param,
                    format!("{param} is {count}; expected at most {MOST_LOGPROBS}"),
                ));
            }
            self.top_logprobs = Some(count as usize);
        }
        Ok(self)
    }

    /// Warns the client of images that the model does not see.
    pub fn warn_of_images(&mut self, named: bool) {
        if named {
            let warning = "this model reads only text: images in older messages are told to it as [image]";
            self.warnings.push(warning.into());
        }
    }

    /// Where usage is added up.
    pub fn count(&self) -> UsageCount {
        UsageCount::new(self.n, self.detail).with_warning(self.warnings.join("; "))
    }

    /// Refuses more choices than one request may have.
    pub fn check_choices(&self, prompts: usize) -> Result<(), ApiError> {
        let choices = prompts * self.n;
        if choices as u64 > MOST_CHOICES {
            let message = format!(
                "{prompts} prompts with n = {} make {choices} choices; expected at most {MOST_CHOICES}",
                self.n
            );
            return Err(ApiError::field("prompt", message));
        }
        Ok(())
    }
}

fn max_tokens(options: &Options) -> Result<Option<usize>, ApiError> {
    let named =
        [("max_completion_tokens", options.max_completion_tokens), ("max_tokens", options.max_tokens)];
    for (param, value) in named {
        match value {
            None => {}
            // As many as there is room for, as llama.cpp's clients write it.
            Some(-1) => return Ok(Some(usize::MAX)),
            Some(value) if value < 1 => {
                return Err(ApiError::field(param, format!("{param} is {value}; expected at least 1")));
            }
            Some(value) => return Ok(Some(value as usize)),
        }
    }
    Ok(None)
}

/// The stop strings that the field `param` names.
pub fn stops(stop: Option<Stop>, param: &'static str) -> Result<Vec<String>, ApiError> {
    let (stops, several) = match stop {
        None => return Ok(Vec::new()),
        Some(Stop::One(stop)) => (vec![stop], false),
        Some(Stop::Several(stops)) => (stops, true),
    };
    check_count(param, stops.len(), MOST_STOPS)?;
    if let Some(stop) = stops.iter().find(|stop| stop.len() > LONGEST_STOP) {
        let message =
            format!("{param} has a string of {} bytes; expected at most {LONGEST_STOP}", stop.len());
        return Err(ApiError::field(param, message));
    }
    if let Some(at) = stops.iter().position(String::is_empty) {
        let param = if several { format!("{param}[{at}]") } else { param.to_owned() };
        return Err(ApiError::field(
            param.clone(),
            format!("{param} is empty; expected at least one character"),
        ));
    }
    Ok(stops)
}

/// The request's word, else the server's, else that of the model's maker, else OpenAI's.
fn sampling(options: &Options, model: &ServedModel) -> Result<Sampling, ApiError> {
    let (ours, maker) = (&model.defaults, &model.text.sampling);
    let top_k = match options.top_k {
        None => ours.top_k.or(maker.top_k).unwrap_or(0),
        // vLLM's clients write -1 for all.
        Some(-1 | 0) => 0,
        Some(top_k) if top_k > 0 => top_k as usize,
        Some(top_k) => {
            return Err(ApiError::field(
                "top_k",
                format!("top_k is {top_k}; expected at least 1, or -1 for all"),
            ));
        }
    };
    let sampling = Sampling {
        temperature: options.temperature.or(ours.temperature).or(maker.temperature).unwrap_or(1.0),
        top_p: options.top_p.or(ours.top_p).or(maker.top_p).unwrap_or(1.0),
        top_k,
        min_p: options.min_p.or(ours.min_p).or(maker.min_p).unwrap_or(0.0),
        repetition_penalty: options
            .repetition_penalty
            .or(ours.repetition_penalty)
            .or(maker.repetition_penalty)
            .unwrap_or(1.0),
        presence_penalty: options.presence_penalty.unwrap_or(0.0),
        frequency_penalty: options.frequency_penalty.unwrap_or(0.0),
        logit_bias: logit_bias(options)?,
        seed: options.seed.map(|seed| seed as u64),
    };
    sampling.check().map_err(|error| ApiError::field(error.field, error.to_string()))?;
    Ok(sampling)
}

fn check_count(param: &'static str, found: usize, most: usize) -> Result<(), ApiError> {
    if found <= most {
        return Ok(());
    }
    Err(ApiError::field(param, format!("{param} has {found} entries; expected at most {most}")))
}

fn logit_bias(options: &Options) -> Result<Vec<(u32, f32)>, ApiError> {
    check_count("logit_bias", options.logit_bias.iter().flatten().count(), MOST_BIASES)?;
    let entries = options.logit_bias.iter().flatten();
    entries
        .map(|(token, bias)| {
            let param = format!("logit_bias.{token}");
            let Ok(id) = token.parse::<u32>() else {
                return Err(ApiError::field(
                    param,
                    format!("logit_bias names {token:?}; expected a token id"),
                ));
            };
            if !(-100.0..=100.0).contains(bias) {
                return Err(ApiError::field(
                    param,
                    format!("logit_bias of {token} is {bias}; expected -100 to 100"),
                ));
            }
            Ok((id, *bias))
        })
        .collect()
}
