//! How a call itself is written, without the marks around it.

use serde_json::Value;

use super::json::{Begun, Scan, begun};
use super::marked::Unread;
use super::named::Named;
use super::{ToolCall, coder, gemma, hermes};

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
    /// Qwen3-Coder's way.
    Coder,
    /// A name between marks, and JSON.
    Named(&'static Named),
}

impl CallBody {
    /// Reads what stands between two marks.
    pub fn read(self, body: &str, tools: &[(String, Value)]) -> Result<Vec<ToolCall>, Unread> {
        let call = match self {
            Self::Json { .. } => hermes::read(body),
            Self::Gemma { quote } => gemma::read(body, quote),
            Self::Coder => coder::read(body, tools),
            Self::JsonList => return hermes::read_list(body),
            Self::Named(named) => return named.read(body),
        };
        Ok(vec![call?])
    }

    /// Several calls may stand between two marks.
    fn several(self) -> bool {
        match self {
            Self::Json { .. } | Self::Gemma { .. } | Self::Coder => false,
            Self::JsonList | Self::Named(_) => true,
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
            Self::Coder => coder::head(body),
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
            Self::Gemma { quote } => Arguments::Gemma(gemma::Scan::new(quote)),
            Self::Coder => Arguments::Coder(coder::Scan::new(name, tools)),
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
    /// Qwen3-Coder's.
    Coder(coder::Scan),
}

impl Arguments {
    /// Takes what `text` has of them, and leaves the rest; what is certain of their JSON now.
    pub fn push(&mut self, text: &mut String) -> String {
        match self {
            Self::Json(scan) => scan.push(text),
            Self::Gemma(scan) => scan.push(text),
            Self::Coder(scan) => scan.push(text),
        }
    }

    /// They are whole.
    pub fn done(&self) -> bool {
        match self {
            Self::Json(scan) => scan.done(),
            Self::Gemma(scan) => scan.done(),
            Self::Coder(scan) => scan.done(),
        }
    }
}
