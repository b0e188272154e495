"""Write the model directory for MLX: `python3 export.py --weights DIR --model ..`. Needs mlx; about five seconds.

Reads DIR/weights-*.safetensors (bf16) and writes model.safetensors (8 bit, group 64), config.json, generation_config.json and
tokenizer_config.json beside tokenizer.json.
"""
import argparse
import json
import pathlib

import mlx.core as mx

from bpe import SPECIAL

HERE = pathlib.Path(__file__).parent
BITS, GROUP = 8, 64


def config():
    """The dictionary in model.py, read without importing torch."""
    source = (HERE / "model.py").read_text()
    start = source.index("CONFIG = ") + len("CONFIG = ")
    return eval(source[start:source.index("\nC = CONFIG")], {"True": True})


def quantized(weights, dtype):
    out = {}
    for name, w in sorted(weights.items()):
        key = "model." + name
        if w.ndim == 2:
            q, scales, biases = mx.quantize(w.astype(mx.float32), group_size=GROUP, bits=BITS)
            stem = key.removesuffix("weight")
            out |= {key: q, stem + "scales": scales.astype(dtype), stem + "biases": biases.astype(dtype)}
        else:
            out[key] = w.astype(dtype)
    return out


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--weights", type=pathlib.Path, required=True)
    p.add_argument("--model", type=pathlib.Path, default=HERE.parent)
    p.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    a = p.parse_args()
    weights = {}
    for f in sorted(a.weights.glob("weights-*.safetensors")):
        weights |= mx.load(str(f))
    a.model.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(a.model / "model.safetensors"), quantized(weights, getattr(mx, a.dtype)), {"format": "mlx"})
    c = config()
    both = {"group_size": GROUP, "bits": BITS, "mode": "affine"}
    files = {
        "config.json": c | {"torch_dtype": a.dtype, "quantization": both, "quantization_config": both},
        "generation_config.json": {k: c[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")} | {"do_sample": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[1], "eos_token": SPECIAL[7], "pad_token": SPECIAL[0],
            "additional_special_tokens": SPECIAL[3:7], "clean_up_tokenization_spaces": False, "add_bos_token": False,
            "model_max_length": c["max_position_embeddings"], "tool_parser_type": "json_tools",
            "chat_template": (HERE / "template.jinja").read_text().rstrip("\n")}}
    for name, content in files.items():
        (a.model / name).write_text(json.dumps(content, indent=1) + "\n")
    new = HERE / "tokenizer.json"
    if new.exists():
        new.replace(a.model / "tokenizer.json")


if __name__ == "__main__":
    main()
