//! System messages behind the first: for templates that allow one, at the beginning, and nowhere else.
//!
//! Agents put instructions wherever they come up. A template that knows such messages shows them itself; for one that
//! refuses them they become part of what stands beside them, in place, so that what was said before stays a prefix.

use super::message::{Content, Message, Role};

const BREAK: &str = "\n\n";

/// The same words with no system message but the first: those that open the conversation are one, the others stand at
/// the beginning of the user's message that follows, else at the end of the user's message before, else for themselves.
/// `None` when there is nothing to do.
pub fn fold(messages: &[Message]) -> Option<Vec<Message>> {
    if messages.iter().skip(1).all(|message| message.role != Role::System) {
        return None;
    }
    let mut folded: Vec<Message> = Vec::with_capacity(messages.len());
    // Words that wait for the next message of the user.
    let mut waiting = String::new();
    for message in messages {
        let text = message.plain_text();
        match (message.role, folded.last_mut()) {
            (Role::System, None) => folded.push(message.clone()),
            (Role::System, Some(first)) if first.role == Role::System && waiting.is_empty() => {
                first.content = Some(Content::Text(first.plain_text() + BREAK + &text));
            }
            (Role::System, Some(_)) => waiting = joined(&waiting, &text),
            (Role::User, _) if !waiting.is_empty() => {
                let text = joined(&std::mem::take(&mut waiting), &text);
                folded.push(Message { content: Some(Content::Text(text)), ..message.clone() });
            }
            (_, last) => {
                settle(&mut waiting, last);
                if !waiting.is_empty() {
                    folded.push(Message::text(Role::User, std::mem::take(&mut waiting)));
                }
                folded.push(message.clone());
            }
        }
    }
    settle(&mut waiting, folded.last_mut());
    if !waiting.is_empty() {
        folded.push(Message::text(Role::User, waiting));
    }
    Some(folded)
}

/// Puts what waits at the end of the user's last message, if that is what stands before.
fn settle(waiting: &mut String, last: Option<&mut Message>) {
    if let Some(last) = last.filter(|last| last.role == Role::User && !waiting.is_empty()) {
        last.content = Some(Content::Text(joined(&last.plain_text(), &std::mem::take(waiting))));
    }
}

fn joined(a: &str, b: &str) -> String {
    if a.is_empty() { b.to_owned() } else { format!("{a}{BREAK}{b}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(said: &[(Role, &str)]) -> Option<Vec<(Role, String)>> {
        let messages: Vec<Message> = said.iter().map(|(role, text)| Message::text(*role, *text)).collect();
        let folded = fold(&messages)?;
        Some(folded.iter().map(|message| (message.role, message.plain_text())).collect())
    }

    #[test]
    fn every_word_is_kept_in_its_place_and_one_system_message_is_left() {
        use Role::{Assistant, System, User};
        let said = |list: &[(Role, &str)]| {
            Some(list.iter().map(|(role, text)| (*role, (*text).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(folded(&[(System, "a"), (User, "b")]), None);
        assert_eq!(
            folded(&[(System, "a"), (System, "b"), (User, "c")]),
            said(&[(System, "a\n\nb"), (User, "c")])
        );
        assert_eq!(
            folded(&[(User, "a"), (Assistant, "b"), (System, "c"), (System, "d"), (User, "e")]),
            said(&[(User, "a"), (Assistant, "b"), (User, "c\n\nd\n\ne")])
        );
        assert_eq!(
            folded(&[(User, "a"), (System, "b"), (Assistant, "c"), (System, "d")]),
            said(&[(User, "a\n\nb"), (Assistant, "c"), (User, "d")])
        );
        assert_eq!(
            folded(&[(Assistant, "a"), (System, "b"), (Assistant, "c")]),
            said(&[(Assistant, "a"), (User, "b"), (Assistant, "c")])
        );
    }
}
