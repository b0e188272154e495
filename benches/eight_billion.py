"""An 8B-shaped Llama with random 4-bit weights, served by prefixd and run by mlx-lm on the same machine: time to first token
cold, resident and restored, and decoding by number of rows.

    pip install mlx-lm==0.32.2 mlx[cuda13]      (on a Mac or on CPUs: that machine's mlx)
    cargo build --release --bins --examples
    python3 benches/eight_billion.py --dir DIR [--built target/release] [--contexts 4096,32768] [--rows 1,4,16] [--soak 600]

Makes the model in DIR on the first run (4.5 GB, with numpy and safetensors; the tokenizer is the embedded model's). Random weights
cost what trained ones cost. Also measured: a prompt beside a stream, the memory of rows that share a prefix, and with --soak eight clients
whose answers are asked for again alone. prefixd's times to the first token are measured over HTTP and its decoding by the example `rates`, both with its
default, K8V4; mlx-lm runs in a loop of this process, over unquantized keys and values, restored by its
`load_prompt_cache`. Prints one JSON object a line and a table at the end.
"""
import argparse
import concurrent.futures
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
# Tokens of the embedded model's tokenizer that are text by themselves: others make no event of a stream.
WORDS = (300, 4000)
LIMIT_S = 600


def say(**line):
    print(json.dumps(line), flush=True)


def make(directory, layers):
    """Random codes, with scales that keep a layer's outputs as large as its inputs. Answers are words."""
    import numpy as np
    from safetensors.numpy import save_file

    shape, draw, tensors = SHAPE | {"num_hidden_layers": layers}, np.random.default_rng(7), {}
    hidden, inner, vocab = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
    kv = shape["num_key_value_heads"] * shape["head_dim"]

    def matrix(name, out, inputs, deviation, words=slice(None)):
        tensors[f"{name}.weight"] = np.frombuffer(draw.bytes(out * inputs // 2), np.uint32).reshape(out, inputs // 8)
        # Codes 0 to 15 deviate by 4.61 from their mean, 7.5.
        scales = np.full((out, inputs // QUANTIZATION["group_size"]), deviation / 4.61, np.float16)
        if words.stop:
            scales[:words.start], scales[words.stop:] = 0, 0
        tensors[f"{name}.scales"], tensors[f"{name}.biases"] = scales, scales * np.float16(-7.5)

    matrix("model.embed_tokens", vocab, hidden, 0.5)
    matrix("lm_head", vocab, hidden, 0.03, slice(*WORDS))
    for layer in range(layers):
        path = f"model.layers.{layer}"
        for name, out, inputs in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv, hidden), ("self_attn.v_proj", kv, hidden),
                                  ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", inner, hidden), ("mlp.up_proj", inner, hidden),
                                  ("mlp.down_proj", hidden, inner)):
            matrix(f"{path}.{name}", out, inputs, inputs ** -0.5)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{path}.{name}.weight"] = np.ones(hidden, np.float16)
    tensors["model.norm.weight"] = np.ones(hidden, np.float16)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "mlx"})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(ROOT / "models/clerk" / name, directory)
    (directory / "config.json").write_text(json.dumps(shape | {"quantization": QUANTIZATION}))


def prompt_of(tokens, seed):
    r = random.Random(str(seed))
    return [r.randrange(*WORDS) for _ in range(tokens)]


class Server:
    """prefixd over a cache directory."""

    def __init__(self, binary, model, cache, extra=()):
        command = [binary, "serve", model, "--port", "0", "--cache-dir", cache, "--ram-budget", "24GB", "--disk-budget", "24GB", *extra]
        begin = time.perf_counter()
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.address = None
        for line in self.process.stdout:
            if "http://" in line:
                self.address = line.split("http://")[1].split()[0].rstrip("/")
                break
        if not self.address:
            status = self.process.wait()
            self.log.seek(0)
            raise SystemExit(f"prefixd did not become ready: exit status {status}\n{self.log.read()[-4000:]}")
        self.ready_s = time.perf_counter() - begin

    def complete(self, prompt, tokens=1):
        """Streamed: seconds to the first token, seconds between tokens, their ids, and the usage."""
        # With log probabilities every token is an event, whether or not it makes text.
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 0,
                "stream_options": {"include_usage": True}, "prefixd_usage": True}
        connection = http.client.HTTPConnection(self.address, timeout=LIMIT_S)
        begin, at, said, usage = time.perf_counter(), [], [], None
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{response.status}: {response.read().decode()}")
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("error"):
                raise SystemExit(f"a stream ended with an error: {chunk['error']}")
            usage = chunk.get("usage") or usage
            if chunk["choices"]:
                at.append(time.perf_counter())
                said += (chunk["choices"][0].get("logprobs") or {}).get("tokens", [])
        connection.close()
        return at[0] - begin, [b - a for a, b in zip(at, at[1:])], said, usage

    def memory(self):
        """The device's, by parts, in bytes."""
        connection = http.client.HTTPConnection(self.address, timeout=LIMIT_S)
        connection.request("GET", "/debug/memory")
        return json.loads(connection.getresponse().read())["device"]

    def stop(self):
        self.process.terminate()
        self.process.wait(LIMIT_S)


def p95(seconds):
    return sorted(seconds)[int(len(seconds) * 0.95)]


def beside(server, context):
    """A prompt while an answer streams, against both alone."""
    _, alone_gaps, _, _ = server.complete(prompt_of(1000, "stream alone"), 200)
    alone, _, _, _ = server.complete(prompt_of(context, "prompt alone"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stream = pool.submit(server.complete, prompt_of(1000, "stream"), 500)
        time.sleep(1)
        firsts = [server.complete(prompt_of(context, f"prompt beside {i}"))[0] for i in range(3)]
        _, gaps, _, _ = stream.result()
    say(who="prefixd", what="a prompt beside a stream", context=context, alone_s=alone, beside_s=firsts, stream_gap_p50_s=statistics.median(gaps),
        stream_gap_p95_s=p95(gaps), stream_alone_gap_p50_s=statistics.median(alone_gaps), stream_alone_gap_p95_s=p95(alone_gaps))


def rows_on_one_prefix(server, context):
    """Memory of four rows that go on from one known prompt, beyond what is there without them."""
    before, most = server.memory(), 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        rows = [pool.submit(server.complete, prompt_of(context, context) + prompt_of(20, f"row {i}"), 100) for i in range(4)]
        while not all(row.done() for row in rows):
            most = max(most, server.memory()["pages_bytes"])
            time.sleep(0.02)
    say(who="prefixd", what="four rows on one prefix", context=context, more_bytes=max(0, most - before["pages_bytes"]))


def soak(server, a):
    """Clients with prompts of all lengths, some of them shared: no failure, bounded memory, and each answer again, alone."""
    end, answers, most = time.time() + a.soak, [], 0

    def client(number):
        draw = random.Random(number)
        while time.time() < end:
            shared = draw.choice([256, 2000, 6000, 12000, a.contexts[-1] - 2000])
            prompt = prompt_of(shared, f"shared {draw.randrange(3)} {shared}") + prompt_of(draw.randrange(1, 900), draw.random())
            tokens = draw.randrange(2, 60)
            answers.append((prompt, tokens, server.complete(prompt, tokens)[2]))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        while not all(one.done() for one in clients):
            most = max(most, server.memory()["active_bytes"])
            time.sleep(0.5)
        [one.result() for one in clients]
    again = random.Random(1).sample(answers, min(12, len(answers)))
    same = sum(server.complete(prompt, tokens)[2] == said for prompt, tokens, said in again)
    say(who="prefixd", what="soak", seconds=a.soak, requests=len(answers), most_active_bytes=most, again=len(again), same=same, **server.memory())


def ours(a):
    found = {}
    with tempfile.TemporaryDirectory(dir=a.dir.parent) as cache:
        server = Server(a.built / "prefixd", a.dir, cache, a.serve)
        say(who="prefixd", what="ready", seconds=server.ready_s)
        for context in a.contexts:
            # Kernels are compiled on the first use of a shape: not what is measured.
            server.complete(prompt_of(context, f"warm {context}"), 2)
            server.complete(prompt_of(context, f"warm {context}"), 2)
            cold, _, _, usage = server.complete(prompt_of(context, context))
            say(who="prefixd", what="cold", context=context, seconds=cold, usage=usage)
            resident = []
            for _ in range(a.rounds):
                seconds, _, _, usage = server.complete(prompt_of(context, context))
                say(who="prefixd", what="resident", context=context, seconds=seconds, usage=usage)
                resident.append(seconds)
            found["cold", context], found["resident", context] = cold, statistics.median(resident)
            say(who="prefixd", what="memory", context=context, **server.memory())
        beside(server, a.contexts[0])
        rows_on_one_prefix(server, a.contexts[-1])
        if a.soak:
            soak(server, a)
        server.stop()
        restored = {context: [] for context in a.contexts}
        for _ in range(a.rounds):
            server = Server(a.built / "prefixd", a.dir, cache, a.serve)
            server.complete(prompt_of(600, "warm"))
            for context in a.contexts:
                seconds, _, _, usage = server.complete(prompt_of(context, context))
                say(who="prefixd", what="restored", context=context, seconds=seconds, usage=usage)
                restored[context].append(seconds)
            server.stop()
        for context in a.contexts:
            found["restored", context] = statistics.median(restored[context])
    if a.rows:
        lists = {"--tokens": a.contexts, "--rows": a.rows, "--chunks": [2048], "--riding": [256]}
        rates = [a.built / "examples/rates", a.dir, "--steps", a.steps, *(x for name, list in lists.items() for x in (name, ",".join(map(str, list))))]
        lines = subprocess.run([*map(str, rates)], check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in map(json.loads, lines.splitlines()):
            say(who="prefixd", **line)
            if line["what"] == "decode":
                found["decode", line["context"], line["rows"]] = line["tokens_per_s"]
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
    return [int(n) for n in text.split(",") if n]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--dir", type=pathlib.Path, required=True)
    p.add_argument("--built", type=pathlib.Path, default=ROOT / "target/release")
    p.add_argument("--contexts", type=numbers, default=[4096, 32768])
    p.add_argument("--rows", type=numbers, default=[1, 4, 16])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=64)
    p.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"])
    p.add_argument("--soak", type=float, default=0, help="seconds of eight clients with prompts of all lengths")
    p.add_argument("--serve", type=str.split, default=[], help="further options of the server, --exact say")
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
