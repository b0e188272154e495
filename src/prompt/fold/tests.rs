use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ASSISTANT_AND_USER: [[bool; 4]; 4] = {
    let mut next = [[true; 4]; 4];
    next[Kind::User as usize][Kind::User as usize] = false;
    next[Kind::Assistant as usize][Kind::Assistant as usize] = false;
    next
};

/// Roles that alternate, no system message behind the first, nothing of tools.
const STRICT: Shown = Shown {
    later_system: false,
    calls: false,
    results: false,
    first: [true, false, false, false],
    next: ASSISTANT_AND_USER,
    ..Shown::ALL
};

fn messages(said: &[(Role, &str)]) -> Vec<Message> {
    said.iter().map(|(role, text)| Message::text(*role, *text)).collect()
}

fn folded(said: &[(Role, &str)], shown: &Shown) -> Vec<(Role, String)> {
    let (folded, _) = fold(&messages(said), shown, ToolSyntax::Json);
    folded.iter().map(|message| (message.role, message.plain_text())).collect()
}

fn owned(said: &[(Role, &str)]) -> Vec<(Role, String)> {
    said.iter().map(|(role, text)| (*role, (*text).to_owned())).collect()
}

use Role::{Assistant, System, Tool, User};

#[test]
fn a_template_that_shows_everything_gets_everything_as_it_stands() {
    let said = [(Assistant, "a"), (User, "b"), (User, "c"), (System, "d"), (Tool, "e"), (System, "f")];
    assert_eq!(fold(&messages(&said), &Shown::ALL, ToolSyntax::Json), (messages(&said), vec![]));
}

#[test]
fn system_messages_behind_the_first_become_part_of_what_stands_beside_them() {
    let shown = Shown { later_system: false, ..Shown::ALL };
    for (said, expected) in [
        (&[(System, "a"), (User, "b")][..], &[(System, "a"), (User, "b")][..]),
        (&[(System, "a"), (System, "b"), (User, "c")], &[(System, "a\n\nb"), (User, "c")]),
        (
            &[(User, "a"), (Assistant, "b"), (System, "c"), (System, "d"), (User, "e")],
            &[(User, "a"), (Assistant, "b"), (User, "c\n\nd\n\ne")],
        ),
        (&[(User, "a"), (System, "b"), (User, "c")], &[(User, "a\n\nb"), (User, "c")]),
        (
            &[(Assistant, "a"), (System, "b"), (Assistant, "c")],
            &[(Assistant, "a"), (User, "b"), (Assistant, "c")],
        ),
    ] {
        assert_eq!(folded(said, &shown), owned(expected), "{said:?}");
    }
}

#[test]
fn a_system_message_that_is_refused_opens_the_users_first() {
    let shown = Shown { first_system: false, ..STRICT };
    for (said, expected) in [
        (&[(System, "a"), (User, "b"), (User, "c")][..], &[(User, "a\n\nb\n\nc")][..]),
        (&[(System, "a"), (System, "b")], &[(User, "a\n\nb")]),
        (&[(System, "a"), (Assistant, "b")], &[(User, "a"), (Assistant, "b")]),
    ] {
        assert_eq!(folded(said, &shown), owned(expected), "{said:?}");
    }
}

#[test]
fn neighbours_of_one_role_are_joined_and_an_answer_at_the_beginning_gets_a_question() {
    for (said, expected) in [
        (&[(System, "s"), (User, "a"), (User, "b")][..], &[(System, "s"), (User, "a\n\nb")][..]),
        (
            &[(Assistant, "a"), (Assistant, "b"), (User, "c")],
            &[(User, ""), (Assistant, "a\n\nb"), (User, "c")],
        ),
        (&[(User, "a"), (Tool, "b"), (User, "c")], &[(User, "a\n\nResult:\nb\n\nc")]),
    ] {
        assert_eq!(folded(said, &STRICT), owned(expected), "{said:?}");
    }
}

fn read(messages: Value) -> Vec<Message> {
    serde_json::from_value(messages).unwrap()
}

fn agent(ids: [&str; 2]) -> Vec<Message> {
    let [first, second] = ids;
    read(json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "Well.", "tool_calls": [
            {"id": first, "function": {"name": "ls", "arguments": "{\"path\": \"/\", \"all\": true}"}},
            {"id": second, "function": {"name": "pwd", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": second, "content": "/home"},
        {"role": "tool", "tool_call_id": first, "content": "a b"},
        {"role": "user", "content": "thanks"},
    ]))
}

#[test]
fn calls_and_results_are_text_where_a_template_has_no_place_for_them() {
    let (folded, done) = fold(&agent(["c1", "c2"]), &STRICT, ToolSyntax::Json);
    let said: Vec<_> = folded.iter().map(|message| (message.role, message.plain_text())).collect();
    let calls = "Well.\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/\", \"all\": true}}\n{\"name\": \"pwd\", \"arguments\": {}}";
    let results = "Result of pwd:\n/home\n\nResult of ls:\na b\n\nthanks";
    assert_eq!(said, owned(&[(User, "go"), (Assistant, calls), (User, results)]));
    assert_eq!(done, [Change::CallsAsText, Change::ResultsAsText, Change::Joined]);
    let (folded, _) = fold(&agent(["c1", "c2"]), &STRICT, ToolSyntax::Hermes);
    assert!(
        folded[1].plain_text().ends_with("<tool_call>\n{\"name\": \"pwd\", \"arguments\": {}}\n</tool_call>")
    );
}

#[test]
fn calls_are_text_in_the_models_own_syntax() {
    let (folded, _) = fold(&agent(["c1", "c2"]), &STRICT, ToolSyntax::Lfm2);
    let calls = "Well.\n<|tool_call_start|>[ls(path=\"/\", all=True), pwd()]<|tool_call_end|>";
    assert_eq!(folded[1].plain_text(), calls);
}

#[test]
fn a_text_beside_calls_goes_before_them_where_it_would_be_hidden() {
    let mut messages = agent(["c1", "c2"]);
    messages[1].extra.insert("reasoning_content".into(), "Hm.".into());
    let hidden = Shown { text_with_calls: false, ..Shown::ALL };
    let (folded, done) = fold(&messages, &hidden, ToolSyntax::Json);
    assert_eq!(done, [Change::TextBeforeCalls]);
    let shape: Vec<_> = folded[1..3]
        .iter()
        .map(|message| {
            let calls = message.tool_calls.iter().flatten().count();
            (message.plain_text(), message.extra.get("reasoning_content").is_some(), calls)
        })
        .collect();
    assert_eq!(shape, [("Well.".to_owned(), true, 0), (String::new(), false, 2)]);
    // Nothing is done where there is no place, but the log says so.
    let nowhere = Shown { text_before_calls: false, ..hidden };
    assert_eq!(fold(&messages, &nowhere, ToolSyntax::Json), (messages, vec![Change::TextHidden]));
}

#[test]
fn a_message_between_is_three_dots_where_an_empty_answer_is_refused() {
    let mut shown = Shown { empty_answer: false, ..Shown::ALL };
    shown.next[Kind::Result as usize][Kind::User as usize] = false;
    let (folded, _) = fold(&agent(["c1", "c2"]), &shown, ToolSyntax::Json);
    assert_eq!((folded[4].role, folded[4].plain_text().as_str()), (Assistant, "..."));
}

#[test]
fn several_calls_are_shown_one_by_one_each_with_its_result() {
    let shown = Shown { several_calls: false, ..Shown::ALL };
    let (folded, _) = fold(&agent(["c1", "c2"]), &shown, ToolSyntax::Json);
    let shape: Vec<(Role, String, Vec<&str>)> = folded
        .iter()
        .map(|message| {
            let calls = message.tool_calls.iter().flatten().map(|call| call.function.name.as_str());
            (message.role, message.plain_text(), calls.collect())
        })
        .collect();
    let line = |role, text: &str, calls: &[&'static str]| (role, text.to_owned(), calls.to_vec());
    let expected = [
        line(User, "go", &[]),
        line(Assistant, "Well.", &["ls"]),
        line(Tool, "a b", &[]),
        line(Assistant, "", &["pwd"]),
        line(Tool, "/home", &[]),
        line(User, "thanks", &[]),
    ];
    assert_eq!(shape, expected);
}

#[test]
fn ids_become_nine_letters_and_digits_and_still_name_their_call() {
    let shown = Shown { any_id: false, ..Shown::ALL };
    let (folded, done) = fold(&agent(["call_a-long-one", "abcDEF123"]), &shown, ToolSyntax::Json);
    assert_eq!(done, [Change::ShortIds]);
    let calls: Vec<&str> =
        folded[1].tool_calls.iter().flatten().filter_map(|call| call.id.as_deref()).collect();
    assert!(
        calls.iter().all(|id| id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())),
        "{calls:?}"
    );
    assert_eq!((calls[1], id(&folded[2]), id(&folded[3])), ("abcDEF123", Some("abcDEF123"), Some(calls[0])));
}

#[test]
fn where_calls_do_not_count_the_texts_alternate_across_them() {
    let shown = Shown { skips_calls: true, next: ASSISTANT_AND_USER, ..Shown::ALL };
    let (folded, _) = fold(&agent(["c1", "c2"]), &shown, ToolSyntax::Json);
    let roles: Vec<Role> = folded.iter().map(|message| message.role).collect();
    assert_eq!(roles, [User, Assistant, Tool, Tool, Assistant, User]);
}

fn any_shown() -> impl Strategy<Value = Shown> {
    (any::<[bool; 8]>(), any::<[bool; 4]>(), any::<[[bool; 4]; 4]>()).prop_map(|(flags, mut first, next)| {
        let [first_system, later_system, system_alone, calls, any_id, results, skips_calls, empty_answer] =
            flags;
        first[Kind::User as usize] = true;
        let later_system = later_system && first_system;
        Shown {
            first_system,
            later_system,
            system_alone,
            calls,
            several_calls: true,
            text_with_calls: true,
            text_before_calls: true,
            empty_answer,
            any_id,
            results,
            first,
            next,
            skips_calls,
        }
    })
}

proptest! {
    /// The law of this module.
    #[test]
    fn a_longer_conversation_keeps_the_beginning_of_the_shorter(shown in any_shown(), roles in prop::collection::vec(0..4, 1..8)) {
        let role = |at: &i32| [System, User, Assistant, Tool][*at as usize];
        let whole: Vec<Message> =
            roles.iter().enumerate().map(|(at, kind)| Message::text(role(kind), format!("w{at}"))).collect();
        for length in 1..whole.len() {
            // System messages alone, which the template does not show without the user, end with a word of the user's.
            if !shown.system_alone && whole[..length].iter().all(|message| message.role == System) {
                continue;
            }
            let (shorter, _) = fold(&whole[..length], &shown, ToolSyntax::Json);
            let (longer, _) = fold(&whole[..=length], &shown, ToolSyntax::Json);
            let (last, before) = shorter.split_last().unwrap();
            prop_assert_eq!(before, &longer[..before.len()]);
            let same = &longer[before.len()];
            prop_assert_eq!(same.role, last.role);
            prop_assert!(same.plain_text().starts_with(&last.plain_text()), "{:?} {:?}", last, same);
        }
        let (folded, _) = fold(&whole, &shown, ToolSyntax::Json);
        let text: String = folded.iter().map(|message| message.plain_text() + " ").collect();
        let words: Vec<usize> = (0..whole.len()).map(|at| text.find(&format!("w{at}")).unwrap()).collect();
        prop_assert!(words.is_sorted(), "{text}");
    }
}
