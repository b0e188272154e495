"""The model in PyTorch, tensor for tensor what mlx-lm's gemma3_text computes; names match the exported weights.

Training packs conversations into one row [1, T]; `Packed` carries document numbers, positions and the block masks that
keep documents apart. The row length never changes, so the graph is compiled once.
"""
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

CONFIG = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 384, "num_hidden_layers": 9,
    "intermediate_size": 704, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-6,
    "vocab_size": 4096, "rope_theta": 1e8, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 64, "sliding_window": 512,
    "sliding_window_pattern": 3, "max_position_embeddings": 32768, "tie_word_embeddings": True, "bos_token_id": 1,
    "eos_token_id": [7, 2], "pad_token_id": 0, "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
    "attention_dropout": 0.0}
C = CONFIG
HEADS, KV_HEADS, DIM, WIDTH, WINDOW = (C["num_attention_heads"], C["num_key_value_heads"], C["head_dim"], C["hidden_size"],
                                       C["sliding_window"])
BLOCK = 128


def is_global(layer):
    return layer % C["sliding_window_pattern"] == C["sliding_window_pattern"] - 1


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), 1 + self.weight.float(), C["rms_norm_eps"]).to(x.dtype)


def affine(x, bits):
    """Quantize and dequantize the last axis as one group; the gradient passes through."""
    y = x.detach().float()
    low, high = y.amin(-1, keepdim=True), y.amax(-1, keepdim=True)
    scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-7)
    return x + (((y - low) / scale).round() * scale + low - y).to(x.dtype)


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def angles(positions, base):
    """`cos`, `sin` of shape [B, 1, T, head_dim / 2]."""
    inverse = base ** (-torch.arange(0, DIM, 2, device=positions.device, dtype=torch.float32) / DIM)
    a = positions[:, None, :, None].float() * inverse
    return a.cos(), a.sin()


fused = torch.compile(flex_attention, dynamic=False)


def attend(q, k, v, mask):
    """Flex attention on a GPU; on a CPU, where it has no gradient, plain attention with a boolean mask."""
    if isinstance(mask, BlockMask):
        return fused(q, k, v, block_mask=mask, enable_gqa=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(WIDTH, HEADS * DIM, bias=False), nn.Linear(HEADS * DIM, WIDTH, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, KV_HEADS * DIM, bias=False) for _ in range(2))
        self.q_norm, self.k_norm = Norm(DIM), Norm(DIM)

    def forward(self, x, mask, rope, coarse):
        b, t, _ = x.shape
        q = rotate(self.q_norm(self.q_proj(x).view(b, t, HEADS, DIM)).transpose(1, 2), *rope)
        k = rotate(self.k_norm(self.k_proj(x).view(b, t, KV_HEADS, DIM)).transpose(1, 2), *rope)
        v = self.v_proj(x).view(b, t, KV_HEADS, DIM).transpose(1, 2)
        k, v = torch.where(coarse, affine(k, 8), k), torch.where(coarse, affine(v, 4), v)
        y = attend(q, k, v, mask)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, C["intermediate_size"], bias=False) for _ in range(2))
        self.down_proj = nn.Linear(C["intermediate_size"], WIDTH, bias=False)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), MLP()
        self.input_layernorm, self.post_attention_layernorm = Norm(WIDTH), Norm(WIDTH)
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = Norm(WIDTH), Norm(WIDTH)

    def forward(self, x, mask, rope, coarse):
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), mask, rope, coarse))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(C["vocab_size"], WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(C["num_hidden_layers"]))
        self.norm = Norm(WIDTH)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=.02)

    def forward(self, ids, masks, positions, coarse):
        """Final hidden states [B, T, width]; `coarse` [B, 1, T, 1] marks tokens whose K and V are stored in 8 and 4 bits."""
        ropes = angles(positions, C["rope_local_base_freq"]), angles(positions, C["rope_theta"])
        x = self.embed_tokens(ids) * WIDTH ** .5
        for i, layer in enumerate(self.layers):
            x = layer(x, masks[is_global(i)], ropes[is_global(i)], coarse)
        return self.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.embed_tokens.weight.to(hidden.dtype)).float()

    def loss(self, ids, targets, weights, masks, positions, coarse):
        """Weighted mean cross entropy, and the plain mean over answer tokens."""
        ce = F.cross_entropy(self.logits(self(ids, masks, positions, coarse))[0], targets[0], reduction="none")
        w, answer = weights[0], (weights[0] == 1).float()
        return (ce * w).sum() / w.sum(), (ce * answer).sum() / answer.sum().clamp(min=1)


def positions_of(doc):
    """Positions inside each document; `doc` [B, T] never falls along T."""
    index = torch.arange(doc.shape[1], device=doc.device).expand_as(doc)
    new = torch.ones_like(doc, dtype=torch.bool)
    new[:, 1:] = doc[:, 1:] != doc[:, :-1]
    return index - torch.where(new, index, 0).cummax(1).values


def listed(blocks):
    """A boolean block matrix as counts and indices, the layout BlockMask wants."""
    return blocks.sum(-1).to(torch.int32)[None, None], blocks.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)[None, None]


def masks_of(doc):
    """Block masks of one packed row for local (False) and global (True) layers, built block by block."""
    t = doc.shape[1]
    d = doc[0]
    if not doc.is_cuda:
        i = torch.arange(t)
        return {g: rule(d, g)(0, 0, i[:, None], i[None, :])[None, None] for g in (False, True)}
    lo, hi = d.view(-1, BLOCK)[:, 0], d.view(-1, BLOCK)[:, -1]
    i = torch.arange(t // BLOCK, device=d.device)
    q, k = i[:, None], i[None, :]
    some = (q >= k) & (hi[None, :] >= lo[:, None])
    whole = (q > k) & (lo[None, :] == hi[None, :]) & (lo[:, None] == hi[:, None]) & (lo[:, None] == lo[None, :])
    out = {}
    for g in (False, True):
        near, inside = (q - k) * BLOCK - BLOCK < WINDOW, (q - k) * BLOCK + BLOCK <= WINDOW
        s, w = (some, whole) if g else (some & near, whole & inside)
        out[g] = BlockMask.from_kv_blocks(*listed(s & ~w), *listed(w), BLOCK_SIZE=BLOCK, mask_mod=rule(d, g), seq_lengths=(t, t))
    return out


def rule(d, is_global_layer):
    if is_global_layer:
        return lambda b, h, q, k: (q >= k) & (d[q] == d[k])
    return lambda b, h, q, k: (q >= k) & (q - k < WINDOW) & (d[q] == d[k])
