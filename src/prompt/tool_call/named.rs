//! The name of a call between marks, then its arguments as JSON: Harmony's, Mistral's, DeepSeek's and Kimi's calls.
//!
//! The marks are tokens of their own, and white space around them means nothing.

use serde_json::value::RawValue;

use super::marked::Unread;
use super::{ToolCall, compact};

/// The marks of one form.
#[derive(Debug)]
pub struct Named {
    /// Before the name.
    pub before: &'static str,
    /// Between name and arguments, as it is written.
    pub behind: &'static str,
    /// The mark by which it is read.
    pub mark: &'static str,
    /// Behind the arguments.
    pub after: &'static str,
    /// Begins something behind the name that is none of it.
    pub aside: Option<&'static str>,
    /// May stand between two calls.
    pub again: &'static str,
    /// Names end with a colon and the number of the call.
    pub numbered: bool,
}

/// A form without anything but a mark between name and arguments.
const PLAIN: Named =
    Named { before: "", behind: "", mark: "", after: "", aside: None, again: "", numbered: false };

/// gpt-oss: what stands between `to=functions.` and the end of a message.
pub static HARMONY: Named = Named {
    behind: " <|constrain|>json<|message|>",
    mark: "<|message|>",
    aside: Some("<|constrain|>"),
    ..PLAIN
};

/// Mistral's newer form, behind `[TOOL_CALLS]`.
pub static MISTRAL: Named = Named {
    behind: MISTRAL_ARGUMENTS,
    mark: MISTRAL_ARGUMENTS,
    aside: Some("[CALL_ID]"),
    again: MISTRAL_CALLS,
    ..PLAIN
};
pub const MISTRAL_CALLS: &str = "[TOOL_CALLS]";
pub const MISTRAL_ARGUMENTS: &str = "[ARGS]";

/// DeepSeek-V3 and R1: arguments in a fence.
pub static DEEPSEEK_FENCED: Named = Named {
    before: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    behind: "\n```json\n",
    mark: "```json",
    after: "\n```<｜tool▁call▁end｜>",
    ..PLAIN
};
/// DeepSeek-V3.1.
pub static DEEPSEEK: Named = Named {
    before: "<｜tool▁call▁begin｜>",
    behind: "<｜tool▁sep｜>",
    mark: "<｜tool▁sep｜>",
    after: "<｜tool▁call▁end｜>",
    ..PLAIN
};
pub const DEEPSEEK_CALLS: &str = "<｜tool▁calls▁begin｜>";
pub const DEEPSEEK_CALLS_END: &str = "<｜tool▁calls▁end｜>";

/// Kimi K2.
pub static KIMI: Named = Named {
    before: "<|tool_call_begin|>functions.",
    behind: "<|tool_call_argument_begin|>",
    mark: "<|tool_call_argument_begin|>",
    after: "<|tool_call_end|>",
    numbered: true,
    ..PLAIN
};
pub const KIMI_CALLS: &str = "<|tool_calls_section_begin|>";
pub const KIMI_CALLS_END: &str = "<|tool_calls_section_end|>";

/// The tokens of these forms, Harmony's aside.
pub const MARKUP: [&str; 13] = [
    MISTRAL_CALLS,
    MISTRAL_ARGUMENTS,
    "[CALL_ID]",
    DEEPSEEK_CALLS,
    DEEPSEEK_CALLS_END,
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    KIMI_CALLS,
    KIMI_CALLS_END,
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
];

impl Named {
    /// Reads what stands between the marks around calls.
    pub fn read(&self, body: &str) -> Result<Vec<ToolCall>, Unread> {
        let mut rest = body.trim();
        let mut calls = Vec::new();
        loop {
            rest = rest.strip_prefix(self.before.trim()).ok_or(Unread::Wrong)?;
            let brace = rest.find('{').ok_or(Unread::Open)?;
            let name = self.name(&rest[..brace]).ok_or(Unread::Wrong)?;
            let mut values = serde_json::Deserializer::from_str(&rest[brace..]).into_iter::<Box<RawValue>>();
            let arguments = match values.next() {
                Some(Ok(arguments)) => compact(arguments.get()),
                Some(Err(error)) if !error.is_eof() => return Err(Unread::Wrong),
                _ => return Err(Unread::Open),
            };
            rest = rest[brace + values.byte_offset()..].trim_start();
            calls.push(ToolCall { name, arguments });
            // The last call's own mark may be missing where an answer ends.
            rest = self.closed(rest);
            if rest.is_empty() {
                return Ok(calls);
            }
        }
    }

    /// The name of a call and where its arguments begin, as soon as that is known. What ended the call before may stand before it.
    pub fn head(&self, body: &str) -> Option<(String, usize)> {
        let rest = self.closed(body.trim_start()).strip_prefix(self.before.trim())?;
        let brace = rest.find('{')?;
        let name = self.name(&rest[..brace])?;
        Some((name, body.len() - rest.len() + brace))
    }

    /// What follows a call's own marks, where they are there.
    fn closed<'a>(&self, rest: &'a str) -> &'a str {
        const FENCE: &str = "```";
        let after = self.after.trim();
        let (fence, end) = after.strip_prefix(FENCE).map_or(("", after), |end| (FENCE, end));
        [fence, end, self.again]
            .iter()
            .fold(rest, |rest, mark| rest.strip_prefix(mark).unwrap_or(rest).trim_start())
    }

    /// The tool's name in what stands before the arguments.
    fn name(&self, head: &str) -> Option<String> {
        let (name, _) = head.split_once(self.mark)?;
        let name = self.aside.and_then(|aside| name.split_once(aside)).map_or(name, |(name, _)| name).trim();
        let number = |(_, number): &(&str, &str)| number.bytes().all(|byte| byte.is_ascii_digit());
        let name =
            name.rsplit_once(':').filter(|_| self.numbered).filter(number).map_or(name, |(name, _)| name);
        (!name.is_empty() && !name.contains('\n')).then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests;
