"""An 8B-shaped Llama with random 4-bit weights, served by prefixd and run by mlx-lm on the same machine: time to first token
cold, resident and restored, and decoding by number of rows.

    pip install mlx-lm==0.32.2 mlx[cuda13]      (on a Mac or on CPUs: that machine's mlx)
    cargo build --release --bins --examples
    python3 benches/eight_billion.py --dir DIR [--built target/release] [--contexts 4096,32768] [--rows 1,4,16]

Makes the model in DIR on the first run (4.5 GB; the tokenizer is the embedded model's). Random weights cost what trained
ones cost. prefixd's times to the first token are measured over HTTP and its decoding by the example `rates`, both with its
default, K8V4; mlx-lm runs in a loop of this process, over unquantized keys and values, restored by its
`load_prompt_cache`. Prints one JSON object a line and a table at the end.
"""
import argparse
import copy
import http.client
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPE = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
         "max_position_embeddings": 131072, "tie_word_embeddings": False,
         "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8192}}
QUANTIZATION = {"group_size": 64, "bits": 4}
# Tokens that the embedded model's tokenizer knows.
KNOWN_TOKENS = 4000
LIMIT_S = 600


def say(**line):
    print(json.dumps(line), flush=True)


def make(directory, layers):
    """Random weights, quantized as mlx-lm quantizes."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten
    from mlx_lm.models.llama import Model, ModelArgs

    shape = SHAPE | {"num_hidden_layers": layers}
    mx.random.seed(7)
    model = Model(ModelArgs.from_dict(shape))
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, **QUANTIZATION)
    mx.eval(model.parameters())
    directory.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(directory / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(ROOT / "models/clerk" / name, directory)
    (directory / "config.json").write_text(json.dumps(shape | {"quantization": QUANTIZATION}))


def prompt_of(tokens, seed):
    r = random.Random(str(seed))
    return [r.randrange(300, KNOWN_TOKENS) for _ in range(tokens)]


class Server:
    """prefixd over a cache directory."""

    def __init__(self, binary, model, cache):
        command = [binary, "serve", model, "--port", "0", "--cache-dir", cache, "--ram-budget", "12GB", "--disk-budget", "24GB"]
        begin = time.perf_counter()
        self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.address = None
        for line in self.process.stdout:
            if "http://" in line:
                self.address = line.split("http://")[1].split()[0].rstrip("/")
                break
        if not self.address:
            raise SystemExit(f"prefixd did not become ready: exit status {self.process.wait()}")
        self.ready_s = time.perf_counter() - begin

    def complete(self, prompt):
        """Two tokens, streamed: `(seconds to the first, usage)`."""
        # With log probabilities every token is an event, whether or not it makes text.
        body = {"prompt": prompt, "max_tokens": 2, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 0,
                "stream_options": {"include_usage": True}, "prefixd_usage": True}
        connection = http.client.HTTPConnection(self.address, timeout=LIMIT_S)
        begin, first, usage = time.perf_counter(), None, None
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{response.status}: {response.read().decode()}")
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            if chunk["choices"]:
                first = first or time.perf_counter() - begin
        connection.close()
        return first, usage

    def stop(self):
        self.process.terminate()
        self.process.wait(LIMIT_S)


def ours(a):
    found = {}
    with tempfile.TemporaryDirectory(dir=a.dir.parent) as cache:
        server = Server(a.built / "prefixd", a.dir, cache)
        say(who="prefixd", what="ready", seconds=server.ready_s)
        for context in a.contexts:
            # Kernels are compiled on the first use of a shape: not what is measured.
            server.complete(prompt_of(context, f"warm {context}"))
            server.complete(prompt_of(context, f"warm {context}"))
            cold, usage = server.complete(prompt_of(context, context))
            say(who="prefixd", what="cold", context=context, seconds=cold, usage=usage)
            resident = []
            for _ in range(a.rounds):
                seconds, usage = server.complete(prompt_of(context, context))
                say(who="prefixd", what="resident", context=context, seconds=seconds, usage=usage)
                resident.append(seconds)
            found["cold", context], found["resident", context] = cold, statistics.median(resident)
        server.stop()
        restored = {context: [] for context in a.contexts}
        for _ in range(a.rounds):
            server = Server(a.built / "prefixd", a.dir, cache)
            server.complete(prompt_of(600, "warm"))
            for context in a.contexts:
                seconds, usage = server.complete(prompt_of(context, context))
                say(who="prefixd", what="restored", context=context, seconds=seconds, usage=usage)
                restored[context].append(seconds)
            server.stop()
        for context in a.contexts:
            found["restored", context] = statistics.median(restored[context])
    for context in [] if a.no_rates else a.contexts:
        rates = [a.built / "examples/rates", a.dir, "--tokens", context, "--chunks", 2048, "--riding", 4, "--steps", a.steps, "--rows"]
        lines = subprocess.run([*map(str, rates), ",".join(map(str, a.rows))], check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in map(json.loads, lines.splitlines()):
            say(who="prefixd", **line)
            if line["what"] == "decode":
                found["decode", context, line["rows"]] = line["tokens_per_s"]
    return found


def theirs(a):
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.models.cache import load_prompt_cache, make_prompt_cache, save_prompt_cache

    model, _ = load(str(a.dir))
    found = {}

    def prefill(prompt, cache):
        for at in range(0, len(prompt), 2048):
            logits = model(mx.array([prompt[at:at + 2048]]), cache=cache)[:, -1]
            mx.eval(logits, [c.state for c in cache])
        return mx.argmax(logits, axis=-1).item()

    def timed(work):
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    for context in a.contexts:
        prompt = prompt_of(context, context)
        prefill(prompt, make_prompt_cache(model))
        cache = make_prompt_cache(model)
        found["cold", context] = timed(lambda: prefill(prompt, cache))
        for c in cache:
            c.trim(1)
        path = str(a.dir.parent / "mlx-lm-cache.safetensors")
        save_prompt_cache(path, cache)
        resident, restored = [], []
        for _ in range(a.rounds):
            kept = copy.deepcopy(cache)
            resident.append(timed(lambda: prefill(prompt[-1:], kept)))
            restored.append(timed(lambda: prefill(prompt[-1:], load_prompt_cache(path))))
        pathlib.Path(path).unlink()
        found["resident", context], found["restored", context] = statistics.median(resident), statistics.median(restored)
        for what in ("cold", "resident", "restored"):
            say(who="mlx-lm", what=what, context=context, seconds=found[what, context])
        for rows in a.rows:
            batch = []
            for c in cache:
                wide = copy.copy(c)
                wide.keys, wide.values = mx.repeat(c.keys, rows, axis=0), mx.repeat(c.values, rows, axis=0)
                mx.eval(wide.keys, wide.values)
                batch.append(wide)

            def decode(steps, batch=batch, rows=rows):
                tokens = mx.array([[prompt[-1]]] * rows)
                for _ in range(steps):
                    tokens = mx.argmax(model(tokens, cache=batch)[:, -1], axis=-1, keepdims=True)
                    mx.eval(tokens)

            decode(8)
            found["decode", context, rows] = rows * a.steps / timed(lambda: decode(a.steps))
            say(who="mlx-lm", what="decode", context=context, rows=rows, tokens_per_s=found["decode", context, rows])
            del batch
        del cache
    return found


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--dir", type=pathlib.Path, required=True)
    p.add_argument("--built", type=pathlib.Path, default=ROOT / "target/release")
    p.add_argument("--contexts", type=numbers, default=[4096, 32768])
    p.add_argument("--rows", type=numbers, default=[1, 4, 16])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=64)
    p.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    p.add_argument("--no-rates", action="store_true", help="leave out prefixd's decoding by number of rows")
    p.add_argument("--only", choices=["make", "prefixd", "mlx-lm"])
    a = p.parse_args()
    if not (a.dir / "config.json").exists():
        make(a.dir, a.layers)
    one = ours(a) if a.only in (None, "prefixd") else {}
    two = theirs(a) if a.only in (None, "mlx-lm") else {}
    print(f"{'':32} {'prefixd':>10} {'mlx-lm':>10}")
    for key in one or two:
        name = f"{key[0]}, {key[1]} tokens" + (f", {key[2]} row{'s' * (key[2] > 1)}" if len(key) > 2 else "")
        unit, scale = ("tokens/s", 1) if key[0] == "decode" else ("ms", 1e3)
        shown = [f"{found[key] * scale:10.0f}" if key in found else " " * 10 for found in (one, two)]
        print(f"{name:32} {shown[0]} {shown[1]} {unit}")


if __name__ == "__main__":
    main()
