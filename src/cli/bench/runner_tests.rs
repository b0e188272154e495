use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::plan::Round;
use super::*;
use crate::cli::client::ClientOptions;

const LIMIT: Duration = Duration::from_secs(20);

/// What was asked of all servers of a test: server, messages.
type Asked = Arc<Mutex<Vec<(&'static str, Vec<Value>)>>>;

/// A server that answers each request with the stream that `answer` makes of its last message; `None`: nothing, ever.
fn serve(name: &'static str, asked: &Asked, answer: fn(&str) -> Option<String>) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = asked.clone();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let asked = asked.clone();
            std::thread::spawn(move || reply(&socket.unwrap(), name, &asked, answer));
        }
    });
    let options = ClientOptions { api_key: None, timeout: LIMIT };
    Target::connect(name, &url, Some("m".into()), options).unwrap()
}

fn reply(socket: &TcpStream, name: &'static str, asked: &Asked, answer: fn(&str) -> Option<String>) {
    let mut reader = BufReader::new(socket);
    let mut length = 0;
    for line in reader.by_ref().lines().map(|line| line.unwrap()).take_while(|line| !line.is_empty()) {
        if let Some(found) = line.to_lowercase().strip_prefix("content-length: ") {
            length = found.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let messages = body["messages"].as_array().unwrap().clone();
    let last = messages.last().unwrap()["content"].as_str().unwrap().to_owned();
    asked.lock().push((name, messages));
    let Some(stream) = answer(&last) else {
        std::thread::sleep(LIMIT);
        return;
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    (&*socket).write_all(format!("{head}{stream}").as_bytes()).unwrap();
}

#[allow(clippy::unnecessary_wraps, reason = "one of several ways to answer")]
fn says(text: &str) -> Option<String> {
    let chunk = json!({"choices": [{"delta": {"content": format!("to {text}")}, "finish_reason": "stop"}]});
    Some(format!("data: {chunk}\n\ndata: [DONE]\n\n"))
}

fn ask(conversation: Option<usize>, text: &str) -> Ask {
    let messages = vec![json!({"role": "user", "content": text})];
    Ask { conversation, messages, max_tokens: 8, row: "row".into(), series: "row".into(), ..Ask::default() }
}

fn plan(rounds: Vec<Round>) -> Plan {
    Plan { scenario: "chat", axis: "turn", rounds }
}

fn play(targets: Vec<Target>, plan: &Plan) -> Runner {
    let (_never, interrupt) = Interrupt::by_hand();
    let mut runner = Runner::new(targets, interrupt, Progress::of_things(""));
    runner.play(plan).unwrap();
    runner
}

#[test]
fn two_servers_are_asked_in_turns_and_the_other_one_first_each_time() {
    let asked = Asked::default();
    let targets = vec![serve("A", &asked, says), serve("B", &asked, says)];
    let asks = ["1", "2", "3"].map(|text| ask(None, text)).to_vec();
    let runner = play(targets, &plan(vec![Round::closed(1, asks), Round::closed(1, vec![ask(None, "4")])]));
    let order: Vec<_> =
        asked.lock().iter().map(|(name, messages)| (*name, messages[0]["content"].clone())).collect();
    let expected =
        [("A", "1"), ("B", "1"), ("B", "2"), ("A", "2"), ("A", "3"), ("B", "3"), ("B", "4"), ("A", "4")];
    assert_eq!(order, expected.map(|(name, text)| (name, json!(text))));
    let ends: Vec<_> = runner.records.iter().map(|record| record.began + record.took).collect();
    assert!(
        runner.records[1..].iter().zip(ends).all(|(next, end)| next.began >= end),
        "never at the same time"
    );
}

#[test]
fn a_conversation_goes_on_with_the_servers_own_answer() {
    let asked = Asked::default();
    let rounds = ["1", "2"].map(|text| Round::closed(2, vec![ask(Some(0), text), ask(Some(1), text)]));
    let runner = play(vec![serve("A", &asked, says)], &plan(rounds.to_vec()));
    assert!(runner.records.iter().all(|record| record.outcome.is_ok()));
    let user = |text: &str| json!({"role": "user", "content": text});
    let second = vec![user("1"), json!({"role": "assistant", "content": "to 1"}), user("2")];
    assert_eq!(
        asked.lock()[2..].iter().map(|(_, messages)| messages.clone()).collect::<Vec<_>>(),
        [second.clone(), second]
    );
}

#[test]
fn cut_and_empty_answers_are_counted_and_what_needed_them_is_too() {
    let asked = Asked::default();
    let answer = |text: &str| match text {
        "cut" => Some("data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n".into()),
        "empty" => {
            Some("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".into())
        }
        other => says(other),
    };
    let rounds = vec![
        Round::closed(1, vec![ask(Some(0), "cut"), ask(Some(1), "empty")]),
        Round::closed(1, vec![ask(Some(0), "more"), ask(Some(1), "more")]),
    ];
    let runner = play(vec![serve("A", &asked, answer)], &plan(rounds));
    let rows = super::super::stats::rows(&runner.records);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.requests, row.answered, row.empty), (4, 2, 1));
    let errors: Vec<_> = row.errors.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(errors, [("after a failed turn", 1), ("no [DONE]", 1)]);
    assert_eq!(asked.lock().len(), 3, "nothing is retried");
}

#[test]
fn a_schedule_sends_what_is_due_while_others_run() {
    let asked = Asked::default();
    // The first is never answered; the others arrive all the same.
    let answer = |text: &str| if text == "0" { None } else { says(text) };
    let asks =
        (0..3).map(|at| Ask { due: Duration::from_millis(20 * at), ..ask(None, &at.to_string()) }).collect();
    let target = serve("A", &asked, answer);
    let (stop, interrupt) = Interrupt::by_hand();
    let progress = Progress::of_things("");
    let mut runner = Runner::new(vec![target], interrupt, progress.clone());
    let watched = std::thread::spawn(move || {
        let begin = Instant::now();
        while progress.position() < 2 && begin.elapsed() < LIMIT {
            std::thread::yield_now();
        }
        // Ctrl-C: what was measured stays, what is under way is counted.
        drop(stop);
    });
    let round = Round { restart: false, pace: Pace::Schedule, asks };
    let begin = Instant::now();
    runner.play(&plan(vec![round, Round::closed(1, vec![ask(None, "never sent")])])).unwrap();
    watched.join().unwrap();
    assert!(begin.elapsed() < LIMIT);
    let mut places: Vec<_> = runner.records.iter().map(|record| record.place).collect();
    places.sort_unstable();
    assert_eq!((places, runner.unfinished), (vec![1, 2], 1));
    assert!(
        runner.records.iter().all(|record| record.began >= Duration::from_millis(20 * record.place as u64))
    );
}

#[test]
fn no_more_requests_run_than_there_are_clients() {
    let asked = Asked::default();
    let asks: Vec<_> = (0..12).map(|at| ask(None, &at.to_string())).collect();
    let runner = play(vec![serve("A", &asked, says)], &plan(vec![Round::closed(3, asks)]));
    assert_eq!(runner.records.len(), 12);
    for record in &runner.records {
        let at = record.began;
        let running =
            runner.records.iter().filter(|other| other.began <= at && at < other.began + other.took);
        assert!(running.count() <= 3);
    }
}
