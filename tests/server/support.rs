//! A real server for tests: this package's binary on a free port, over a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    pub url: String,
}

impl Server {
    /// Starts the binary with `flags` and waits for its ready line.
    pub fn start(cache_dir: &Path, flags: &[&str]) -> Self {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_prefixd")), cache_dir, flags)
    }

    /// The same, by a command that takes the binary's arguments.
    pub fn start_as(mut command: Command, cache_dir: &Path, flags: &[&str]) -> Self {
        command.args(["serve", "--host", "127.0.0.1", "--port", "0", "--log-level", "warn", "--cache-dir"]);
        command.arg(cache_dir).args(flags).stdin(Stdio::null()).stdout(Stdio::piped());
        Self::of(command.spawn().unwrap())
    }

    /// One that was just started, once it is ready. What it says on standard output afterwards is dropped.
    pub fn of(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("prefixd is ready at ").map(|url| url.trim().to_owned()))
            .expect("the server ended before it was ready");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and its exit.
    pub fn stop(self) {
        self.signal(rustix::process::Signal::TERM);
        self.ended();
    }

    /// Its exit, in order.
    pub fn ended(mut self) {
        assert!(self.child.wait().unwrap().success(), "the server did not end in order");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// GET, parsed.
    pub fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.get_text(path)).unwrap()
    }

    /// One value of `/metrics`, by its name and labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get_text("/metrics");
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let (_, value) =
            lines.find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no {name}: {text}"));
        value.parse().unwrap()
    }

    fn get_text(&self, path: &str) -> String {
        ureq::get(format!("{}{path}", self.url)).call().unwrap().into_body().read_to_string().unwrap()
    }

    /// The most memory that the process has held so far.
    pub fn most_memory_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// One chat request without streaming; the whole response.
    pub fn chat(&self, body: &Value) -> Value {
        let response = ureq::post(format!("{}/v1/chat/completions", self.url))
            .header("content-type", "application/json")
            .send(body.to_string())
            .unwrap();
        serde_json::from_str(&response.into_body().read_to_string().unwrap()).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A greedy request for `messages`.
pub fn greedy(messages: &[Value], max_tokens: u32) -> Value {
    json!({"messages": messages, "temperature": 0, "max_tokens": max_tokens})
}

/// The text of a response.
pub fn text(response: &Value) -> &str {
    response["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("no text in {response}"))
}

/// Prompt tokens that were not computed again.
pub fn cached_tokens(response: &Value) -> u64 {
    let details = &response["usage"]["prompt_tokens_details"];
    details["cached_tokens"].as_u64().unwrap_or_else(|| panic!("no cached_tokens in {response}"))
}

/// A copy of the embedded model.
pub fn copy_model(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk");
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
