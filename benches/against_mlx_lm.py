"""prefixd's engine and mlx-lm on the same machine and model, in turns: prefill and batched decode.

    pip install mlx-lm==0.32.2 'mlx[cpu]'        (on a Mac or a CUDA machine: that machine's mlx)
    python3 benches/against_mlx_lm.py [--model models/clerk] [--tokens 1024] [--rounds 3]

Prints a table of medians and their ratio. mlx-lm decodes rows of equal length over unquantized keys and values, which is
what its batches can do; prefixd runs its default, K8V4.
"""
import argparse
import copy
import json
import pathlib
import statistics
import subprocess
import time

import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = [1, 2, 4, 8]
STEPS = 16


def ours(a):
    command = ["cargo", "run", "--quiet", "--release", "--example", "rates", "--", str(a.model), "--tokens", str(a.tokens),
               "--chunks", "512", "--rows", ",".join(map(str, ROWS)), "--riding", "4", "--steps", str(STEPS)]
    lines = [json.loads(line) for line in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()]
    found = {"prefill": next(x["tokens_per_s"] for x in lines if x["what"] == "prefill")}
    return found | {x["rows"]: x["tokens_per_s"] for x in lines if x["what"] == "decode"}


def theirs(model, vocab, a):
    prompt = [(i * 7919 + 13) % vocab for i in range(a.tokens)]
    cache, begin = make_prompt_cache(model), time.perf_counter()
    for at in range(0, a.tokens, 512):
        mx.eval(model(mx.array([prompt[at:at + 512]]), cache=cache), [c.state for c in cache])
    found = {"prefill": a.tokens / (time.perf_counter() - begin)}
    for rows in ROWS:
        batch = [repeated(c, rows) for c in cache]
        begin = time.perf_counter()
        for token in prompt[:STEPS]:
            mx.eval(model(mx.array([[token]] * rows), cache=batch))
        found[rows] = rows * STEPS / (time.perf_counter() - begin)
    return found


def repeated(cache, rows):
    """A cache of `rows` rows that all hold what the one row of `cache` holds."""
    out = copy.copy(cache)
    out.keys, out.values = mx.repeat(cache.keys, rows, axis=0), mx.repeat(cache.values, rows, axis=0)
    mx.eval(out.keys, out.values)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", type=pathlib.Path, default=ROOT / "models/clerk")
    p.add_argument("--tokens", type=int, default=1024)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    model, _ = load(str(a.model))
    vocab = json.loads((a.model / "config.json").read_text())["vocab_size"]
    ours(a)
    runs = [(ours(a), theirs(model, vocab, a)) for _ in range(a.rounds)]
    print(f"{'tokens/s':24} {'prefixd':>9} {'mlx-lm':>9} {'ratio':>7}")
    for key in ["prefill", *ROWS]:
        one, two = (statistics.median(run[i][key] for run in runs) for i in (0, 1))
        name = f"prefill of {a.tokens}" if key == "prefill" else f"decode, {key} row{'s' * (key > 1)}"
        print(f"{name:24} {one:9.0f} {two:9.0f} {one / two:7.1f}")


if __name__ == "__main__":
    main()
