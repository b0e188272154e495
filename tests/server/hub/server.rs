//! A Hub of our own on loopback. It lists a revision's files and gives them, as the Hugging Face Hub does: small ones at
//! once, weights by a redirect, parts of both by `Range`. It fails in the ways that the tests ask for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

/// The model that is served.
pub const MODEL: &str = "org/tiny";
/// Who may read it, where not everybody may; the token of somebody who asked and waits; anything else is no token.
pub const READER: &str = "hf_reader";
pub const WAITING: &str = "hf_waiting";

type Files = BTreeMap<String, Vec<u8>>;

/// How the Hub behaves. Tests change it while it runs.
#[derive(Default)]
pub struct Behaviour {
    /// Commits and their files.
    pub commits: BTreeMap<String, Files>,
    /// Branches and tags, and the commits they name.
    pub names: BTreeMap<String, String>,
    /// Only [`READER`] may read.
    pub gated: bool,
    /// Bytes after which each coming transfer of weights is cut; when none is left, they come whole.
    pub cuts: Vec<usize>,
    /// `Range` is not understood: the whole file comes.
    pub whole: bool,
    /// Every request is answered with this status.
    pub status: Option<u16>,
    /// What was asked for, oldest first: path and first byte. Requests for a file's size are left out.
    pub asked: Vec<(String, u64)>,
}

/// A running Hub. Dropping it closes it to new connections.
pub struct Hub {
    pub url: String,
    pub behaviour: Arc<Mutex<Behaviour>>,
    address: std::net::SocketAddr,
}

impl Hub {
    /// A Hub whose branch `main` names one commit with these files.
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hub = Self { url: format!("http://{address}"), behaviour: Arc::default(), address };
        hub.commit("c0ffee01", "main", files);
        let (behaviour, url) = (hub.behaviour.clone(), hub.url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // One request without a line is the word to stop.
                if answer(stream, &url, &behaviour).is_none() {
                    return;
                }
            }
        });
        hub
    }

    /// Adds a commit and lets a name point to it.
    pub fn commit(&self, hash: &str, name: &str, files: &[(&str, &[u8])]) {
        let mut behaviour = self.behaviour.lock().unwrap();
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        behaviour.commits.insert(hash.into(), files);
        behaviour.names.insert(name.into(), hash.into());
    }

    /// Changes how it behaves.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// What was asked for since the last call.
    pub fn asked(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.behaviour.lock().unwrap().asked)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        TcpStream::connect(self.address).ok();
    }
}

/// A request: its path, the part it wants (the first byte, and whether it is to the end), and its token.
struct Request {
    path: String,
    from: usize,
    to_end: bool,
    token: Option<String>,
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, from: 0, to_end: true, token: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
                (request.from, request.to_end) = (from.parse().ok()?, to.is_empty());
            }
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    Some(request)
}

fn answer(stream: TcpStream, url: &str, behaviour: &Mutex<Behaviour>) -> Option<()> {
    let Request { path, from, to_end, token } = read(&stream)?;
    let mut behaviour = behaviour.lock().unwrap();
    // A request for the first byte alone asks for the size.
    if to_end {
        behaviour.asked.push((path.clone(), from as u64));
    }
    let refused = match (behaviour.gated, token.as_deref()) {
        (true, Some(WAITING)) => Some(403),
        (true, token) if token != Some(READER) => Some(401),
        _ => None,
    };
    // The storage that weights are redirected to takes no token.
    let refused = refused.filter(|_| !path.starts_with("/storage/"));
    if let Some(status) = behaviour.status.or(refused) {
        return send(stream, status, "", b"");
    }
    let commit_of = |revision: &str| {
        let hash = behaviour.names.get(revision).map_or(revision, String::as_str).to_owned();
        behaviour.commits.get(&hash).map(|files| (hash, files.clone()))
    };
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{MODEL}/revision/")) {
        let Some((hash, files)) = commit_of(&revision.replace("%2F", "/")) else {
            return send(stream, 404, "", b"");
        };
        let siblings: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
        let body = json!({"id": MODEL, "sha": hash, "siblings": siblings}).to_string();
        return send(stream, 200, "", body.as_bytes());
    }
    let at = path.strip_prefix(&format!("/{MODEL}/resolve/")).or_else(|| path.strip_prefix("/storage/"));
    let found = at.and_then(|at| at.split_once('/')).and_then(|(revision, name)| {
        let (hash, mut files) = commit_of(revision)?;
        Some((hash, name, files.remove(name)?))
    });
    let Some((hash, name, bytes)) = found else {
        return send(stream, 404, "", b"");
    };
    let about = format!("ETag: \"{hash}{}\"\r\nX-Repo-Commit: {hash}\r\n", name.replace('.', "-"));
    if name.ends_with(".safetensors") && !path.starts_with("/storage/") {
        let about = about.replace("ETag", "X-Linked-Etag");
        let to = format!("Location: {url}/storage/{hash}/{name}\r\n{about}");
        return send(stream, 302, &to, b"");
    }
    if from >= bytes.len() {
        return send(stream, 416, "", b"");
    }
    let rest = &bytes[from..];
    let range = format!("{about}Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    if !to_end {
        return send(stream, 206, &range, &rest[..1]);
    }
    if path.starts_with("/storage/") && !behaviour.cuts.is_empty() {
        let cut = behaviour.cuts.remove(0).min(rest.len());
        return send_part(stream, 206, &range, rest.len(), &rest[..cut]);
    }
    if path.starts_with("/storage/") && behaviour.whole {
        return send(stream, 200, &about, &bytes);
    }
    send(stream, 206, &range, rest)
}

fn send(stream: TcpStream, status: u16, headers: &str, body: &[u8]) -> Option<()> {
    send_part(stream, status, headers, body.len(), body)
}

/// A body that is shorter than its header says when `sent` is.
fn send_part(mut stream: TcpStream, status: u16, headers: &str, length: usize, sent: &[u8]) -> Option<()> {
    let head =
        format!("HTTP/1.1 {status} -\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent)).ok()
}
