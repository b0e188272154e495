//! Conversations over chat templates, against transformers' rendering: templates of our own (`tests/conversations/templates`), and those of the
//! families where `tests/conversations/run` has fetched them.

// Helpers of tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use prefixd::prompt::{ChatTemplate, Conversation, Message, TemplateError, ToolSyntax};
use serde_json::{Map, Value, json};

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations").join(name)
}

fn read(path: &Path) -> Map<String, Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Every conversation with its name.
fn conversations() -> Vec<(String, Conversation)> {
    let said = read(&here("conversations.json")).into_iter().map(|(name, said)| {
        let messages: Vec<Message> = serde_json::from_value(said["messages"].clone()).unwrap();
        let conversation = Conversation {
            messages,
            tools: said["tools"].as_array().cloned().unwrap_or_default(),
            variables: said["variables"].as_object().cloned().unwrap_or_default(),
            add_generation_prompt: said["add_generation_prompt"] != false,
        };
        (name, conversation)
    });
    said.collect()
}

/// The words that must be seen: one of every text, and one of every call.
fn words(conversation: &Conversation) -> Vec<String> {
    let mut texts = Vec::new();
    for message in &conversation.messages {
        texts.extend(message.content.as_ref().map(prefixd::prompt::Content::text));
        texts.extend(message.tool_calls.iter().flatten().map(|call| call.function.arguments.to_string()));
    }
    let words = texts.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '-'));
    words.filter(|word| word.to_lowercase().starts_with("word-")).map(str::to_owned).collect()
}

fn shows(text: &str, conversation: &Conversation) -> bool {
    words(conversation).iter().all(|word| text.contains(word.as_str()))
}

/// A text of today with the date of the reference in its place.
fn on_that_day(text: &str) -> String {
    let that_day = jiff::civil::date(2026, 1, 2);
    ["%Y-%m-%d", "%d %b %Y", "%B %d, %Y"].iter().fold(text.to_owned(), |text, format| {
        let today = jiff::fmt::strtime::format(format, &jiff::Zoned::now()).unwrap();
        text.replace(&today, &jiff::fmt::strtime::format(format, that_day).unwrap())
    })
}

fn template(source: &Value) -> ChatTemplate {
    ChatTemplate::new(source, "<bos>", "<eos>").unwrap()
}

/// How what is rendered here stands to the reference; `run` explains the words.
fn outcome(
    rendered: &Result<String, TemplateError>,
    reference: &Value,
    conversation: &Conversation,
) -> &'static str {
    let wanted = reference["text"].as_str();
    let whole = wanted.is_some_and(|text| shows(text, conversation));
    match rendered {
        Ok(text) if wanted == Some(text) => {
            if whole {
                "same"
            } else {
                "hides"
            }
        }
        Ok(text) if !whole && shows(text, conversation) => "shown",
        Err(TemplateError::NoTools) => "no tools",
        Err(_) if wanted.is_none() => "refused",
        _ => "differs",
    }
}

/// Where two texts part.
fn parting(found: &str, wanted: &str) -> String {
    let same = found.chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    let cut = |text: &str| text.chars().skip(same.saturating_sub(40)).take(120).collect::<String>();
    format!("\n  found  {:?}\n  wanted {:?}", cut(found), cut(wanted))
}

#[test]
fn our_templates_say_what_transformers_says() {
    let goldens = read(&here("goldens.json"));
    let files = std::fs::read_dir(here("templates")).unwrap();
    let mut names: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, goldens.keys().cloned().collect::<Vec<_>>(), "render.py makes the goldens");
    for name in names {
        let source = std::fs::read_to_string(here(&format!("templates/{name}.jinja"))).unwrap();
        let template = template(&source.into());
        for (title, conversation) in conversations() {
            let reference = &goldens[&name][&title];
            let rendered = template.render(&conversation).map(|text| on_that_day(&text));
            let text = rendered.as_deref().unwrap_or_default();
            let wanted = reference["text"].as_str().unwrap_or_default();
            let found = outcome(&rendered, reference, &conversation);
            assert!(
                ["same", "shown", "hides"].contains(&found),
                "{name}, {title}: {found}, {rendered:?}{}",
                parting(text, wanted)
            );
        }
    }
}

#[test]
#[ignore = "needs other people's templates: tests/conversations/run fetches them"]
fn the_families_templates_say_what_transformers_says() {
    let place = std::env::var("PREFIXD_CONVERSATIONS").expect("tests/conversations/run sets it");
    let place = Path::new(&place);
    let mut rows = Map::new();
    for (name, case) in read(&place.join("cases.json")) {
        let template = template(&case["template"]);
        let (mut outcomes, mut prompt) = (Map::new(), String::new());
        for (title, conversation) in conversations() {
            let reference = &case["rendered"][&title];
            let rendered = template.render(&conversation).map(|text| on_that_day(&text));
            let found = outcome(&rendered, reference, &conversation);
            if found == "differs" {
                let text = rendered.as_ref().map_or_else(ToString::to_string, Clone::clone);
                let wanted = reference["text"].as_str().or(reference["refused"].as_str()).unwrap_or_default();
                eprintln!("{name}, {title}{}", parting(&text, wanted));
            }
            outcomes.insert(title, found.into());
            prompt = rendered.unwrap_or(prompt);
        }
        let calls = ToolSyntax::of_template(template.source()).name();
        let thought = format!("{:?}", template.thought(&prompt));
        rows.insert(name, json!({"calls": calls, "answer begins": thought, "conversations": outcomes}));
    }
    std::fs::write(place.join("found.json"), Value::Object(rows).to_string()).unwrap();
}
