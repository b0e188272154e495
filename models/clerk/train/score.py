"""Score weights: `python3 score.py --weights DIR --tasks tasks.jsonl`. A table of exact answers per task, length and KV setting.

Exact match is teacher-forced: a turn passes when every token of its answer and its end token is the argmax given the right past.

For a single turn this is greedy decoding without the cost of decoding; in later turns it assumes right earlier answers.
"""
import argparse
import json
import pathlib
from collections import defaultdict

import torch
from safetensors.torch import load_file

from bpe import Codec
from model import Model, affine, masks_of, positions_of
from tasks import make, plan


def load(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def generate(seed, per_task, top):
    codec = Codec()
    return [make(task, bucket, i, seed, codec) for task, bucket in plan(top) for i in range(per_task)]


@torch.no_grad()
def passed(model, codec, tasks, coarse, device, row=65536):
    """For each task the list of passed turns; conversations share rows of `row` tokens."""
    rendered = [codec.render(t) for t in tasks]
    rows, used = [], row + 1
    for n, (ids, _, _) in enumerate(rendered):
        if used + len(ids) > row:
            rows.append([])
            used = 0
        rows[-1].append(n)
        used += len(ids)
    out = [None] * len(tasks)
    for members in rows:
        ids, doc, starts = [], [], []
        for k, n in enumerate(members):
            starts.append(len(ids))
            ids += rendered[n][0]
            doc += [k] * len(rendered[n][0])
        pad = row - len(ids)
        x = torch.tensor([ids + [0] * pad], device=device)
        d = torch.tensor([doc + [len(members)] * pad], device=device)
        flag = torch.full((1, 1, row, 1), coarse, device=device, dtype=torch.bool)
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = model(x, masks_of(d), positions_of(d), flag)
            best = torch.cat([model.logits(h).argmax(-1) for h in hidden[0].split(8192)]).tolist()
        for start, n in zip(starts, members):
            ids_n, _, spans = rendered[n]
            out[n] = [best[start + a - 1:start + b - 1] == ids_n[a:b] for a, b in spans]
    return out


def table(tasks, results):
    """`{(task, bucket): (share of passed turns, turns)}`; for chat only turns from the second on count."""
    sums = defaultdict(lambda: [0, 0])
    for t, turns in zip(tasks, results):
        for i, ok in enumerate(turns):
            if t["task"] != "chat" or i:
                sums[t["task"], t["bucket"]][0] += ok
                sums[t["task"], t["bucket"]][1] += 1
    return {k: (a / n, n) for k, (a, n) in sums.items()}


def report(model, codec, tasks, device, coarse=False):
    cells = table(tasks, passed(model, codec, tasks, coarse, device))
    return " ".join(f"{task}-{bucket}:{100 * share:.1f}" for (task, bucket), (share, _) in cells.items())


def rounded(w, group=64):
    """A matrix as the 8-bit export keeps it."""
    return affine(w.float().view(-1, group), 8).view_as(w) if w.ndim == 2 else w


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--weights", type=pathlib.Path, required=True, help="directory with weights-*.safetensors")
    p.add_argument("--tasks", required=True, help="JSONL from tasks.py")
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, codec, tasks = Model().to(device), Codec(), load(a.tasks)
    for f in sorted(a.weights.glob("weights-*.safetensors")):
        model.load_state_dict({k: rounded(w) for k, w in load_file(f).items()}, strict=False)
    plain, coarse = (table(tasks, passed(model, codec, tasks, kv, device, 65536 if device == "cuda" else 4096)) for kv in (False, True))
    print(f"{'task':8} {'length':>6} {'turns':>6} {'16-bit KV':>10} {'K8 V4':>8}")
    for (task, bucket), (share, n) in plain.items():
        print(f"{task:8} {bucket:6} {n:6} {100 * share:9.1f}% {100 * coarse[task, bucket][0]:7.1f}%")


if __name__ == "__main__":
    main()
