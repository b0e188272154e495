"""What recurrent layers cost on this machine: a model of which three layers in four are recurrent against one of the same width
with attention alone, by prefill and decode, and against mlx-lm.

    pip install mlx-lm==0.32.2 mlx[cpu]==0.32.2
    cargo build --release --example rates
    python3 benches/hybrid.py --dir DIR [--built target/release] [--tokens 4096] [--layers 8] [--rounds 3]
    python3 benches/hybrid.py --dir DIR --large [--built target/release] [--tokens 4096,32768]      (numpy alone; for a GPU)

Makes both models in DIR on the first run: Qwen3.5-0.8B's width with fewer layers, random 4-bit weights, which cost what
trained ones cost. The models take turns, because a shared machine is not the same one a minute later. mlx-lm computes in
f32, its fastest type on CPUs. With --large instead Qwen3.5-27B's shape by itself (15 GB): prefill, decode with 1, 4 and 16 rows, and what a
snapshot of its states costs. Prints one JSON object a line.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import time

WIDTH = {"hidden_size": 1024, "intermediate_size": 3584, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
         "vocab_size": 8192, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "tie_word_embeddings": True}
DELTA = {"linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
         "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25}}
QUANTIZATION = {"group_size": 64, "bits": 4}


def shapes(layers):
    """Configurations by name."""
    text = WIDTH | DELTA | {"model_type": "qwen3_5_text", "num_hidden_layers": layers}
    plain = WIDTH | {"model_type": "qwen3", "num_hidden_layers": layers, "rope_theta": 1e7}
    return {"recurrent": {"model_type": "qwen3_5", "text_config": text}, "attention": plain}


def make(folder, config):
    """Random weights, quantized as mlx-lm quantizes."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import _get_classes

    mx.random.seed(7)
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, **QUANTIZATION)
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config | {"quantization": QUANTIZATION}))


LARGE = {"hidden_size": 5120, "intermediate_size": 17408, "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256,
         "vocab_size": 248320, "num_hidden_layers": 64, "linear_num_value_heads": 48, "tie_word_embeddings": False, "max_position_embeddings": 262144}


def make_large(folder):
    """The shape with random codes, out of numpy alone: the same codes come again every 64 MB."""
    import numpy as np

    text = WIDTH | DELTA | LARGE | {"model_type": "qwen3_5_text"}
    hidden, inner, width = text["hidden_size"], text["intermediate_size"], text["head_dim"]
    heads, kv = text["num_attention_heads"] * width, text["num_key_value_heads"] * width
    keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
    values = text["linear_num_value_heads"] * text["linear_value_head_dim"]
    entries = []

    def matrix(name, out, inputs):
        entries.append((f"{name}.weight", "U32", [out, inputs // 8], "codes"))
        # Codes deviate by 4.61 from their mean, so that outputs are about as large as inputs.
        for part, value in (("scales", 1 / 4.61 / inputs**0.5), ("biases", -7.5 / 4.61 / inputs**0.5)):
            entries.append((f"{name}.{part}", "F16", [out, inputs // 64], value))

    def vector(name, length, value, kind="F16"):
        entries.append((name, kind, length if isinstance(length, list) else [length], value))

    matrix("model.embed_tokens", text["vocab_size"], hidden)
    matrix("lm_head", text["vocab_size"], hidden)
    vector("model.norm.weight", hidden, 1)
    for i in range(text["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        vector(f"{layer}.input_layernorm.weight", hidden, 1)
        vector(f"{layer}.post_attention_layernorm.weight", hidden, 1)
        for name, shape in (("gate_proj", (inner, hidden)), ("up_proj", (inner, hidden)), ("down_proj", (hidden, inner))):
            matrix(f"{layer}.mlp.{name}", *shape)
        if (i + 1) % text["full_attention_interval"] == 0:
            for name, shape in (("q_proj", (2 * heads, hidden)), ("k_proj", (kv, hidden)), ("v_proj", (kv, hidden)), ("o_proj", (hidden, heads))):
                matrix(f"{layer}.self_attn.{name}", *shape)
            vector(f"{layer}.self_attn.q_norm.weight", width, 1)
            vector(f"{layer}.self_attn.k_norm.weight", width, 1)
        else:
            path, decays = f"{layer}.linear_attn", text["linear_num_value_heads"]
            for name, out in (("in_proj_qkv", 2 * keys + values), ("in_proj_z", values), ("in_proj_a", decays), ("in_proj_b", decays)):
                matrix(f"{path}.{name}", out, hidden)
            matrix(f"{path}.out_proj", hidden, values)
            vector(f"{path}.conv1d.weight", [2 * keys + values, text["linear_conv_kernel_dim"], 1], 0.3)
            vector(f"{path}.norm.weight", text["linear_value_head_dim"], 1)
            vector(f"{path}.dt_bias", decays, 0.1)
            vector(f"{path}.A_log", decays, 0.5, "F32")
    header, at = {"__metadata__": {"format": "mlx"}}, 0
    for name, kind, shape, _ in entries:
        size = int(np.prod(shape)) * {"U32": 4, "F32": 4, "F16": 2}[kind]
        header[f"language_model.{name}"] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    codes = np.random.default_rng(7).bytes(64 << 20)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _, kind, shape, value in entries:
            count = int(np.prod(shape))
            if value == "codes":
                for begin in range(0, 4 * count, len(codes)):
                    file.write(memoryview(codes)[: 4 * count - begin])
            else:
                file.write(np.full(count, value, {"F32": np.float32, "F16": np.float16}[kind]).tobytes())
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_5", "text_config": text, "quantization": QUANTIZATION}))


def large(built, folder, tokens):
    """Prints what the example prints."""
    if not (folder / "config.json").exists():
        make_large(folder)
    command = [built / "examples/rates", folder, "--tokens", tokens, "--chunks", 2048, "--rows", "1,4,16", "--riding", 64, "--again"]
    subprocess.run([str(part) for part in command], check=True)


def prefixd(built, folder, tokens):
    """Seconds of a prefill, and milliseconds of a decode step behind it with 1 and 4 rows."""
    command = [built / "examples/rates", folder, "--tokens", tokens, "--chunks", 2048, "--rows", "1,4", "--riding", 1]
    lines = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    prefill = next(line["seconds"] for line in found if line["what"] == "prefill")
    return prefill, [line["step_ms"] for line in found if line["what"] == "decode"]


def mlx_lm(folder, tokens):
    """Seconds of a prefill in chunks of 2048."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    prompt = (mx.arange(tokens) * 7919 + 13) % WIDTH["vocab_size"]
    cache, begin = make_prompt_cache(model), time.perf_counter()
    for start in range(0, tokens, 2048):
        mx.eval(model(prompt[None, start : start + 2048], cache=cache)[:, -1])
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--built", type=pathlib.Path, default=pathlib.Path("target/release"))
    parser.add_argument("--tokens", default="4096")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.large:
        return large(arguments.built, arguments.dir / "large", arguments.tokens)
    arguments.tokens = int(arguments.tokens)
    folders = {}
    for name, config in shapes(arguments.layers).items():
        folders[name] = arguments.dir / f"{name}-{arguments.layers}"
        if not (folders[name] / "config.json").exists():
            make(folders[name], config)
    ratios = []
    for _ in range(arguments.rounds):
        seconds = {}
        for name, folder in folders.items():
            seconds[name], steps = prefixd(arguments.built, folder, arguments.tokens)
            print(json.dumps({"what": name, "tokens": arguments.tokens, "prefill_s": seconds[name], "step_ms": steps}), flush=True)
        ratios.append(seconds["recurrent"] / seconds["attention"])
    print(json.dumps({"what": "recurrent over attention", "prefill": statistics.median(ratios)}), flush=True)
    theirs = mlx_lm(folders["recurrent"], arguments.tokens)
    ours, _ = prefixd(arguments.built, folders["recurrent"], arguments.tokens)
    print(json.dumps({"what": "mlx-lm over prefixd", "mlx_lm_s": theirs, "prefixd_s": ours, "prefill": theirs / ours}), flush=True)


if __name__ == "__main__":
    main()
