//! `call:NAME{key:<escape>text<escape>,other:1}`: FunctionGemma's, and Gemma 4's with `<|"|>` in place of `<escape>`.
//!
//! Keys stand bare, strings between two quote marks and to the letter; the rest is as in JSON. Spaces between the parts, keys
//! in quote marks or JSON's quotes, strings without any and Python's `None` (which the first templates show) are read too.

use serde_json::Value;
use serde_json::value::RawValue;

use super::ToolCall;
use super::marked::Unread;
use crate::prompt::stop::held_suffix;

/// What a call begins with.
pub const CALL: &str = "call:";

/// Characters that no bare key and no bare word has in it.
pub const STRUCTURE: &[char] = &[':', ',', '{', '}', '[', ']'];

/// Objects and lists within each other at most, as in JSON's reader.
const DEPTH: usize = 128;

/// FunctionGemma's marks.
pub mod function_gemma {
    pub const OPEN: &str = "<start_function_call>";
    pub const CLOSE: &str = "<end_function_call>";
    pub const QUOTE: &str = "<escape>";
    /// Begins the tool's answer; models go on with it, so it ends theirs.
    pub const RESPONSE: &str = "<start_function_response>";
}

/// Gemma 4's marks.
pub mod gemma4 {
    pub const OPEN: &str = "<|tool_call>";
    pub const CLOSE: &str = "<tool_call|>";
    pub const QUOTE: &str = "<|\"|>";
    /// Begins the tool's answer; models go on with it, so it ends theirs.
    pub const RESPONSE: &str = "<|tool_response>";
}

/// Reads a call whose strings stand between `quote`s.
pub fn read(body: &str, quote: &str) -> Result<ToolCall, Unread> {
    let call = body.trim_start().strip_prefix(CALL).ok_or(Unread::Wrong)?;
    let (name, arguments) = call.split_at(call.find('{').ok_or(Unread::Wrong)?);
    let mut values = Values { rest: arguments, quote, json: String::new() };
    values.object(DEPTH)?;
    let name = name.trim();
    if name.is_empty() || name.contains('\n') || !values.rest.trim().is_empty() {
        return Err(Unread::Wrong);
    }
    Ok(ToolCall { name: name.to_owned(), arguments: values.json })
}

/// The name of a call and where its arguments begin, as soon as that is known.
pub fn head(body: &str) -> Option<(String, usize)> {
    let at = body.find('{')?;
    let name = body[..at].trim_start().strip_prefix(CALL)?.trim();
    (!name.is_empty()).then(|| (name.to_owned(), at))
}

/// Arguments on their way to JSON, from the start each time: a value's end shows in what follows it.
#[derive(Debug)]
pub struct Scan {
    quote: &'static str,
    written: String,
    /// Bytes of JSON told so far.
    told: usize,
    done: bool,
}

impl Scan {
    /// For strings between `quote`s.
    pub fn new(quote: &'static str) -> Self {
        Self { quote, written: String::new(), told: 0, done: false }
    }

    /// Takes what `text` has of them, and leaves the rest; what is certain of their JSON now.
    pub fn push(&mut self, text: &mut String) -> String {
        if self.done {
            return String::new();
        }
        self.written.push_str(&std::mem::take(text));
        let mut values = Values { rest: &self.written, quote: self.quote, json: String::new() };
        self.done = values.object(DEPTH).is_ok();
        let (rest, json) = (values.rest.len(), values.json);
        if self.done {
            *text = self.written.split_off(self.written.len() - rest);
        }
        let more = json[self.told..].to_owned();
        self.told = json.len();
        more
    }

    /// They are whole.
    pub fn done(&self) -> bool {
        self.done
    }
}

/// Values on their way to JSON. What is written of it stands, whatever follows.
struct Values<'a> {
    rest: &'a str,
    quote: &'a str,
    json: String,
}

impl Values<'_> {
    /// One value; `depth` more may be within each other.
    fn value(&mut self, depth: usize) -> Result<(), Unread> {
        match self.rest.chars().next() {
            Some('{') => self.object(depth),
            Some('[') => self.array(depth),
            _ => match self.string() {
                Ok(Some(text)) => {
                    self.write_text(&text);
                    Ok(())
                }
                Ok(None) => self.bare(),
                Err(unread) => {
                    self.write_beginning();
                    Err(unread)
                }
            },
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Unread> {
        self.list(depth, ['{', '}'], |values, depth| {
            let key = match values.string()? {
                Some(key) => key,
                None => values.word()?.to_owned(),
            };
            values.skip_space();
            if !values.skip(':') {
                return Err(Unread::Wrong);
            }
            values.skip_space();
            values.write_text(&key);
            values.json.push(':');
            values.value(depth)
        })
    }

    fn array(&mut self, depth: usize) -> Result<(), Unread> {
        self.list(depth, ['[', ']'], Self::value)
    }

    /// What stands between brackets, with commas between.
    fn list(
        &mut self,
        depth: usize,
        [open, close]: [char; 2],
        item: impl Fn(&mut Self, usize) -> Result<(), Unread>,
    ) -> Result<(), Unread> {
        if depth == 0 || !self.skip(open) {
            return Err(Unread::Wrong);
        }
        self.json.push(open);
        self.skip_space();
        let mut over = self.skip(close);
        while !over {
            item(self, depth - 1)?;
            self.skip_space();
            over = self.skip(close);
            if !over {
                if !self.skip(',') {
                    return Err(Unread::Wrong);
                }
                self.json.push(',');
                self.skip_space();
            }
        }
        self.json.push(close);
        Ok(())
    }

    /// A string in quotes of either kind; `None` when none begins here.
    fn string(&mut self) -> Result<Option<String>, Unread> {
        if let Some(rest) = self.rest.strip_prefix(self.quote) {
            let (text, rest) = rest.split_once(self.quote).ok_or(Unread::Open)?;
            self.rest = rest;
            return Ok(Some(text.to_owned()));
        }
        if !self.rest.starts_with('"') {
            return Ok(None);
        }
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
        match values.next() {
            Some(Ok(text)) => {
                self.rest = &self.rest[values.byte_offset()..];
                Ok(Some(text))
            }
            Some(Err(error)) if error.is_eof() => Err(Unread::Open),
            _ => Err(Unread::Wrong),
        }
    }

    /// A number, a name of JSON's, or a string without quotes.
    fn bare(&mut self) -> Result<(), Unread> {
        // Times and addresses have colons in them.
        let end = self.rest.find(|c| c != ':' && STRUCTURE.contains(&c)).ok_or(Unread::Wrong)?;
        let (word, rest) = self.rest.split_at(end);
        let word = word.trim_end();
        if word.is_empty() || word.contains(self.quote) {
            return Err(Unread::Wrong);
        }
        self.rest = rest;
        match word {
            "None" => self.json.push_str("null"),
            json if serde_json::from_str::<&RawValue>(json).is_ok() => self.json.push_str(json),
            text => self.write_text(text),
        }
        Ok(())
    }

    /// A key without quotes.
    fn word(&mut self) -> Result<&str, Unread> {
        let end = self.rest.find(STRUCTURE).ok_or(Unread::Wrong)?;
        let (word, rest) = self.rest.split_at(end);
        let word = word.trim_end();
        if word.is_empty() || word.contains(self.quote) {
            return Err(Unread::Wrong);
        }
        self.rest = rest;
        Ok(word)
    }

    /// Writes what is there of a string between quote marks.
    fn write_beginning(&mut self) {
        if let Some(text) = self.rest.strip_prefix(self.quote) {
            let text = &text[..text.len() - held_suffix(text, self.quote)];
            self.write_text(text);
            self.json.pop();
        }
    }

    fn write_text(&mut self, text: &str) {
        self.json.push_str(&Value::from(text).to_string());
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn skip(&mut self, c: char) -> bool {
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::{CallPart, Held, ToolSyntax, ToolText};
    use super::*;
    use crate::prompt::testing::{cut, read_all};
    use crate::prompt::{ChatTemplate, Conversation, Message, Role, ToolCallMessage};
    use proptest::prelude::*;
    use serde_json::{Map, json};

    pub const SYNTAXES: [ToolSyntax; 2] = [ToolSyntax::FunctionGemma, ToolSyntax::Gemma4];

    /// Renders calls as Gemma's templates do, with FunctionGemma's marks.
    const TEMPLATE: &str = "\
{%- macro shown(value) -%}
{%- if value is none -%}null
{%- elif value is string -%}<escape>{{ value }}<escape>
{%- elif value is boolean -%}{{ 'true' if value else 'false' }}
{%- elif value is mapping -%}{ {%- for key, inner in value | dictsort -%}{{ ',' if not loop.first }}{{ key }}:{{ shown(inner) }}{%- endfor -%} }
{%- elif value is sequence -%}[{%- for inner in value -%}{{ ',' if not loop.first }}{{ shown(inner) }}{%- endfor -%}]
{%- else -%}{{ value }}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}{{ message.content }}
{%- for call in message.tool_calls -%}<start_function_call>call:{{ call.function.name }}{{ shown(call.function.arguments) }}<end_function_call>{%- endfor -%}
{%- endfor -%}";

    /// What the template of such a model makes of the calls.
    pub fn rendered(syntax: ToolSyntax, calls: &[(String, Value)]) -> String {
        let template = match syntax {
            ToolSyntax::FunctionGemma => TEMPLATE.to_owned(),
            _ => TEMPLATE
                .replace("start_function_call", "|tool_call")
                .replace("end_function_call", "tool_call|")
                .replace("<escape>", "<|\"|>"),
        };
        let calls = calls.iter().map(|(name, arguments)| {
            let call = json!({"id": "c", "function": {"name": name, "arguments": arguments}});
            serde_json::from_value::<ToolCallMessage>(call).unwrap()
        });
        let mut message = Message::text(Role::Assistant, "");
        message.tool_calls = Some(calls.collect());
        let conversation = Conversation { messages: vec![message], ..Conversation::default() };
        let template = ChatTemplate::new(&template.into(), "", "").unwrap();
        assert_eq!(ToolSyntax::of_template(template.source()), syntax);
        template.render(&conversation).unwrap()
    }

    /// JSON without the marks, and with keys that stand bare.
    pub fn arguments() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 64.0)),
            "\\PC{0,12}|[ {}:,\"\\\\\n\\[\\]]{0,6}|<escape|<\\|\"\\|".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                object(inner).prop_map(Value::from),
            ]
        });
        object(value).prop_map(Value::from)
    }

    fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::vec(("[A-Za-z_\u{e4}][A-Za-z0-9_.-]{0,6}", value), 0..4)
            .prop_map(|pairs| pairs.into_iter().collect())
    }

    fn run<'a>(
        syntax: ToolSyntax,
        pieces: impl IntoIterator<Item = &'a str>,
    ) -> (String, Vec<(String, Value)>) {
        let (shown, calls) = read_all(&mut *syntax.reader(&[], Held::ToNothing), pieces);
        let json = |(name, arguments): (String, String)| (name, serde_json::from_str(&arguments).unwrap());
        (shown, calls.into_iter().map(json).collect())
    }

    fn one(name: &str, arguments: Value) -> Vec<(String, Value)> {
        vec![(name.to_owned(), arguments)]
    }

    #[test]
    fn every_way_to_write_arguments_is_read() {
        for (written, arguments) in [
            ("{}", json!({})),
            ("{ }", json!({})),
            ("{a:1,b:-2.5e-05}", json!({"a": 1, "b": -2.5e-5})),
            ("{a:true,b:false,c:null,d:None}", json!({"a": true, "b": false, "c": null, "d": null})),
            ("{a:<escape><escape>}", json!({"a": ""})),
            ("{a:<escape>5<escape>}", json!({"a": "5"})),
            (
                "{a:<escape>{x}: [y], \"z\" \\ <end_function_call>\n<escape>}",
                json!({"a": "{x}: [y], \"z\" \\ <end_function_call>\n"}),
            ),
            ("{a:{b:[1,[],{c:<escape>d<escape>}]},e:{}}", json!({"a": {"b": [1, [], {"c": "d"}]}, "e": {}})),
            ("{\n  a: <escape>x<escape>,\n  b : [ 1 , 2 ]\n}", json!({"a": "x", "b": [1, 2]})),
            ("{<escape>a b<escape>:1,\"c\":\"d\\n<escape>\"}", json!({"a b": 1, "c": "d\n<escape>"})),
            ("{city:New York,at:12:30}", json!({"city": "New York", "at": "12:30"})),
        ] {
            let text = format!("<start_function_call>call:f{written}<end_function_call>");
            assert_eq!(
                run(ToolSyntax::FunctionGemma, [text.as_str()]),
                (String::new(), one("f", arguments)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_number_that_no_float_holds_is_told_as_it_is() {
        let call = read("call:f{a:1e999}", "<escape>").unwrap();
        assert_eq!(call.arguments, r#"{"a":1e999}"#);
    }

    #[test]
    fn calls_are_taken_out_of_the_text_wherever_it_is_cut() {
        let text = "Let me look.\n<|tool_call>call:tools.ls-all{path:<|\"|>/<tool_call|>\u{e9}<|\"|>}<tool_call|><|tool_call>call:pwd{}<tool_call|>";
        let calls =
            [one("tools.ls-all", json!({"path": "/<tool_call|>\u{e9}"})), one("pwd", json!({}))].concat();
        let expected = ("Let me look.".to_owned(), calls);
        for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            let (first, second) = text.split_at(at);
            assert_eq!(run(ToolSyntax::Gemma4, [first, second]), expected, "cut at {at}");
        }
        let ends: Vec<usize> = text.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
        let letters = ends.iter().scan(0, |from, end| Some(&text[std::mem::replace(from, *end)..*end]));
        assert_eq!(run(ToolSyntax::Gemma4, letters), expected);
    }

    #[test]
    fn nothing_of_a_call_is_shown_before_it_is_read() {
        let mut format = ToolSyntax::FunctionGemma.reader(&[], Held::ToNothing);
        assert_eq!(format.push("So <start"), [ToolText::Text("So".into())]);
        assert_eq!(format.push("_function_call>call:f{a:<esc"), []);
        assert_eq!(format.push("ape>x<escape>}<end_function_ca"), []);
        let call = [CallPart::Begin("f".into()), CallPart::Arguments(r#"{"a":"x"}"#.into()), CallPart::End];
        assert_eq!(format.push("ll>"), call.map(ToolText::Call));
        assert_eq!(format.push(" Then <b>"), [ToolText::Text(" Then <b>".into())]);
    }

    #[test]
    fn what_is_not_a_call_stays_text_to_the_byte() {
        let deep = format!("<start_function_call>call:f{{a:{}}}<end_function_call>", "[".repeat(100_000));
        for body in [
            "f{}",
            "call:{}",
            "call:f",
            "call:f{a}",
            "call:f{a:}",
            "call:f{a:1",
            "call:f{a:1,}",
            "call:f{:1}",
            "call:f{a:1}b",
            "call:f{a:[1}",
            "call:f{a:<escape>x}",
            "call:f{a:x<escape>y<escape>}",
            "call:f{a:\"x}",
            "call:f{a:<escape>x<escape>y}",
            "call:f{a:{}b:1}",
        ] {
            for close in ["<end_function_call> b", ""] {
                let text = format!("a <start_function_call>{body}{close}");
                assert_eq!(run(ToolSyntax::FunctionGemma, [text.as_str()]), (text.clone(), vec![]));
            }
        }
        assert_eq!(run(ToolSyntax::FunctionGemma, [deep.as_str()]), (deep.clone(), vec![]));
        // The marks of one are the other's text.
        let text = "<|tool_call>call:f{}<tool_call|>";
        assert_eq!(run(ToolSyntax::FunctionGemma, [text]), (text.to_owned(), vec![]));
    }

    #[test]
    fn a_call_that_is_wrong_does_not_cost_the_next() {
        let text = "<|tool_call>call:f{a:1<tool_call|><|tool_call>call:g{}<tool_call|>";
        let wrong = "<|tool_call>call:f{a:1<tool_call|>".to_owned();
        assert_eq!(run(ToolSyntax::Gemma4, [text]), (wrong, one("g", json!({}))));
    }

    #[test]
    fn a_call_at_the_end_needs_no_closing_mark() {
        assert_eq!(run(ToolSyntax::Gemma4, ["<|tool_call>call:f{a:1}"]).1, one("f", json!({"a": 1})));
    }

    proptest! {
        #[test]
        fn what_templates_render_is_read_back(
            calls in prop::collection::vec(("[a-z_]{1,5}", arguments()), 1..3),
            syntax in prop::sample::select(&SYNTAXES[..]),
            cuts in prop::collection::vec(1_usize..9, 0..60),
        ) {
            let text = rendered(syntax, &calls);
            prop_assert_eq!(run(syntax, cut(&text, &cuts)), (String::new(), calls), "{}", text);
        }
    }
}
