"""Score weights: `python3 score.py --weights DIR --tasks tasks.jsonl`. A table of exact answers per task, length and KV setting.

Exact match is teacher-forced: a turn passes when every token of its answer and its end token is the argmax given the right past
(of a JSON text with hidden keys: every token of its values).

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


def load(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


@torch.no_grad()
def passed(model, codec, tasks, coarse, device, row=65536, wrong=None):
    """For each task the list of passed turns; conversations share rows of `row` tokens. `wrong` is called with each turn that fails:
    task, number of the turn, and the tokens that the model chose."""
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
            ids_n, weights, spans = rendered[n]
            out[n] = [all(best[start + i - 1] == ids_n[i] for i in range(a, b) if weights[i] == 1) for a, b in spans]
            for turn, (a, b) in enumerate(spans if wrong else []):
                if not out[n][turn]:
                    wrong(tasks[n], turn, best[start + a - 1:start + b - 1])
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
    p.add_argument("--wrong", action="store_true", help="print every wrong answer at 16 bit")
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, codec, tasks = Model().to(device), Codec(), load(a.tasks)
    for f in sorted(a.weights.glob("weights-*.safetensors")):
        model.load_state_dict({k: rounded(w) for k, w in load_file(f).items()}, strict=False)
    letters = {i: t for t, i in codec.vocab.items()}

    def tell(task, turn, ids):
        said = "".join(letters[i] for i in ids).replace("Ġ", " ").replace("Ċ", "\\n")
        print(task["id"], turn, repr(task["turns"][turn].get("user", "")[-100:]), json.dumps(task["turns"][turn]["expect"], ensure_ascii=False), "|", said)

    row = 65536 if device == "cuda" else 8192
    plain, coarse = (table(tasks, passed(model, codec, tasks, kv, device, row, tell if a.wrong and not kv else None)) for kv in (False, True))
    print(f"{'task':20} {'length':>6} {'turns':>6} {'16-bit KV':>10} {'K8 V4':>8}")
    for (task, bucket), (share, n) in plain.items():
        print(f"{task:20} {bucket:6} {n:6} {100 * share:9.1f}% {100 * coarse[task, bucket][0]:7.1f}%")
    for task in dict.fromkeys(t for t, _ in plain):
        mine = [k for k in plain if k[0] == task]
        if len(mine) > 1:
            n = sum(plain[k][1] for k in mine)
            print(f"{task:20} {'all':>6} {n:6}" + "".join(f"{100 * sum(cells[k][0] * cells[k][1] for k in mine) / n:{w}.1f}%" for cells, w in ((plain, 10), (coarse, 7))))


if __name__ == "__main__":
    main()
