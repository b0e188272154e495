//! Calls written as JSON, seen while they are written: where the arguments begin, and how far they are.

/// The keys of a call, in front of its arguments and for them.
const KEYS: [&str; 4] = ["name", "type", "arguments", "parameters"];

/// What the beginning of a text turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A call of `name`; its arguments, an object, begin after `at` bytes.
    Call {
        /// The function.
        name: String,
        /// Bytes before the arguments.
        at: usize,
    },
    /// It may become a call.
    Open,
    /// It is none, or one that is written otherwise.
    Other,
}

/// Looks at the beginning of `text`. `known` says whether a name, or the first letters of one (`false`), is a tool's.
pub fn begun(text: &str, known: impl Fn(&str, bool) -> bool) -> Begun {
    begin(text, known).unwrap_or_else(|end| if end == End::Open { Begun::Open } else { Begun::Other })
}

/// Where looking ends without a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Other,
}

fn begin(text: &str, known: impl Fn(&str, bool) -> bool) -> Result<Begun, End> {
    let mut rest = Rest(text);
    rest.take('{')?;
    let mut name = None;
    loop {
        let key = rest.string(|key, whole| {
            KEYS.iter().any(|known| if whole { *known == key } else { known.starts_with(key) })
        })?;
        rest.take(':')?;
        match key.as_str() {
            "name" => name = Some(rest.string(&known)?),
            "type" => drop(rest.string(|kind, _| "function".starts_with(kind))?),
            _ => {
                let name = name.ok_or(End::Other)?;
                let at = text.len() - rest.start()?.len();
                return if text[at..].starts_with('{') {
                    Ok(Begun::Call { name, at })
                } else {
                    Err(End::Other)
                };
            }
        }
        rest.take(',')?;
    }
}

/// What is still to be looked at.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// The rest behind white space; there must be some.
    fn start(&mut self) -> Result<&'a str, End> {
        self.0 = self.0.trim_start();
        if self.0.is_empty() { Err(End::Open) } else { Ok(self.0) }
    }

    fn take(&mut self, c: char) -> Result<(), End> {
        self.0 = self.start()?.strip_prefix(c).ok_or(End::Other)?;
        Ok(())
    }

    /// A string that `fits`, or whose first letters do (`false`) when the text ends in it.
    fn string(&mut self, fits: impl Fn(&str, bool) -> bool) -> Result<String, End> {
        let text = self.start()?;
        let open = text.strip_prefix('"').ok_or(End::Other)?;
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        match values.next() {
            Some(Ok(string)) if fits(&string, true) => {
                self.0 = &text[values.byte_offset()..];
                Ok(string)
            }
            Some(Err(error)) if error.is_eof() && fits(open, false) => Err(End::Open),
            _ => Err(End::Other),
        }
    }
}

/// An object on its way, without the white space between its parts.
#[derive(Debug, Default)]
pub struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    done: bool,
}

impl Scan {
    /// Takes what `text` has of the object, and leaves the rest.
    pub fn push(&mut self, text: &mut String) -> String {
        let mut taken = String::new();
        let mut end = 0;
        for c in text.chars() {
            if self.done {
                break;
            }
            end += c.len_utf8();
            if self.in_string || !c.is_ascii_whitespace() {
                taken.push(c);
            }
            self.note(c);
        }
        text.drain(..end);
        taken
    }

    /// The object is whole.
    pub fn done(&self) -> bool {
        self.done
    }

    fn note(&mut self, c: char) {
        if self.in_string {
            let escaped = std::mem::take(&mut self.escaped);
            self.in_string = escaped || c != '"';
            self.escaped = !escaped && c == '\\';
            return;
        }
        match c {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.done = self.depth == 0;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn a_call_is_known_by_its_beginning() {
        let whole = r#" {"type": "function", "name" : "get_weather", "arguments": {"city": "Paris"}}"#;
        let at = whole.find("{\"city").unwrap();
        let known = |name: &str, whole: bool| {
            if whole { name == "get_weather" } else { "get_weather".starts_with(name) }
        };
        for end in 0..=at {
            assert_eq!(begun(&whole[..end], known), Begun::Open, "{}", &whole[..end]);
        }
        assert_eq!(begun(whole, known), Begun::Call { name: "get_weather".into(), at });
        for other in [
            "x",
            "[",
            "{}",
            r#"{"answer"#,
            r#"{"name": "Ada"#,
            r#"{"name": 1"#,
            r#"{"name": "get_weather"}"#,
            r#"{"name": "get_weather", "arguments": 1"#,
            r#"{"arguments": {"#,
        ] {
            assert_eq!(begun(other, known), Begun::Other, "{other}");
        }
    }

    proptest! {
        #[test]
        fn an_object_ends_where_it_ends(text in "[a\"\\\\{}\\[\\], ]{0,8}", cuts in prop::collection::vec(1_usize..6, 0..20), after in "[}\\]a ]{0,4}") {
            let value = json!({"a": [text, {"b": {}}], "c": text});
            let written = serde_json::to_string_pretty(&value).unwrap() + &after;
            let (mut scan, mut taken, mut left) = (Scan::default(), String::new(), String::new());
            for piece in crate::prompt::testing::cut(&written, &cuts) {
                left.push_str(piece);
                taken.push_str(&scan.push(&mut left));
            }
            prop_assert!(scan.done());
            prop_assert_eq!(&taken, &value.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&taken).unwrap(), value);
            prop_assert_eq!(left, after);
        }
    }
}
