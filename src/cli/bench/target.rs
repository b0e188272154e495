//! A server under measurement: somebody else's at an address, or one of our own in a child process.

use std::collections::HashMap;

use anyhow::Context;
use serde_json::{Value, json};

use super::plan::Ask;
use super::text::Writer;
use crate::cli::child::{Server, ServerCommand};
use crate::cli::client::{Answer, Client, ClientError, ClientOptions};

/// One server and its conversations.
pub struct Target {
    /// What tables call it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// The model that requests name; `None`: they name none.
    pub model: Option<String>,
    /// Its requests keep on after the end of an answer.
    pub ignore_eos: bool,
    client: Client,
    options: ClientOptions,
    child: Option<(Server, ServerCommand)>,
    /// By number; `None`: a turn failed, so there is nothing to go on with.
    conversations: HashMap<usize, Option<Vec<Value>>>,
}

impl Target {
    /// The server at `url`. Requests name the model that it lists when it lists one alone, unless `model` does.
    pub fn connect(
        name: &str,
        url: &str,
        model: Option<String>,
        options: ClientOptions,
    ) -> anyhow::Result<Self> {
        let schema = url.starts_with("http://") || url.starts_with("https://");
        anyhow::ensure!(schema, "the address is `{url}`; expected http://host:port or https://...");
        let client = Client::new(url, options.clone());
        let model = match model {
            Some(model) => Some(model),
            None => match client.models() {
                Ok(mut models) if models.len() == 1 => models.pop(),
                // A server that lists several, or cannot list any, may still answer requests that name none.
                Ok(_)
                | Err(ClientError::Status { .. } | ClientError::Malformed(_) | ClientError::Transport(_)) => {
                    None
                }
                Err(error) => return Err(error).with_context(|| format!("nobody answers at {url}")),
            },
        };
        let (name, url) = (name.to_owned(), url.to_owned());
        let conversations = HashMap::new();
        Ok(Self { name, url, model, ignore_eos: false, client, options, child: None, conversations })
    }

    /// A server of our own.
    pub fn start(command: ServerCommand, options: ClientOptions) -> anyhow::Result<Self> {
        let server = Server::start(&command)?;
        let mut target = Self::connect("prefixd", server.url(), None, options)?;
        target.child = Some((server, command));
        Ok(target)
    }

    /// It is ours to restart.
    pub fn can_restart(&self) -> bool {
        self.child.is_some()
    }

    /// Ends its process in order and starts a new one over the same blocks.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let (server, command) = self.child.take().context("this server is not ours to restart")?;
        server.stop()?;
        let server = Server::start(&command)?;
        server.url().clone_into(&mut self.url);
        self.client = Client::new(&self.url, self.options.clone());
        self.child = Some((server, command));
        Ok(())
    }

    /// Forgets the conversations of the scenario before.
    pub fn begin(&mut self) {
        self.conversations.clear();
    }

    /// A client for one request.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// What a request says; `None`: an earlier turn of its conversation failed.
    pub fn body(&mut self, ask: &Ask) -> Option<Value> {
        let messages = match ask.conversation {
            Some(number) => {
                let history = self.conversations.entry(number).or_insert(Some(Vec::new())).as_mut()?;
                history.extend_from_slice(&ask.messages);
                history.clone()
            }
            None => ask.messages.clone(),
        };
        let mut body = self.request(messages, ask.max_tokens);
        if !ask.tools.is_empty() {
            body["tools"] = json!(ask.tools);
        }
        Some(body)
    }

    /// Takes the answer into its conversation; `None`: there was none.
    pub fn answered(&mut self, ask: &Ask, answer: Option<&Answer>) {
        let Some(conversation) = ask.conversation.and_then(|number| self.conversations.get_mut(&number))
        else {
            return;
        };
        match (conversation.as_mut(), answer) {
            (Some(history), Some(answer)) => history.push(answer.message()),
            _ => *conversation = None,
        }
    }

    /// Tokens per word of the vocabulary, by the server's own count of two short prompts; `None`: it does not count.
    /// What the template adds is the same in both.
    pub fn tokens_per_word(&self, seed: u64, salt: &str) -> anyhow::Result<Option<f64>> {
        const WORDS: [usize; 2] = [16, 144];
        let mut tokens = [0; 2];
        for (tokens, words) in tokens.iter_mut().zip(WORDS) {
            let text = Writer::new(seed, salt, &format!("count of {words}")).words(words);
            let body = self.request(vec![json!({"role": "user", "content": text})], 1);
            let answer =
                self.client.chat(body).with_context(|| format!("{} answers no request", self.url))?;
            let Some(count) = answer.usage.prompt_tokens else { return Ok(None) };
            *tokens = count;
        }
        let rate = tokens[1].saturating_sub(tokens[0]) as f64 / (WORDS[1] - WORDS[0]) as f64;
        anyhow::ensure!(
            rate > 0.0,
            "{} counts {} and {} prompt tokens in {WORDS:?} words",
            self.url,
            tokens[0],
            tokens[1]
        );
        Ok(Some(rate))
    }

    /// Asks something short that is not measured, so that what a server does once is done.
    pub fn warm_up(&self) -> anyhow::Result<()> {
        let body = self.request(vec![json!({"role": "user", "content": "Hello."})], 1);
        self.client.chat(body).with_context(|| format!("{} answers no request", self.url))?;
        Ok(())
    }

    fn request(&self, messages: Vec<Value>, max_tokens: u64) -> Value {
        let mut body = json!({"temperature": 0, "max_tokens": max_tokens});
        body["messages"] = Value::Array(messages);
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if self.ignore_eos {
            body["ignore_eos"] = json!(true);
        }
        body
    }
}
