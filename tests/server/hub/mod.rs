//! Models from a Hub: which files are fetched, what happens when they do not come, and what is said about it.

mod server;

use std::path::Path;
use std::process::Command;

use self::server::{Hub, MODEL, READER, WAITING};
use prefixd::config::ModelsConfig;
use prefixd::source::{HubError, ModelSource, SourceError, resolve};
use tempfile::TempDir;

const WEIGHTS: &[u8] = &[7; 5000];

/// A model with more in it than is read: other formats, other folders.
const FILES: [(&str, &[u8]); 9] = [
    (".gitattributes", b"*"),
    ("README.md", b"# tiny"),
    ("config.json", b"{}"),
    ("model.safetensors", WEIGHTS),
    ("onnx/model.safetensors", b"other"),
    ("preprocessor_config.json", b"{}"),
    ("pytorch_model.bin", b"other"),
    ("tokenizer.json", b"{\"tokens\": 1}"),
    ("tokenizer_config.json", b"{}"),
];

fn config(home: &TempDir, hub: &Hub) -> ModelsConfig {
    ModelsConfig {
        unpack_dir: home.path().join("models"),
        hf_home: Some(home.path().join("hf")),
        hf_token: None,
        hf_endpoint: Some(hub.url.clone()),
        hf_offline: false,
    }
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn read(source: &ModelSource, name: &str) -> Vec<u8> {
    std::fs::read(source.dir.join(name)).unwrap()
}

fn refusal(id: &str, config: &ModelsConfig) -> (HubError, String) {
    let error = resolve(Some(id), config).unwrap_err();
    let text = error.to_string();
    match error {
        SourceError::Hub { reason, .. } => (reason, text),
        other => panic!("expected a refusal of the Hub, found {other}"),
    }
}

/// First bytes of the transfers of the weights.
fn transfers(hub: &Hub) -> Vec<u64> {
    let asked = hub.asked();
    let of_weights = asked
        .iter()
        .filter(|(path, _)| path.starts_with("/storage/") && path.ends_with("/model.safetensors"));
    of_weights.map(|(_, from)| *from).collect()
}

#[test]
fn only_what_is_read_is_fetched_and_what_is_there_is_used_without_network() {
    let (home, hub) = (home(), Hub::start(&FILES));
    let source = resolve(Some(MODEL), &config(&home, &hub)).unwrap();
    assert_eq!(source.name, MODEL);
    assert_eq!(read(&source, "model.safetensors"), WEIGHTS);
    let mut names: Vec<_> = source
        .dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    hub.asked();
    // Not even when the branch moved: what is served does not change by itself.
    hub.commit("c0ffee02", "main", &[("config.json", b"{}")]);
    assert_eq!(resolve(Some(MODEL), &config(&home, &hub)).unwrap().dir, source.dir);
    assert_eq!(hub.asked(), []);
    let offline = ModelsConfig { hf_offline: true, ..config(&home, &hub) };
    assert_eq!(resolve(Some(MODEL), &offline).unwrap().dir, source.dir);
}

#[test]
fn an_index_says_which_weights_are_fetched() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let hub = Hub::start(&[
        ("config.json", b"{}"),
        ("consolidated.safetensors", b"twice as much"),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", b"two"),
        ("model.safetensors.index.json", index),
        ("tokenizer.json", b"{}"),
    ]);
    let home = home();
    let source = resolve(Some(MODEL), &config(&home, &hub)).unwrap();
    assert_eq!(read(&source, "model-2.safetensors"), b"two");
    assert!(!source.dir.join("consolidated.safetensors").exists());
    std::fs::remove_file(source.dir.join("model-2.safetensors")).unwrap();
    let offline = ModelsConfig { hf_offline: true, ..config(&home, &hub) };
    let error = resolve(Some(MODEL), &offline).unwrap_err().to_string();
    assert!(error.contains("lacks model-2.safetensors of org/tiny"), "{error}");
    assert_eq!(resolve(Some(MODEL), &config(&home, &hub)).unwrap().dir, source.dir);
    assert_eq!(read(&source, "model-2.safetensors"), b"two");
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let (home, hub) = (home(), Hub::start(&FILES));
    let mut older = FILES;
    older[3].1 = b"older weights";
    hub.commit("0123abcd", "v1", &older);
    hub.commit("0123abce", "refs/pr/1", &older);
    let config = config(&home, &hub);
    for revision in ["v1", "0123abcd", "refs/pr/1"] {
        let source = resolve(Some(&format!("{MODEL}@{revision}")), &config).unwrap();
        assert_eq!(
            (source.name.as_str(), read(&source, "model.safetensors")),
            (MODEL, b"older weights".to_vec())
        );
    }
    assert_eq!(read(&resolve(Some(MODEL), &config).unwrap(), "model.safetensors"), WEIGHTS);
    let (error, text) = refusal(&format!("{MODEL}@v9"), &config);
    assert!(matches!(&error, HubError::Revision(found) if found == "v9"), "{text}");
    let (error, text) = refusal("org/other", &config);
    assert!(matches!(error, HubError::Model), "{text}");
    assert!(text.starts_with(&format!("org/other could not be fetched from {}: ", hub.url)), "{text}");
}

#[test]
fn a_gated_model_says_what_its_reader_needs() {
    let (home, hub) = (home(), Hub::start(&FILES));
    hub.set(|hub| hub.gated = true);
    let with =
        |token: Option<&str>| ModelsConfig { hf_token: token.map(str::to_owned), ..config(&home, &hub) };
    assert!(matches!(refusal(MODEL, &with(None)).0, HubError::NoToken));
    assert!(matches!(refusal(MODEL, &with(Some("hf_nobody"))).0, HubError::Token));
    assert!(matches!(refusal(MODEL, &with(Some(WAITING))).0, HubError::Gated));
    assert_eq!(read(&resolve(Some(MODEL), &with(Some(READER))).unwrap(), "model.safetensors"), WEIGHTS);
}

#[test]
fn the_token_that_other_tools_keep_beside_the_cache_is_used() {
    let (home, hub) = (home(), Hub::start(&FILES));
    hub.set(|hub| hub.gated = true);
    std::fs::create_dir(home.path().join("hf")).unwrap();
    std::fs::write(home.path().join("hf/token"), format!("{READER}\n")).unwrap();
    assert!(resolve(Some(MODEL), &config(&home, &hub)).is_ok());
}

#[test]
fn a_transfer_that_breaks_off_goes_on_from_there() {
    let (home, hub) = (home(), Hub::start(&FILES));
    hub.set(|hub| hub.cuts = vec![1000, 500, 0, 2000]);
    let source = resolve(Some(MODEL), &config(&home, &hub)).unwrap();
    assert_eq!(transfers(&hub), [0, 1000, 1500, 1500, 3500]);
    assert_eq!(read(&source, "model.safetensors"), WEIGHTS);
}

#[test]
fn the_next_start_goes_on_and_half_a_model_is_none() {
    let (home, hub) = (home(), Hub::start(&FILES));
    hub.set(|hub| hub.cuts = vec![1000, 0, 0, 0, 0]);
    let (error, text) = refusal(MODEL, &config(&home, &hub));
    assert!(matches!(error, HubError::Transfer(_)), "{text}");
    assert!(text.contains("is kept"), "{text}");
    let offline = ModelsConfig { hf_offline: true, ..config(&home, &hub) };
    let error = resolve(Some(MODEL), &offline).unwrap_err();
    assert!(matches!(error, SourceError::Offline { .. }), "{error}");
    hub.set(|hub| hub.cuts.clear());
    hub.asked();
    let source = resolve(Some(MODEL), &config(&home, &hub)).unwrap();
    assert_eq!(transfers(&hub), [1000]);
    assert_eq!(read(&source, "model.safetensors"), WEIGHTS);
}

#[test]
fn a_server_that_knows_no_parts_gives_the_whole_file() {
    let (home, hub) = (home(), Hub::start(&FILES));
    hub.set(|hub| (hub.cuts, hub.whole) = (vec![1000], true));
    let source = resolve(Some(MODEL), &config(&home, &hub)).unwrap();
    assert_eq!(read(&source, "model.safetensors"), WEIGHTS);
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_large_is_fetched() {
    let hub = Hub::start(&[("config.json", b"{}"), ("tiny.gguf", b"GGUF"), ("tokenizer.json", b"{}")]);
    let home = home();
    let (error, text) = refusal(MODEL, &config(&home, &hub));
    assert!(matches!(error, HubError::Incomplete { .. }), "{text}");
    assert!(text.contains("no model.safetensors") && text.contains("tiny.gguf"), "{text}");
    // An index names files of the model and nothing else on this machine.
    let index = br#"{"weight_map": {"a": "../../../up.safetensors"}}"#;
    let files: [(&str, &[u8]); 3] =
        [("config.json", b"{}"), ("model.safetensors.index.json", index), ("tokenizer.json", b"{}")];
    hub.commit("c0ffee03", "main", &files);
    let (error, text) = refusal(MODEL, &config(&home, &hub));
    assert!(matches!(error, HubError::Incomplete { .. }), "{text}");
}

#[test]
fn a_hub_that_fails_or_is_none_or_is_away_is_named() {
    let (home, hub) = (home(), Hub::start(&FILES));
    let config = config(&home, &hub);
    hub.set(|hub| hub.status = Some(503));
    let (_, text) = refusal(MODEL, &config);
    assert!(text.contains(&hub.url) && text.contains("503"), "{text}");
    hub.set(|hub| hub.status = Some(200));
    let (error, text) = refusal(MODEL, &config);
    assert!(matches!(error, HubError::Transfer(_)), "{text}");
    let url = hub.url.clone();
    drop(hub);
    let (error, text) = refusal(MODEL, &config);
    assert!(matches!(error, HubError::Transfer(_)) && text.contains(&url), "{text}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (home, hub) = (home(), Hub::start(&FILES));
    std::fs::create_dir(home.path().join("hf")).unwrap();
    std::fs::write(home.path().join("hf/hub"), "a file where a folder should be").unwrap();
    let (error, text) = refusal(MODEL, &config(&home, &hub));
    assert!(matches!(error, HubError::Cache { .. }) && text.contains("hf/hub"), "{text}");
}

/// The program itself, as a user starts it: fetches, loads and checks, and then does so without a Hub.
#[test]
fn the_program_loads_a_model_from_the_hub_and_again_when_it_is_away() {
    let clerk = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk");
    let names = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (*name, std::fs::read(clerk.join(name)).unwrap())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let (home, hub) = (home(), Hub::start(&files));
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prefixd"));
        command.args(["doctor", MODEL, "--cache-dir"]).arg(home.path().join("cache"));
        command.env("HF_ENDPOINT", &hub.url).env("HF_HOME", home.path().join("hf"));
        let output = command.env_remove("HF_HUB_OFFLINE").env_remove("HF_TOKEN").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("all checks passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    doctor();
    hub.set(|hub| hub.status = Some(503));
    hub.asked();
    doctor();
    assert_eq!(hub.asked(), []);
}
