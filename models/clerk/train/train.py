"""Train the model on one GPU: `python3 train.py --minutes 20.5 --out DIR [--resume] [--weights DIR --begin SHARE]`.

In parts: `--minutes 17 --stop-after 9` ends with a checkpoint 9 minutes after its start, compilation included; the same command with
`--resume` goes on with the same schedule, and `--resume --end-after 9` fits what is left of it into 9 minutes from its start. A run that is
killed goes on from its newest checkpoint.

Writes DIR/log.txt, DIR/state.pt (everything, to resume) and DIR/weights-{0,1}.safetensors (bf16, for export.py) at every
checkpoint. The longest conversation grows with the share of the schedule that has passed; learning rates fall to zero at the
end. `--weights` goes on from an earlier run's weights, at `--begin` of the schedule, with fresh optimizer states.
"""
import argparse
import pathlib
import time

import torch
from safetensors.torch import load_file, save_file

import score
from bpe import Codec
from data import ROW, Rows
from model import Model, masks_of, positions_of
from muon import Muon

# (share of time at which it starts, longest conversation in tokens)
LENGTHS = [(0, 1024), (.12, 2048), (.28, 4096), (.48, 8192), (.72, 16384)]
ADAM_RATE, WARM_STEPS = 2e-3, 150
SEED = 11


def length_at(share):
    return [n for start, n in LENGTHS if share >= start][-1]


def rate_at(step, share):
    """Warm up, hold, fall linearly to nothing over the last 65 % of the time."""
    return min(1, (step + 1) / WARM_STEPS) * max(0., min(1., (1 - share) / .65))


def optimizers(model):
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and not n.startswith("embed")]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or n.startswith("embed")]
    return Muon(matrices), torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(.9, .95), weight_decay=0, fused=rest[0].is_cuda)


def save_weights(model, out):
    """The weights in two files, each below 16 MiB."""
    state = {k: v.detach().bfloat16().contiguous().cpu() for k, v in model.state_dict().items()}
    keys = sorted(state)
    for i, part in enumerate((keys[:len(keys) // 2], keys[len(keys) // 2:])):
        save_file({k: state[k] for k in part}, out / f"weights-{i}.safetensors")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--minutes", type=float, default=20.5)
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("run"))
    p.add_argument("--resume", action="store_true")
    p.add_argument("--stop-after", type=float, help="minutes after which this command ends, whatever the schedule has left")
    p.add_argument("--end-after", type=float, help="minutes after which this command has run the schedule to its end")
    p.add_argument("--weights", type=pathlib.Path, help="directory with weights-*.safetensors to go on from")
    p.add_argument("--begin", type=float, default=0., help="share of the schedule at which the run begins")
    p.add_argument("--row", type=int, default=ROW)
    p.add_argument("--workers", type=int, default=14)
    p.add_argument("--checkpoint-minutes", type=float, default=3)
    p.add_argument("--seed", type=int, default=SEED)
    p.add_argument("--tasks", help="JSONL from tasks.py, scored at every checkpoint")
    a, born = p.parse_args(), time.time()
    a.out.mkdir(parents=True, exist_ok=True)
    log = open(a.out / "log.txt", "a")

    def say(text):
        print(text, flush=True)
        print(text, file=log, flush=True)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    model = Model().to(device)
    if a.weights:
        model.load_state_dict({k: w for f in sorted(a.weights.glob("weights-*.safetensors")) for k, w in load_file(f).items()})
    muon, adam = optimizers(model)
    step, spent, share = 0, 0., a.begin
    if a.resume and not (a.out / "state.pt").exists():
        say(f"{a.out} has no checkpoint: from the start")
    elif a.resume:
        state = torch.load(a.out / "state.pt", map_location=device)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        step, spent, share = state["step"], state["spent"], state["share"]
        say(f"going on from step {step}, after {spent:.0f} s and {100 * share:.1f} % of the schedule")
    say(f"{sum(x.numel() for x in model.parameters())} parameters on {device}")
    loss_of = torch.compile(model.loss, dynamic=False) if device == "cuda" else model.loss
    codec, tasks = Codec(), score.load(a.tasks) if a.tasks else []
    # Share of the schedule per second; with `--end-after` it is known once compilation is over.
    pace, base = (1 - a.begin) / (a.minutes * 60), (share, spent)
    # Workers make some rows ahead, so they start at the length that is due.
    length = torch.tensor([length_at(share)]).share_memory_()
    rows = iter(torch.utils.data.DataLoader(Rows(a.seed + step, length), batch_size=1, num_workers=a.workers,
                                            prefetch_factor=4 if a.workers else None, pin_memory=device == "cuda"))
    start, saved, shown = None, spent, (spent, step)
    while True:
        share = base[0] + pace * (spent - base[1])
        if share >= 1 or a.stop_after and time.time() - born > a.stop_after * 60:
            break
        length[0] = length_at(share)
        ids, weights, docs = (x[:, :a.row + 1].to(device, non_blocking=True) for x in next(rows))
        ids, d = ids.long(), docs[:, :-1]
        coarse = (torch.rand(1, device=device) < .5).view(1, 1, 1, 1).expand(1, 1, a.row, 1)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss, answer = loss_of(ids[:, :-1], ids[:, 1:], weights[:, 1:], masks_of(d), positions_of(d), coarse)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        rate = rate_at(step, share)
        for g in adam.param_groups:
            g["lr"] = ADAM_RATE * rate
        muon.step(rate)
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        if start is None:
            # Compilation is not training time.
            torch.cuda.synchronize() if device == "cuda" else None
            start = time.time() - spent
            if a.end_after:
                pace = (1 - base[0]) / max(1, a.end_after * 60 - (time.time() - born))
        spent = time.time() - start
        if step % 100 == 0 or device == "cpu":
            speed = (step - shown[1]) * a.row / max(1e-9, spent - shown[0]) / 1e6
            shown = spent, step
            say(f"step {step} {spent:.0f}s length {length.item()} loss {loss.item():.3f} answers {answer.item():.4f} {speed:.2f} Mtok/s")
        if spent - saved > a.checkpoint_minutes * 60:
            saved = spent
            checkpoint(model, muon, adam, step, spent, share, a.out)
            if tasks:
                t = time.time()
                keep = [x for x in tasks if x["bucket"] <= 2 * length.item() or x["task"] == "agent"]
                say("  " + score.report(model, codec, keep, device) + f"  ({time.time() - t:.0f}s)")
                start += time.time() - t
    checkpoint(model, muon, adam, step, spent, share, a.out)
    if share < 1:
        say(f"stopped at {100 * share:.1f} % of the schedule; --resume goes on")
        return
    if tasks:
        for coarse in (False, True):
            say(f"final {'K8 V4' if coarse else '16 bit'}: " + score.report(model, codec, tasks, device, coarse))
    say("done")


def checkpoint(model, muon, adam, step, spent, share, out):
    torch.save({"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(), "step": step, "spent": spent, "share": share},
               out / "state.tmp")
    (out / "state.tmp").rename(out / "state.pt")
    save_weights(model, out)


if __name__ == "__main__":
    main()
