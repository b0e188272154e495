//! Places in a conversation up to which its prompt is to be pinned, and where in the prompt's tokens they are.
//!
//! Only the template knows where a block ends in the text it writes. So it writes the conversation a second time, with a
//! word put in at the place: the two texts part there.

use std::time::Duration;

use serde_json::json;

use crate::prompt::{ChatTemplate, Content, Conversation, Tokenizer};
use crate::scheduler::PrefixPin;

/// No text begins with it.
const WORD: &str = "\u{1}here\u{1}";

/// A place, and how long the prompt up to it is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub place: Place,
    pub time: Duration,
}

impl Mark {
    /// What is to be pinned; nothing where the template does not show the place.
    pub fn pin(&self, rendered: &Rendered<'_>) -> Option<PrefixPin> {
        let Rendered { template, tokenizer, conversation, text, tokens } = rendered;
        let bytes = end(template, conversation, text, self.place)?;
        let tokens = tokens_before(tokenizer, tokens, bytes);
        (tokens > 0).then_some(PrefixPin { tokens, time: self.time })
    }

    /// The same mark where so many messages and tools were put before.
    pub fn behind(self, messages: usize, tools: usize) -> Self {
        let place = match self.place {
            Place::Tool { at } => Place::Tool { at: at + tools },
            Place::Message { at, bytes } => Place::Message { at: at + messages, bytes },
        };
        Self { place, ..self }
    }
}

/// Where in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind a tool's declaration.
    Tool { at: usize },
    /// Behind so many bytes of a message's text, or its end.
    Message { at: usize, bytes: usize },
}

/// A conversation, and what became of it.
pub struct Rendered<'a> {
    pub template: &'a ChatTemplate,
    pub tokenizer: &'a Tokenizer,
    pub conversation: &'a Conversation,
    pub text: &'a str,
    pub tokens: &'a [u32],
}

/// Bytes of `text`, the rendered conversation, before the place.
fn end(template: &ChatTemplate, conversation: &Conversation, text: &str, place: Place) -> Option<usize> {
    let mut other = conversation.clone();
    match place {
        Place::Tool { at } => {
            // Declared tools that are not shown have no place.
            if at >= other.tools.len() {
                return None;
            }
            other.tools.truncate(at + 1);
            other.tools.push(json!({"type": "function", "function": {"name": WORD, "parameters": {}}}));
        }
        Place::Message { at, bytes } => {
            let content = &mut other.messages.get_mut(at)?.content;
            let Some(Content::Text(text)) = content else { return None };
            let bytes = bytes.min(text.len());
            if !text.is_char_boundary(bytes) {
                return None;
            }
            text.insert_str(bytes, WORD);
        }
    }
    let other = template.render(&other).ok()?;
    Some(text.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()).filter(|end| *end < text.len())
}

/// Tokens that begin before so many bytes of their text.
fn tokens_before(tokenizer: &Tokenizer, tokens: &[u32], bytes: usize) -> usize {
    let mut at = 0;
    tokens
        .iter()
        .take_while(|id| {
            let begins = at;
            at += tokenizer.spelled(**id).len();
            begins < bytes
        })
        .count()
}
