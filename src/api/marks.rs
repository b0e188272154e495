//! Places in a conversation up to which its prompt is to be pinned, or after which a model that keeps a state leaves a
//! snapshot, and where in the prompt's tokens they are.
//!
//! Only the template knows where a block ends in the text it writes. So it writes the conversation a second time, with a
//! word put in at the place, or without what follows it: the two texts part there.

use std::time::Duration;

use serde_json::json;

use prefixd_cache::SnapshotKind;

use crate::prompt::{ChatTemplate, Content, Conversation, Message, Role, Tokenizer};
use crate::scheduler::{PrefixPin, SnapshotPoint};

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

/// Where a model that keeps a state leaves snapshots while it computes the prompt:
/// - behind tools and system text, as far as any conversation that has them begins alike;
/// - behind the last message of the user: what is told of the answers behind it may change with the next one;
/// - behind the last message, if it is another, before the beginning of the answer: what templates put there differs between
///   turns.
pub fn snapshots(rendered: &Rendered<'_>) -> Vec<SnapshotPoint> {
    let Rendered { template, tokenizer, conversation, text, tokens } = rendered;
    let token_ends: Vec<usize> = ends(tokenizer, tokens).map(|(_, end)| end).collect();
    let mut points: Vec<SnapshotPoint> = Vec::new();
    let mut add = |other: Conversation, kind| {
        let Some(bytes) = template.render(&other).ok().and_then(|other| parting(text, &other)) else {
            return;
        };
        // None of them holds what follows.
        let tokens = token_ends.partition_point(|end| *end <= bytes);
        if tokens > 0 && points.last().is_none_or(|point| point.tokens < tokens) {
            points.push(SnapshotPoint { tokens, kind });
        }
    };
    let Conversation { messages, tools, variables, .. } = conversation;
    let systems = messages.iter().take_while(|message| message.role == Role::System);
    let opening: Vec<Message> =
        systems.cloned().chain([Message::text(Role::User, WORD.to_owned())]).collect();
    if opening.len() > 1 || !tools.is_empty() {
        let opening = Conversation {
            messages: opening,
            tools: tools.clone(),
            variables: variables.clone(),
            add_generation_prompt: conversation.add_generation_prompt,
        };
        add(opening, SnapshotKind::Anchor);
    }
    // Told up to there, without the beginning of an answer.
    let up_to = |count: usize| Conversation {
        messages: messages[..count].to_vec(),
        tools: tools.clone(),
        variables: variables.clone(),
        add_generation_prompt: false,
    };
    let asked = messages.iter().rposition(|message| message.role == Role::User).map_or(0, |at| at + 1);
    if asked > 0 {
        add(up_to(asked), SnapshotKind::Message);
    }
    if asked < messages.len() && conversation.add_generation_prompt {
        add(up_to(messages.len()), SnapshotKind::Result);
    }
    points
}

/// Bytes after which `text` goes on otherwise than `other`, or alone. `None` when all of it is in `other`.
fn parting(text: &str, other: &str) -> Option<usize> {
    Some(text.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()).filter(|end| *end < text.len())
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
    parting(text, &template.render(&other).ok()?)
}

/// Tokens that begin before so many bytes of their text.
fn tokens_before(tokenizer: &Tokenizer, tokens: &[u32], bytes: usize) -> usize {
    ends(tokenizer, tokens).take_while(|(begin, _)| *begin < bytes).count()
}

/// Where in their text tokens begin and end, in bytes.
fn ends(tokenizer: &Tokenizer, tokens: &[u32]) -> impl Iterator<Item = (usize, usize)> {
    tokens.iter().scan(0, |end, id| {
        let begin = *end;
        *end += tokenizer.spelled(*id).len();
        Some((begin, *end))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value, from_value};

    use super::*;
    use crate::prompt::ModelText;

    fn text() -> ModelText {
        ModelText::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk")).unwrap()
    }

    fn messages(value: Value) -> Vec<Message> {
        from_value(value).unwrap()
    }

    /// What of a conversation's text lies before each snapshot, and its kind.
    fn taken(messages: Vec<Message>, tools: Vec<Value>) -> Vec<(String, SnapshotKind)> {
        let text = text();
        let template = text.template.as_ref().unwrap();
        let conversation =
            Conversation { messages, tools, variables: Map::new(), add_generation_prompt: true };
        let whole = template.render(&conversation).unwrap();
        let tokens = text.tokenizer.encode_rendered(&whole).unwrap();
        let rendered = Rendered {
            template,
            tokenizer: &text.tokenizer,
            conversation: &conversation,
            text: &whole,
            tokens: &tokens,
        };
        let before = |count: usize| {
            let bytes: Vec<u8> = tokens[..count].iter().flat_map(|id| text.tokenizer.spelled(*id)).collect();
            String::from_utf8(bytes).unwrap()
        };
        snapshots(&rendered).iter().map(|point| (before(point.tokens), point.kind)).collect()
    }

    #[test]
    fn what_conversations_begin_with_alike_ends_where_their_own_words_begin() {
        let tools = vec![json!({"type": "function", "function": {"name": "look", "parameters": {}}})];
        let asked = |user: &str, tools: &[Value]| {
            let said = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": user}]);
            taken(messages(said), tools.to_vec())
        };
        for tools in [&[][..], &tools] {
            let (one, other) = (asked("Where is it?", tools), asked("x", tools));
            let kinds: Vec<SnapshotKind> = one.iter().map(|(_, kind)| *kind).collect();
            assert_eq!(kinds, [SnapshotKind::Anchor, SnapshotKind::Message]);
            assert_eq!(one[0], other[0], "whatever comes behind");
            assert!(one[0].0.contains("Be brief.") && !one[0].0.contains("Where"), "{one:?}");
            assert_eq!(one[0].0.contains("look"), !tools.is_empty());
        }
    }

    #[test]
    fn the_end_of_the_last_message_is_part_of_every_next_turn() {
        let text = text();
        let said = json!([{"role": "user", "content": "Where is it?"}]);
        let points = taken(messages(said.clone()), Vec::new());
        let [(before, SnapshotKind::Message)] = &points[..] else { panic!("{points:?}") };
        assert!(before.contains("Where is it?"));
        for answer in ["There.", "", "<think>Hm.</think>There."] {
            let mut next = messages(said.clone());
            next.extend(messages(
                json!([{"role": "assistant", "content": answer}, {"role": "user", "content": "And?"}]),
            ));
            let conversation = Conversation {
                messages: next,
                tools: Vec::new(),
                variables: Map::new(),
                add_generation_prompt: true,
            };
            let whole = text.template.as_ref().unwrap().render(&conversation).unwrap();
            assert!(whole.starts_with(before.as_str()), "{whole:?} after {before:?}");
        }
    }

    #[test]
    fn behind_a_tool_s_result_the_user_s_message_has_a_snapshot_of_its_own() {
        let said = json!([{"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "here"}]);
        let points = taken(messages(said), Vec::new());
        let [(asked, SnapshotKind::Message), (before, SnapshotKind::Result)] = &points[..] else {
            panic!("{points:?}")
        };
        assert!(asked.contains("Where?") && before.contains("here") && before.starts_with(asked.as_str()));
    }
}
