//! Every syntax of calls: its name, its marks, and how a template shows it.

use serde_json::{Value, json};

use super::bare::BareFormat;
use super::body::CallBody;
use super::gemma::{function_gemma, gemma4};
use super::marked::MarkedFormat;
use super::named::{self, Named};
use super::tagged::{self, CODER, GLM, MINIMAX};
use super::written::written;
use super::{Held, ToolCallFormat, harmony, hermes, pythonic};

/// The syntax of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolSyntax {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`
    Hermes,
    /// `{"name": ..., "parameters": {...}}` as the whole answer, several with `; ` between them; a `<|python_tag|>` may
    /// come first.
    Llama3,
    /// `{"name": ..., "arguments": {...}}` as the whole answer, on its own, in a list or in a fence.
    #[default]
    Json,
    /// `<start_function_call>call:NAME{key:<escape>text<escape>,other:1}<end_function_call>`
    FunctionGemma,
    /// `<|tool_call>call:NAME{key:<|"|>text<|"|>,other:1}<tool_call|>`
    Gemma4,
    /// `<tool_call>`, `<function=NAME>`, `<parameter=KEY>`, text, `</parameter>`, `</function>`, `</tool_call>`, each on a line.
    Coder,
    /// `<tool_call>NAME`, then `<arg_key>KEY</arg_key>` and `<arg_value>text</arg_value>` for each argument, `</tool_call>`.
    Glm,
    /// `<minimax:tool_call>`, `<invoke name="NAME">`, `<parameter name="KEY">text</parameter>` for each argument, `</invoke>`,
    /// `</minimax:tool_call>`.
    MiniMax,
    /// `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>`
    Harmony,
    /// `[TOOL_CALLS]NAME[ARGS]{...}`
    Mistral,
    /// `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`
    MistralList,
    /// `<｜tool▁calls▁begin｜>`, then for each call its name and its arguments between marks.
    DeepSeek,
    /// The same with the arguments in a fence.
    DeepSeekFenced,
    /// `<|tool_calls_section_begin|>`, then for each call its name and number and its arguments between marks.
    Kimi,
    /// `<|tool_call_start|>[NAME(key=value)]<|tool_call_end|>`
    Lfm2,
    /// `<TOOLCALL>[{"name": ..., "arguments": {...}}]</TOOLCALL>`
    Nemotron,
}

/// What surrounds calls, and how the part between the marks is written.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// Before a call.
    pub open: &'static str,
    /// A call.
    pub body: CallBody,
    /// After a call.
    pub close: &'static str,
    /// Between calls.
    pub between: &'static str,
    /// Begins a list of calls that share the two marks. `None`: each call has its own.
    pub list: Option<&'static str>,
}

impl ToolSyntax {
    /// Every syntax.
    pub const ALL: [Self; 16] = [
        Self::Hermes,
        Self::Llama3,
        Self::Json,
        Self::FunctionGemma,
        Self::Gemma4,
        Self::Coder,
        Self::Glm,
        Self::MiniMax,
        Self::Harmony,
        Self::Mistral,
        Self::MistralList,
        Self::DeepSeek,
        Self::DeepSeekFenced,
        Self::Kimi,
        Self::Lfm2,
        Self::Nemotron,
    ];

    /// As the user reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hermes => "hermes",
            Self::Llama3 => "llama 3",
            Self::Json => "json",
            Self::FunctionGemma => "functiongemma",
            Self::Gemma4 => "gemma 4",
            Self::Coder => "qwen3 coder",
            Self::Glm => "glm",
            Self::MiniMax => "minimax",
            Self::Harmony => "harmony",
            Self::Mistral => "mistral",
            Self::MistralList => "mistral list",
            Self::DeepSeek => "deepseek v3.1",
            Self::DeepSeekFenced => "deepseek v3",
            Self::Kimi => "kimi k2",
            Self::Lfm2 => "lfm2",
            Self::Nemotron => "nemotron",
        }
    }

    /// A call.
    pub fn example(self) -> String {
        written(self, &[("f", json!({"x": "y"}))]).replace('\n', "")
    }

    /// The syntax that a template shows to its model.
    pub fn of_template(source: &str) -> Self {
        if harmony::is_shown(source) {
            Self::Harmony
        } else if source.contains(named::KIMI_CALLS) {
            Self::Kimi
        } else if source.contains(named::DEEPSEEK_CALLS) {
            if source.contains("```json") { Self::DeepSeekFenced } else { Self::DeepSeek }
        } else if source.contains(named::MISTRAL_CALLS) {
            if source.contains(named::MISTRAL_ARGUMENTS) { Self::Mistral } else { Self::MistralList }
        } else if pythonic::is_shown(source) {
            Self::Lfm2
        } else if source.contains(hermes::LIST_OPEN) {
            Self::Nemotron
        } else if CODER.are_shown(source) {
            Self::Coder
        } else if GLM.are_shown(source) {
            Self::Glm
        } else if source.contains(tagged::MINIMAX_CALLS[0]) {
            Self::MiniMax
        } else if source.contains(hermes::OPEN) {
            Self::Hermes
        } else if source.contains(function_gemma::OPEN) {
            Self::FunctionGemma
        } else if source.contains(gemma4::OPEN) {
            Self::Gemma4
        } else if source.contains("<|python_tag|>") || source.contains("ipython") {
            Self::Llama3
        } else {
            Self::Json
        }
    }

    /// How calls are written.
    pub fn marks(self) -> Marks {
        let json = CallBody::Json { arguments: "arguments" };
        match self {
            Self::Hermes => Marks {
                open: "<tool_call>\n",
                body: json,
                close: "\n</tool_call>",
                between: "\n",
                list: None,
            },
            Self::Llama3 => {
                let body = CallBody::Json { arguments: "parameters" };
                Marks { open: "", body, close: "", between: "; ", list: None }
            }
            Self::Json => Marks { open: "", body: json, close: "", between: "\n", list: None },
            Self::Coder => Marks { body: CallBody::Tagged(&CODER), ..Self::Hermes.marks() },
            Self::Glm => Marks {
                open: hermes::OPEN,
                body: CallBody::Tagged(&GLM),
                close: hermes::CLOSE,
                between: "\n",
                list: None,
            },
            Self::MiniMax => Marks {
                open: "<minimax:tool_call>\n",
                body: CallBody::Tagged(&MINIMAX),
                close: "\n</minimax:tool_call>",
                between: "\n",
                list: Some(""),
            },
            Self::FunctionGemma => Marks {
                open: function_gemma::OPEN,
                body: CallBody::Gemma { quote: function_gemma::QUOTE },
                close: function_gemma::CLOSE,
                between: "",
                list: None,
            },
            Self::Gemma4 => Marks {
                open: gemma4::OPEN,
                body: CallBody::Gemma { quote: gemma4::QUOTE },
                close: gemma4::CLOSE,
                between: "",
                list: None,
            },
            Self::Harmony => Marks {
                open: harmony::OPEN,
                body: CallBody::Named(&named::HARMONY),
                close: harmony::CALL,
                between: "",
                list: None,
            },
            Self::Lfm2 => Marks {
                open: pythonic::OPEN,
                body: CallBody::Python,
                close: pythonic::CLOSE,
                between: ", ",
                list: Some("["),
            },
            Self::Mistral => Marks {
                open: named::MISTRAL_CALLS,
                body: CallBody::Named(&named::MISTRAL),
                close: "",
                between: "",
                list: None,
            },
            Self::MistralList => Marks {
                open: named::MISTRAL_CALLS,
                body: CallBody::JsonList,
                close: "]",
                between: ", ",
                list: Some("["),
            },
            Self::Nemotron => Marks {
                open: hermes::LIST_OPEN,
                body: CallBody::JsonList,
                close: hermes::LIST_CLOSE,
                between: ", ",
                list: Some("["),
            },
            Self::DeepSeek => Self::deepseek(&named::DEEPSEEK, ""),
            Self::DeepSeekFenced => Self::deepseek(&named::DEEPSEEK_FENCED, "\n"),
            Self::Kimi => Marks {
                open: named::KIMI_CALLS,
                body: CallBody::Named(&named::KIMI),
                close: named::KIMI_CALLS_END,
                between: "",
                list: Some(""),
            },
        }
    }

    fn deepseek(named: &'static Named, between: &'static str) -> Marks {
        let (open, close) = (named::DEEPSEEK_CALLS, named::DEEPSEEK_CALLS_END);
        Marks { open, body: CallBody::Named(named), close, between, list: Some("") }
    }

    /// Tokens that end the model's answer whatever its files say: those behind calls, and those with which it would go on
    /// where the tool's answer belongs.
    pub fn stops(self) -> &'static [&'static str] {
        match self {
            Self::FunctionGemma => &[function_gemma::RESPONSE],
            Self::Gemma4 => &[gemma4::RESPONSE],
            Self::Glm => &[tagged::GLM_RESPONSE],
            Self::Harmony => &[harmony::CALL, harmony::RETURN],
            _ => &[],
        }
    }

    /// An answer ends with its first call.
    pub fn stops_behind_a_call(self) -> bool {
        self == Self::Harmony
    }

    /// Tokens that answers are written with in this syntax, and are text even where the model declares them special.
    pub fn markup(self) -> &'static [&'static str] {
        match self {
            Self::Lfm2 => &pythonic::MARKUP,
            Self::Glm | Self::MiniMax => &tagged::MARKUP,
            Self::Harmony => &harmony::MARKUP,
            Self::Mistral | Self::MistralList | Self::DeepSeek | Self::DeepSeekFenced | Self::Kimi => {
                &named::MARKUP
            }
            _ => &super::MARKUP,
        }
    }

    /// Reads an answer for calls of these tools, names and schemas.
    pub fn reader(self, tools: &[(String, Value)], calls_are: Held) -> Box<dyn ToolCallFormat> {
        let Marks { open, body, close, .. } = self.marks();
        match self {
            Self::Llama3 | Self::Json => {
                let names = tools.iter().map(|(name, _)| name.clone()).collect();
                Box::new(BareFormat::new(names, calls_are))
            }
            _ => {
                let marks = [open.trim_end(), close.trim_start()];
                Box::new(MarkedFormat::new(marks, body, tools.to_vec(), calls_are))
            }
        }
    }
}
