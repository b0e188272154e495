"""What recurrent layers cost on this machine: a model of which three layers in four are recurrent against one of the same width
with attention alone, by prefill and decode, and against mlx-lm.

    pip install mlx-lm==0.32.2 mlx[cpu]==0.32.2
    cargo build --release --example rates
    python3 benches/hybrid.py --dir DIR [--built target/release] [--tokens 4096] [--layers 8] [--rounds 3]

Makes both models in DIR on the first run: Qwen3.5-0.8B's width with fewer layers, random 4-bit weights, which cost what
trained ones cost. The models take turns, because a shared machine is not the same one a minute later. mlx-lm computes in
f32, its fastest type on CPUs. Prints one JSON object a line.
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
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
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
