//! Formats that an answer must have, as grammars over the model's tokens. The one module that names llguidance.
//!
//! 1. What a grammar lets through is, when it ends, valid JSON for its schema, or well-formed calls of the named tools,
//!    in the model's own syntax. A model that thinks first may. Where calls are only possible, text without the mark of
//!    one is free.
//!    Arguments of calls that are demanded have no other keys than those declared, unless their schema says more about them.
//! 2. A schema that cannot be enforced is refused when the request comes, with the reason; or enforced as far as it can be, where
//!    that was not demanded strictly.
//! 3. What a value says is the model's own: where a token would end it and go on as the grammar forbids, it ends it
//!    ([`Wishes`]).
//! 4. Between two parts of JSON stands one blank at most, or a new line with its indentation: a model cannot spend its tokens on
//!    white space. In an answer no value begins on a new line behind its key: nobody writes that, and small models lose their way
//!    there.
//! 5. Compiling happens where requests are read; a step costs what one mask costs.
//!
//! Tokens are spelled by their bytes alone, so that a grammar does not depend on how a text is cut into tokens. Hidden
//! tokens have no spelling and never match.

mod gemma;
mod harmony;
mod named;
mod pythonic;
mod schema;
mod tagged;

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use prefixd_engine::{Allowed, Constraint, ConstraintError, Ending, Wishes};
use serde_json::{Map, Value, json};

use super::thought::ThoughtStart;
use super::tokenizer::Tokenizer;
use super::tool_call::{CallBody, Marks, ToolSyntax};

/// Bytes of a grammar at most: compiling takes many times as much memory and time.
const MOST_BYTES: usize = 256 << 10;

/// White space between two parts of JSON: a blank, or a new line with its indentation.
const SPACE: &str = r"\x20|\r?\n[\x20\t]{0,40}";

/// How a key ends. Within a string nothing follows it that is forbidden here: strings have no line breaks of their own.
const KEY_END: [u8; 2] = *b"\":";

/// A format that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// JSON that the schema describes.
    Json(Value),
    /// Calls of tools, and nothing else.
    Calls(CallRules),
    /// Either.
    JsonOrCalls(Value, CallRules),
    /// Any text, or any text and then calls: what begins as a call becomes one.
    TextOrCalls(CallRules),
    /// Any text in which no call begins.
    NoCalls,
}

/// Which tools may be called, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRules {
    /// Name and schema of the arguments.
    pub tools: Vec<(String, Value)>,
    /// One call or several.
    pub count: CallCount,
}

impl CallRules {
    /// The same tools with any object as arguments.
    #[must_use]
    pub fn loose(&self) -> Self {
        let tools = self.tools.iter().map(|(name, _)| (name.clone(), Value::Null)).collect();
        Self { tools, count: self.count }
    }
}

/// How many calls an answer may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallCount {
    /// Any number.
    #[default]
    Several,
    /// One.
    One,
}

/// How much of a schema must be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// All of it.
    Strict,
    /// What can be: `not`, `if`, `propertyNames`, `uniqueItems` and patterns that look around may be broken.
    Lenient,
}

/// Why a format cannot be enforced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this format cannot be enforced: {0}")]
pub struct FormatError(String);

/// Makes constraints for one vocabulary. Cheap to share.
pub struct Grammars {
    factory: ParserFactory,
    wishes: Arc<Wishes>,
    /// Tokens that begin a line.
    breaks: Arc<[u32]>,
    syntax: ToolSyntax,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// For the tokens of `tokenizer`. `stop_tokens` are never part of an answer.
    pub fn new(tokenizer: &Tokenizer, stop_tokens: &[u32], syntax: ToolSyntax) -> Result<Self, FormatError> {
        let spelled = |id: u32| if stop_tokens.contains(&id) { &[][..] } else { tokenizer.token_bytes(id) };
        let mut words: Vec<Vec<u8>> = (0..tokenizer.vocab() as u32).map(|id| spelled(id).to_vec()).collect();
        let wishes = Arc::new(Wishes::new(&words));
        let breaks = (0..).zip(&words).filter(|(_, word)| word.starts_with(b"\n") || word.starts_with(b"\r"));
        let breaks = breaks.map(|(id, _)| id).collect();
        // The grammar's own end; ours is decided by `Allowed::end`. A token of its own, beyond the vocabulary.
        let end = words.len() as u32;
        words.push(b"\xff<end>".to_vec());
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(wrong)?;
        factory.quiet();
        // Errors go to clients; what the model has written so far does not belong in them.
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory, wishes, breaks, syntax })
    }

    /// A constraint at the start of an answer.
    pub fn constraint(
        &self,
        format: &Format,
        thought: ThoughtStart,
        strictness: Strictness,
    ) -> Result<Box<dyn Constraint>, FormatError> {
        let grammar = lark(format, thought, self.syntax, strictness)?;
        if grammar.len() > MOST_BYTES {
            let bytes = grammar.len();
            return Err(FormatError(format!(
                "its schemas make a grammar of {bytes} bytes; expected at most {MOST_BYTES}"
            )));
        }
        let grammar = TopLevelGrammar::from_lark(grammar);
        let parser = self.factory.create_parser(grammar).map_err(wrong)?;
        let mut matcher = Matcher::new(Ok(parser));
        // A grammar that allows nothing shows at its first mask.
        matcher.compute_mask().map_err(wrong)?;
        let answers =
            matches!(format, Format::Json(_) | Format::JsonOrCalls(..)) && thought == ThoughtStart::Never;
        let (wishes, words) = (self.wishes.clone(), self.factory.tok_env().clone());
        let breaks = answers.then(|| self.breaks.clone());
        Ok(Box::new(Grammar { matcher, wishes, words, breaks, last: [0; 2] }))
    }
}

/// The first line says it; the rest is about the grammar's inside.
fn wrong(error: impl fmt::Display) -> FormatError {
    FormatError(error.to_string().lines().next().unwrap_or_default().to_owned())
}

/// The format in llguidance's dialect of Lark.
fn lark(
    format: &Format,
    thought: ThoughtStart,
    syntax: ToolSyntax,
    strictness: Strictness,
) -> Result<String, FormatError> {
    if thought == ThoughtStart::Channels {
        return harmony::lark(format, syntax, strictness);
    }
    let mut text = match thought {
        ThoughtStart::Never | ThoughtStart::Channels => "start: told\n".to_owned(),
        ThoughtStart::Possible(marks) => {
            let open = literal(marks.open());
            format!("start: (THINK thought space?)? told\nTHINK: /[ \\n]{{0,4}}/ {open}\n")
        }
        ThoughtStart::Open(_) => "start: thought space? told\n".to_owned(),
    };
    if let ThoughtStart::Possible(marks) | ThoughtStart::Open(marks) = thought {
        // The rest of a thought, up to its first end.
        text.extend(["thought[lazy]: /(.|\\n)*/ ", &literal(marks.close()), "\nspace: /[ \\n]{1,4}/\n"]);
    }
    text.push_str(match format {
        Format::Json(_) => "told: answer\n",
        Format::Calls(_) => "told: calls\n",
        Format::JsonOrCalls(..) => "told: answer | calls\n",
        Format::TextOrCalls(_) => "told: PLAIN | before opened\n",
        Format::NoCalls => "told: PLAIN\n",
    });
    if matches!(format, Format::TextOrCalls(_) | Format::NoCalls) {
        let mark = syntax.marks().open.trim_end();
        if mark.is_empty() {
            return Err(FormatError("calls of this model begin as other text may".into()));
        }
        // A thought may speak of the mark, so what begins as one is no text. Lazy: the text before a call ends where the first
        // mark does.
        let possible = matches!(thought, ThoughtStart::Possible(_));
        let plain = if possible { " & ~THINKING" } else { "" };
        let mark = literal(mark);
        if possible {
            text.push_str("THINKING: THINK /(.|\\n)*/\n");
        }
        text.extend(["CALLING: /(.|\\n)*/ ", &mark, " /(.|\\n)*/\n"]);
        text.extend(["PLAIN: /(.|\\n)*/ & ~CALLING", plain, "\n"]);
        if matches!(format, Format::TextOrCalls(_)) {
            text.extend(["BEFORE: (/(.|\\n)*/ ", &mark, ")", plain, "\nbefore[lazy]: BEFORE\n"]);
        }
    }
    parts(format, syntax, strictness, &mut text)?;
    Ok(text)
}

/// The rules of what answers are made of: `answer`, JSON, and `calls`.
fn parts(
    format: &Format,
    syntax: ToolSyntax,
    strictness: Strictness,
    text: &mut String,
) -> Result<(), FormatError> {
    if let Format::Json(schema) | Format::JsonOrCalls(schema, _) = format {
        let spaced = with_options(schema, json!({"whitespace_pattern": SPACE}), strictness)?;
        text.extend(["answer: %json ", &Value::Object(spaced).to_string(), "\n"]);
    }
    if let Format::Calls(rules) | Format::TextOrCalls(rules) | Format::JsonOrCalls(_, rules) = format {
        let free = matches!(format, Format::TextOrCalls(_));
        let spacing = if free { Spacing::Models } else { Spacing::Templates };
        calls_lark(rules, syntax, spacing, strictness, text)?;
    }
    Ok(())
}

/// Calls in the model's syntax: where they are demanded spaced as chat templates render them in the next turn, where the model
/// chose to call as it likes.
fn calls_lark(
    rules: &CallRules,
    syntax: ToolSyntax,
    spacing: Spacing,
    strictness: Strictness,
    text: &mut String,
) -> Result<(), FormatError> {
    let Marks { open, body, close, between, list } = syntax.marks();
    let (mark, gap) = open.split_at(open.trim_end().len());
    let (behind, close) = close.split_at(close.len() - close.trim_start().len());
    // A token that ends the answer is no part of it.
    let close = if syntax.stops().contains(&close) { "" } else { close };
    let names: Vec<String> = (0..rules.tools.len()).map(|at| format!("tool_{at}")).collect();
    let [gap, behind] = [gap, behind].map(|text| spacing.blank(text));
    let between = match between.strip_prefix(',') {
        Some(space) => format!("\",\" {}", spacing.blank(space)),
        None => spacing.blank(between),
    };
    let (one, mark, close) = (format!("({})", names.join(" | ")), literal(mark), literal(close));
    let several = rules.count == CallCount::Several && !syntax.stops_behind_a_call();
    let more = |call: &str| if several { format!(" ({between} {call})*") } else { String::new() };
    // `opened` is what follows the first mark.
    if let Some(begin) = list {
        let (begin, more) = (literal(begin), more(&one));
        text.extend(["calls: ", &mark, " opened\nopened: ", &gap, " ", &begin, " ", &one, &more]);
        text.extend([" ", &behind, " ", &close, "\n"]);
    } else {
        let more = more("call");
        text.extend(["calls: call", &more, "\nopened: called", &more, "\ncall: ", &mark, " called\n"]);
        text.extend(["called: ", &gap, " ", &one, " ", &behind, " ", &close, "\n"]);
    }
    text.extend(["blank: /", SPACE, "/\n"]);
    match body {
        CallBody::Json { .. } | CallBody::JsonList | CallBody::Named(_) => {}
        CallBody::Gemma { quote } => gemma::common(quote, spacing, text),
        CallBody::Python => pythonic::common(text),
        CallBody::Tagged(tags) => tagged::common(tags, text),
    }
    for (rule, (name, schema)) in names.iter().zip(&rules.tools) {
        match body {
            CallBody::Json { arguments } => {
                json_call(rule, (name, schema), arguments, (spacing, strictness), text)?;
            }
            CallBody::JsonList => {
                json_call(rule, (name, schema), "arguments", (spacing, strictness), text)?;
            }
            CallBody::Gemma { quote } => gemma::call(rule, (name, schema), quote, spacing, text)?,
            CallBody::Python => pythonic::call(rule, (name, schema), text)?,
            CallBody::Tagged(tags) => tagged::call(rule, (name, schema), tags, (spacing, strictness), text)?,
            CallBody::Named(named) => named::call(rule, (name, schema), named, (spacing, strictness), text)?,
        }
    }
    Ok(())
}

/// Writes the rule `rule`: a call of the tool `name` with arguments of `schema` as a JSON object.
fn json_call(
    rule: &str,
    (name, schema): (&str, &Value),
    arguments: &str,
    (spacing, strictness): (Spacing, Strictness),
    text: &mut String,
) -> Result<(), FormatError> {
    let (nothing, space) = (spacing.blank(""), spacing.blank(" "));
    let name = literal(&Value::from(name).to_string());
    let key = literal(&literal(arguments));
    let opening = format!("\"{{\" {nothing} \"\\\"name\\\"\" {nothing} \":\" {space} {name}");
    let schema = spacing.arguments(schema, strictness)?;
    let given = format!(
        "{nothing} \",\" {space} {key} {nothing} \":\" {space} %json {}",
        Value::Object(schema.clone())
    );
    let needed = schema.get("required").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
    // Models leave the arguments out where there are none.
    let given = if spacing == Spacing::Models && !needed { format!("({given})?") } else { given };
    text.extend([rule, ": ", &opening, " ", &given, " ", &nothing, " \"}\"\n"]);
    Ok(())
}

/// Arguments of a demanded call have the declared keys and no others, unless their schema speaks of others: JSON Schema allows
/// what a tool would refuse, and a model that has lost its way would write on in invented keys. A call that the model chose to
/// make may have the keys that the schema allows.
fn close_keys(schema: &mut Map<String, Value>) {
    const SPEAKS: [&str; 8] = [
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "propertyNames",
        "allOf",
        "anyOf",
        "oneOf",
        "$ref",
    ];
    let Some(declared) = schema.get("properties").and_then(Value::as_object) else { return };
    let needed =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let all_declared = needed.into_iter().all(|key| declared.contains_key(key));
    if all_declared && !declared.is_empty() && !SPEAKS.iter().any(|word| schema.contains_key(*word)) {
        schema.insert("additionalProperties".into(), false.into());
    }
}

/// White space around the parts of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spacing {
    /// As chat templates render calls.
    Templates,
    /// As the model likes, within bounds.
    Models,
}

impl Spacing {
    /// White space where templates write `text`.
    fn blank(self, text: &str) -> String {
        match self {
            Self::Templates => literal(text),
            Self::Models => "blank?".to_owned(),
        }
    }

    /// White space in JSON.
    fn options(self) -> Value {
        match self {
            Self::Templates => {
                json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "})
            }
            Self::Models => json!({"whitespace_pattern": SPACE}),
        }
    }

    /// The schema of arguments that are written as JSON.
    fn arguments(self, schema: &Value, strictness: Strictness) -> Result<Map<String, Value>, FormatError> {
        let mut schema = with_options(schema, self.options(), strictness)?;
        if self == Self::Templates {
            close_keys(&mut schema);
        }
        Ok(schema)
    }
}

fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The schema with how its JSON is spaced. Arguments and answers without a schema are objects.
fn with_options(
    schema: &Value,
    mut options: Value,
    strictness: Strictness,
) -> Result<Map<String, Value>, FormatError> {
    let mut schema = match schema {
        Value::Null => Map::new(),
        Value::Object(schema) => schema.clone(),
        other => return Err(FormatError(format!("a schema is {other}; expected an object"))),
    };
    if schema.is_empty() {
        schema.insert("type".into(), "object".into());
    }
    let endless = schema::endless_references(&schema);
    if strictness == Strictness::Lenient {
        options["lenient"] = true.into();
        schema::loosen(&mut schema, &endless);
    } else if let Some(name) = endless.first() {
        return Err(FormatError(format!("$ref {name:?} leads back to itself and to no value")));
    }
    schema.insert("x-guidance".into(), options);
    Ok(schema)
}

struct Grammar {
    matcher: Matcher,
    wishes: Arc<Wishes>,
    words: TokEnv,
    /// Tokens that may not follow a key.
    breaks: Option<Arc<[u32]>>,
    /// The last bytes that were no blanks.
    last: [u8; 2],
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

fn stuck(error: impl fmt::Display) -> ConstraintError {
    ConstraintError(error.to_string().lines().next().unwrap_or_default().to_owned())
}

impl Constraint for Grammar {
    fn allowed(&mut self) -> Result<Allowed, ConstraintError> {
        let mut mask = self.matcher.compute_mask_or_eos().map_err(stuck)?;
        let end_token = self.words.tok_trie().eos_token();
        let end = mask.is_allowed(end_token);
        // Engines may know more ids than the tokenizer; this one is not theirs.
        mask.disallow_token(end_token);
        if let (Some(breaks), KEY_END) = (&self.breaks, self.last) {
            for token in breaks.iter() {
                mask.disallow_token(*token);
            }
        }
        Ok(Allowed { tokens: mask.as_slice().to_vec(), end, wishes: Some(self.wishes.clone()) })
    }

    fn advance(&mut self, token: u32) -> Result<Ending, ConstraintError> {
        self.matcher.consume_token(token).map_err(stuck)?;
        for byte in self.words.tok_trie().token(token).iter().filter(|byte| **byte != b' ') {
            self.last = [self.last[1], *byte];
        }
        Ok(if self.matcher.is_stopped() { Ending::Complete } else { Ending::Open })
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(Self {
            matcher: self.matcher.deep_clone(),
            wishes: self.wishes.clone(),
            words: self.words.clone(),
            breaks: self.breaks.clone(),
            last: self.last,
        })
    }
}

#[cfg(test)]
mod tests;
