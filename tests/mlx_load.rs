//! Loading: what is refused, with which words, and what identifies a model.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "load/latents.rs"]
mod latents;

use std::path::{Path, PathBuf};

use prefixd::mlx::{LoadError, LoadOptions, LoadStage, MlxEngine};
use prefixd_engine::{Engine, Gate, GateError};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// A copy that may be damaged.
fn copy(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(case)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "golden.safetensors" {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

fn load(dir: &Path, kv: &str) -> Result<MlxEngine, LoadError> {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let options = LoadOptions { kv: kv.parse().unwrap(), ..LoadOptions::default() };
    MlxEngine::load(owner.thread(), dir, options, &mut |_| ())
}

fn refusal(dir: &Path) -> String {
    match load(dir, "16") {
        Ok(_) => panic!("{} was loaded", dir.display()),
        Err(error) => error.to_string(),
    }
}

fn with_config(case: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = copy(case);
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
    dir
}

/// A configuration that was changed is refused, in these words.
fn refuses(case: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
    let text = refusal(with_config(case, change).path());
    assert!(words.iter().all(|word| text.contains(word)), "{case}, expected {words:?}: {text}");
}

fn with_tensors(case: &str, change: impl FnOnce(&mut Vec<(String, TensorView<'_>)>)) -> tempfile::TempDir {
    let dir = copy(case);
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    change(&mut tensors);
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    dir
}

#[test]
fn what_is_not_implemented_is_refused_with_what_would_do() {
    let cases: [(&str, Value, &[&str]); 15] = [
        ("model_type", json!("lama"), &["lama", "llama", "prefixd models"]),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0}), &["dynamic", "keys kept", "llama3"]),
        ("rope_scaling", json!({"rope_type": "linear"}), &["factor"]),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4.0, "attention_factor": 1.0}),
            &["attention_factor"],
        ),
        (
            "rope_scaling",
            json!({"type": "longrope", "original_max_position_embeddings": 64, "long_factor": [1.0, 2.0]}),
            &["long_factor has 2", "expected 32"],
        ),
        ("hidden_act", json!("relu"), &["relu", "silu"]),
        ("hidden_size", json!("many"), &["hidden_size", "many"]),
        ("num_attention_heads", json!(3), &["3 heads"]),
        ("partial_rotary_factor", json!(1.5), &["1.5"]),
        (
            "quantization",
            json!({"bits": 4, "group_size": 16, "mode": "nvfp3"}),
            &["nvfp3", "affine", "mxfp4", "mxfp8", "nvfp4"],
        ),
        (
            "quantization",
            json!({"bits": 4, "group_size": 32, "mode": "nvfp4"}),
            &["nvfp4 with 4 bits in groups of 32", "nvfp4 with 4 in 16"],
        ),
        ("quantization", json!({"bits": 7, "group_size": 64}), &["7 bits"]),
        ("quantization_config", json!({"quant_method": "gptq"}), &["gptq", "fp8"]),
        (
            "quantization_config",
            json!({"quant_method": "fp8", "fmt": "e5m2"}),
            &["fp8 in e5m2 with weight_block_size absent", "[128,128]"],
        ),
        (
            "quantization_config",
            json!({"quant_method": "fp8", "weight_block_size": [64, 128]}),
            &["fp8 in e4m3", "[64,128]", "[128,128]"],
        ),
    ];
    for (key, value, words) in cases {
        refuses("llama3", |config| config[key] = value, words);
    }
    for (key, value) in [
        ("rope_scaling", json!({"factor": 8})),
        ("rope_scaling", json!({"factor": 8, "original_max_position_embeddings": 512})),
        ("rope_scaling", json!(8)),
        ("rope_parameters", json!({"factor": 8, "rope_theta": 10000.0})),
    ] {
        let dir = with_config("llama3", |config| {
            config["rope_scaling"] = Value::Null;
            config[key] = value.clone();
        });
        let text = refusal(dir.path());
        assert!(text.contains(key) && text.contains("rope_type"), "{key} = {value}: {text}");
    }
    let dir = with_config("gemma3", |config| config["final_logit_softcapping"] = json!(30.0));
    assert!(refusal(dir.path()).contains("final_logit_softcapping"));
    for case in ["qwen2", "qwen3", "qwen3_moe"] {
        let dir = with_config(case, |config| config["use_sliding_window"] = json!(true));
        assert!(refusal(dir.path()).contains("use_sliding_window"), "{case}");
    }
    for (key, value, words) in [
        ("layer_types", json!(vec!["mamba"; 5]), ["mamba", "linear_attention"]),
        ("layer_types", json!(["full_attention"]), ["1 layer_types", "5 layers"]),
        ("full_attention_interval", json!(0), ["full_attention_interval", "at least 1"]),
        ("linear_num_value_heads", json!(3), ["3 value heads", "2 key heads"]),
        ("linear_key_head_dim", json!(0), ["key heads of 0", "expected"]),
        ("attn_output_gate", json!(false), ["attn_output_gate", "true"]),
        ("linear_conv_kernel_dim", json!(5), ["conv1d.weight has shape", "kernels of 5"]),
    ] {
        refuses("qwen3_5", |config| config["text_config"][key] = value, &words);
    }
    for (key, value, words) in [
        ("conv_bias", json!(true), ["conv_bias", "false"]),
        ("conv_L_cache", json!(0), ["convolution of 0", "at least 1"]),
        ("conv_L_cache", json!(4), ["conv.conv.weight has shape", "kernels of 4"]),
        ("block_multiple_of", json!(0), ["block_multiple_of is 0", "more than 0"]),
        ("block_ff_dim", json!(200), ["mlp.gate_proj.weight has shape", "[192, 128]"]),
    ] {
        refuses("lfm2", |config| config[key] = value, &words);
    }
    let dir = with_config("qwen3_moe", |config| config["num_experts_per_tok"] = json!(9));
    assert!(refusal(dir.path()).contains("9 of 8 experts"));
    let dir =
        with_config("ministral3-quantized", |config| config["text_config"]["model_type"] = json!("mamba"));
    assert!(refusal(dir.path()).contains("mamba"));
}

#[test]
fn what_nemotron_does_not_do_is_refused_with_what_would_do() {
    for (key, value, words) in [
        ("hybrid_override_pattern", json!("MEX*-"), ["hybrid_override_pattern", "supported: M, *, - and E"]),
        ("hybrid_override_pattern", json!("--*--"), ["no layer of Mamba", "at least one"]),
        ("mlp_hidden_act", json!("silu"), ["mlp_hidden_act", "relu2"]),
        ("time_step_limit", json!([1.0, 0.5]), ["time_step_limit is [1.0,0.5]", "two numbers"]),
        ("time_step_limit", json!(["NaN", "Infinity"]), ["time_step_limit is", "the lesser first"]),
        ("n_groups", json!(3), ["4 value heads", "whole groups"]),
        ("ssm_state_size", json!(8), ["conv1d.weight has shape", "expected 128 kernels of 4"]),
        ("moe_intermediate_size", json!(64), ["switch_mlp.up_proj", "64"]),
    ] {
        refuses("nemotron_h", |config| config[key] = value, &words);
    }
}

#[test]
fn steps_without_a_bound_are_read_as_python_and_transformers_write_them() {
    for limits in ["[0.0, Infinity]", r#"[0.0, {"__float__": "Infinity"}]"#, "null"] {
        let dir = with_config("nemotron_h", |config| config["time_step_limit"] = json!("LIMITS"));
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap().replace("\"LIMITS\"", limits);
        std::fs::write(&path, text).unwrap();
        load(dir.path(), "16").unwrap_or_else(|error| panic!("{limits}: {error}"));
    }
}

#[test]
fn what_gemma_4_does_not_do_is_refused_with_what_would_do() {
    for (key, value, words) in [
        ("use_bidirectional_attention", json!("all"), ["use_bidirectional_attention", "vision"]),
        ("attention_bias", json!(true), ["attention_bias", "false"]),
        ("num_kv_shared_layers", json!(8), ["8 of 7 layers", "another's"]),
        ("num_kv_shared_layers", json!(6), ["layer 1 reads another's", "no layer of its kind"]),
        ("vocab_size_per_layer_input", json!(255), ["vectors of 255", "vocabulary of 256"]),
        ("final_logit_softcapping", json!(0.0), ["capped at 0", "more than 0"]),
        ("global_head_dim", json!(127), ["127 elements", "even number"]),
        ("global_head_dim", json!(64), ["q_proj.weight has shape", "[256, 64]"]),
        ("use_double_wide_mlp", json!(false), ["layers.4.mlp.gate_proj.weight has shape", "[64, 64]"]),
        ("layer_types", json!(vec!["linear_attention"; 7]), ["linear_attention", "sliding_attention"]),
        ("enable_moe_block", json!(true), ["num_experts", "missing"]),
    ] {
        refuses("gemma4", |config| config["text_config"][key] = value, &words);
    }
    let dir = with_config("gemma4", |config| config["text_config"] = Value::Null);
    assert!(refusal(dir.path()).contains("text_config is missing"));
    let dir = with_config("gemma4-moe", |config| config["text_config"]["moe_intermediate_size"] = json!(16));
    let text = refusal(dir.path());
    assert!(text.contains("experts.gate_up_proj has shape") && text.contains("32 rows"), "{text}");
}

#[test]
fn a_missing_left_over_or_misshapen_tensor_is_named() {
    const NAME: &str = "model.layers.1.self_attn.k_proj.weight";
    let dir = with_tensors("gemma3", |tensors| tensors.retain(|(name, _)| name != NAME));
    let text = refusal(dir.path());
    assert!(text.contains(NAME) && text.contains("missing"), "{text}");

    let dir = with_tensors("gemma3", |tensors| {
        let (_, view) = tensors.iter().find(|(name, _)| name == NAME).unwrap().clone();
        tensors.push(("model.layers.1.self_attn.r_proj.weight".to_owned(), view));
    });
    let text = refusal(dir.path());
    assert!(text.contains("r_proj"), "{text}");

    let dir = with_tensors("gemma3", |tensors| {
        let norm = tensors.iter().find(|(name, _)| name == "model.norm.weight").unwrap().1.clone();
        tensors.iter_mut().find(|(name, _)| name == NAME).unwrap().1 = norm;
    });
    let text = refusal(dir.path());
    assert!(text.contains(NAME) && text.contains("shape"), "{text}");
}

#[test]
fn a_part_that_a_stored_matrix_lacks_is_named() {
    const FUSED: &str = "model.layers.1.self_attn.qkv_proj.weight";
    const PACKED: &str = "model.layers.0.linear_attn.in_proj_qkvz.weight";
    const EXPERT: &str = "model.layers.2.mlp.experts.5.up_proj.weight";
    let dir = with_tensors("phi3", |tensors| tensors.retain(|(name, _)| name != FUSED));
    assert!(refusal(dir.path()).contains(FUSED));
    let dir = with_config("phi3", |config| config["num_key_value_heads"] = json!(2));
    assert!(refusal(dir.path()).contains("qkv_proj.weight has shape"));
    let dir = with_tensors("qwen3_next", |tensors| tensors.retain(|(name, _)| name != PACKED));
    assert!(refusal(dir.path()).contains(PACKED));
    let dir = with_config("qwen3_5_moe", |config| config["text_config"]["moe_intermediate_size"] = json!(16));
    assert!(refusal(dir.path()).contains("gate_up_proj has shape"));
    let dir = with_tensors("qwen3_moe", |tensors| tensors.retain(|(name, _)| name != EXPERT));
    assert!(refusal(dir.path()).contains(EXPERT));
}

#[test]
fn missing_and_broken_files_are_named() {
    let dir = copy("gemma3");
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("model.safetensors"));
    std::fs::write(dir.path().join("model.safetensors"), b"not tensors").unwrap();
    assert!(refusal(dir.path()).contains("model.safetensors"));
    std::fs::write(dir.path().join("config.json"), b"{").unwrap();
    assert!(refusal(dir.path()).contains("config.json"));
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(refusal(dir.path()).contains("config.json"));

    let dir = copy("llama-sharded-quantized");
    let index = dir.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("model-00001", "../model-00001")).unwrap();
    assert!(refusal(dir.path()).contains("file name"), "a shard lies beside its index");
    std::fs::write(&index, text.replace("model-00001", "model-00007")).unwrap();
    assert!(refusal(dir.path()).contains("model-00007"));
    let whole = std::fs::read(golden("gemma3").join("model.safetensors")).unwrap();
    let dir = copy("gemma3");
    let weights = dir.path().join("model.safetensors");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for (bytes, words) in [
        (&whole[..whole.len() - 100], "download"),
        (&whole[..40], "download"),
        (&[][..], "0 bytes"),
        (&pointer[..], "git lfs pull"),
        (b"<html>Not found</html>", "not a safetensors file"),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        let text = refusal(dir.path());
        assert!(text.contains(words) && text.contains("model.safetensors"), "{text}");
        for place in [".cpp", ".rs", ".h:"] {
            assert!(!text.contains(place), "{text}");
        }
    }
    std::fs::write(dir.path().join("config.json"), pointer).unwrap();
    assert!(refusal(dir.path()).contains("git lfs pull"));
}

#[test]
fn weights_that_are_there_are_found_whatever_the_index_says() {
    let single = copy("gemma3");
    let index = single.path().join("model.safetensors.index.json");
    for stale in
        [r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#, r#"{"weight_map": {}}"#, "{", "[]"]
    {
        std::fs::write(&index, stale).unwrap();
        assert!(load(single.path(), "16").is_ok(), "{stale}");
    }
    let sharded = copy("llama-sharded-quantized");
    let whole = load(sharded.path(), "16").unwrap().info().fingerprint;
    std::fs::remove_file(sharded.path().join("model.safetensors.index.json")).unwrap();
    assert_eq!(load(sharded.path(), "16").unwrap().info().fingerprint, whole, "numbered files need no index");
    std::fs::remove_file(sharded.path().join("model-00002-of-00002.safetensors")).unwrap();
    let text = refusal(sharded.path());
    assert!(text.contains("expected 2 files") && text.contains("model-00001-of-00002"), "{text}");
}

#[test]
fn a_kv_setting_the_heads_cannot_carry_is_refused() {
    let error = load(&golden("gemma3"), "k8v4").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("k8v4") && error.contains("32"), "{error}");
}

#[test]
fn the_fingerprint_is_the_content_and_nothing_else() {
    let print = |dir: &Path, kv: &str| load(dir, kv).unwrap().info().fingerprint;
    let original = print(&golden("llama3"), "16");
    let moved = copy("llama3");
    assert_eq!(print(moved.path(), "16"), original, "a copy elsewhere, written at another time");
    assert_ne!(print(moved.path(), "k8v4"), original);

    let path = moved.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
    assert_ne!(print(moved.path(), "16"), original, "one bit, same length, same time");

    for (name, text) in
        [("tokenizer.json", "{}"), ("chat_template.jinja", "{{ x }}"), ("tokenizer_config.json", "{}")]
    {
        let dir = copy("llama3");
        std::fs::write(dir.path().join(name), text).unwrap();
        assert_ne!(print(dir.path(), "16"), original, "{name}");
    }
    let dir = with_config("llama3", |config| config["rope_theta"] = json!(499_999.0));
    assert_ne!(print(dir.path(), "16"), original, "RoPE base");
}

#[test]
fn progress_ends_at_the_total_of_each_stage() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let options = LoadOptions { kv: "16".parse().unwrap(), ..LoadOptions::default() };
    for case in ["llama-sharded-quantized", "deepseek_v3"] {
        let mut seen = Vec::new();
        MlxEngine::load(owner.thread(), &golden(case), options, &mut |step| seen.push(step)).unwrap();
        for stage in [LoadStage::Digest, LoadStage::Weights] {
            let steps: Vec<_> = seen.iter().filter(|step| step.stage == stage).collect();
            assert!(steps.windows(2).all(|pair| pair[0].done < pair[1].done), "{case}, {stage:?}");
            let last = steps.last().unwrap();
            assert_eq!(last.done, last.total, "{case}, {stage:?}");
        }
    }
}
