"""prefixd and llama.cpp on the same machine, threads and weights, in turns: prefill, decode by number of rows, the time to the
first token of a prompt that was seen before, and memory.

    pip install llama-cpp-python==0.3.36 gguf numpy safetensors
    cargo build --release --bins --examples
    python3 benches/against_llama_cpp.py MODEL_DIR [--bits 4,8] [--rounds 3] [--long]
    python3 benches/against_llama_cpp.py --random 3b [--bits 4,8]

MODEL_DIR holds a dense llama model (Hugging Face's names; it must be a family that both sides compute alike). Its matrices are
rounded to 4 or 8 bits once, one scale for 64 neighbours, and written twice with the same values: as MLX's affine codes and as
GGUF's Q4_0 or Q8_0. `--random` makes such a pair of random codes in a known shape. Both are kept in --work.

prefixd runs its default, K8V4; llama.cpp runs f16 keys and values, flash attention and one ubatch of 512. Each side runs in a
process of its own, one after the other, round by round; the table shows each side's best round.
"""
import argparse
import ctypes
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = [1, 2, 4, 8]
GROUP, BLOCK = 64, 32
SHAPES = {
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
           "head_dim": 128, "vocab_size": 128256},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "head_dim": 64, "vocab_size": 128256},
}
COMMON = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 8192, "tie_word_embeddings": True}


# Making the two models


def matrices(config):
    """GGUF name, Hugging Face name, shape, heads whose rotated pairs GGUF keeps side by side."""
    h, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or h // heads
    yield "token_embd", "model.embed_tokens", (config["vocab_size"], h), None
    if not config.get("tie_word_embeddings"):
        yield "output", "lm_head", (config["vocab_size"], h), None
    for i in range(config["num_hidden_layers"]):
        for ours, theirs, shape, pairs in (("attn_q", "self_attn.q_proj", (heads * width, h), heads), ("attn_k", "self_attn.k_proj", (kv * width, h), kv),
                                           ("attn_v", "self_attn.v_proj", (kv * width, h), None), ("attn_output", "self_attn.o_proj", (h, heads * width), None),
                                           ("ffn_gate", "mlp.gate_proj", (inner, h), None), ("ffn_up", "mlp.up_proj", (inner, h), None),
                                           ("ffn_down", "mlp.down_proj", (h, inner), None)):
            yield f"blk.{i}.{ours}", f"model.layers.{i}.{theirs}", shape, pairs


def norms(config):
    yield "output_norm", "model.norm"
    for i in range(config["num_hidden_layers"]):
        yield f"blk.{i}.attn_norm", f"model.layers.{i}.input_layernorm"
        yield f"blk.{i}.ffn_norm", f"model.layers.{i}.post_attention_layernorm"


def make(work, config, bits, tensor, tokenizer):
    """Writes `work/mlx` and `work/model.gguf`. `tensor(name, shape)` gives f32 numbers, or None for random codes."""
    import gguf
    import numpy as np
    from safetensors.numpy import save_file

    out = work / "mlx"
    out.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(work / "model.gguf", "llama")
    facts = {"context_length": "max_position_embeddings", "embedding_length": "hidden_size", "block_count": "num_hidden_layers",
             "feed_forward_length": "intermediate_size", "head_count": "num_attention_heads", "head_count_kv": "num_key_value_heads",
             "layer_norm_rms_eps": "rms_norm_eps", "rope_freq_base": "rope_theta", "vocab_size": "vocab_size"}
    for add, key in facts.items():
        getattr(writer, f"add_{add}")(config[key])
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for add in ("add_key_length", "add_value_length", "add_rope_dimension_count"):
        getattr(writer, add)(width)
    # Tokens are given as ids: the vocabulary has only to be as long as the model's.
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"<{i}>" for i in range(config["vocab_size"])])
    writer.add_token_scores([0.0] * config["vocab_size"])
    writer.add_token_types([1] * config["vocab_size"])
    random, middle = np.random.default_rng(7), 1 << (bits - 1)
    quantized = {4: gguf.GGMLQuantizationType.Q4_0, 8: gguf.GGMLQuantizationType.Q8_0}[bits]
    mlx = {}
    for short, long, (rows, inner), pairs in matrices(config):
        weights = tensor(f"{long}.weight", (rows, inner))
        if weights is None:
            codes = random.integers(0, 2 * middle, (rows, inner), dtype=np.uint8)
            scales = np.full((rows, inner // GROUP), 0.9 / middle / inner ** 0.5, np.float16)
        else:
            groups = weights.reshape(rows, -1, GROUP)
            scales = (np.abs(groups).max(-1) / (middle - 1)).astype(np.float16)
            divisors = np.where(scales == 0, 1, scales).astype(np.float32)[..., None]
            codes = (np.clip(np.rint(groups / divisors), -middle, middle - 1) + middle).astype(np.uint8).reshape(rows, inner)
        if bits == 4:
            packed = codes[:, 0::2] | codes[:, 1::2] << 4
        else:
            packed = codes
        mlx[f"{long}.weight"] = np.ascontiguousarray(packed).view(np.uint32)
        mlx[f"{long}.scales"], mlx[f"{long}.biases"] = scales, (scales * np.float16(-middle))
        if pairs:
            order = np.arange(rows).reshape(pairs, 2, -1).swapaxes(1, 2).reshape(rows)
            codes, scales = codes[order], scales[order]
        blocks = codes.reshape(rows, -1, BLOCK)
        if bits == 4:
            body = blocks[..., :16] | blocks[..., 16:] << 4
        else:
            body = blocks - 128
        scale = np.repeat(scales, GROUP // BLOCK, axis=1).reshape(rows, -1, 1).view(np.uint8).reshape(rows, -1, 2)
        data = np.concatenate([scale, body.view(np.uint8)], axis=-1).reshape(rows, -1)
        writer.add_tensor(f"{short}.weight", data, raw_dtype=quantized)
    for short, long in norms(config):
        weights = tensor(f"{long}.weight", (config["hidden_size"],))
        weights = np.ones(config["hidden_size"], np.float32) if weights is None else weights
        mlx[f"{long}.weight"] = weights
        writer.add_tensor(f"{short}.weight", weights)
    save_file(mlx, out / "model.safetensors", metadata={"format": "mlx"})
    del mlx
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for path in tokenizer.iterdir():
        if "token" in path.name or path.name == "generation_config.json":
            shutil.copy(path, out)
    (out / "config.json").write_text(json.dumps(config | {"quantization": {"group_size": GROUP, "bits": bits}}))


def made(a, bits):
    """The pair of models, made when it is not there."""
    work = a.work / f"{a.random or a.model.name}-{bits}"
    if not (work / "mlx/config.json").exists():
        if a.random:
            make(work, COMMON | SHAPES[a.random], bits, lambda name, shape: None, ROOT / "models/clerk")
        else:
            import numpy as np
            from safetensors import safe_open

            with safe_open(a.model / "model.safetensors", "np") as file:
                def tensor(name, shape):
                    weights = file.get_tensor(name).astype(np.float32)
                    if weights.shape != shape:
                        raise SystemExit(f"{name} is {weights.shape}, expected {shape}")
                    return weights

                make(work, json.loads((a.model / "config.json").read_text()), bits, tensor, a.model)
    return work


# prefixd


def ours(work, tokens, a):
    command = [a.built / "examples/rates", work / "mlx", "--tokens", tokens, "--chunks", 512, "--riding", 1, "--steps", a.steps, "--again",
               "--rows", ",".join(map(str, ROWS)), "--threads", a.threads]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"rates failed with status {status}")
    found = {("decode", line["rows"]): line["tokens_per_s"] for line in lines if line["what"] == "decode"}
    found["prefill"] = next(line["tokens_per_s"] for line in lines if line["what"] == "prefill")
    found["again"] = next(line["seconds"] for line in lines if line["what"] == "again")
    found["memory"] = usage.ru_maxrss / 2**20
    return found


# llama.cpp


class Llama:
    """A model and a context of llama.cpp, by its C interface."""

    def __init__(self, path, threads, context, rows):
        import llama_cpp as l

        self.l = l
        l.llama_log_set(QUIET, None)
        l.llama_backend_init()
        self.model = l.llama_model_load_from_file(str(path).encode(), l.llama_model_default_params())
        p = l.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_seq_max = context, 512, 512, rows
        p.n_threads = p.n_threads_batch = threads
        p.flash_attn_type, p.kv_unified = l.LLAMA_FLASH_ATTN_TYPE_ENABLED, True
        self.context = l.llama_init_from_model(self.model, p)
        self.memory = l.llama_get_memory(self.context)
        self.batch = l.llama_batch_init(512, 0, 1)
        self.vocab = l.llama_vocab_n_tokens(l.llama_model_get_vocab(self.model))

    def step(self, entries):
        """Tokens as `(token, position, row, wanted)`."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (token, position, row, wanted) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, position, 1, row, wanted
        if self.l.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama_decode failed")
        self.l.llama_synchronize(self.context)

    def prefill(self, prompt):
        for at in range(0, len(prompt), 512):
            piece = prompt[at:at + 512]
            self.step([(token, at + i, 0, at + i == len(prompt) - 1) for i, token in enumerate(piece)])

    def clear(self):
        self.l.llama_memory_clear(self.memory, True)


def theirs_here(work, tokens, a):
    """In a process of its own: prints what was found."""
    llama = Llama(work / "model.gguf", a.threads, tokens + max(ROWS) * (a.steps + 8) + 64, max(ROWS))
    prompt = [(i * 7919 + 13) % llama.vocab for i in range(tokens)]
    llama.prefill(prompt)
    llama.clear()
    begin = time.perf_counter()
    llama.prefill(prompt)
    found = {"prefill": tokens / (time.perf_counter() - begin)}
    # A prompt cache: the row's state is put back, then the last token is computed.
    size = llama.l.llama_state_seq_get_size(llama.context, 0)
    state = (ctypes.c_uint8 * size)()
    llama.l.llama_state_seq_get_data(llama.context, state, size, 0)
    times = []
    for _ in range(3):
        llama.clear()
        begin = time.perf_counter()
        llama.l.llama_state_seq_set_data(llama.context, state, size, 0)
        llama.l.llama_memory_seq_rm(llama.memory, 0, tokens - 1, -1)
        llama.step([(prompt[-1], tokens - 1, 0, True)])
        times.append(time.perf_counter() - begin)
    found["again"] = min(times)
    del state
    for rows in ROWS:
        for row in range(1, rows):
            llama.l.llama_memory_seq_cp(llama.memory, 0, row, 0, -1)
        llama.step([(prompt[0], tokens, row, True) for row in range(rows)])
        begin = time.perf_counter()
        for i in range(a.steps):
            llama.step([(prompt[i % tokens], tokens + 1 + i, row, True) for row in range(rows)])
        found[f"decode {rows}"] = rows * a.steps / (time.perf_counter() - begin)
        for row in range(1, rows):
            llama.l.llama_memory_seq_rm(llama.memory, row, -1, -1)
        llama.l.llama_memory_seq_rm(llama.memory, 0, tokens, -1)
    print(json.dumps(found))


def theirs(work, tokens, a):
    command = [sys.executable, __file__, "--child", str(work), "--tokens", str(tokens), "--steps", str(a.steps), "--threads", str(a.threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found = json.loads(process.stdout.read().splitlines()[-1])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"llama.cpp failed with status {status}")
    numbers = {"prefill": found["prefill"], "again": found["again"], "memory": usage.ru_maxrss / 2**20}
    return numbers | {("decode", rows): found[f"decode {rows}"] for rows in ROWS}


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def QUIET(_level, _text, _data):
    pass


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", type=pathlib.Path, nargs="?")
    p.add_argument("--random", choices=SHAPES)
    p.add_argument("--bits", type=numbers, default=[4, 8])
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "against-llama-cpp")
    p.add_argument("--built", type=pathlib.Path, default=ROOT / "target/release")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=16)
    p.add_argument("--long", action="store_true", help="4,096 tokens, too")
    p.add_argument("--child", type=pathlib.Path, help=argparse.SUPPRESS)
    p.add_argument("--tokens", type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        return theirs_here(a.child, a.tokens, a)
    if not a.model and not a.random:
        p.error("a model directory or --random is wanted")
    for bits in a.bits:
        work = made(a, bits)
        for tokens in [512, 4096] if a.long else [512]:
            runs = [(ours(work, tokens, a), theirs(work, tokens, a)) for _ in range(a.rounds)]
            print(f"{work.name}, {tokens} tokens, {a.threads} threads, best of {a.rounds}: prefixd, llama.cpp, ratio")
            rows = [("prefill, tokens/s", "prefill", max), *((f"decode, {r} row{'s' * (r > 1)}, tokens/s", ("decode", r), max) for r in ROWS),
                    ("first token of a known prompt, ms", "again", min), ("memory, GB", "memory", min)]
            for name, key, best in rows:
                one, two = (best(run[side][key] for run in runs) * (1e3 if key == "again" else 1) for side in (0, 1))
                ratio = two / one if key in ("again", "memory") else one / two
                print(f"  {name:36} {one:9.1f} {two:9.1f} {ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
