//! Why a request of our client has no answer. Every kind has a short name, so that they can be counted.

/// No answer, and why.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server could not be reached.
    #[error("no connection: {0}")]
    Connect(String),
    /// The time a request may take was over.
    #[error("time-out: {0}")]
    Timeout(String),
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Transport(String),
    /// An answer that is no success.
    #[error("the server answered {status}: {text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The body.
        text: String,
    },
    /// An error object in the stream.
    #[error("the stream failed: {0}")]
    Stream(String),
    /// The stream ended without saying so.
    #[error("the stream ended without [DONE]")]
    Cut,
    /// Something that the protocol does not know.
    #[error("{0}")]
    Malformed(String),
}

impl ClientError {
    /// A name to count it under.
    pub fn kind(&self) -> String {
        match self {
            Self::Connect(_) => "connect".into(),
            Self::Timeout(_) => "time-out".into(),
            Self::Transport(_) => "transport".into(),
            Self::Status { status, .. } => format!("status {status}"),
            Self::Stream(_) => "error in the stream".into(),
            Self::Cut => "no [DONE]".into(),
            Self::Malformed(_) => "malformed".into(),
        }
    }
}

impl From<ureq::Error> for ClientError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound => Self::Connect(error.to_string()),
            ureq::Error::Timeout(limit) => Self::Timeout(limit.to_string()),
            ureq::Error::Io(error) => error.into(),
            other => Self::Transport(other.to_string()),
        }
    }
}

impl From<std::io::Error> for ClientError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Connect(error.to_string()),
            // ureq hides its own error in one of these when a body's read runs out of time.
            _ => match error.downcast::<ureq::Error>() {
                Ok(inner @ ureq::Error::Timeout(_)) => inner.into(),
                Ok(inner) => Self::Transport(inner.to_string()),
                Err(error) => Self::Transport(error.to_string()),
            },
        }
    }
}
