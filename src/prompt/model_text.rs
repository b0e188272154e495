//! Everything about a model that concerns text, read from its directory: tokenizer, template, stop tokens, defaults.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use prefixd_engine::Constraint;
use serde::Deserialize;
use serde_json::Value;

use super::grammar::{Format, FormatError, Grammars, Strictness};
use super::template::{ChatTemplate, TemplateError};
use super::thought::ThoughtStart;
use super::tokenizer::{TokenText, Tokenizer, TokenizerConfig, TokenizerError};
use super::tool_call::ToolSyntax;

/// How a model's maker wants it sampled (`generation_config.json`). `None`: nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SamplingDefaults {
    /// Divides the logits; 0 is greedy.
    pub temperature: Option<f32>,
    /// Nucleus.
    pub top_p: Option<f32>,
    /// Most probable tokens kept.
    pub top_k: Option<usize>,
    /// Relative probability kept.
    pub min_p: Option<f32>,
    /// Penalty of repetition.
    pub repetition_penalty: Option<f32>,
}

/// Why a model's text files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelTextError {
    /// A file that must be there is not, or cannot be read.
    #[error("{path}: {reason}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// A file was not fetched.
    #[error("{path}: {reason}")]
    Pointer {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        reason: &'static str,
    },
    /// A file is not the JSON it should be.
    #[error("{path}: {reason}")]
    Json {
        /// Which.
        path: PathBuf,
        /// The parser's words.
        reason: serde_json::Error,
    },
    /// The tokenizer is broken.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is broken (a missing one is not an error here).
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A model's text side. Cheap to share.
#[derive(Debug)]
pub struct ModelText {
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The chat template; `None` when the model brings none, so that only plain completions work.
    pub template: Option<ChatTemplate>,
    /// How the model writes calls.
    pub tool_syntax: ToolSyntax,
    /// Tokens that end an answer, from every file that names one, and what begins a tool's answer.
    pub stop_tokens: Arc<[u32]>,
    /// The maker's sampling defaults.
    pub sampling: SamplingDefaults,
    /// Made when the first request needs it.
    grammars: OnceLock<Result<Grammars, FormatError>>,
}

impl ModelText {
    /// Reads `tokenizer.json` and, where they are, `tokenizer_config.json`, `generation_config.json` and `config.json`.
    /// The chat template is in `chat_template.jinja`, else in `chat_template.json`, else in `tokenizer_config.json`.
    pub fn open(dir: &Path) -> Result<Self, ModelTextError> {
        let path = dir.join("tokenizer.json");
        let Some(tokenizer_json) = read(&path)? else {
            return Err(ModelTextError::Read { path, reason: std::io::ErrorKind::NotFound.into() });
        };
        let config = dir.join("tokenizer_config.json");
        let mut config: TokenizerConfig = match read(&config)? {
            Some(bytes) => parse(&bytes, &config)?,
            None => TokenizerConfig::default(),
        };
        let json = |name: &str| -> Result<Value, ModelTextError> {
            let path = dir.join(name);
            read(&path)?.map_or(Ok(Value::Null), |bytes| parse(&bytes, &path))
        };
        if let Some(jinja) = read(&dir.join("chat_template.jinja"))? {
            config.chat_template = String::from_utf8_lossy(&jinja).into();
        } else if let Some(template) = json("chat_template.json")?.get_mut("chat_template") {
            config.chat_template = template.take();
        }
        let (generation, model) = (json("generation_config.json")?, json("config.json")?);
        Self::new(&tokenizer_json, &config, &generation, &model)
    }

    /// From the files' contents.
    pub fn new(
        tokenizer_json: &[u8],
        config: &TokenizerConfig,
        generation: &Value,
        model: &Value,
    ) -> Result<Self, ModelTextError> {
        let tokenizer = Tokenizer::from_bytes(tokenizer_json, config)?;
        let token = |token: &Option<TokenText>| token.as_ref().map_or("", TokenText::as_str).to_owned();
        let (bos, eos) = (token(&config.bos_token), token(&config.eos_token));
        let template = match ChatTemplate::new(&config.chat_template, &bos, &eos) {
            Ok(template) => Some(template),
            Err(TemplateError::Missing) => None,
            Err(error) => return Err(error.into()),
        };
        let tool_syntax = ToolSyntax::of_template(template.as_ref().map_or("", ChatTemplate::source));
        let mut stops: Vec<u32> =
            [&generation["eos_token_id"], &model["eos_token_id"], &model["text_config"]["eos_token_id"]]
                .into_iter()
                .flat_map(ids)
                .chain(tokenizer.token_id(&eos))
                .chain(tool_syntax.stops().iter().filter_map(|token| tokenizer.token_id(token)))
                .collect();
        stops.sort_unstable();
        stops.dedup();
        Ok(Self {
            tokenizer,
            tool_syntax,
            template,
            stop_tokens: stops.into(),
            sampling: sampling(generation),
            grammars: OnceLock::new(),
        })
    }

    /// What holds answers that begin with such a thought to `format`. Takes as long as compiling it takes, the first time longer.
    pub fn constraint(
        &self,
        format: &Format,
        thought: ThoughtStart,
        strictness: Strictness,
    ) -> Result<Box<dyn Constraint>, FormatError> {
        let make = || Grammars::new(&self.tokenizer, &self.stop_tokens, self.tool_syntax);
        let grammars = self.grammars.get_or_init(make);
        grammars.as_ref().map_err(Clone::clone)?.constraint(format, thought, strictness)
    }

    /// What the files do not say and a user would miss, a sentence each.
    pub fn concerns(&self) -> Vec<String> {
        let mut concerns = Vec::new();
        if self.template.is_none() {
            concerns.push(format!("{}; chat requests are refused", TemplateError::Missing));
        }
        let vocab = self.tokenizer.vocab();
        let (known, unknown): (Vec<u32>, Vec<u32>) =
            self.stop_tokens.iter().partition(|&&id| (id as usize) < vocab);
        if known.is_empty() {
            concerns.push(
                "the model names no stop token (eos_token_id in generation_config.json or config.json, eos_token in \
                 tokenizer_config.json); answers end at max_tokens only"
                    .into(),
            );
        }
        if !unknown.is_empty() {
            concerns.push(format!("stop tokens {unknown:?} are outside the vocabulary of {vocab}"));
        }
        concerns
    }
}

/// One id or a list of ids.
fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()).collect()
}

/// `do_sample: false` says greedy, whatever the temperature beside it. Files of other shapes say nothing.
fn sampling(generation: &Value) -> SamplingDefaults {
    let mut defaults: SamplingDefaults = serde_json::from_value(generation.clone()).unwrap_or_default();
    if generation["do_sample"] == false {
        defaults.temperature = Some(0.0);
    }
    defaults
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ModelTextError> {
    match std::fs::read(path) {
        Ok(bytes) => match crate::lfs::pointer(&bytes) {
            Some(reason) => Err(ModelTextError::Pointer { path: path.into(), reason }),
            None => Ok(Some(bytes)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(ModelTextError::Read { path: path.into(), reason }),
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, ModelTextError> {
    crate::python_json::parse(bytes).map_err(|reason| ModelTextError::Json { path: path.into(), reason })
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::byte_level;
    use super::*;
    use serde_json::json;

    #[test]
    fn stop_tokens_come_from_every_file_that_names_one() {
        let config: TokenizerConfig =
            serde_json::from_value(json!({"eos_token": {"content": "<|end|>"}, "bos_token": null})).unwrap();
        let text = ModelText::new(
            &byte_level(),
            &config,
            &json!({"eos_token_id": [7, 9]}),
            &json!({"eos_token_id": 7}),
        )
        .unwrap();
        let end = text.tokenizer.token_id("<|end|>").unwrap();
        assert_eq!(*text.stop_tokens, [7, 9, end]);
        assert!(text.template.is_none());
    }

    #[test]
    fn marks_of_channels_are_text_where_the_template_has_channels_and_calls_end_answers() {
        let with = |template: &str| {
            let mut json: Value = serde_json::from_slice(&byte_level()).unwrap();
            let added = json["added_tokens"].as_array_mut().unwrap();
            for (at, token) in ["<|channel|>", "<|message|>", "<|call|>", "<|return|>"].iter().enumerate() {
                added.push(json!({"id": 1000 + at, "content": token, "special": true, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false}));
            }
            let config = TokenizerConfig { chat_template: template.into(), ..TokenizerConfig::default() };
            ModelText::new(json.to_string().as_bytes(), &config, &Value::Null, &Value::Null).unwrap()
        };
        let harmony = with("<|start|>assistant<|channel|>final<|message|>");
        let channel = harmony.tokenizer.token_id("<|channel|>").unwrap();
        let stops = ["<|call|>", "<|return|>"].map(|token| harmony.tokenizer.token_id(token).unwrap());
        assert_eq!(harmony.tokenizer.token_bytes(channel), b"<|channel|>");
        assert_eq!((harmony.tool_syntax, &*harmony.stop_tokens), (ToolSyntax::Harmony, &stops[..]));
        let other = with("plain");
        let channel = other.tokenizer.token_id("<|channel|>").unwrap();
        assert!(other.tokenizer.token_bytes(channel).is_empty() && other.stop_tokens.is_empty());
    }

    #[test]
    fn a_directory_is_read_and_its_jinja_file_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert!(ModelText::open(dir.path()).unwrap_err().to_string().contains("tokenizer.json"));
        std::fs::write(dir.path().join("tokenizer.json"), byte_level()).unwrap();
        write("tokenizer_config.json", r#"{"chat_template": "old", "eos_token": "<|end|>"}"#);
        write("generation_config.json", r#"{"temperature": 0.7, "top_k": 20, "eos_token_id": 3}"#);
        let old = ModelText::open(dir.path()).unwrap();
        write("chat_template.jinja", "new");
        let new = ModelText::open(dir.path()).unwrap();
        assert_eq!(
            (old.template.as_ref().unwrap().source(), new.template.as_ref().unwrap().source()),
            ("old", "new")
        );
        assert_eq!(
            new.sampling,
            SamplingDefaults { temperature: Some(0.7), top_k: Some(20), ..SamplingDefaults::default() }
        );
        write("config.json", "{");
        assert!(ModelText::open(dir.path()).unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn the_template_is_found_in_each_of_its_places() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), byte_level()).unwrap();
        let source =
            || ModelText::open(dir.path()).unwrap().template.map(|template| template.source().to_owned());
        assert_eq!(source(), None);
        write("tokenizer_config.json", r#"{"chat_template": "in the configuration"}"#);
        assert_eq!(source().as_deref(), Some("in the configuration"));
        write("chat_template.json", r#"{"chat_template": "in JSON"}"#);
        assert_eq!(source().as_deref(), Some("in JSON"));
        write("chat_template.jinja", "alone");
        assert_eq!(source().as_deref(), Some("alone"));
    }

    #[test]
    fn a_missing_template_and_missing_stop_tokens_are_told() {
        let open = |config: Value, generation: Value| {
            let config: TokenizerConfig = serde_json::from_value(config).unwrap();
            ModelText::new(&byte_level(), &config, &generation, &Value::Null).unwrap().concerns().join("\n")
        };
        let bare = open(json!({}), Value::Null);
        assert!(bare.contains("no chat template") && bare.contains("no stop token"), "{bare}");
        let wrong =
            open(json!({"chat_template": "x", "eos_token": "<|gone|>"}), json!({"eos_token_id": 1_000_000}));
        assert!(wrong.contains("no stop token") && wrong.contains("[1000000]"), "{wrong}");
        assert_eq!(open(json!({"chat_template": "x", "eos_token": "<|end|>"}), Value::Null), "");
    }

    #[test]
    fn a_pointer_in_the_place_of_a_file_is_told_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), "version https://git-lfs.github.com/spec/v1\n")
            .unwrap();
        let error = ModelText::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains("git lfs pull"), "{error}");
    }

    #[test]
    fn do_sample_false_is_greedy() {
        assert_eq!(sampling(&json!({"do_sample": false, "temperature": 0.6})).temperature, Some(0.0));
        assert_eq!(sampling(&Value::Null), SamplingDefaults::default());
    }
}
