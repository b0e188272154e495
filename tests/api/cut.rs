//! Calls that are cut off, by a stop string or by the token limit: no API shows their markup, streamed or whole.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::server::Setup;
use super::told::{self, Asked, Told};

const LEAD: &str = "Let me see.";
const CALLS: &str = "Let me see.\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/tmp\"}}\n</tool_call>\n\
    <tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/etc\"}}\n</tool_call>";

fn ask(address: SocketAddr, more: &Value) -> Told {
    let parameters =
        json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    let tools = json!([{"type": "function", "function": {"name": "ls", "parameters": parameters}}]);
    told::ask(address, &Asked { content: format!("<script>{CALLS}<go>"), tools, more: more.clone() }).0
}

#[test]
fn a_call_that_the_token_limit_cuts_off_is_no_text() {
    let server = Setup::default().echo();
    let calls = ["{\"path\":\"/tmp\"}", "{\"path\":\"/etc\"}"];
    // With `min_tokens` no grammar holds the calls.
    for more in [json!({}), json!({"min_tokens": 1})] {
        let mut found = 0;
        for most in (1..140).step_by(3).chain([13, 14, 15, 16, 200]) {
            let mut more = more.clone();
            more["max_tokens"] = most.into();
            let told = ask(server.address, &more);
            assert!(LEAD.starts_with(told.text.trim_end()), "{most}: {told:?}");
            assert!(
                calls.starts_with(
                    &told.calls.iter().map(|(_, arguments)| arguments.as_str()).collect::<Vec<_>>()
                ),
                "{most}: {told:?}"
            );
            assert!(told.reason == "length" || told.calls.len() == 2, "{most}: {told:?}");
            found = found.max(told.calls.len());
        }
        assert_eq!(found, 2);
    }
}

#[test]
fn a_call_that_a_stop_string_cuts_off_is_no_text() {
    let server = Setup::default().echo();
    for more in [json!({}), json!({"min_tokens": 1})] {
        for (stop, calls) in [("name", 0), ("{", 0), ("/tmp", 0), ("}\n</tool", 1), ("l>\n<", 1), ("/etc", 1)]
        {
            let mut more = more.clone();
            more["stop"] = json!([stop]);
            let told = ask(server.address, &more);
            assert_eq!((told.text.as_str(), told.calls.len()), (LEAD, calls), "{stop}: {told:?}");
            // Behind the arguments of the first call nothing is cut off.
            let whole = ["}\n</tool", "l>\n<"].contains(&stop);
            assert_eq!(told.reason, if whole { "tool_calls" } else { "length" }, "{stop}: {told:?}");
        }
        // Before a call it stops the text.
        let mut more = more.clone();
        more["stop"] = json!(["see"]);
        assert_eq!(
            ask(server.address, &more),
            Told { text: "Let me ".into(), reason: "stop", ..Told::default() }
        );
    }
}
