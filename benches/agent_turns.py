"""What each turn of an agent computes on a model with recurrent layers: prefixd and mlx-lm's server, the same requests.

    pip install mlx-lm==0.32.2 'mlx[cpu]==0.32.2' safetensors numpy
    cargo build --release
    python3 benches/agent_turns.py [--built target/release] [--turns 12]

The model is a small random Qwen3.5 with the embedded model's tokenizer and template, so its answers mean nothing: what is measured is how
many tokens of each prompt a server says that it had. An agent's turn is a call and its result, every fourth a new word of the user, at
which the earlier answers lose their thoughts. Prints a table of computed tokens a turn: the prompt's, less those that were cached.
"""
import argparse
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
VOCAB = 4096
TOOL = {"type": "function", "function": {"name": "look", "description": "Look into a place",
                                         "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}}


def make_model(folder):
    """The golden Qwen3.5 in f32, with an embedding of the embedded model's vocabulary."""
    golden = ROOT / "tests/golden/qwen3_5"
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(ROOT / "models/clerk" / name, folder / name)
    config = json.loads((golden / "config.json").read_text())
    for part in (config, config["text_config"]):
        part |= {"vocab_size": VOCAB, "max_position_embeddings": 32768}
    config |= {"eos_token_id": 7, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name: as_f32(value) for name, value in load_raw(golden / "model.safetensors").items()}
    name = "model.language_model.embed_tokens.weight"
    rows = weights[name]
    signs = numpy.where(numpy.random.default_rng(7).random((VOCAB, rows.shape[1])) < .2, -1, 1)
    weights[name] = (rows[numpy.arange(VOCAB) % len(rows)] * signs).astype(numpy.float32)
    save_file(weights, folder / "model.safetensors")


def load_raw(path):
    """Tensors by name, bfloat16 as the upper halves of floats."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    body = raw[8 + length:]
    types = {"BF16": numpy.uint16, "F32": numpy.float32}
    return {name: numpy.frombuffer(body[of["data_offsets"][0]:of["data_offsets"][1]], types[of["dtype"]]).reshape(of["shape"])
            for name, of in json.loads(raw[8:8 + length]).items() if name != "__metadata__"}


def as_f32(value):
    return (value.astype(numpy.uint32) << 16).view(numpy.float32) if value.dtype == numpy.uint16 else value.copy()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A process that serves the model."""

    def __init__(self, command, port, path):
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + path).read()
                return
            except OSError:
                time.sleep(.2)
        raise SystemExit(f"{command[0]} did not start")

    def computed(self, messages):
        """Tokens of the prompt that were computed, and its answer."""
        body = {"model": "default_model" if self.is_mlx else "default", "messages": messages, "tools": [TOOL], "temperature": 0, "max_tokens": 6}
        request = urllib.request.Request(self.url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
        usage = json.load(urllib.request.urlopen(request))["usage"]
        return usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Ours(Server):
    is_mlx = False

    def __init__(self, built, model, cache):
        port = free_port()
        super().__init__([built / "prefixd", "serve", model, "--port", port, "--cache-dir", cache], port, "/health")


class Theirs(Server):
    is_mlx = True

    def __init__(self, _built, model, _cache):
        port = free_port()
        super().__init__([sys.executable, "-m", "mlx_lm", "server", "--model", model, "--port", port], port, "/health")


class Agent:
    """A conversation that goes on in the same way whatever is answered."""

    def __init__(self, name):
        rules = " ".join(f"Rule {at}: look before you answer." for at in range(40))
        self.messages = [{"role": "system", "content": rules},
                         {"role": "user", "content": f"You are number {name}. Find the key of room {100 + name}."}]
        self.turn = 0

    def step(self, server):
        computed = server.computed(self.messages)
        turn, self.turn = self.turn, self.turn + 1
        self.messages += [
            {"role": "assistant", "content": f"Thought {turn}: the drawers are numbered, so I go on with the next one.", "tool_calls": [
                {"id": f"call{turn}", "type": "function",
                 "function": {"name": "look", "arguments": json.dumps({"place": f"drawer {turn}"})}}]},
            {"role": "tool", "tool_call_id": f"call{turn}", "content": f"Drawer {turn} holds {turn * 3} pens and {turn} letters."}]
        if turn % 4 == 3:
            # As templates do: what was thought before a new word of the user is not told any more.
            self.messages = [dict(message, content="") if "tool_calls" in message else message for message in self.messages]
            self.messages += [{"role": "assistant", "content": "Nothing yet."},
                              {"role": "user", "content": f"Go on behind drawer {turn}."}]
        return computed


def play(start, turns):
    """Computed tokens by scenario and turn."""
    found = {}
    server = start()
    agent = Agent(0)
    found["one agent"] = [agent.step(server) for _ in range(turns)]
    edited = max(at for at, message in enumerate(agent.messages) if message["role"] == "user")
    server.computed(agent.messages)
    agent.messages = agent.messages[:edited] + [{"role": "user", "content": "Stop looking and say what you know."}]
    found["its last word edited"] = [server.computed(agent.messages)]
    agents = [Agent(name) for name in (1, 2, 3)]
    rounds = [[agent.step(server) for agent in agents] for _ in range(turns)]
    found["three agents in turns, the third"] = [computed[2] for computed in rounds]
    server.stop()
    server = start()
    found["the third after a restart"] = [agents[2].step(server)]
    server.stop()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--built", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("--turns", type=int, default=12)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as model, tempfile.TemporaryDirectory() as cache:
        make_model(pathlib.Path(model))
        servers = {"prefixd": Ours, "mlx-lm": Theirs}
        found = {name: play(lambda kind=kind: kind(a.built, model, cache), a.turns) for name, kind in servers.items()}
    print("| scenario | server | computed tokens, turn by turn | median after the first |\n|---|---|---|---:|")
    for scenario in found["prefixd"]:
        for name, scenarios in found.items():
            turns = scenarios[scenario]
            print(f"| {scenario} | {name} | {', '.join(map(str, turns))} | {statistics.median(turns[1:] or turns):.0f} |")


main()
