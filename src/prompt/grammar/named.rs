//! Calls of a name between marks and JSON, in llguidance's dialect of Lark.

use serde_json::Value;

use super::{FormatError, Spacing, Strictness, literal};
use crate::prompt::tool_call::named::Named;

/// Writes the rule `rule`: a call of the tool `name` with arguments of `schema`, and the rule of those, `{rule}_arguments`.
pub fn call(
    rule: &str,
    (name, schema): (&str, &Value),
    named: &Named,
    (spacing, strictness): (Spacing, Strictness),
    text: &mut String,
) -> Result<(), FormatError> {
    let marks = [named.mark, "{", "\n"].into_iter().chain(named.aside);
    if name.is_empty() || name.trim() != name || marks.into_iter().any(|mark| name.contains(mark)) {
        return Err(FormatError(format!("the model's calls cannot name {name:?}")));
    }
    let before = literal(&format!("{}{name}", named.before));
    let number = if named.numbered { " \":\" /[0-9]{1,3}/" } else { "" };
    let [behind, after] = [named.behind, named.after].map(literal);
    let schema = Value::Object(spacing.arguments(schema, strictness)?).to_string();
    text.extend([rule, "_arguments: %json ", &schema, "\n"]);
    text.extend([rule, ": ", &before, number, " ", &behind, " ", rule, "_arguments ", &after, "\n"]);
    Ok(())
}
