//! Answers in Harmony's channels, in llguidance's dialect of Lark.
//!
//! 1. Any number of thoughts may come first. What is asked for then has its channel: text and JSON `final`, calls `commentary`.
//! 2. Text has no marks in it, so that it ends where the answer does. Where text is free, it may be announced in `commentary`.
//! 3. A call that the model chose to make may name its function before its channel.

use super::{CallRules, Format, FormatError, Strictness, literal, parts};
use crate::prompt::tool_call::ToolSyntax;
use crate::prompt::tool_call::harmony::MARKUP;

/// Messages and their headers.
const MESSAGES: &str = r#"
thought: "<|channel|>analysis<|message|>" body
body[lazy]: /(.|\n)*/ "<|end|>"
next: "<|start|>assistant"
final: "<|channel|>final<|message|>"
aside: "<|channel|>commentary<|message|>"
"#;

/// The format, from the start of an answer on.
pub fn lark(format: &Format, syntax: ToolSyntax, strictness: Strictness) -> Result<String, FormatError> {
    let (between, told) = match format {
        Format::Json(_) => ("thought", "final answer"),
        Format::Calls(_) => ("thought", "calls"),
        Format::JsonOrCalls(..) => ("thought", "final answer | calls"),
        Format::TextOrCalls(_) => ("(thought | aside body)", "(final | aside) PLAIN | calls | turned"),
        Format::NoCalls => ("(thought | aside body)", "(final | aside) PLAIN"),
    };
    let mut text = format!("start: ({between} next)* told\ntold: {told}\n{}", MESSAGES.trim_start());
    if let Format::TextOrCalls(_) | Format::NoCalls = format {
        let marks = MARKUP.map(literal).join(" | ");
        text.extend(["PLAIN: /(.|\\n)*/ & ~(/(.|\\n)*/ (", &marks, ") /(.|\\n)*/)\n"]);
    }
    if let Format::TextOrCalls(rules) = format {
        turned(rules, &mut text);
    }
    parts(format, syntax, strictness, &mut text)?;
    Ok(text)
}

/// Calls whose function stands before the channel.
fn turned(rules: &CallRules, text: &mut String) {
    let calls = rules.tools.iter().enumerate();
    let calls = calls.map(|(at, (name, _))| format!("{} header tool_{at}_arguments", literal(name)));
    let calls: Vec<String> = calls.collect();
    text.extend(["turned: \" to=functions.\" (", &calls.join(" | "), ")\n"]);
    text.push_str(
        "header: \"<|channel|>commentary\" (\" <|constrain|>json\" | \" json\")? \"<|message|>\"\n",
    );
}
