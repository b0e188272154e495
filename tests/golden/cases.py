"""Owns the golden cases: configuration, seed, quantization and shards of each tiny model.

Every number is chosen so that one mistake in reading the configuration moves the logits by far more than the
parity tolerance (the README has the measured table). Real models differ in size, not in kind.
"""

from dataclasses import dataclass, field
from typing import Any

WINDOW_TOKENS = 24


@dataclass(frozen=True)
class Quantization:
    """How a case is quantized: a default, modules with their own setting, and modules left in bf16."""

    bits: int
    group_size: int
    mode: str = "affine"
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """One tiny model. `mistakes` are configuration overrides that the golden vectors have to notice."""

    name: str
    seed: int
    config: dict[str, Any]
    mistakes: dict[str, dict[str, Any]]
    quantization: Quantization | None = None
    shards: int = 1
    # Experts as Hugging Face stores them: each one's matrices alone, or gates and ups as one matrix of MXFP4 bytes.
    experts_apart: bool = False
    experts_fused: bool = False
    # As Hugging Face stores what Qwen3.5 began: kernels of the convolution in another order, norms as their distance
    # from 1, other names, and weights of parts that a text model leaves out.
    hugging_face: bool = False
    # As DeepSeek V3 and GLM 4.7 Flash are published: one matrix makes the keys and values of all heads, and with `fp8` every
    # matrix but the router, the embedding and the head has floats of 8 bits, with scales by blocks, or, with experts in one
    # tensor as Mistral Small 4 is published, one for each.
    latents_whole: bool = False
    fp8: bool = False


def _config(model_type: str, architecture: str, **fields: Any) -> dict[str, Any]:
    # eps is far above the usual 1e-6 (gemma3's is set again below): a model that ignores it must not pass.
    common = {
        "vocab_size": 256,
        "rms_norm_eps": 1e-3,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
    return {"architectures": [architecture], "model_type": model_type, **common, **fields}


# 64 positions instead of 8192: the prompt then crosses all three bands of the scaling (kept, blended, divided).
_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

_LLAMA_SHAPE = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}

# 32 positions, so that half of the prompt lies beyond them.
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 2.0,
    "beta_slow": 0.25,
}

_SMALL = {
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

_MINISTRAL = {
    "model_type": "ministral3",
    **_SMALL,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "head_dim": 64,
    "vocab_size": 256,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 1024,
    "rope_parameters": _YARN
    | {"rope_theta": 100_000.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3},
    "tie_word_embeddings": True,
}


def _longrope(key: str, pairs: int) -> dict[str, Any]:
    factors = {"short_factor": [1.0] * pairs, "long_factor": [1.0 + 0.5 * i for i in range(pairs)]}
    return {key: "longrope", **factors}


_PHI = {
    "original_max_position_embeddings": 32,
    "partial_rotary_factor": 0.75,
    "rope_theta": 10_000.0,
    "sliding_window": 262_144,
    "hidden_size": 128,
}

_QWEN_MOE = {
    **_SMALL,
    "head_dim": 64,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
    "norm_topk_prob": True,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": False,
}

_GPT_OSS = {
    **_SMALL,
    "num_hidden_layers": 2,
    "head_dim": 64,
    "num_local_experts": 8,
    "num_experts_per_tok": 3,
    "sliding_window": WINDOW_TOKENS,
    "layer_types": ["sliding_attention", "full_attention"],
    "swiglu_limit": 7.0,
    "rope_theta": 150_000.0,
    "rope_scaling": _YARN | {"truncate": False},
    "tie_word_embeddings": False,
}

_GLM_MOE = {
    **_SMALL,
    "head_dim": 64,
    "partial_rotary_factor": 0.5,
    "use_qk_norm": True,
    "attention_bias": True,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "rope_theta": 100_000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
}

_MXFP4 = {"group_size": 32, "bits": 4, "mode": "mxfp4"}

_GPT_OSS_MISTAKES = {
    "window one token wider": {"sliding_window": WINDOW_TOKENS + 1},
    "full layers first": {"layer_types": ["full_attention", "sliding_attention"]},
    "one expert fewer": {"num_experts_per_tok": 2},
    "no RoPE scaling": {"rope_scaling": None},
}

_GEMMA_SHAPE = {
    "hidden_activation": "gelu_pytorch_tanh",
    "num_hidden_layers": 6,
    "sliding_window": WINDOW_TOKENS,
    "sliding_window_pattern": 3,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "rms_norm_eps": 2e-3,
}

_GEMMA_MISTAKES = {
    "window one token wider": {"sliding_window": WINDOW_TOKENS + 1},
    "window one token narrower": {"sliding_window": WINDOW_TOKENS - 1},
    "no window": {"sliding_window": 4096},
    "global layer every 6": {"sliding_window_pattern": 6},
    "global RoPE base on sliding layers": {"rope_local_base_freq": 1_000_000.0},
    "local RoPE base on global layers": {"rope_theta": 10_000.0},
    "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
}

_DELTA = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 24,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 3,
}

_DELTA_ROPE = {"rope_type": "default", "rope_theta": 100_000.0, "partial_rotary_factor": 0.25}

_DELTA_MOE = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
}


def _delta_text(model_type: str, **fields: Any) -> dict[str, Any]:
    common = {"vocab_size": 256, "rms_norm_eps": 1e-3, "max_position_embeddings": 1024, "rope_parameters": _DELTA_ROPE}
    return {"model_type": model_type, **common, **_DELTA, **fields}


_QWEN35 = _delta_text("qwen3_5_text", tie_word_embeddings=True)
_QWEN35_QUANTIZED = _delta_text("qwen3_5_text", tie_word_embeddings=False, num_hidden_layers=4, full_attention_interval=4)
_QWEN35_MOE = _delta_text("qwen3_5_moe_text", tie_word_embeddings=False, num_hidden_layers=3, **_DELTA_MOE)
_QWEN_NEXT = {
    **_DELTA,
    **_DELTA_MOE,
    "num_hidden_layers": 3,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
    "norm_topk_prob": True,
    "rope_theta": 100_000.0,
    "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False,
}


_LFM2 = {
    "hidden_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "norm_eps": 1e-3,
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 128,
    "block_ff_dim": 120,
    "block_multiple_of": 64,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
    "full_attn_idxs": [2, 4],
    "rope_theta": 100_000.0,
}


_NEMOTRON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "hybrid_override_pattern": "MEM*-",
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "attention_bias": False,
    "mlp_bias": False,
    "mlp_hidden_act": "relu2",
    "layer_norm_epsilon": 1e-3,
    "mamba_num_heads": 4,
    "mamba_head_dim": 24,
    "mamba_proj_bias": False,
    "use_bias": False,
    "use_conv_bias": True,
    "ssm_state_size": 16,
    "conv_kernel": 4,
    "n_groups": 2,
    "time_step_limit": [0.05, 0.8],
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 48,
    "tie_word_embeddings": False,
}


_DEEPSEEK = {
    **_SMALL,
    "num_key_value_heads": 4,
    "kv_lora_rank": 64,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 48,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "topk_method": "greedy",
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": False,
    "rope_theta": 10_000.0,
    "rope_scaling": _YARN | {"type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707},
    "tie_word_embeddings": False,
}

_DEEPSEEK_V3 = {
    **_DEEPSEEK,
    "vocab_size": 128,
    "num_hidden_layers": 2,
    # More than a block of 128, and no whole number of them.
    "intermediate_size": 160,
    "q_lora_rank": 64,
    "v_head_dim": 32,
    "n_shared_experts": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    # The two strengths differ, so that keys are louder too.
    "rope_scaling": _YARN | {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 0.707},
}

# Latents, a dense layer and one of experts: what two families have in common.
_LATENTS = {
    **_SMALL,
    "vocab_size": 128,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "kv_lora_rank": 64,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 6,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}

_MISTRAL4 = {
    **_LATENTS,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 1024,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.5,
    "rope_interleave": True,
    "rope_parameters": _YARN
    | {
        "rope_theta": 10_000.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.3,
        # Of a whole head of 16 + 16.
        "partial_rotary_factor": 0.5,
    },
}

_MISTRAL4_TEXT = _MISTRAL4 | {"model_type": "mistral4"}

_MISTRAL4_QUANTIZED = _MISTRAL4 | {
    "num_hidden_layers": 1,
    "first_k_dense_replace": 0,
    "qk_nope_head_dim": 32,
    "rope_parameters": _MISTRAL4["rope_parameters"] | {"partial_rotary_factor": 1.0},
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": False,
    "rope_interleave": False,
}

_GLM_LITE = {
    **_LATENTS,
    "n_group": 1,
    "topk_group": 1,
    "rope_theta": 10_000.0,
    "rope_scaling": None,
}

_GEMMA4_ROPE = {
    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}

_GEMMA4 = {
    "model_type": "gemma4_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "vocab_size": 256,
    "vocab_size_per_layer_input": 256,
    "rms_norm_eps": 2e-3,
    "max_position_embeddings": 1024,
    # The embedding scale, sqrt(hidden), is rounded to bf16 by transformers and not by mlx-lm in float32: 8 is both.
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "head_dim": 64,
    "global_head_dim": 128,
    "sliding_window": WINDOW_TOKENS,
    "rope_parameters": _GEMMA4_ROPE,
    # Low, so that the logits of these models feel it.
    "final_logit_softcapping": 8.0,
    "tie_word_embeddings": True,
}

# E2B and E4B: an embedding of its own for each layer, and last layers that read the keys and values of layers 2 and 3.
_GEMMA4_E = _GEMMA4 | {
    "num_hidden_layers": 7,
    "layer_types": [f"{kind}_attention" for kind in "sliding full sliding full sliding sliding full".split()],
    "num_key_value_heads": 1,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "hidden_size_per_layer_input": 64,
}

# 31B: values of full layers are their keys before norm and rotation.
_GEMMA4_LARGE = _GEMMA4 | {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "num_kv_shared_layers": 0,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
}

# 26B-A4B: experts beside the MLP.
_GEMMA4_MOE = _GEMMA4_LARGE | {
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 3,
    "moe_intermediate_size": 32,
}


def _gemma4_rope(**change: Any) -> dict[str, Any]:
    return {"rope_parameters": _GEMMA4_ROPE | {"full_attention": _GEMMA4_ROPE["full_attention"] | change}}


_GEMMA4_MISTAKES = {
    "window_one_token_wider": {"sliding_window": WINDOW_TOKENS + 1},
    "no_window": {"sliding_window": 4096},
    "whole_heads_turned": _gemma4_rope(partial_rotary_factor=1.0),
    "full_base_10000": _gemma4_rope(rope_theta=10_000.0),
    "base_of_full_layers_everywhere": {
        "rope_parameters": _GEMMA4_ROPE | {"sliding_attention": {"rope_type": "default", "rope_theta": 1_000_000.0}}
    },
    "cap_30": {"final_logit_softcapping": 30.0},
    "another_eps": {"rms_norm_eps": 1e-6},
}


def _gemma4(model_type: str, text: dict[str, Any]) -> dict[str, Any]:
    return _config(model_type, "Gemma4ForConditionalGeneration", text_config=text)


def _text_mistakes(text: dict[str, Any], **mistakes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name.replace("_", " "): {"text_config": text | change} for name, change in mistakes.items()}


CASES = [
    Case(
        name="llama3",
        seed=12,
        config=_config(
            "llama",
            "LlamaForCausalLM",
            **_LLAMA_SHAPE,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            rope_theta=500_000.0,
            rope_scaling=_LLAMA3_SCALING,
            tie_word_embeddings=False,
        ),
        mistakes={
            "no RoPE scaling": {"rope_scaling": None},
            "linear RoPE scaling": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}},
            "no blended band": {"rope_scaling": _LLAMA3_SCALING | {"low_freq_factor": 3.999}},
            "rope_theta 10000": {"rope_theta": 10_000.0},
            "interleaved RoPE": {"rope_traditional": True},
            "head tied": {"tie_word_embeddings": True},
            "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
        },
    ),
    Case(
        name="llama-sharded-quantized",
        seed=13,
        config=_config(
            "llama",
            "LlamaForCausalLM",
            **_LLAMA_SHAPE,
            hidden_size=128,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_theta=10_000.0,
            tie_word_embeddings=True,
        ),
        mistakes={
            "rope_theta 500000": {"rope_theta": 500_000.0},
            "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
        },
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={"model.layers.0.self_attn.v_proj": {"group_size": 32, "bits": 8, "mode": "affine"}},
            skipped=frozenset({"model.layers.1.self_attn.k_proj"}),
        ),
        shards=2,
    ),
    Case(
        name="qwen3",
        seed=17,
        config=_config(
            "qwen3",
            "Qwen3ForCausalLM",
            hidden_act="silu",
            attention_bias=False,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            rope_theta=1_000_000.0,
            rope_scaling=None,
            tie_word_embeddings=True,
        ),
        mistakes={
            "rope_theta 10000": {"rope_theta": 10_000.0},
            "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
        },
    ),
    Case(
        name="gemma3",
        seed=15,
        config=_config(
            "gemma3_text",
            "Gemma3ForCausalLM",
            **_GEMMA_SHAPE,
            # The embedding scale is sqrt(hidden) rounded to bf16: 8.5 here, where the exact root is 8.485.
            hidden_size=72,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            query_pre_attn_scalar=20,
            rope_scaling=None,
        ),
        mistakes=_GEMMA_MISTAKES | {"scale from head_dim": {"query_pre_attn_scalar": 32}},
    ),
    Case(
        name="gemma3-quantized",
        seed=13,
        config=_config(
            "gemma3_text",
            "Gemma3ForCausalLM",
            **_GEMMA_SHAPE,
            hidden_size=64,
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            query_pre_attn_scalar=24,
            # Global layers only: sliding layers keep unscaled positions.
            rope_scaling={"rope_type": "linear", "factor": 8.0},
        ),
        mistakes=_GEMMA_MISTAKES
        | {
            "scale from head_dim": {"query_pre_attn_scalar": 32},
            "no RoPE scaling": {"rope_scaling": None},
        },
        quantization=Quantization(bits=8, group_size=64),
    ),
    Case(
        name="llama-longrope",
        seed=3,
        config=_config(
            "llama",
            "LlamaForCausalLM",
            **_SMALL,
            rope_theta=10_000.0,
            rope_scaling=_longrope("rope_type", 8) | {"original_max_position_embeddings": 32},
            tie_word_embeddings=True,
        ),
        mistakes={"no RoPE scaling": {"rope_scaling": None}, "shorter context": {"max_position_embeddings": 32}},
    ),
    Case(
        name="mistral",
        seed=1,
        config=_config(
            "mistral",
            "MistralForCausalLM",
            **_SMALL,
            head_dim=64,
            sliding_window=WINDOW_TOKENS,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_theta=100_000.0,
            rope_scaling=_YARN,
            tie_word_embeddings=False,
        ),
        mistakes={
            "window one token wider": {"sliding_window": WINDOW_TOKENS + 1},
            "no window": {"sliding_window": 4096},
            "no RoPE scaling": {"rope_scaling": None},
            "another band": {"rope_scaling": _YARN | {"beta_slow": 1.0}},
            "no amplitude": {"rope_scaling": _YARN | {"mscale_all_dim": 1.0}},
        },
    ),
    Case(
        name="ministral3-quantized",
        seed=3,
        config=_config("mistral3", "Mistral3ForConditionalGeneration", text_config=_MINISTRAL),
        mistakes={
            "queries not scaled": {
                "text_config": _MINISTRAL
                | {"rope_parameters": _MINISTRAL["rope_parameters"] | {"llama_4_scaling_beta": 0.0}}
            },
            "rope_theta 10000": {
                "text_config": _MINISTRAL
                | {"rope_parameters": _MINISTRAL["rope_parameters"] | {"rope_theta": 10_000.0}}
            },
        },
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={
                "language_model.model.layers.0.self_attn.v_proj": {"group_size": 32, "bits": 8, "mode": "affine"}
            },
        ),
    ),
    Case(
        name="qwen2",
        seed=28,
        config=_config(
            "qwen2",
            "Qwen2ForCausalLM",
            **_SMALL | {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1},
            rope_theta=1_000_000.0,
            use_sliding_window=False,
            sliding_window=WINDOW_TOKENS,
            tie_word_embeddings=False,
        ),
        mistakes={
            "rope_theta 10000": {"rope_theta": 10_000.0},
            "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
        },
    ),
    Case(
        name="phi3",
        seed=8,
        config=_config(
            "phi3",
            "Phi3ForCausalLM",
            **_SMALL | {"num_attention_heads": 2, "num_key_value_heads": 1} | _PHI,
            rope_scaling=_longrope("type", 24),
            tie_word_embeddings=False,
        ),
        mistakes={
            "no RoPE scaling": {"rope_scaling": None},
            "longer original context": {"original_max_position_embeddings": 512},
            "rope_theta 500000": {"rope_theta": 500_000.0},
        },
    ),
    Case(
        name="phi3-quantized",
        seed=3,
        config=_config(
            "phi3",
            "Phi3ForCausalLM",
            **_SMALL | {"num_hidden_layers": 2} | _PHI,
            rope_scaling=_longrope("type", 12),
            tie_word_embeddings=True,
        ),
        mistakes={"no RoPE scaling": {"rope_scaling": None}},
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={"model.layers.0.self_attn.qkv_proj": {"group_size": 32, "bits": 8, "mode": "affine"}},
        ),
    ),
    Case(
        name="qwen3_moe",
        seed=3,
        config=_config("qwen3_moe", "Qwen3MoeForCausalLM", **_QWEN_MOE),
        mistakes={
            "weights not renormalized": {"norm_topk_prob": False},
            "one expert fewer": {"num_experts_per_tok": 2},
            "rope_theta 10000": {"rope_theta": 10_000.0},
        },
        experts_apart=True,
    ),
    Case(
        name="qwen3_moe-quantized",
        seed=1,
        config=_config(
            "qwen3_moe",
            "Qwen3MoeForCausalLM",
            **_QWEN_MOE
            | {"norm_topk_prob": False, "mlp_only_layers": [], "decoder_sparse_step": 2, "moe_intermediate_size": 64},
        ),
        mistakes={
            "weights renormalized": {"norm_topk_prob": True},
            "one expert more": {"num_experts_per_tok": 4},
        },
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={"model.layers.1.mlp.gate": {"group_size": 64, "bits": 8, "mode": "affine"}},
        ),
    ),
    Case(
        name="gpt_oss",
        seed=6,
        config=_config("gpt_oss", "GptOssForCausalLM", **_GPT_OSS),
        mistakes=_GPT_OSS_MISTAKES,
        quantization=Quantization(
            **_MXFP4,
            skipped=frozenset(
                {"model.embed_tokens", "lm_head"}
                | {f"model.layers.{i}.mlp.router" for i in range(2)}
                | {f"model.layers.{i}.self_attn.{m}_proj" for i in range(2) for m in "qkvo"}
            ),
        ),
        experts_fused=True,
    ),
    Case(
        name="gpt_oss-quantized",
        seed=1,
        config=_config("gpt_oss", "GptOssForCausalLM", **_GPT_OSS),
        mistakes=_GPT_OSS_MISTAKES,
        quantization=Quantization(
            bits=8,
            group_size=64,
            overrides={
                f"model.layers.{i}.mlp.experts.{m}_proj": _MXFP4 for i in range(2) for m in ("gate", "up", "down")
            },
        ),
    ),
    Case(
        name="glm4_moe",
        seed=103,
        config=_config("glm4_moe", "Glm4MoeForCausalLM", **_GLM_MOE),
        mistakes={
            "one group": {"n_group": 1, "topk_group": 1},
            "weights not renormalized": {"norm_topk_prob": False},
            "weights not scaled": {"routed_scaling_factor": 1.0},
            "whole heads turned": {"partial_rotary_factor": 1.0},
            "rope_theta 10000": {"rope_theta": 10_000.0},
        },
        experts_apart=True,
    ),
    Case(
        name="glm4_moe-quantized",
        seed=3,
        config=_config(
            "glm4_moe",
            "Glm4MoeForCausalLM",
            **_GLM_MOE
            | {
                "moe_intermediate_size": 64,
                "use_qk_norm": False,
                "attention_bias": False,
                "n_group": 1,
                "topk_group": 1,
                "norm_topk_prob": False,
                "routed_scaling_factor": 1.0,
            },
        ),
        mistakes={
            "weights renormalized": {"norm_topk_prob": True},
            "one expert more": {"num_experts_per_tok": 4},
        },
        quantization=Quantization(bits=4, group_size=64),
    ),
    Case(
        name="qwen3_5",
        seed=2,
        config=_config("qwen3_5", "Qwen3_5ForConditionalGeneration", text_config=_QWEN35),
        mistakes=_text_mistakes(
            _QWEN35,
            whole_heads_turned={"rope_parameters": _DELTA_ROPE | {"partial_rotary_factor": 1.0}},
            another_base={"rope_parameters": _DELTA_ROPE | {"rope_theta": 10_000.0}},
            another_eps={"rms_norm_eps": 1e-6},
        ),
        hugging_face=True,
    ),
    Case(
        name="qwen3_5-quantized",
        seed=10,
        config=_config("qwen3_5", "Qwen3_5ForConditionalGeneration", text_config=_QWEN35_QUANTIZED),
        mistakes=_text_mistakes(
            _QWEN35_QUANTIZED,
            another_base={"rope_parameters": _DELTA_ROPE | {"rope_theta": 10_000.0}},
            another_eps={"rms_norm_eps": 1e-6},
        ),
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={
                "language_model.model.layers.0.linear_attn.in_proj_a": {
                    "group_size": 32,
                    "bits": 8,
                    "mode": "affine",
                },
                "language_model.model.layers.3.self_attn.q_proj": {"group_size": 32, "bits": 8, "mode": "affine"},
            },
        ),
    ),
    Case(
        name="qwen3_5_moe",
        seed=8,
        config=_config("qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", text_config=_QWEN35_MOE),
        mistakes=_text_mistakes(
            _QWEN35_MOE,
            weights_not_renormalized={"norm_topk_prob": False},
            one_expert_fewer={"num_experts_per_tok": 2},
        ),
        hugging_face=True,
    ),
    Case(
        name="qwen3_next",
        seed=5,
        config=_config("qwen3_next", "Qwen3NextForCausalLM", **_QWEN_NEXT),
        mistakes={
            "weights not renormalized": {"norm_topk_prob": False},
            "one expert fewer": {"num_experts_per_tok": 2},
            "whole heads turned": {"partial_rotary_factor": 1.0},
        },
        hugging_face=True,
        experts_apart=True,
    ),
    Case(
        name="qwen3_next-quantized",
        seed=5,
        config=_config(
            "qwen3_next",
            "Qwen3NextForCausalLM",
            **_QWEN_NEXT | {"norm_topk_prob": False, "moe_intermediate_size": 64, "mlp_only_layers": []},
        ),
        mistakes={"weights renormalized": {"norm_topk_prob": True}},
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={
                f"model.layers.{i}.mlp.{m}": {"group_size": 64, "bits": 8, "mode": "affine"}
                for i in range(3)
                for m in ("gate", "shared_expert_gate")
            },
        ),
    ),
    Case(
        name="lfm2",
        seed=4,
        config=_config("lfm2", "Lfm2ForCausalLM", **_LFM2),
        mistakes={"another base": {"rope_theta": 10_000.0}, "another eps": {"norm_eps": 1e-6}},
        hugging_face=True,
    ),
    Case(
        name="lfm2-quantized",
        seed=1,
        config=_config(
            "lfm2",
            "Lfm2ForCausalLM",
            **{key: value for key, value in _LFM2.items() if key not in ("full_attn_idxs", "block_ff_dim")}
            | {
                "num_hidden_layers": 3,
                "layer_types": ["conv", "full_attention", "conv"],
                "intermediate_size": 128,
                "block_auto_adjust_ff_dim": False,
            },
        ),
        mistakes={"another base": {"rope_theta": 10_000.0}},
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={
                f"model.layers.{layer}": {"group_size": 32, "bits": 8, "mode": "affine"}
                for layer in ("1.self_attn.out_proj", "0.feed_forward.w2")
            },
        ),
    ),
    Case(
        name="nemotron_h",
        seed=1,
        config=_config("nemotron_h", "NemotronHForCausalLM", **_NEMOTRON),
        mistakes={
            "steps without bounds": {"time_step_limit": None},
            "another eps": {"layer_norm_epsilon": 1e-6},
            "one expert fewer": {"num_experts_per_tok": 2},
            "weights not scaled": {"routed_scaling_factor": 1.0},
        },
        hugging_face=True,
        experts_apart=True,
    ),
    Case(
        name="nemotron_h-quantized",
        seed=8,
        config=_config(
            "nemotron_h",
            "NemotronHForCausalLM",
            **{key: value for key, value in _NEMOTRON.items() if key not in ("hybrid_override_pattern", "time_step_limit")}
            | {
                "hidden_size": 128,
                "intermediate_size": 128,
                "layers_block_type": ["mamba", "moe", "attention", "mlp", "mamba"],
                "attention_bias": True,
                "mlp_bias": True,
                "mamba_proj_bias": True,
                "use_conv_bias": False,
                "mamba_head_dim": 32,
                "moe_intermediate_size": 64,
                "moe_shared_expert_intermediate_size": 64,
                "moe_latent_size": 64,
                "n_group": 1,
                "topk_group": 1,
                "norm_topk_prob": False,
            },
        ),
        mistakes={"another eps": {"layer_norm_epsilon": 1e-6}, "weights renormalized": {"norm_topk_prob": True}},
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={
                f"backbone.layers.{layer}": {"group_size": 32, "bits": 8, "mode": "affine"}
                for layer in ("0.mixer.in_proj", "1.mixer.switch_mlp.fc2")
            },
        ),
    ),
    Case(
        name="gemma4",
        seed=10,
        config=_gemma4("gemma4", _GEMMA4_E),
        mistakes=_text_mistakes(_GEMMA4_E, **_GEMMA4_MISTAKES),
        hugging_face=True,
    ),
    Case(
        name="gemma4-quantized",
        seed=12,
        config=_config("gemma4_text", "Gemma4ForCausalLM", **{k: v for k, v in _GEMMA4_E.items() if k != "model_type"}),
        mistakes={"no cap": {"final_logit_softcapping": None}, "whole heads turned": _gemma4_rope(partial_rotary_factor=1.0)},
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={"model.layers.1.per_layer_input_gate": {"group_size": 32, "bits": 8, "mode": "affine"}},
        ),
    ),
    Case(
        name="gemma4-moe",
        seed=4,
        config=_gemma4("gemma4", _GEMMA4_MOE),
        mistakes=_text_mistakes(_GEMMA4_MOE, one_expert_fewer={"top_k_experts": 2}, **_GEMMA4_MISTAKES),
        hugging_face=True,
    ),
    Case(
        name="gemma4-moe-quantized",
        seed=2,
        config=_gemma4("gemma4", _GEMMA4_MOE | {"moe_intermediate_size": 64, "final_logit_softcapping": None}),
        mistakes=_text_mistakes(
            _GEMMA4_MOE | {"moe_intermediate_size": 64, "final_logit_softcapping": None},
            one_expert_more={"top_k_experts": 4},
            cap_30={"final_logit_softcapping": 30.0},
        ),
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={
                f"language_model.model.layers.{i}.router.proj": {"group_size": 64, "bits": 8, "mode": "affine"}
                for i in range(2)
            },
        ),
    ),
    Case(
        name="gemma4-dense-quantized",
        seed=8,
        config=_gemma4("gemma4_unified", _GEMMA4_LARGE | {"global_head_dim": 512}),
        mistakes=_text_mistakes(_GEMMA4_LARGE | {"global_head_dim": 512}, **_GEMMA4_MISTAKES),
        quantization=Quantization(bits=8, group_size=64),
    ),
    Case(
        name="deepseek_v2",
        seed=3,
        config=_config(
            "deepseek_v2", "DeepseekV2ForCausalLM", **_DEEPSEEK | {"vocab_size": 128, "num_hidden_layers": 2}
        ),
        mistakes={
            "one expert fewer": {"num_experts_per_tok": 2},
            "scale not louder": {"rope_scaling": _DEEPSEEK["rope_scaling"] | {"mscale": 0.0, "mscale_all_dim": 0.0}},
            "longer original context": {
                "rope_scaling": _DEEPSEEK["rope_scaling"] | {"original_max_position_embeddings": 512}
            },
            "rope_theta 1000": {"rope_theta": 1_000.0},
            "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
        },
        experts_apart=True,
    ),
    Case(
        name="deepseek_v2-quantized",
        seed=3,
        config=_config(
            "deepseek_v2",
            "DeepseekV2ForCausalLM",
            **_DEEPSEEK
            | {
                "vocab_size": 128,
                "num_hidden_layers": 2,
                "q_lora_rank": 64,
                "moe_intermediate_size": 64,
                "v_head_dim": 64,
                "topk_method": "group_limited_greedy",
                "n_group": 4,
                "topk_group": 2,
                "routed_scaling_factor": 2.5,
            },
        ),
        mistakes={
            "one expert more": {"num_experts_per_tok": 4},
            "no groups": {"topk_method": "greedy"},
            "one group more": {"topk_group": 3},
            "weights not scaled": {"routed_scaling_factor": 1.0},
        },
        quantization=Quantization(
            bits=4,
            group_size=64,
            overrides={"model.layers.0.self_attn.kv_b_proj": {"group_size": 32, "bits": 8, "mode": "affine"}},
        ),
    ),
    Case(
        name="deepseek_v3",
        seed=4,
        config=_config("deepseek_v3", "DeepseekV3ForCausalLM", **_DEEPSEEK_V3),
        mistakes={
            "no groups": {"n_group": 1, "topk_group": 1},
            "one group more": {"topk_group": 3},
            "weights not renormalized": {"norm_topk_prob": False},
            "weights not scaled": {"routed_scaling_factor": 1.0},
            "keys and scores not louder": {"rope_scaling": _DEEPSEEK_V3["rope_scaling"] | {"mscale": 0.0, "mscale_all_dim": 0.0}},
            "only keys louder": {"rope_scaling": _DEEPSEEK_V3["rope_scaling"] | {"mscale_all_dim": 0.0}},
            "no RoPE scaling": {"rope_scaling": None},
        },
        experts_apart=True,
        latents_whole=True,
        fp8=True,
    ),
    Case(
        name="kimi_k2-quantized",
        seed=13,
        config=_config(
            "kimi_k2",
            "DeepseekV3ForCausalLM",
            **_DEEPSEEK_V3 | {"intermediate_size": 64, "n_group": 1, "topk_group": 1, "q_lora_rank": 32, "n_routed_experts": 6},
        ),
        mistakes={
            "one expert more": {"num_experts_per_tok": 4},
            "weights not scaled": {"routed_scaling_factor": 1.0},
            "rope_theta 1000": {"rope_theta": 1_000.0},
        },
        quantization=Quantization(bits=8, group_size=32, mode="mxfp8"),
    ),
    Case(
        name="glm4_moe_lite",
        seed=3,
        config=_config("glm4_moe_lite", "Glm4MoeLiteForCausalLM", **_GLM_LITE),
        mistakes={
            "weights not renormalized": {"norm_topk_prob": False},
            "weights not scaled": {"routed_scaling_factor": 1.0},
            "rope_theta by default": {"rope_theta": 1_000_000.0},
            "rms_norm_eps 1e-6": {"rms_norm_eps": 1e-6},
        },
        experts_apart=True,
        latents_whole=True,
    ),
    Case(
        name="glm4_moe_lite-quantized",
        seed=7,
        config=_config(
            "glm4_moe_lite",
            "Glm4MoeLiteForCausalLM",
            **_GLM_LITE | {"routed_scaling_factor": 1.0, "norm_topk_prob": False, "q_lora_rank": None},
        ),
        mistakes={
            "one expert more": {"num_experts_per_tok": 4},
            "weights renormalized": {"norm_topk_prob": True},
        },
        quantization=Quantization(bits=4, group_size=16, mode="nvfp4"),
    ),
    Case(
        name="mistral4",
        seed=1,
        config=_config("mistral3", "Mistral3ForConditionalGeneration", text_config=_MISTRAL4_TEXT, vocab_size=128),
        mistakes=_text_mistakes(
            _MISTRAL4_TEXT,
            queries_not_louder={"rope_parameters": _MISTRAL4["rope_parameters"] | {"llama_4_scaling_beta": 0.0}},
            scores_not_louder={"rope_parameters": _MISTRAL4["rope_parameters"] | {"mscale": 0.0, "mscale_all_dim": 0.0}},
            no_groups={"n_group": 1, "topk_group": 1},
            weights_not_renormalized={"norm_topk_prob": False},
            weights_not_scaled={"routed_scaling_factor": 1.0},
            halves_turned={"rope_interleave": False},
        ),
        hugging_face=True,
        latents_whole=True,
        fp8=True,
    ),
    Case(
        name="mistral4-quantized",
        seed=5,
        config=_config("mistral4", "Mistral4ForCausalLM", **_MISTRAL4_QUANTIZED),
        mistakes={
            "neighbours turned": {"rope_interleave": True},
            "weights renormalized": {"norm_topk_prob": True},
        },
        quantization=Quantization(bits=4, group_size=32),
    ),
]
