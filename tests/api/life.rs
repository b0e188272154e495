//! Clients that leave, engines that are slow or fail, queues that are full, servers that stop.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use prefixd::api::ApiSettings;
use prefixd::scheduler::{Condition, SchedulerOptions};
use prefixd_engine::EngineError;
use prefixd_engine::sim::{SimCall, SimEngine};
use serde_json::json;

use super::client::{chat, chat_body, get, leave, receive, send};
use super::model::VOCAB;
use super::server::{Server, Setup};

const CHAT: &str = "/v1/chat/completions";

/// An engine whose every prefill chunk is announced and waits to be let go.
fn stepped(settings: ApiSettings, options: SchedulerOptions) -> (Server, Receiver<SimCall>, SyncSender<()>) {
    let (seen, calls): (Sender<SimCall>, _) = channel();
    let (go, wait) = sync_channel(0);
    let engine = SimEngine::new(VOCAB, 100_000, 64).with_hook(move |call| {
        // A test that is over no longer listens, nor lets anything go.
        let prefilling = call.prefilling() > 0;
        seen.send(call).ok();
        if prefilling {
            wait.recv().ok();
        }
        Ok(())
    });
    (Setup { options, settings, ..Setup::default() }.start(engine), calls, go)
}

fn quiet() -> ApiSettings {
    ApiSettings { keepalive: None, workers: 1, shutdown: Duration::from_secs(1), ..ApiSettings::default() }
}

#[test]
fn a_client_that_leaves_during_prefill_frees_its_row() {
    for stream in [false, true] {
        let options =
            SchedulerOptions { prefill_step_tokens: 1, block_tokens: 16, ..SchedulerOptions::default() };
        let (server, calls, go) = stepped(quiet(), options);
        let body = chat_body(&"long ".repeat(2000), json!({"stream": stream}));
        let connection = send(server.address, "POST", CHAT, &[], body.to_string().as_bytes());
        calls.recv().unwrap();
        leave(connection);
        // Each chunk gives the server the time of a whole request to notice; 10,000 chunks are left.
        let step = || {
            assert_eq!(get(server.address, "/health/live").status, 200);
            // Nobody waits any more once the row is gone.
            go.try_send(()).ok();
        };
        server.eventually("the cancel", step, |status| status.cancelled == 1 && status.prefilling == 0);
        assert!(calls.try_iter().all(|call| call.decoding() == 0), "the prompt was computed to its end");
        drop(go);
    }
}

#[test]
fn a_client_that_leaves_while_reading_frees_its_row() {
    let server = Setup::default().sim();
    for (stream, cancelled) in [(true, 1), (false, 2)] {
        let body = chat_body("x", json!({"stream": stream, "max_tokens": 90_000, "ignore_eos": true}));
        let mut connection = send(server.address, "POST", CHAT, &[], body.to_string().as_bytes());
        if stream {
            connection.read_exact(&mut [0; 2000]).unwrap();
        } else {
            server.eventually("decoding", || {}, |status| status.decoding == 1);
        }
        leave(connection);
        server.eventually(
            "the cancel",
            || {},
            |status| status.cancelled == cancelled && status.decoding == 0,
        );
    }
}

#[test]
fn silence_is_filled_with_comments_and_the_role_comes_at_once() {
    let settings = ApiSettings { keepalive: Some(Duration::from_millis(20)), ..quiet() };
    let (server, calls, go) =
        stepped(settings, SchedulerOptions { block_tokens: 16, ..SchedulerOptions::default() });
    let body = chat_body("x", json!({"stream": true, "max_tokens": 2}));
    let mut connection = send(server.address, "POST", CHAT, &[], body.to_string().as_bytes());
    calls.recv().unwrap();
    let mut seen = Vec::new();
    while seen.windows(14).filter(|bytes| bytes == b"\n: keepalive\n\n").count() < 2 {
        let mut more = [0; 512];
        let count = connection.read(&mut more).unwrap();
        seen.extend(&more[..count]);
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.find("\"role\":\"assistant\"").unwrap() < text.find(": keepalive").unwrap());
    go.send(()).unwrap();
    let mut rest = String::new();
    connection.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]\n\n"), "{rest}");
}

#[test]
fn a_message_starts_at_once_and_silence_is_filled_with_pings() {
    for keepalive in [Some(Duration::from_millis(20)), None] {
        let settings = ApiSettings { keepalive, ..quiet() };
        let (server, calls, go) =
            stepped(settings, SchedulerOptions { block_tokens: 16, ..SchedulerOptions::default() });
        let body = chat_body("x", json!({"stream": true, "max_tokens": 2}));
        let mut connection = send(server.address, "POST", "/v1/messages", &[], body.to_string().as_bytes());
        calls.recv().unwrap();
        // The prompt is not computed yet.
        let (mut seen, pings) = (Vec::new(), if keepalive.is_some() { 3 } else { 1 });
        while String::from_utf8_lossy(&seen).matches("event: ping\n").count() < pings {
            let mut more = [0; 512];
            let count = connection.read(&mut more).unwrap();
            seen.extend(&more[..count]);
        }
        go.send(()).unwrap();
        let mut rest = String::new();
        connection.read_to_string(&mut rest).unwrap();
        let text = String::from_utf8_lossy(&seen).into_owned() + &rest;
        assert!(text.find("event: message_start").unwrap() < text.find("event: ping").unwrap());
        assert_eq!(
            (text.matches("event: message_start").count(), text.matches("\n: ").count()),
            (1, 0),
            "{text}"
        );
        let counts: Vec<u64> = text
            .split("\"input_tokens\":")
            .skip(1)
            .map(|rest| rest.split(',').next().unwrap().parse().unwrap())
            .collect();
        assert!(counts.len() == 2 && counts[0] > 0 && counts[0] == counts[1], "{text}");
    }
}

#[test]
fn comments_can_be_switched_off() {
    let server = Setup::default().sim();
    let response = chat(server.address, "x", json!({"stream": true, "max_tokens": 50, "ignore_eos": true}));
    assert!(response.frames().iter().all(|frame| frame.starts_with("data: ")));
}

#[test]
fn an_engine_that_fails_is_said_before_and_within_a_stream() {
    let mut decodes = 0;
    let engine = SimEngine::new(VOCAB, 100_000, 64).with_hook(move |call| {
        decodes += call.decoding();
        if decodes % 3 == 0 && call.decoding() > 0 {
            Err(EngineError::Backend("out of luck".into()))
        } else {
            Ok(())
        }
    });
    let server = Setup::default().start(engine);
    let more = json!({"max_tokens": 50, "ignore_eos": true});
    let whole = chat(server.address, "x", more);
    assert_eq!((whole.status, whole.json()["error"]["code"].as_str()), (500, Some("engine_error")));
    assert!(whole.json()["error"]["message"].as_str().unwrap().contains("out of luck"));
    let stream = chat(server.address, "x", json!({"max_tokens": 50, "ignore_eos": true, "stream": true}));
    let frames = stream.frames();
    let last: serde_json::Value =
        serde_json::from_str(frames.last().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "engine_error");
    assert!(frames.iter().all(|frame| !frame.contains("[DONE]")));
    assert_eq!(chat(server.address, "x", json!({"max_tokens": 2, "ignore_eos": true})).status, 200);
}

#[test]
fn an_engine_that_fails_step_after_step_turns_ready_red_and_green_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let engine = SimEngine::new(VOCAB, 100_000, 64).with_hook(move |_| {
        let fails = switch.load(Ordering::SeqCst);
        if fails { Err(EngineError::Backend("out of luck".into())) } else { Ok(()) }
    });
    let server = Setup::default().start(engine);
    assert_eq!(get(server.address, "/health/ready").status, 200);
    for _ in 0..3 {
        let failed = chat(server.address, "x", json!({"max_tokens": 2}));
        assert_eq!((failed.status, failed.json()["error"]["code"].as_str()), (500, Some("engine_error")));
    }
    server.eventually(
        "the red light",
        || {},
        |status| matches!(&status.condition, Condition::Failing(reason) if reason.contains("out of luck")),
    );
    let ready = get(server.address, "/health/ready");
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("failing")));
    assert!(ready.json()["reason"].as_str().unwrap().contains("out of luck"));
    assert_eq!(get(server.address, "/health/live").status, 200);
    let refused = chat(server.address, "x", json!({"max_tokens": 2}));
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("engine_failing")));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("out of luck"));
    assert!(refused.header("retry-after").is_some());
    broken.store(false, Ordering::SeqCst);
    server.eventually("the green light", || {}, |status| status.condition == Condition::Ready);
    assert_eq!(chat(server.address, "x", json!({"max_tokens": 2, "ignore_eos": true})).status, 200);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let options =
        SchedulerOptions { max_batch: 1, queue_limit: 1, block_tokens: 16, ..SchedulerOptions::default() };
    let (server, calls, go) = stepped(quiet(), options);
    let ask = || {
        send(
            server.address,
            "POST",
            CHAT,
            &[],
            chat_body("x", json!({"max_tokens": 1})).to_string().as_bytes(),
        )
    };
    let first = ask();
    calls.recv().unwrap();
    let second = ask();
    server.eventually("the queue's place", || {}, |status| status.waiting == 1);
    let third = receive(ask());
    assert_eq!((third.status, third.header("retry-after")), (429, Some("1")));
    assert_eq!(third.json()["error"]["code"], "queue_full");
    for waiting in [first, second] {
        go.send(()).unwrap();
        assert_eq!(receive(waiting).status, 200);
    }
}

#[test]
fn a_draining_server_finishes_and_refuses() {
    let (server, calls, go) =
        stepped(quiet(), SchedulerOptions { block_tokens: 16, ..SchedulerOptions::default() });
    let ready = get(server.address, "/health");
    assert_eq!(ready.status, 200);
    let expected = json!({"status": "ready", "model": "maker/model", "backend": "sim", "kv": "digest", "context_tokens": 100_000,
        "queue": {"waiting": 0, "prefilling": 0, "decoding": 0}, "cache": {"degraded": null}});
    assert_eq!(ready.json(), expected);
    let running = send(
        server.address,
        "POST",
        CHAT,
        &[],
        chat_body("x", json!({"max_tokens": 3, "ignore_eos": true})).to_string().as_bytes(),
    );
    calls.recv().unwrap();
    server.scheduler.drain(Duration::from_secs(30));
    go.send(()).unwrap();
    assert_eq!(receive(running).status, 200);
    server.eventually("the drain", || {}, |status| status.condition != Condition::Ready);
    for path in ["/health", "/health/ready"] {
        let health = get(server.address, path);
        assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("draining")));
    }
    assert_eq!(get(server.address, "/health/live").status, 200);
    let refused = chat(server.address, "x", json!({}));
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("shutting_down")));
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn a_dead_scheduler_shows_in_health() {
    let engine = SimEngine::new(VOCAB, 100_000, 64).with_hook(|_| panic!("the engine broke"));
    let server = Setup::default().start(engine);
    let failed = chat(server.address, "x", json!({}));
    assert_eq!(failed.status, 500, "{}", failed.text());
    server.eventually("the end", || {}, |status| matches!(status.condition, Condition::Failed(_)));
    let health = get(server.address, "/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (503, Some("failed")));
    assert!(health.json()["reason"].as_str().unwrap().contains("the engine broke"));
    server.forget_failure();
}

#[test]
fn the_model_is_listed_under_each_of_its_names() {
    let server = Setup::default().sim();
    let list = get(server.address, "/v1/models").json();
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["maker/model", "alias", "default"]);
    for id in ids {
        let model = get(server.address, &format!("/v1/models/{id}")).json();
        assert_eq!(
            model,
            json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "prefixd", "root": "maker/model", "max_model_len": 100_000})
        );
        assert_eq!(chat(server.address, "x", json!({"model": id, "max_tokens": 1})).json()["model"], id);
    }
}

#[test]
fn request_ids_are_echoed_or_made() {
    let server = Setup::default().sim();
    let with = |headers: &[(&str, &str)]| {
        receive(send(server.address, "GET", "/health", headers, b""))
            .header("x-request-id")
            .map(str::to_owned)
    };
    assert_eq!(with(&[("x-request-id", "mine-1")]).as_deref(), Some("mine-1"));
    let (a, b) = (with(&[]).unwrap(), with(&[]).unwrap());
    assert!(a.starts_with("req-") && a != b);
    assert_ne!(with(&[("x-request-id", &"x".repeat(200))]).unwrap().len(), 200);
}
