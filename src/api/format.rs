//! The format of an answer: what `response_format` and `tool_choice`, in either dialect, ask the grammar to enforce.

use actix_web::web;
use prefixd_cache::Tenant;
use serde_json::{Value, json};

use super::error::ApiError;
use super::marks::Mark;
use super::plan::Plan;
use super::submit::{Prompt, encode};
use super::work::Place;
use super::{ApiState, ServedModel};
use crate::prompt::{CallCount, CallRules, Conversation, Format, Held, Strictness, ThoughtStart};

/// Which tools the answer may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// Any or none.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
    /// Of these, any or none, or (`true`) at least one.
    Among(Vec<String>, bool),
}

impl ToolChoice {
    /// The answer may call the tool of that name.
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Auto | Self::Required => true,
            Self::None => false,
            Self::Named(wanted) => wanted == name,
            Self::Among(names, _) => names.iter().any(|wanted| wanted == name),
        }
    }
}

/// The fields that a request says it with, for errors.
#[derive(Clone, Copy, Debug)]
pub struct FormatFields {
    /// Where the schema of the answer is.
    pub schema: &'static str,
    /// Where the tools are.
    pub tools: &'static str,
    /// A schema that cannot be enforced in full is refused.
    pub strict: bool,
}

/// What of the answer's format must be enforced. `schema`: the answer is JSON of that schema. `tools` are functions as
/// OpenAI describes them.
pub fn format(
    schema: Option<Value>,
    tools: &[Value],
    choice: &ToolChoice,
    count: CallCount,
) -> Result<Option<Format>, ApiError> {
    let rules =
        |count| CallRules { tools: schemas(tools).filter(|(name, _)| choice.allows(name)).collect(), count };
    let no_tool = |what: String| ApiError::field("tool_choice", what);
    match choice {
        ToolChoice::Among(names, _) if let Some(missing) = missing_of(names, tools) => {
            Err(no_tool(format!("tool_choice allows {missing:?}, which is not among the tools")))
        }
        ToolChoice::Auto | ToolChoice::Among(_, false) if !tools.is_empty() => {
            let rules = rules(count);
            Ok(Some(match schema {
                Some(schema) => Format::JsonOrCalls(schema, rules),
                None => Format::TextOrCalls(rules),
            }))
        }
        // Tools that must not be called are shown all the same: what is known of the prompt is found again.
        ToolChoice::None if !tools.is_empty() => Ok(Some(schema.map_or(Format::NoCalls, Format::Json))),
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Among(_, false) => Ok(schema.map(Format::Json)),
        ToolChoice::Required | ToolChoice::Among(_, true) if tools.is_empty() => {
            Err(no_tool("tool_choice demands a call, and there are no tools".into()))
        }
        ToolChoice::Required | ToolChoice::Among(_, true) => Ok(Some(Format::Calls(rules(count)))),
        ToolChoice::Named(wanted) => {
            let rules = rules(CallCount::One);
            if rules.tools.is_empty() {
                return Err(no_tool(format!("tool_choice names {wanted:?}, which is not among the tools")));
            }
            Ok(Some(Format::Calls(rules)))
        }
    }
}

/// The tools that `{"mode": "auto" | "required", "tools": [...]}` allows; `name` reads one of them.
pub fn among(allowed: &Value, name: impl Fn(&Value) -> Option<String>) -> Option<ToolChoice> {
    let demanded = match allowed["mode"].as_str()? {
        "auto" => false,
        "required" => true,
        _ => return None,
    };
    let names = allowed["tools"].as_array()?.iter().map(name).collect::<Option<Vec<_>>>()?;
    Some(ToolChoice::Among(names, demanded))
}

/// The first name that no tool has.
fn missing_of<'a>(names: &'a [String], tools: &[Value]) -> Option<&'a String> {
    names.iter().find(|name| !tools.iter().any(|tool| tool["function"]["name"] == name.as_str()))
}

/// Names and schemas of functions.
fn schemas(tools: &[Value]) -> impl Iterator<Item = (String, Value)> {
    let functions = tools.iter().map(|tool| &tool["function"]);
    functions.filter_map(|function| {
        let name = function["name"].as_str()?.to_owned();
        Some((name, function["parameters"].clone()))
    })
}

/// The schema that `{"type": "json_object" | "json_schema", ...}` asks for. `schema` says where a `json_schema` keeps it; in
/// both it may also be right there.
pub fn json_schema(
    field: &str,
    asked: Option<&Value>,
    schema: impl Fn(&Value) -> (String, Value),
) -> Result<Option<Value>, ApiError> {
    let Some(asked) = asked.filter(|asked| !asked.is_null()) else { return Ok(None) };
    match asked["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => match [&asked["schema"], &asked["json_schema"]["schema"]] {
            [Value::Null, Value::Null] => Ok(Some(json!({"type": "object"}))),
            [schema @ Value::Object(_), _] | [Value::Null, schema @ Value::Object(_)] => {
                Ok(Some(schema.clone()))
            }
            [schema, _] => {
                let path = format!("{field}.schema");
                let message = format!("{path} is {schema}; expected a JSON schema, an object");
                Err(ApiError::field(path, message))
            }
        },
        Some("json_schema") => {
            let (path, mut schema) = schema(asked);
            if schema.is_null() {
                schema = asked["schema"].clone();
            }
            if schema.is_object() {
                return Ok(Some(schema));
            }
            Err(ApiError::field(
                path.as_str(),
                format!("{path} is {schema}; expected a JSON schema, an object"),
            ))
        }
        _ => {
            let path = format!("{field}.type");
            let message = format!("{path} is {}; expected text, json_object or json_schema", asked["type"]);
            Err(ApiError::field(path, message))
        }
    }
}

/// What a conversation asks for, and for whom.
pub struct Asking {
    pub tenant: Tenant,
    /// Where its prompt and its grammar are made.
    pub place: Place,
    pub conversation: Conversation,
    /// Beginnings of it to pin.
    pub marks: Vec<Mark>,
    /// What of the answer's format is to be enforced.
    pub format: Option<Format>,
    /// Which tools it may call.
    pub choice: ToolChoice,
}

/// A conversation on its way to the scheduler: its tokens, and in the plan how its answer is read and what it is held to.
pub async fn prepare(
    state: &web::Data<ApiState>,
    plan: &mut Plan,
    asked: Asking,
    fields: FormatFields,
) -> Result<Vec<u32>, ApiError> {
    let Asking { tenant, place, conversation, marks, mut format, choice } = asked;
    if let Some(Format::TextOrCalls(rules)) = &mut format {
        // A context's tools may be called too.
        rules.tools = schemas(&conversation.tools).filter(|(name, _)| choice.allows(name)).collect();
    }
    plan.answer.tools = schemas(&conversation.tools).filter(|(name, _)| choice.allows(name)).collect();
    if plan.hold.read_only && !marks.is_empty() {
        plan.warnings.push("prefixd.store is false: what cache_control marks is not pinned".into());
    }
    let prompt = encode(state, tenant, conversation, Some(marks), &place).await?;
    let Prompt { tokens, thought, pins, snapshots } = prompt;
    plan.answer.thought = thought;
    plan.hold.pins = pins;
    plan.hold.snapshots = snapshots;
    enforce(state, plan, format, fields, &place).await?;
    Ok(tokens)
}

/// Compiles `format` into the plan, where it holds for every choice.
async fn enforce(
    state: &web::Data<ApiState>,
    plan: &mut Plan,
    format: Option<Format>,
    fields: FormatFields,
    place: &Place,
) -> Result<(), ApiError> {
    let Some(format) = format else { return Ok(()) };
    if matches!(format, Format::TextOrCalls(_) | Format::NoCalls) {
        return steer(state, plan, format, place).await;
    }
    // The grammar decides where an answer may end; what says otherwise would be ignored.
    if plan.min_tokens > 0 {
        return Err(ApiError::field("min_tokens", "min_tokens cannot be combined with an enforced format"));
    }
    if plan.stop_tokens.is_empty() {
        return Err(ApiError::field("ignore_eos", "ignore_eos cannot be combined with an enforced format"));
    }
    let param = if matches!(format, Format::Calls(_)) { fields.tools } else { fields.schema };
    plan.answer.calls_are = match format {
        Format::Json(_) | Format::NoCalls => Held::ToNothing,
        Format::JsonOrCalls(..) => Held::FromTheStart,
        Format::Calls(_) | Format::TextOrCalls(_) => Held::Everywhere,
    };
    let (model, thought) = (state.model.clone(), plan.answer.thought);
    let strict = fields.strict;
    let compiled = place.run(move || {
        let compile = |strictness| model.text.constraint(&format, thought, strictness);
        let (error, constraint) = match compile(Strictness::Strict) {
            Ok(constraint) => return Ok((constraint, None)),
            Err(error) => (error, if strict { None } else { compile(Strictness::Lenient).ok() }),
        };
        let tool =
            unenforceable(&model, &format).map(|name| format!("the tool {name:?}: ")).unwrap_or_default();
        match constraint {
            Some(constraint) => Ok((constraint, Some(format!("{param} is enforced in part. {tool}{error}")))),
            None => Err(ApiError::field(param, format!("{param}: {tool}{error}"))),
        }
    });
    let (constraint, warning) = compiled.await?;
    plan.constraint = Some(constraint);
    plan.warnings.extend(warning);
    Ok(())
}

/// The tool whose arguments cannot be enforced.
fn unenforceable(model: &ServedModel, format: &Format) -> Option<String> {
    let (Format::Calls(rules) | Format::JsonOrCalls(_, rules)) = format else { return None };
    let fails = |tool: &&(String, Value)| {
        let alone = Format::Calls(CallRules { tools: vec![(*tool).clone()], count: rules.count });
        model.text.constraint(&alone, ThoughtStart::Never, Strictness::Strict).is_err()
    };
    rules.tools.iter().find(fails).map(|(name, _)| name.clone())
}

/// Sees to it that no call begins where none may, and that what begins as a call becomes one of a declared tool, with arguments
/// of its schema, or any object where the schema cannot be enforced. Nobody demanded it, so where it cannot be done the answer is free.
async fn steer(
    state: &web::Data<ApiState>,
    plan: &mut Plan,
    format: Format,
    place: &Place,
) -> Result<(), ApiError> {
    if plan.min_tokens > 0 || plan.stop_tokens.is_empty() {
        return Ok(());
    }
    let (model, thought) = (state.model.clone(), plan.answer.thought);
    let constraint = place.run(move || {
        let compile = |format: &Format, strictness| model.text.constraint(format, thought, strictness).ok();
        let lenient = || compile(&format, Strictness::Lenient);
        let loose = || match &format {
            Format::TextOrCalls(rules) => compile(&Format::TextOrCalls(rules.loose()), Strictness::Lenient),
            _ => None,
        };
        Ok(compile(&format, Strictness::Strict).or_else(lenient).or_else(loose))
    });
    plan.constraint = constraint.await?;
    if plan.constraint.is_some() {
        plan.answer.calls_are = Held::Everywhere;
    }
    Ok(())
}
