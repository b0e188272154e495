"""Teacher-forced exact match in PyTorch: a turn passes when every token of its answer is the argmax given the right past.

For a single turn this is greedy decoding without the cost of decoding; in later turns it assumes right earlier answers.
"""
import json
from collections import defaultdict

import torch

from bpe import Codec
from model import masks_of, positions_of
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


