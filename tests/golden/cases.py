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
]
