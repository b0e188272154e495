//! The format of an answer: what `response_format` and `tool_choice`, in either dialect, ask the grammar to enforce.

use actix_web::web;
use prefixd_cache::Tenant;
use serde_json::{Value, json};

use super::ApiState;
use super::error::ApiError;
use super::marks::Mark;
use super::plan::Plan;
use super::submit::{Prompt, blocking, encode};
use crate::prompt::{CallCount, CallRules, Conversation, Format};

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
}

/// The fields that a request says it with, for errors.
#[derive(Clone, Copy, Debug)]
pub struct FormatFields {
    /// Where the schema of the answer is.
    pub schema: &'static str,
    /// Where the tools are.
    pub tools: &'static str,
}

/// What of the answer's format must be enforced. `schema`: the answer is JSON of that schema. `tools` are functions as
/// OpenAI describes them.
pub fn format(
    schema: Option<Value>,
    tools: &[Value],
    choice: &ToolChoice,
    count: CallCount,
) -> Result<Option<Format>, ApiError> {
    let rules = |wanted: &dyn Fn(&str) -> bool, count| CallRules {
        tools: schemas(tools).filter(|(name, _)| wanted(name)).collect(),
        count,
    };
    let missing = |what: String| ApiError::field("tool_choice", what);
    match choice {
        ToolChoice::Auto if !tools.is_empty() => {
            let rules = rules(&|_| true, count);
            Ok(Some(match schema {
                Some(schema) => Format::JsonOrCalls(schema, rules),
                None => Format::TextOrCalls(rules),
            }))
        }
        ToolChoice::Auto | ToolChoice::None => Ok(schema.map(Format::Json)),
        ToolChoice::Required if tools.is_empty() => {
            Err(missing("tool_choice demands a call, and there are no tools".into()))
        }
        ToolChoice::Required => Ok(Some(Format::Calls(rules(&|_| true, count)))),
        ToolChoice::Named(wanted) => {
            let rules = rules(&|name| name == wanted, CallCount::One);
            if rules.tools.is_empty() {
                return Err(missing(format!("tool_choice names {wanted:?}, which is not among the tools")));
            }
            Ok(Some(Format::Calls(rules)))
        }
    }
}

/// Names and schemas of functions.
fn schemas(tools: &[Value]) -> impl Iterator<Item = (String, Value)> {
    let functions = tools.iter().map(|tool| &tool["function"]);
    functions.filter_map(|function| {
        let name = function["name"].as_str()?.to_owned();
        Some((name, function["parameters"].clone()))
    })
}

/// The schema that `{"type": "json_object" | "json_schema", ...}` asks for. `schema` says where a `json_schema` keeps it.
pub fn json_schema(
    field: &str,
    asked: Option<&Value>,
    schema: impl Fn(&Value) -> (String, Value),
) -> Result<Option<Value>, ApiError> {
    let Some(asked) = asked.filter(|asked| !asked.is_null()) else { return Ok(None) };
    match asked["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        Some("json_schema") => {
            let (path, schema) = schema(asked);
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
    pub conversation: Conversation,
    /// Beginnings of it to pin.
    pub marks: Vec<Mark>,
    /// What of the answer's format is to be enforced.
    pub format: Option<Format>,
}

/// A conversation on its way to the scheduler: its tokens, and in the plan how its answer is read and what it is held to.
pub async fn prepare(
    state: &web::Data<ApiState>,
    plan: &mut Plan,
    asked: Asking,
    fields: FormatFields,
) -> Result<Vec<u32>, ApiError> {
    let Asking { tenant, conversation, marks, mut format } = asked;
    if let Some(Format::TextOrCalls(rules)) = &mut format {
        // A context's tools may be called too.
        rules.tools = schemas(&conversation.tools).collect();
    }
    let names = conversation.tools.iter().filter_map(|tool| tool["function"]["name"].as_str());
    plan.answer.tools = names.map(str::to_owned).collect();
    let Prompt { tokens, thought, pins } = encode(state, tenant, conversation, marks).await?;
    plan.answer.thought = thought;
    plan.hold.pins = pins;
    enforce(state, plan, format, fields).await?;
    Ok(tokens)
}

/// Compiles `format` into the plan, where it holds for every choice.
async fn enforce(
    state: &web::Data<ApiState>,
    plan: &mut Plan,
    format: Option<Format>,
    fields: FormatFields,
) -> Result<(), ApiError> {
    let Some(format) = format else { return Ok(()) };
    if let Format::TextOrCalls(rules) = format {
        return steer(state, plan, rules).await;
    }
    // The grammar decides where an answer may end; what says otherwise would be ignored.
    if plan.min_tokens > 0 {
        return Err(ApiError::field("min_tokens", "min_tokens cannot be combined with an enforced format"));
    }
    if plan.stop_tokens.is_empty() {
        return Err(ApiError::field("ignore_eos", "ignore_eos cannot be combined with an enforced format"));
    }
    let param = if matches!(format, Format::Calls(_)) { fields.tools } else { fields.schema };
    let (model, thought) = (state.model.clone(), plan.answer.thought);
    let constraint = blocking(move || {
        let constraint = model.text.constraint(&format, thought);
        constraint.map_err(|error| ApiError::field(param, format!("{param}: {error}")))
    })
    .await?;
    plan.constraint = Some(constraint);
    Ok(())
}

/// Sees to it that what begins as a call becomes one of a declared tool, with arguments of its schema, or any object where the
/// schema cannot be enforced. Nobody demanded it, so where it cannot be done the answer is free.
async fn steer(state: &web::Data<ApiState>, plan: &mut Plan, rules: CallRules) -> Result<(), ApiError> {
    if plan.min_tokens > 0 || plan.stop_tokens.is_empty() {
        return Ok(());
    }
    let (model, thought) = (state.model.clone(), plan.answer.thought);
    plan.constraint = blocking(move || {
        let compile = |rules| model.text.constraint(&Format::TextOrCalls(rules), thought).ok();
        let loose = rules.loose();
        Ok(compile(rules).or_else(|| compile(loose)))
    })
    .await?;
    Ok(())
}
