//! The model's chat template: messages and tools in, the prompt's text out.
//!
//! 1. Templates are run as Hugging Face runs them: block trimming on, no escaping, Python's JSON and printing, loop
//!    controls, `raise_exception`, `strftime_now`.
//! 2. What a template refuses or leaves out is found out when it is loaded, and conversations are folded so that it shows
//!    every word of them; the log says so once.
//! 3. What a template cannot show is not dropped in silence: tools need a template that reads them.

mod probe;
mod python;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, escape_formatter};
use serde_json::{Map, Value as Json, json};

use super::dialect::Dialect;
use super::fold::{Change, Shown, fold};
use super::json::python_str;
use super::message::{self, Message};
use super::thought::ThoughtStart;

const DEFAULT: &str = "default";
const TOOL_USE: &str = "tool_use";
/// What some templates call the tools whose calls are JSON between marks.
const XML_TOOLS: &str = "xml_tools";
/// Instructions that a rendering may take; templates of the families take about a hundred a message.
const MOST_STEPS: u64 = 20_000_000;
/// The same for the short conversations that are tried at the start.
const MOST_PROBE_STEPS: u64 = 500_000;

/// Why a chat template cannot be used, or refuses a conversation.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model brings none.
    #[error(
        "the model has no chat template: neither chat_template.jinja nor chat_template in tokenizer_config.json; \
         /v1/completions works without one"
    )]
    Missing,
    /// It does not parse.
    #[error("the chat template {name:?} does not parse: {reason}")]
    Syntax {
        /// Its name among several.
        name: String,
        /// The parser's words.
        reason: String,
    },
    /// `chat_template` is neither a text nor a list of named texts.
    #[error("chat_template is {found}; expected a string or a list of {{\"name\", \"template\"}}")]
    Shape {
        /// What it is.
        found: String,
    },
    /// The template itself refused the conversation.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed on the conversation.
    #[error("the model's chat template fails on this conversation: {0}")]
    Render(String),
    /// It does not come to an end.
    #[error("the model's chat template takes more than {0} steps; a loop in it is too long")]
    Endless(u64),
    /// Tools were given to a template that never looks at them.
    #[error("this model's chat template has no place for tools")]
    NoTools,
}

/// What a prompt is made of.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// In order, oldest first.
    pub messages: Vec<Message>,
    /// Declared tools, as the client wrote them.
    pub tools: Vec<Json>,
    /// Variables the client sets for the template (`chat_template_kwargs`).
    pub variables: Map<String, Json>,
    /// Ends the prompt where the assistant's answer begins.
    pub add_generation_prompt: bool,
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    names: HashSet<String>,
    tools_known: bool,
    /// It has them under another name.
    xml_tools: bool,
    wants_parts: bool,
    dialect: Dialect,
    /// Without and with tools declared.
    shown: [Shown; 2],
    /// Changes that the log has told of, a bit each.
    told: AtomicU32,
    bos: String,
    eos: String,
    source: String,
}

impl ChatTemplate {
    /// Parses a template: a text, or the list of named texts some models have. `bos` and `eos` are token texts.
    pub fn new(template: &Json, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let mut environment = environment();
        let (mut names, mut tools_known, mut xml_tools) = (HashSet::new(), false, false);
        let mut whole = String::new();
        for (name, source) in named(template)? {
            let source = without_generation_tags(&source);
            whole.push_str(&source);
            environment
                .add_template_owned(name.clone(), source)
                .map_err(|error| TemplateError::Syntax { name: name.clone(), reason: describe(&error) })?;
            let known = environment.get_template(&name).map(|parsed| parsed.undeclared_variables(false));
            let reads = |variable| known.as_ref().is_ok_and(|variables| variables.contains(variable));
            xml_tools |= reads(XML_TOOLS);
            tools_known |= xml_tools || reads("tools");
            names.insert(name);
        }
        if names.is_empty() {
            return Err(TemplateError::Missing);
        }
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        let mut parsed = Self {
            environment,
            names,
            tools_known,
            xml_tools,
            wants_parts: false,
            dialect: Dialect::of_template(&whole),
            shown: [Shown::ALL; 2],
            told: AtomicU32::new(0),
            bos,
            eos,
            source: whole,
        };
        parsed.wants_parts = parsed.probe_parts()?;
        // One that sets a variable of this name before it reads it.
        parsed.tools_known |= parsed.probe_tools();
        let tools_known = parsed.tools_known;
        let plain = parsed.probe(false);
        parsed.shown = [plain, if tools_known { parsed.probe(true) } else { plain }];
        parsed.environment.set_fuel(Some(MOST_STEPS));
        Ok(parsed)
    }

    /// The text as parsed; part of the model's identity.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How the answer to a prompt of this template begins.
    pub fn thought(&self, prompt: &str) -> ThoughtStart {
        ThoughtStart::of_prompt(&self.source, prompt)
    }

    /// The prompt's text.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        if !conversation.tools.is_empty() && !self.tools_known {
            return Err(TemplateError::NoTools);
        }
        let shown = &self.shown[usize::from(!conversation.tools.is_empty())];
        let folded;
        let mut messages = &conversation.messages;
        if *shown != Shown::ALL {
            let changes;
            (folded, changes) = fold(messages, shown, self.dialect.syntax);
            for change in changes {
                self.tell(change);
            }
            messages = &folded;
        }
        self.run(message::for_template(messages, self.wants_parts), conversation)
    }

    fn tell(&self, change: Change) {
        let bit = 1 << change as u32;
        if self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            tracing::info!("this model's chat template does not show every conversation: {}", change.text());
        }
    }

    fn run(&self, mut messages: Vec<Json>, conversation: &Conversation) -> Result<String, TemplateError> {
        self.dialect.adapt(&mut messages);
        let mut context = conversation.variables.clone();
        context.insert("messages".into(), Json::Array(messages));
        context.insert("add_generation_prompt".into(), conversation.add_generation_prompt.into());
        context.insert("bos_token".into(), self.bos.as_str().into());
        context.insert("eos_token".into(), self.eos.as_str().into());
        // What nobody gave is null to a template, not undefined.
        for name in ["tools", "documents"] {
            context.entry(name).or_insert(Json::Null);
        }
        let mut name = DEFAULT;
        if !conversation.tools.is_empty() {
            let tools = Json::Array(conversation.tools.clone());
            if self.xml_tools {
                context.entry(XML_TOOLS).or_insert_with(|| tools.clone());
            }
            context.insert("tools".into(), tools);
            if self.names.contains(TOOL_USE) {
                name = TOOL_USE;
            }
        }
        if !self.names.contains(name) {
            name = self.names.iter().min().map_or(DEFAULT, String::as_str);
        }
        let template = self.environment.get_template(name).map_err(|error| self.failed(&error))?;
        template.render(Value::from(Serde(Json::Object(context)))).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> TemplateError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(Raised(message)) = error.downcast_ref() {
                return TemplateError::Refused(message.clone());
            }
            if error.downcast_ref().is_some_and(|error: &Error| error.kind() == ErrorKind::OutOfFuel) {
                return TemplateError::Endless(self.environment.fuel().unwrap_or_default());
            }
            cause = error.source();
        }
        TemplateError::Render(describe(error))
    }

    /// Some templates only read content as a list of parts. One that shows a text given as a string gets strings.
    fn probe_parts(&self) -> Result<bool, TemplateError> {
        const PROBE: &str = "prefixd-probe";
        let shows = |content: Json| {
            let conversation = Conversation { add_generation_prompt: true, ..Conversation::default() };
            match self.run(vec![json!({"role": "user", "content": content})], &conversation) {
                Ok(text) => {
                    Ok(text.contains(PROBE) && !text.contains("'type'") && !text.contains("\"type\""))
                }
                Err(error @ TemplateError::Endless(_)) => Err(error),
                Err(_) => Ok(false),
            }
        };
        Ok(!shows(PROBE.into())? && shows(json!([{"type": "text", "text": PROBE}]))?)
    }
}

/// The templates with their names.
fn named(template: &Json) -> Result<Vec<(String, String)>, TemplateError> {
    let wrong = || TemplateError::Shape { found: template.to_string().chars().take(80).collect() };
    match template {
        Json::Null => Err(TemplateError::Missing),
        Json::String(text) => Ok(vec![(DEFAULT.into(), text.clone())]),
        Json::Array(list) => list
            .iter()
            .map(|entry| match (entry["name"].as_str(), entry["template"].as_str()) {
                (Some(name), Some(text)) => Ok((name.into(), text.into())),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(MOST_PROBE_STEPS));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_formatter(|out, state, value| match python_str(value) {
        Some(text) => out.write_str(&text).map_err(Error::from),
        None => escape_formatter(out, state, value),
    });
    python::add(&mut environment);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, String::new()).with_source(Raised(message)))
    });
    environment.add_function("strftime_now", |format: String| -> Result<String, Error> {
        jiff::fmt::strtime::format(format, &jiff::Zoned::now())
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
    });
    environment
}

/// What a template says with `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// `{% generation %}` marks the assistant's text for training; here it is a block without effect.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(end) = rest[start..].find("%}").map(|at| start + at) else { break };
        let tag = &rest[start + 2..end];
        out.push_str(&rest[..start + 2]);
        match tag.trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    out
}

fn describe(error: &Error) -> String {
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    error.line().map_or_else(|| detail.clone(), |line| format!("{detail} (line {line})"))
}

#[cfg(test)]
mod tests;
