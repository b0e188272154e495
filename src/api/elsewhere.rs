//! Where what a client looks for is found here: paths of Ollama, LM Studio, llama.cpp and others, and addresses with one
//! `/v1` too many or too few.

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const MODELS: &str = "/v1/models";
const EMBEDDINGS: &str = "/v1/embeddings";
const HEALTH: &str = "/health";

/// Other servers' paths.
const PATHS: [(&str, &str); 25] = [
    // Ollama
    ("/api/chat", CHAT),
    ("/api/generate", TEXT),
    ("/api/tags", MODELS),
    ("/api/show", MODELS),
    ("/api/ps", MODELS),
    ("/api/version", HEALTH),
    ("/api/embed", EMBEDDINGS),
    ("/api/embeddings", EMBEDDINGS),
    // llama.cpp
    ("/props", HEALTH),
    ("/slots", HEALTH),
    ("/completion", TEXT),
    ("/embedding", EMBEDDINGS),
    ("/tokenize", "/v1/messages/count_tokens"),
    ("/apply-template", "/v1/messages/count_tokens"),
    // Text Generation Inference, SGLang
    ("/generate", TEXT),
    ("/generate_stream", TEXT),
    ("/info", MODELS),
    ("/get_model_info", MODELS),
    ("/server_info", HEALTH),
    // Load balancers
    ("/healthz", HEALTH),
    ("/livez", "/health/live"),
    ("/readyz", "/health/ready"),
    ("/ping", HEALTH),
    // Older names
    ("/v1/chat", CHAT),
    ("/v1/complete", TEXT),
];

/// The path that is served for one that is not; `served` says which are.
pub fn instead(path: &str, served: impl Fn(&str) -> bool) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let plain = format!("/{}", parts.join("/"));
    if let Some((_, here)) = PATHS.iter().find(|(there, _)| *there == plain) {
        return Some((*here).to_owned());
    }
    // LM Studio has its own API under /api/v0, others put everything under /api or /openai.
    let rest: Vec<&str> = parts
        .iter()
        .copied()
        .skip_while(|part| matches!(*part, "api" | "openai" | "anthropic" | "v0" | "v1"))
        .collect();
    let versioned = format!("/v1/{}", rest.join("/"));
    let unversioned = format!("/{}", rest.join("/"));
    [plain, versioned, unversioned].into_iter().find(|candidate| candidate != path && served(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_elsewhere_is_found_here() {
        let served = |path: &str| [CHAT, MODELS, TEXT, HEALTH, "/v1/messages"].contains(&path);
        for (path, here) in [
            ("/api/chat", Some(CHAT)),
            ("/api/tags/", Some(MODELS)),
            ("/props", Some(HEALTH)),
            ("/v1/v1/chat/completions", Some(CHAT)),
            ("/v1/v1/v1/models", Some(MODELS)),
            ("/chat/completions", Some(CHAT)),
            ("/models", Some(MODELS)),
            ("//v1//models", Some(MODELS)),
            ("/v1/chat/completions/", Some(CHAT)),
            ("/api/v0/models", Some(MODELS)),
            ("/anthropic/v1/messages", Some("/v1/messages")),
            ("/v1/health", Some(HEALTH)),
            ("/nowhere", None),
            ("/", None),
            ("/v1", None),
        ] {
            assert_eq!(instead(path, served).as_deref(), here, "{path}");
        }
    }
}
