//! What the templates of some families read under names of their own.

use std::collections::HashMap;

use serde_json::Value;

use super::tool_call::ToolSyntax;

/// The names under which messages have the assistant's thoughts, clients' first.
pub const THOUGHTS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// What a template expects of messages.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Of calls.
    pub syntax: ToolSyntax,
    /// It reads thoughts as `thinking`.
    thinking: bool,
}

impl Dialect {
    /// That of the template `source`.
    pub fn of_template(source: &str) -> Self {
        let thinking =
            [".thinking", "['thinking']", "[\"thinking\"]"].iter().any(|read| source.contains(read));
        Self { syntax: ToolSyntax::of_template(source), thinking }
    }

    /// Changes messages, as templates read them, to what this one expects.
    pub fn adapt(self, messages: &mut [Value]) {
        if self.thinking {
            for message in messages.iter_mut() {
                name_thought(message, self.syntax);
            }
        }
        if self.syntax == ToolSyntax::Kimi {
            number_calls(messages);
        }
    }
}

/// Kimi's templates write a call's id in the place of its name. The model's own ids are the name and the call's number in the
/// conversation; clients have others.
fn number_calls(messages: &mut [Value]) {
    let (mut known, mut count) = (HashMap::new(), 0);
    for message in messages {
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            let own = format!("functions.{}:{count}", call["function"]["name"].as_str().unwrap_or_default());
            count += 1;
            let old = std::mem::replace(&mut call["id"], own.as_str().into());
            known.extend(old.as_str().map(|old| (old.to_owned(), own)));
        }
        let answered = message["tool_call_id"].as_str().and_then(|id| known.get(id));
        if let Some(own) = answered.cloned() {
            message["tool_call_id"] = own.into();
        }
    }
}

/// Some templates read thoughts as `thinking`. Harmony's refuse them beside the text of a message with calls.
fn name_thought(message: &mut Value, syntax: ToolSyntax) {
    let [first, second, known] = THOUGHTS;
    let told = |key: &str| message[key].as_str().is_some_and(|text| !text.is_empty());
    let calls = message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
    let beside_text = calls && message["content"].as_str().is_none_or(|text| !text.is_empty());
    let refused = syntax == ToolSyntax::Harmony && beside_text;
    if message["role"] != "assistant" || refused || told(known) {
        return;
    }
    if let Some(key) = [first, second].into_iter().find(|key| told(key)) {
        message[known] = message[key].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kimis_calls_have_the_names_that_the_model_knows() {
        let call = |id: &str| json!({"id": id, "function": {"name": "f", "arguments": {}}});
        let mut messages = [
            json!({"role": "user", "content": "x"}),
            json!({"role": "assistant", "tool_calls": [call("call_a"), call("call_b")]}),
            json!({"role": "tool", "tool_call_id": "call_b", "content": ""}),
            json!({"role": "tool", "tool_call_id": "other", "content": ""}),
            json!({"role": "assistant", "tool_calls": [call("functions.f:0")]}),
            json!({"role": "tool", "tool_call_id": "functions.f:0", "content": ""}),
        ];
        Dialect::of_template("<|tool_calls_section_begin|>").adapt(&mut messages);
        let first = messages[1]["tool_calls"].as_array().unwrap();
        assert_eq!([&first[0]["id"], &first[1]["id"]], ["functions.f:0", "functions.f:1"]);
        let answered = [2, 3, 5].map(|at: usize| messages[at]["tool_call_id"].as_str().unwrap());
        assert_eq!(answered, ["functions.f:1", "other", "functions.f:2"]);
        assert!(messages[0].get("tool_calls").is_none());
    }

    #[test]
    fn harmonys_templates_find_thoughts_under_their_name() {
        let calls = json!([{"id": "c", "function": {"name": "f", "arguments": {}}}]);
        for (message, thinking) in [
            (
                json!({"role": "assistant", "content": "", "reasoning_content": "a", "tool_calls": calls}),
                json!("a"),
            ),
            (json!({"role": "assistant", "content": "b", "reasoning_content": "a"}), json!("a")),
            (
                json!({"role": "assistant", "content": "b", "reasoning_content": "a", "tool_calls": calls}),
                json!(null),
            ),
            (json!({"role": "assistant", "content": "", "reasoning": "a", "thinking": "c"}), json!("c")),
            (json!({"role": "user", "content": "b", "reasoning_content": "a"}), json!(null)),
        ] {
            let mut messages = [message];
            Dialect::of_template("{{ message.reasoning_content }}").adapt(&mut messages);
            assert!(messages[0]["thinking"].is_null() || thinking == "c");
            Dialect::of_template("<|channel|>analysis<|message|>{{ message.thinking }}").adapt(&mut messages);
            assert_eq!(messages[0]["thinking"], thinking, "{}", messages[0]);
        }
    }
}
