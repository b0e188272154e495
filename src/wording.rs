//! What libraries say about input that does not fit, without the names of Rust's types.

/// `reason` in words that a client or a user knows.
pub fn plain(reason: &str) -> String {
    const WORDS: [(&str, &str); 17] = [
        ("expected u64", "expected an integer of at least 0"),
        ("expected u32", "expected an integer of at least 0"),
        ("expected u16", "expected an integer from 0 to 65535"),
        ("expected u8", "expected an integer from 0 to 255"),
        ("expected usize", "expected an integer of at least 0"),
        ("expected i64", "expected an integer"),
        ("expected i32", "expected an integer"),
        ("expected f32", "expected a number"),
        ("expected f64", "expected a number"),
        ("expected path string", "expected a string"),
        ("expected a boolean", "expected true or false"),
        ("expected a sequence", "expected a list"),
        ("expected sequence", "expected a list"),
        ("expected a map", "expected an object"),
        ("floating point", "number"),
        ("invalid type: unit value", "invalid type: null"),
        ("invalid type: sequence", "invalid type: list"),
    ];
    let text = WORDS.iter().fold(reason.to_owned(), |text, (from, to)| text.replace(from, to));
    without_names(&text)
}

/// `expected struct Name` says the name of a type.
fn without_names(text: &str) -> String {
    const STRUCT: &str = "expected struct ";
    let Some((before, name)) = text.split_once(STRUCT) else { return text.to_owned() };
    let behind = name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
    format!("{before}expected an object{}", without_names(behind))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn no_name_of_a_type_is_left() {
        for (said, shown) in [
            (
                "invalid type: string \"x\", expected u16 at line 1",
                "invalid type: string \"x\", expected an integer from 0 to 65535 at line 1",
            ),
            (
                "invalid type: integer `1`, expected struct ToolCallMessage",
                "invalid type: integer `1`, expected an object",
            ),
            ("expected struct A, not expected struct B.", "expected an object, not expected an object."),
            ("missing field `name`", "missing field `name`"),
        ] {
            assert_eq!(plain(said), shown);
        }
    }
}
