"""Makes the golden models and vectors of this folder with mlx-lm. The README has the command and the format.

1. Weights are drawn from the seed, rounded to bf16 (quantized modules: packed, scales and biases in bf16) and stored.
2. Vectors come from the stored files, read back through mlx-lm's own loader, never from the model in memory.
3. All activations are float32: after loading, every floating parameter is cast to float32. The KV cache is float32.

`--check` writes nothing and compares a fresh run with the committed files.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import unittest.mock
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.mla import MultiLinear, QuantizedMultiLinear
from mlx_lm.utils import _get_classes, dequantize_model, load_model, quantize_model

from cases import CASES, Case

VERSIONS = {"mlx": "0.32.2", "mlx-lm": "0.32.2"}
HERE = Path(__file__).resolve().parent
PROMPT_TOKENS = 72
# Shorter than the window, longer than it, and a rest whose first keys a rotating cache has to drop.
CHUNK_TOKENS = [7, 30, PROMPT_TOKENS - 37]
DECODE_TOKENS = 32
# What keeps a greedy decode a fair test: no near tie that rounding could flip, no loop on a few tokens.
MIN_MARGIN = 0.03
MIN_DISTINCT_TOKENS = 12
# The parity tolerance of the project; a mistake has to move the logits by a multiple of it.
TOLERANCE = 2e-3
MIN_MISTAKE = 5 * TOLERANCE
# Floats of 8 bits as DeepSeek V3 is published in: rows and columns that share a scale, the largest number, and the configuration.
BLOCK = 128
LARGEST_FP8 = 448.0
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}


def gather_qmm(*arguments, global_scale=None, gather=mx.gather_qmm, **options) -> mx.array:
    """mx.gather_qmm without the argument that mlx-lm 0.32.2 names and mlx 0.32.2 lacks: only nvfp4 sets it."""
    if global_scale is not None:
        sys.exit("a model with a global scale cannot be computed with mlx 0.32.2")
    return gather(*arguments, **options)


mx.gather_qmm = gather_qmm


def initial_weight(name: str, shape: tuple[int, ...], case: Case, key: mx.array) -> mx.array:
    """One weight, f32, scaled so that logits have a standard deviation of about 2 and attention is uneven."""
    gemma = case.config["model_type"] == "gemma3_text"
    name = name.removeprefix("language_model.")
    noise = mx.random.normal(shape, key=key)
    if name.endswith(".bias"):
        return 0.5 * noise
    if name.endswith("e_score_correction_bias") and case.config["model_type"] in ("deepseek_v3", "nemotron_h"):
        # Never below 0, what experts of other groups count: one of those would be chosen, and among equals any.
        return 0.3 * mx.abs(noise)
    if case.config["model_type"].startswith("gemma4") and (weight := gemma4_weight(name, noise)) is not None:
        return weight
    if name.endswith(("sinks", "dt_bias")):
        return noise
    if name.endswith("A_log"):
        # States that fade over a handful of tokens to a hundred.
        return 1.2 * noise - 2.5
    if name.endswith(("conv1d.weight", "conv.conv.weight")):
        return 0.6 * noise
    if name.endswith("mixer.D"):
        return 1.0 + 0.3 * noise
    if name.endswith(("mlp.gate.weight", "mlp.router.weight", "mixer.gate.weight")):
        # Uneven choices of experts, so that no near tie decides one.
        return 3.0 * shape[1] ** -0.5 * noise
    if name in ("model.norm.weight", "model.embedding_norm.weight", "backbone.norm_f.weight"):
        # Random signs: with tied embeddings a positive norm would make each token predict itself.
        weight = mx.where(noise > 0, 1.0, -1.0) * (1.0 + 0.3 * mx.abs(noise))
        return weight - 1.0 if gemma else weight
    if name.endswith("norm.weight"):
        return 0.2 * noise + (0.0 if gemma else 1.0)
    if name.endswith("qkv_proj.weight"):
        values = case.config["num_key_value_heads"] * case.config["hidden_size"] // case.config["num_attention_heads"]
        loud = mx.arange(shape[0])[:, None] < shape[0] - values
        return mx.where(loud, 1.5, 1.0) * shape[1] ** -0.5 * noise
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        return 1.5 * shape[1] ** -0.5 * noise
    if name in ("model.embed_tokens.weight", "backbone.embeddings.weight", "lm_head.weight"):
        return 1.6 * shape[1] ** -0.5 * noise
    return shape[-1] ** -0.5 * noise


def gemma4_weight(name: str, noise: mx.array) -> mx.array | None:
    """What is Gemma 4's own: scores are not divided by the root of the head size, so norms of heads are small."""
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return 0.45 * (64 / noise.size) ** 0.25 * (1.0 + 0.3 * noise)
    if name.endswith("router.proj.weight"):
        # What it multiplies has a norm of 1.
        return 3.0 * noise
    if name.endswith(("router.scale", "router.per_expert_scale")):
        return 1.0 + 0.3 * noise
    if name.endswith("layer_scalar"):
        return 0.8 + 0.1 * noise
    if name.endswith("embed_tokens_per_layer.weight"):
        return 0.15 * noise
    return None


def build(case: Case, folder: Path) -> None:
    """Writes config.json and the weights of one case into `folder`."""
    model_class, args_class = _get_classes(case.config)
    model = model_class(args_class.from_dict(case.config))
    if case.config["model_type"] == "gemma3_text":
        # mlx-lm ties gemma3 when the files hold no head; it drops the module in sanitize.
        model.sanitize({})
    names = sorted(name for name, _ in tree_flatten(model.parameters()))
    shapes = {name: weight.shape for name, weight in tree_flatten(model.parameters())}
    keys = mx.random.split(mx.random.key(case.seed), len(names))
    weights = [
        # Families that keep A_log in f32 do so in their files.
        (name, weight if name.endswith("A_log") else weight.astype(mx.bfloat16))
        for name, weight in (
            (name, initial_weight(name, shapes[name], case, key)) for name, key in zip(names, keys, strict=True)
        )
    ]
    model.update(tree_unflatten(weights))
    config = case.config
    if (quantization := case.quantization) is not None:

        def setting(path, _module):
            return quantization.overrides.get(path, path not in quantization.skipped)

        # mlx-lm reports bits per weight on stdout, which is our table's.
        with contextlib.redirect_stdout(sys.stderr):
            model, config = quantize_model(
                model, config, quantization.group_size, quantization.bits, quantization.mode, quant_predicate=setting
            )
    weights = tree_flatten(model.parameters())
    if case.experts_apart:
        weights = list(apart(weights))
    if case.latents_whole:
        weights = list(whole_latents(dict(weights), case.config))
    if case.hugging_face:
        weights = list(as_hugging_face(weights))
    if case.experts_fused:
        weights = list(fused(dict(weights)))
        config = {key: value for key, value in config.items() if key != "quantization"}
        config["quantization_config"] = {"quant_method": "mxfp4"}
    if case.fp8:
        weights = list(as_fp8(weights))
        config = config | {"quantization_config": FP8}
    save_weights(folder, weights, case.shards)
    if case.fp8:
        name_fp8(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def apart(weights: list[tuple[str, mx.array]]):
    """The weights with each expert's matrices alone, as Hugging Face names them."""
    for name, weight in weights:
        if ".switch_mlp." in name:
            for expert in range(weight.shape[0]):
                own = name.replace(".switch_mlp.", f".experts.{expert}.")
                yield own.replace(".fc1.", ".up_proj.").replace(".fc2.", ".down_proj."), weight[expert]
        else:
            yield name, weight


def as_hugging_face(weights: list[tuple[str, mx.array]]):
    """The weights of a recurrent model as Hugging Face has them. Norms are rounded so that adding 1 is exact in bf16."""
    weights = dict(weights)
    distance = any(name.endswith("linear_attn.A_log") for name in weights)
    for name, weight in weights.items():
        if name.endswith(("conv1d.weight", "conv.conv.weight")):
            weight = mx.contiguous(mx.moveaxis(weight, 1, 2))
        if distance and name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            weight = (mx.round((weight.astype(mx.float32) - 1.0) * 32.0) / 32.0).astype(mx.bfloat16)
        if name.endswith(("switch_mlp.up_proj.weight", "switch_glu.up_proj.weight")):
            continue
        if name.endswith(("switch_mlp.gate_proj.weight", "switch_glu.gate_proj.weight")):
            up = weights[name.replace("gate_proj", "up_proj")]
            name = name.replace("gate_proj.weight", "gate_up_proj")
            weight = mx.concatenate([weight, up], axis=-2)
        name = name.replace("experts.switch_glu.", "experts.").replace("switch_mlp.gate_up", "experts.gate_up")
        name = name.replace("switch_mlp.down_proj.weight", "experts.down_proj")
        name = name.replace(".experts.down_proj.weight", ".experts.down_proj")
        name = name.replace("language_model.model.", "model.language_model.")
        yield name.replace("language_model.lm_head", "lm_head"), weight
    if distance:
        yield "mtp.fc.weight", mx.ones((2, 2), mx.bfloat16)
    if any(name.endswith("layer_scalar") for name in weights):
        yield "model.vision_tower.std_bias", mx.ones((2,), mx.bfloat16)
        # Layers that read another's keys and values have these in the files, unused.
        shared = [name for name in weights if name.endswith("q_proj.weight") and name.replace("q_", "k_") not in weights]
        for name in shared:
            name = name.replace("language_model.model.", "model.language_model.")
            yield name.replace("q_proj", "k_proj"), mx.ones((2, 2), mx.bfloat16)
            yield name.replace("q_proj", "k_norm"), mx.ones((2,), mx.bfloat16)
    elif any(name.startswith("language_model.") for name in weights):
        tower = "vision_tower" if any(".kv_a_proj" in name for name in weights) else "visual"
        yield f"model.{tower}.patch_embed.proj.weight", mx.ones((2, 2), mx.bfloat16)


def whole_latents(weights: dict[str, mx.array], config: dict):
    """The weights with one matrix for keys and values of all heads, and for GLM a layer that guesses further tokens."""
    for name, weight in weights.items():
        if name.endswith("embed_q.weight"):
            values = weights[name.replace("embed_q", "unembed_out")]
            both = mx.concatenate([weight.swapaxes(1, 2), values], axis=1)
            yield name.replace("embed_q", "kv_b_proj"), both.reshape(-1, both.shape[-1])
        elif not name.endswith("unembed_out.weight"):
            yield name, weight
    if config["model_type"] == "glm4_moe_lite":
        yield f"model.layers.{config['num_hidden_layers']}.eh_proj.weight", mx.ones((2, 2), mx.bfloat16)


def as_fp8(weights: list[tuple[str, mx.array]]):
    """The weights with matrices as floats of 8 bits, and scales that fill the range: of each block, or of each matrix."""
    whole = any(name.endswith("experts.gate_up_proj") for name, _ in weights)
    for name, weight in weights:
        if weight.ndim < 2 or name.endswith(("mlp.gate.weight", "embed_tokens.weight", "lm_head.weight")):
            yield name, weight
            continue
        if whole:
            scales = mx.abs(weight).max(axis=(-2, -1), keepdims=weight.ndim == 3).astype(mx.float32) / LARGEST_FP8
            yield name, mx.to_fp8(weight.astype(mx.float32) / scales)
            yield f"{name}_scale_inv", scales
            module = name.removesuffix("weight") if name.endswith(".weight") else f"{name}_"
            yield f"{module}activation_scale", mx.array(1.0)
            continue
        rows, columns = weight.shape
        scales = mx.zeros((-(-rows // BLOCK), -(-columns // BLOCK)))
        codes = mx.zeros(weight.shape, mx.uint8)
        for row in range(scales.shape[0]):
            for column in range(scales.shape[1]):
                block = slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK)
                scales[row, column] = mx.abs(weight[block]).max().astype(mx.float32) / LARGEST_FP8
                codes[block] = mx.to_fp8(weight[block].astype(mx.float32) / scales[row, column])
        yield name, codes
        yield f"{name}_scale_inv", scales


def name_fp8(path: Path) -> None:
    """Calls bytes what they are in a file's header: MLX writes floats of 8 bits as U8."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for tensor in header.values():
        if tensor.get("dtype") == "U8":
            tensor["dtype"] = "F8_E4M3"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def fused(weights: dict[str, mx.array]):
    """The weights with experts as gpt-oss has them: bytes of codes by group, rows of gates and ups in turns."""
    for name, weight in weights.items():
        if ".experts." not in name:
            yield name, weight
            continue
        head, module, kind = name.rsplit(".", 2)
        if module == "up_proj":
            continue
        if module == "gate_proj":
            up = weights[f"{head}.up_proj.{kind}"]
            weight = mx.stack([weight, up], axis=2).reshape(weight.shape[0], -1, *weight.shape[2:])
            module = "gate_up_proj"
        if kind == "weight":
            weight = mx.view(weight, mx.uint8).reshape(*weight.shape[:2], -1, 16)
        yield f"{head}.{module}_{dict(weight='blocks', scales='scales', bias='bias')[kind]}", weight


def save_weights(folder: Path, weights: list[tuple[str, mx.array]], shards: int) -> None:
    """One file, or two whose border lies inside a quantized module: its weight here, its scales there."""
    metadata = {"format": "mlx"}
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), dict(weights), metadata)
        return
    total_bytes = sum(weight.nbytes for _, weight in weights)
    seen_bytes, border = 0, None
    for index, (name, weight) in enumerate(weights):
        if seen_bytes > total_bytes // 2 and name.endswith(".scales"):
            border = index
            break
        seen_bytes += weight.nbytes
    if border is None:
        sys.exit("no quantized module in the second half of the weights: the shards have no border")
    weight_map = {}
    for number, part in enumerate([weights[:border], weights[border:]], start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        mx.save_safetensors(str(folder / file), dict(part), metadata)
        weight_map |= {name: file for name, _ in part}
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def load_f32(folder: Path, overrides: dict | None = None):
    """The stored model, every floating parameter cast to float32 (packed weights stay packed)."""
    model, _ = load_model(folder, model_config=overrides, strict=overrides is None)
    model.set_dtype(mx.float32)
    return model


def prefill(model, prompt: mx.array, chunks: list[int]):
    """Logits [T, vocab] f32 of the prompt, taken in `chunks`, and the cache they left."""
    cache = make_prompt_cache(model)
    logits, start = [], 0
    for tokens in chunks:
        logits.append(model(prompt[None, start : start + tokens], cache=cache)[0])
        mx.eval(logits[-1])
        start += tokens
    return mx.concatenate(logits), cache


def decode(model, cache, first: int):
    """Greedy decode. Row i of the logits follows token i; token i + 1 is its argmax."""
    tokens, logits = [], []
    token = first
    for _ in range(DECODE_TOKENS):
        row = model(mx.array([[token]]), cache=cache)[0, 0]
        tokens.append(token)
        logits.append(row)
        token = mx.argmax(row).item()
    return tokens, mx.stack(logits)


def difference(found: mx.array, expected: mx.array) -> float:
    """Largest over rows of max |found - expected| / max |expected|."""
    return (mx.abs(found - expected).max(axis=-1) / mx.abs(expected).max(axis=-1)).max().item()


def gathered(x: mx.array, weights: mx.array, rhs_indices: mx.array, sorted_indices: bool) -> mx.array:
    """What mx.gather_mm computes, which takes no float64."""
    return x @ weights[rhs_indices]


def dequantize_heads(model) -> None:
    """Makes numbers of the matrices of heads, which mlx-lm's dequantize_model leaves as they are."""
    for _, attention in model.named_modules():
        for name in ("embed_q", "unembed_out"):
            if isinstance(stored := attention.get(name), QuantizedMultiLinear):
                numbers = mx.dequantize(
                    stored.weight, stored.scales, stored.biases, stored.group_size, stored.bits, mode=stored.mode
                )
                heads, outputs, inputs = numbers.shape
                attention[name] = MultiLinear(inputs, outputs, heads)
                attention[name].weight = numbers


def rounding(folder: Path, prompt: mx.array, logits: mx.array) -> float:
    """How far float64 parameters and activations move the prefill: what float32 rounding costs."""
    model = load_f32(folder)
    if any(name.endswith(".scales") for name, _ in tree_flatten(model.parameters())):
        model = dequantize_model(model)
        dequantize_heads(model)
    model.set_dtype(mx.float64)
    with unittest.mock.patch.object(mx, "gather_mm", gathered):
        exact, _ = prefill(model, prompt, [prompt.size])
    return difference(exact.astype(mx.float32), logits)


def vectors(case: Case, folder: Path) -> dict[str, mx.array]:
    """Every golden tensor of a case, from the files in `folder`."""
    model = load_f32(folder)
    prompt = mx.random.randint(3, case.config["vocab_size"], (PROMPT_TOKENS,), key=mx.random.key(1000 + case.seed))
    one_shot, cache = prefill(model, prompt, [PROMPT_TOKENS])
    chunked, chunked_cache = prefill(model, prompt, CHUNK_TOKENS)
    tokens, logits = decode(model, cache, mx.argmax(one_shot[-1]).item())
    other_tokens, other_logits = decode(model, chunked_cache, mx.argmax(chunked[-1]).item())
    # The same sequence without any cache: what the windows and rotations of the cache have to reproduce.
    whole = model(mx.concatenate([prompt, mx.array(tokens, mx.int32)])[None])[0]
    top = mx.sort(mx.concatenate([one_shot[-1:], logits]), axis=-1)[:, -2:]
    margin = (top[:, 1] - top[:, 0]).min().item()
    if tokens != other_tokens or margin < MIN_MARGIN or len(set(tokens)) < MIN_DISTINCT_TOKENS:
        sys.exit(f"{case.name}: seed {case.seed} decodes unfairly: margin {margin:.4f}, tokens {tokens}")
    print(
        f"| {case.name} | {one_shot.std().item():.2f} | {margin:.3f} | {len(set(tokens))} "
        f"| {difference(chunked, one_shot):.1e} | {difference(other_logits, logits):.1e} "
        f"| {difference(mx.concatenate([one_shot, logits]), whole):.1e} | {rounding(folder, prompt, one_shot):.1e} |"
    )
    return {
        "prompt": prompt.astype(mx.int32),
        "chunks": mx.array(CHUNK_TOKENS, dtype=mx.int32),
        "prefill_logits": one_shot,
        "chunked_logits": chunked,
        "decode_tokens": mx.array(tokens, dtype=mx.int32),
        "decode_logits": logits,
    }


def mistakes(case: Case, folder: Path, golden: dict[str, mx.array]) -> None:
    """Prints how far each mistake moves the logits; one that stays near the tolerance is an error."""
    for name, overrides in case.mistakes.items():
        logits, _ = prefill(load_f32(folder, overrides), golden["prompt"], [PROMPT_TOKENS])
        moved = difference(logits, golden["prefill_logits"])
        print(f"| {case.name} | {name} | {moved:.1e} |")
        if not moved > MIN_MISTAKE:
            sys.exit(f"{case.name}: '{name}' moves the logits by {moved:.1e}, expected more than {MIN_MISTAKE:.0e}")
    if case.config["model_type"] == "gemma3_text":
        gemma3_mistakes(case, load_f32(folder), golden)


def gemma3_mistakes(case: Case, model, golden: dict[str, mx.array]) -> None:
    """Two mistakes no configuration can express. They are printed, not judged: both lie near the tolerance."""
    prompt = golden["prompt"][None]
    exact = case.config["hidden_size"] ** 0.5
    rounded = mx.array(exact, mx.bfloat16).astype(mx.float32).item()
    if rounded != exact:
        logits = model(prompt, input_embeddings=model.model.embed_tokens(prompt) * (exact / rounded))[0]
        moved = difference(logits, golden["prefill_logits"])
        print(f"| {case.name} | embedding scale not rounded to bf16 | {moved:.1e} |")
    with unittest.mock.patch.object(nn, "gelu_approx", nn.gelu):
        logits = model(prompt)[0]
        mx.eval(logits)
    print(f"| {case.name} | erf GELU | {difference(logits, golden['prefill_logits']):.1e} |")


def compare(case: Case, fresh: Path, golden: dict[str, mx.array]) -> None:
    """Weights must equal the committed ones bit for bit, logits within float32 rounding."""
    committed = HERE / case.name
    for path in sorted(fresh.iterdir()):
        if path.suffix == ".json":
            same = path.read_bytes() == (committed / path.name).read_bytes()
        else:
            left, right = mx.load(str(path)), mx.load(str(committed / path.name))
            same = left.keys() == right.keys() and all(mx.array_equal(left[k], right[k]).item() for k in left)
        if not same:
            sys.exit(f"{case.name}: {path.name} differs from the committed file")
    stored = mx.load(str(committed / "golden.safetensors"))
    for name, value in golden.items():
        if value.dtype == mx.float32:
            off = difference(value, stored[name])
            if not off < 1e-5:
                sys.exit(f"{case.name}: {name} differs from the committed one by {off:.1e}, expected below 1e-5")
        elif not mx.array_equal(value, stored[name]).item():
            sys.exit(f"{case.name}: {name} differs from the committed one")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the golden models and vectors.")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("names", nargs="*", metavar="CASE", help="cases to make; all of them by default")
    arguments = parser.parse_args()
    check = arguments.check
    if unknown := set(arguments.names) - {case.name for case in CASES}:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}")
    cases = [case for case in CASES if not arguments.names or case.name in arguments.names]
    for package, wanted in VERSIONS.items():
        if (found := version(package)) != wanted:
            sys.exit(f"found {package} {found}, expected {wanted}: install tests/golden/requirements.txt")
    mx.set_default_device(mx.cpu)
    results = []
    print("| case | logits std | smallest margin | distinct tokens | chunked / one-shot | decode after | no cache | float64 |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            folder = Path(scratch) / case.name if check else HERE / case.name
            folder.mkdir(exist_ok=True)
            for stale in folder.iterdir():
                stale.unlink()
            build(case, folder)
            golden = vectors(case, folder)
            if check:
                compare(case, folder, golden)
            else:
                metadata = {"case": case.name} | VERSIONS
                mx.save_safetensors(str(folder / "golden.safetensors"), golden, metadata)
            results.append((case, folder, golden))
        print("\n| case | mistake | moves the logits by |\n|---|---|---|")
        for case, folder, golden in results:
            mistakes(case, folder, golden)


if __name__ == "__main__":
    main()
