//! How a call itself is written, without the marks around it.

use serde_json::Value;

use super::json::{Begun, Scan, begun};
use super::marked::Unread;
use super::named::Named;
use super::tagged::{self, Tags};
use super::{ToolCall, gemma, hermes, pythonic};

/// How a call itself is written.
#[derive(Clone, Copy, Debug)]
pub enum CallBody {
    /// A JSON object with a name and arguments.
    Json {
        /// The key of the arguments.
        arguments: &'static str,
    },
    /// Such objects in a list.
    JsonList,
    /// Gemma's own way.
    Gemma {
        /// Around strings.
        quote: &'static str,
    },
    /// Each argument between marks.
    Tagged(&'static Tags),
    /// Python's calls, in a list.
    Python,
    /// A name between marks, and JSON.
    Named(&'static Named),
}

impl CallBody {
    /// Reads what stands between two marks.
    pub fn read(self, body: &str, tools: &[(String, Value)]) -> Result<Vec<ToolCall>, Unread> {
        let call = match self {
            Self::Json { .. } => hermes::read(body),
            Self::Gemma { quote } => gemma::read(body, quote),
            Self::Tagged(tags) => return tags.read(body, tools),
            Self::JsonList => return hermes::read_list(body),
            Self::Python => return pythonic::read(body),
            Self::Named(named) => return named.read(body),
        };
        Ok(vec![call?])
    }

    /// Only the mark behind a call tells that it is whole.
    pub fn needs_close(self) -> bool {
        matches!(self, Self::Tagged(tags) if tags.shared_end)
    }

    /// Several calls may stand between two marks.
    fn several(self) -> bool {
        match self {
            Self::Json { .. } | Self::Gemma { .. } => false,
            Self::Tagged(tags) => tags.several(),
            Self::JsonList | Self::Python | Self::Named(_) => true,
        }
    }

    /// The name of a call and where its arguments begin, as soon as that is known.
    pub fn head(self, body: &str) -> Option<(String, usize)> {
        match self {
            Self::Json { .. } => match begun(body, |_, _| true) {
                Begun::Call { name, at } => Some((name, at)),
                Begun::Open | Begun::Other => None,
            },
            Self::JsonList => {
                let at = body.find('{')?;
                Self::Json { arguments: "" }.head(&body[at..]).map(|(name, more)| (name, at + more))
            }
            Self::Gemma { .. } => gemma::head(body),
            Self::Tagged(tags) => tags.head(body),
            Self::Python => pythonic::head(body),
            Self::Named(named) => named.head(body),
        }
    }

    /// The same of the call that follows one in `body`, between the same marks.
    pub fn next(self, body: &str) -> Option<(String, usize)> {
        if self.several() { self.head(body) } else { None }
    }

    /// The arguments of a call of the tool `name`, before the first letter.
    pub fn arguments(self, name: &str, tools: &[(String, Value)]) -> Arguments {
        match self {
            Self::Json { .. } | Self::JsonList | Self::Named(_) => Arguments::Json(Scan::default()),
            Self::Python => Arguments::Python(pythonic::Scan::default()),
            Self::Gemma { quote } => Arguments::Gemma(gemma::Scan::new(quote)),
            Self::Tagged(tags) => Arguments::Tagged(tagged::Scan::new(tags, name, tools)),
        }
    }

    /// The calls whose arguments are whole, whatever is missing behind them.
    pub fn complete(self, body: &str, tools: &[(String, Value)]) -> Vec<ToolCall> {
        let (mut calls, mut rest) = (Vec::new(), body.to_owned());
        let mut head = self.head(&rest);
        while let Some((name, at)) = head {
            rest.drain(..at);
            let mut scan = self.arguments(&name, tools);
            let arguments = scan.push(&mut rest);
            if !scan.done() {
                break;
            }
            calls.push(ToolCall { name, arguments });
            head = self.next(&rest);
        }
        calls
    }
}

/// Arguments on their way to JSON.
#[derive(Debug)]
pub enum Arguments {
    /// JSON themselves.
    Json(Scan),
    /// Gemma's.
    Gemma(gemma::Scan),
    /// Python's.
    Python(pythonic::Scan),
    /// Between marks.
    Tagged(tagged::Scan),
}

impl Arguments {
    /// Takes what `text` has of them, and leaves the rest; what is certain of their JSON now.
    pub fn push(&mut self, text: &mut String) -> String {
        match self {
            Self::Json(scan) => scan.push(text),
            Self::Gemma(scan) => scan.push(text),
            Self::Python(scan) => scan.push(text),
            Self::Tagged(scan) => scan.push(text),
        }
    }

    /// They are whole.
    pub fn done(&self) -> bool {
        match self {
            Self::Json(scan) => scan.done(),
            Self::Gemma(scan) => scan.done(),
            Self::Python(scan) => scan.done(),
            Self::Tagged(scan) => scan.done(),
        }
    }
}
