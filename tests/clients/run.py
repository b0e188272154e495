#!/usr/bin/env python3
"""Real clients against a real server: python3 tests/clients/run.py [--fast | --all | NAME...]

Each client is a script that talks to the server at BASE_URL and prints what it got, one JSON object a line; scenario.json
has the questions and the right answers. This runner installs the pinned packages into a cache folder, gives every client a
server of its own over an empty directory, and judges:

1. Every answer, call and check is exactly the expected one.
2. Every turn that goes on in a conversation found in the cache all that the turn before it left: its prompt and its answer but
   for the last token, which is sampled and not computed. Only a rest of less than 16 tokens behind the last whole block of
   256 is not kept.
3. The server is still ready afterwards, and wrote no panic.

Exit code 0: every client that ran passed. What cannot run here (no npm) is printed as not run, and fails under --fast.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BLOCK, SHORTEST_TAIL = 256, 16
INSTALL_LIMIT_S, CLIENT_LIMIT_S, START_LIMIT_S = 600, 240, 60

# The folder or file of packages/ that pins what a client needs, its script, and arguments after the server's address.
CLIENTS = {
    "openai": ("openai", "py/openai_client.py"),
    "anthropic": ("anthropic", "py/anthropic_client.py"),
    "openai-js": ("js", "js/openai.mjs"),
    "anthropic-js": ("js", "js/anthropic.mjs"),
    "ai-sdk": ("js", "js/ai_sdk.mjs", "openai-compatible"),
    "ai-sdk-anthropic": ("js", "js/ai_sdk.mjs", "anthropic"),
    "litellm": ("litellm", "py/litellm_client.py"),
    "langchain": ("langchain", "py/langchain_client.py"),
    "pydantic-ai": ("pydantic-ai", "py/pydantic_ai_client.py"),
    "openai-agents": ("openai-agents", "py/openai_agents_client.py"),
    "smolagents": ("smolagents", "py/smolagents_client.py"),
    "instructor": ("instructor", "py/instructor_client.py"),
    "autogen": ("autogen", "py/autogen_client.py"),
    "openai-responses": ("openai", "py/openai_responses_client.py"),
    "ai-sdk-responses": ("js", "js/ai_sdk.mjs", "openai-responses"),
    "ai-sdk-responses-unstored": ("js", "js/ai_sdk.mjs", "openai-responses", "unstored"),
    "openai-agents-responses": ("openai-agents", "py/openai_agents_client.py", "responses"),
    "llm": ("llm", "py/llm_client.py"),
    "opencode": ("opencode", "py/opencode_client.py"),
    "codex": ("codex", "py/codex_client.py"),
    "claude-code": ("claude-code", "py/claude_code_client.py"),
    "aiperf": ("aiperf", "py/aiperf_client.py"),
}
# What CI runs: few packages, seconds.
FAST = ["openai", "anthropic"]
# Runs by name alone: codex wraps a command's output in lines of its own, and the embedded model, which runs the command, finds no end
# of its answer over them. The server's part of it passes.
BY_NAME = ["codex"]


class NotRun(Exception):
    """What a client needs is not here."""


def limited(command, limit_s, **more):
    """Runs a command to its end or to the limit. Its exit code and what it printed."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **more)
    try:
        out, err = process.communicate(timeout=limit_s)
        return process.returncode, out, err
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return 124, out, f"{err or ''}\nended after {limit_s} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def install(cache, packages):
    """The folder with a client's packages, installed once for every content of their pins."""
    python = HERE / "packages" / f"{packages}.txt"
    node = HERE / "packages" / packages
    pins = next(file for file in (python, node / "package-lock.json", node / "package.json") if file.exists())
    folder, stamp = cache / packages, cache / packages / ".installed"
    if stamp.exists() and stamp.read_bytes() == pins.read_bytes():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if pins == python:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-warn-conflicts",
                   "--root-user-action=ignore", "--target", folder, "-r", pins]
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise NotRun("npm is not installed")
        for file in node.iterdir():
            shutil.copy(file, folder)
        # A program without a lock file has one package, whose own package names its parts exactly.
        command = [npm, "ci" if pins.name == "package-lock.json" else "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder]
    code, _, err = limited(command, INSTALL_LIMIT_S, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if code:
        raise NotRun(f"its packages could not be installed: {err.strip()[:500]}")
    stamp.write_bytes(pins.read_bytes())
    return folder


class Server:
    """A server of the given binary on a free port, over an empty directory."""

    def __init__(self, binary):
        self.folder = tempfile.TemporaryDirectory(prefix="prefixd-clients-")
        self.errors = open(pathlib.Path(self.folder.name, "stderr"), "w+")
        self.process = subprocess.Popen(
            [binary, "serve", "--host", "127.0.0.1", "--port", "0", "--log-level", "warn", "--cache-dir", self.folder.name + "/cache"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        timer = threading.Timer(START_LIMIT_S, self.process.kill)
        timer.start()
        ready = "prefixd is ready at "
        self.url = next((line[len(ready):].strip() for line in self.process.stdout if line.startswith(ready)), None)
        timer.cancel()
        if self.url is None:
            raise SystemExit(f"{binary} ended before it was ready: {self.said()}")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def said(self):
        """What it wrote to its standard error so far."""
        return pathlib.Path(self.errors.name).read_text()

    def faults(self):
        """What is wrong with it now."""
        if self.process.poll() is not None:
            return [f"the server ended with {self.process.returncode}: {self.said()[-500:]}"]
        faults = [f"the server is not ready: {error}" for error in [not_ready(self.url)] if error]
        return faults + ([f"the server panicked: {self.said()[-1000:]}"] if "panicked" in self.said() else [])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.errors.close()
        self.folder.cleanup()


def not_ready(url):
    """Why the server at `url` is not ready, if so."""
    try:
        with urllib.request.urlopen(url + "/health/ready", timeout=10) as answer:
            answer.read()
    except OSError as error:
        return str(error)


def kept(tokens):
    """How many tokens of a sequence the cache keeps when it ends."""
    rest = tokens % BLOCK
    return tokens - rest if rest < SHORTEST_TAIL else tokens


def judge(lines):
    """What is wrong with a client's lines, and the tokens of all turns that went on: computed anew and all."""
    faults, known, anew, all_tokens, turns = [], 0, 0, 0, 0
    for line in lines:
        name = line.get("turn") or line["check"]
        if line["found"] != line["expected"]:
            faults.append(f"{name}: found {json.dumps(line['found'])}, expected {json.dumps(line['expected'])}")
        if "turn" not in line:
            continue
        turns += 1
        if not line["opens"]:
            anew, all_tokens = anew + line["prompt"] - line["cached"], all_tokens + line["prompt"]
            if line["cached"] < known:
                faults.append(f"{name}: {line['cached']} tokens of {line['prompt']} were cached; the turn before left {known}")
        known = kept(line["prompt"] + line["completion"] - 1)
    if not lines:
        faults.append("it printed nothing")
    return faults, turns, anew, all_tokens


def command_of(script, folder):
    """How a client's script is started over its packages, and with which environment."""
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", CLIENT_PACKAGES=str(folder), NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    if script.suffix == ".py":
        environment["PYTHONPATH"] = str(folder)
        return [sys.executable, script], environment
    # Scripts import packages from the folder that they lie in.
    for file in HERE.glob("js/*.mjs"):
        shutil.copy(file, folder)
    shutil.copy(HERE / "scenario.json", folder)
    return [folder / "node_modules/.bin/node", folder / script.name], environment


def run_client(name, options):
    """Runs one client: its state (passed, failed, not run) and what there is to say."""
    packages, script, *more = CLIENTS[name]
    try:
        folder = install(options.cache, packages)
    except NotRun as reason:
        return "not run", str(reason)
    started = time.monotonic()
    command, environment = command_of(HERE / script, folder)

    def against(url):
        code, out, err = limited([*command, url, *more], CLIENT_LIMIT_S, env=environment, cwd=options.scratch,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        faults, *counts = judge(lines)
        if code:
            faults.append(f"exit code {code}: {err.strip()[-1500:]}")
        return faults, len(lines), counts

    if options.url:
        faults, checks, counts = against(options.url)
        faults += [f"the server is not ready: {error}" for error in [not_ready(options.url)] if error]
    else:
        with Server(options.server) as server:
            faults, checks, counts = against(server.url)
            faults += server.faults()
    turns, anew, all_tokens = counts
    said = f"{turns} turns, {checks - turns} checks, {time.monotonic() - started:.1f} s"
    if all_tokens:
        said += f"; later turns computed {anew} of {all_tokens} prompt tokens"
    return ("failed", "\n    ".join([said, *faults])) if faults else ("passed", said)


def options():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLIENTS))
    parser.add_argument("--fast", action="store_true", help="those that CI runs: " + ", ".join(FAST))
    parser.add_argument("--all", action="store_true", help="all but " + ", ".join(BY_NAME))
    parser.add_argument("--server", help="the binary; otherwise that of the release build", type=pathlib.Path,
                        default=HERE.parent.parent / "target/release/prefixd")
    parser.add_argument("--url", help="a server that runs already, for all clients, instead")
    parser.add_argument("--cache", help="where packages are installed", type=pathlib.Path,
                        default=HERE.parent.parent / "target/clients")
    found = parser.parse_args()
    found.names = [name for name in CLIENTS if name not in BY_NAME] if found.all else FAST if found.fast else found.names
    unknown = [name for name in found.names if name not in CLIENTS]
    if unknown or not found.names:
        parser.error(f"name clients of {', '.join(CLIENTS)}, or say --fast or --all; found {unknown or 'none'}")
    if not found.url and not found.server.exists():
        parser.error(f"there is no {found.server}; build with cargo build --release, or name one with --server")
    found.cache = found.cache.resolve()
    found.server = found.server.resolve()
    return found


def main():
    """Runs, prints the table, and says by the exit code how it went."""
    chosen = options()
    states = []
    with tempfile.TemporaryDirectory(prefix="prefixd-clients-") as chosen.scratch:
        for name in chosen.names:
            state, said = run_client(name, chosen)
            states.append(state)
            print(f"{name:26} {state:8} {said}", flush=True)
    print(", ".join(f"{states.count(state)} {state}" for state in ("passed", "failed", "not run") if state in states))
    return int("failed" in states or chosen.fast and "not run" in states)


if __name__ == "__main__":
    sys.exit(main())
