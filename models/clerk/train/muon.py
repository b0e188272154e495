"""Muon: momentum whose matrix updates are made orthogonal by a Newton-Schulz iteration, batched over equal shapes."""
from collections import defaultdict

import torch


@torch.compile
def orthogonal(g):
    """Nearest semi-orthogonal matrices to `g` [N, R, C], in bf16 and to about 10 %, which is enough."""
    x = g.bfloat16()
    flip = x.shape[1] > x.shape[2]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.mT if flip else x


class Muon:
    def __init__(self, params, lr=.02, momentum=.95, decay=.02):
        shapes = defaultdict(list)
        for p in params:
            shapes[tuple(p.shape)].append(p)
        self.groups = list(shapes.values())
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.velocity = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]

    @torch.no_grad()
    def step(self, rate):
        """One update; `rate` scales the learning rate."""
        lr = self.lr * rate
        for params, v in zip(self.groups, self.velocity):
            g = torch.stack([p.grad for p in params]).float()
            v.mul_(self.momentum).add_(g)
            step = orthogonal(g + self.momentum * v)
            rows, columns = params[0].shape
            torch._foreach_mul_(params, 1 - lr * self.decay)
            torch._foreach_add_(params, list((-lr * max(1, rows / columns) ** .5 * step.float()).unbind(0)))

    def state_dict(self):
        return {"velocity": self.velocity}

    def load_state_dict(self, state):
        for mine, saved in zip(self.velocity, state["velocity"]):
            mine.copy_(saved)
