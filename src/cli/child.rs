//! A server of our own in a process of its own, for `demo` and `eval`: started, asked, stopped, started again.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::client::{Client, ClientOptions};

/// What the ready line begins with; the server's address follows.
pub const READY: &str = "prefixd is ready at ";

/// How to start the server.
#[derive(Clone, Debug)]
pub struct ServerCommand {
    /// The model's directory or id; `None`: the embedded model.
    pub model: Option<String>,
    /// Where blocks are kept.
    pub cache_dir: PathBuf,
    /// The KV setting; `None`: the configured one.
    pub kv_bits: Option<String>,
    /// Rows in a batch; `None`: the configured number.
    pub max_batch: Option<usize>,
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts this very program as a server on a free port and waits until it is ready.
    pub fn start(command: &ServerCommand) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        let mut child = arguments(&program, command).spawn().context("the server process did not start")?;
        let stdout = child.stdout.take().context("the server process has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let found =
            lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix(READY).map(str::to_owned));
        let Some(url) = found else {
            let status = child.wait()?;
            anyhow::bail!("the server ended before it was ready ({status}); its log above says why");
        };
        // Keeps the pipe open and empty; the thread ends with the server.
        std::thread::Builder::new().name("server-output".into()).spawn(move || lines.for_each(drop))?;
        Ok(Self { child, url: url.trim().to_owned() })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.url, ClientOptions::default())
    }

    /// Ends it in order: it finishes answers, writes its blocks, and exits.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)
            .context("the server could not be told to stop")?;
        // Its end would be a second wish to stop, which gives up what is still to be written.
        let input = self.child.stdin.take();
        let status = self.child.wait()?;
        drop(input);
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

fn arguments(program: &Path, command: &ServerCommand) -> Command {
    let mut process = Command::new(program);
    process.arg("serve").args(command.model.as_ref());
    process
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--log-level",
            "warn",
            "--until-input-ends",
            "--cache-dir",
        ])
        .arg(&command.cache_dir);
    for (flag, value) in
        [("--kv-bits", command.kv_bits.clone()), ("--max-batch", command.max_batch.map(|n| n.to_string()))]
    {
        if let Some(value) = value {
            process.args([flag, &value]);
        }
    }
    // Its input ends with this process, however that ends.
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    process
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is fine.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
