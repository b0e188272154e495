//! Models with latents, and weights in floats of few bits: what cannot be is refused with what would do.

use serde_json::json;

use super::{refusal, refuses, with_config, with_tensors};

#[test]
fn a_model_with_latents_that_cannot_be_is_refused_with_what_would_do() {
    for (key, value, words) in [
        ("topk_method", json!("noaux_tc"), ["noaux_tc", "greedy, group_limited_greedy"]),
        ("scoring_func", json!("sigmoid"), ["sigmoid", "softmax"]),
        ("partial_rotary_factor", json!(0.5), ["turns 8 of 16", "qk_rope_head_dim"]),
        ("norm_topk_prob", json!(true), ["norm_topk_prob", "false"]),
        ("moe_layer_freq", json!(0), ["moe_layer_freq is 0", "at least 1"]),
        ("kv_lora_rank", json!(0), ["latents of 0", "nothing that is 0"]),
        ("v_head_dim", json!(40), ["kv_b_proj.weight has shape", "288 rows"]),
        ("qk_rope_head_dim", json!(15), ["15 elements", "an even number"]),
    ] {
        refuses("deepseek_v2", |config| config[key] = value, &words);
    }
    let dir = with_config("deepseek_v2", |config| {
        config.as_object_mut().unwrap().remove("q_lora_rank");
    });
    assert!(refusal(dir.path()).contains("q_a_proj.weight is missing"));
    for case in ["deepseek_v3", "glm4_moe_lite"] {
        for (key, value, expected) in
            [("scoring_func", json!("softmax"), "sigmoid"), ("topk_method", json!("greedy"), "noaux_tc")]
        {
            let dir = with_config(case, |config| config[key] = value.clone());
            let text = refusal(dir.path());
            assert!(text.contains(key) && text.contains(expected), "{case}, {key} = {value}: {text}");
        }
    }
    for (key, value, words) in [
        ("rope_parameters", json!({"rope_type": "default"}), ["llama_4_scaling_beta", "missing"]),
        ("partial_rotary_factor", json!(0.75), ["turns 12 of 16", "qk_rope_head_dim"]),
        ("n_group", json!(6), ["3 experts out of 2 groups of 1", "at least 2"]),
        ("moe_intermediate_size", json!(16), ["experts.gate_up_proj has shape", "32 rows"]),
    ] {
        refuses("mistral4", |config| config["text_config"][key] = value, &words);
    }
    for (key, value, words) in [
        ("n_group", json!(3), ["2 of 3 groups of 8", "whole groups"]),
        ("topk_group", json!(5), ["5 of 4 groups", "no more chosen"]),
        ("num_experts_per_tok", json!(5), ["5 experts out of 2 groups of 2", "as many experts"]),
    ] {
        refuses("deepseek_v2-quantized", |config| config[key] = value, &words);
    }
}

#[test]
fn floats_of_few_bits_without_what_belongs_to_them_are_named() {
    const MATRIX: &str = "model.layers.0.mlp.up_proj.weight";
    let scales = format!("{MATRIX}_scale_inv");
    let without = |name: &str| {
        let dir = with_tensors("deepseek_v3", |tensors| tensors.retain(|(found, _)| found != name));
        refusal(dir.path())
    };
    let text = without(&scales);
    assert!(text.contains("Uint8") && text.contains(&scales), "{text}");
    let text = without(MATRIX);
    assert!(text.contains(&scales) && text.contains("up_proj.weight is missing"), "{text}");
    let dir = with_tensors("deepseek_v3", |tensors| {
        let at = |name: &str| tensors.iter().position(|(found, _)| found == name).unwrap();
        let (up, down) = (at(&scales), at("model.layers.0.mlp.down_proj.weight_scale_inv"));
        tensors[up].1 = tensors[down].1.clone();
    });
    let text = refusal(dir.path());
    assert!(["[160, 64]", "[1, 2]", "128 x 128"].iter().all(|word| text.contains(word)), "{text}");

    for (key, value, words) in [
        ("mode", json!("affine"), ["scales are Uint8", "config.json"]),
        ("mode", json!("mxfp4"), ["mxfp4 with 8 bits", "mxfp8 with 8 in 32"]),
    ] {
        let dir = with_config("kimi_k2-quantized", |config| config["quantization"][key] = value.clone());
        let text = refusal(dir.path());
        assert!(words.iter().all(|word| text.contains(word)), "{key} = {value}: {text}");
    }
    let dir = with_config("kimi_k2-quantized", |config| config["v_head_dim"] = json!(64));
    let text = refusal(dir.path());
    assert!(text.contains("unembed_out.weight has shape [4, 32, 16], expected [4, 64, 16]"), "{text}");
}
