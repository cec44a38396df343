"""The slow obvious way: one configuration, plain modules, torch.optim. Shares no code with the engine."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


class PlainLoRA(nn.Module):
    def __init__(self, base: nn.Linear, a, b, scale, *, method: str) -> None:
        super().__init__()
        self.base, self.scale, self.method = base, scale, method
        self.A, self.B = nn.Parameter(a.clone()), nn.Parameter(b.clone())
        self.register_buffer("A0", a.clone())
        self.register_buffer("B0", b.clone())
        if method == "lora-fa":
            self.A.requires_grad_(False)
        if method == "dora":
            self.magnitude = nn.Parameter(base.weight.detach().norm(dim=1).clone())

    def forward(self, x):
        delta = self.scale * (self.B @ self.A)
        if self.method == "pissa":
            delta = delta - self.scale * (self.B0 @ self.A0)
        weight = self.base.weight + delta
        if self.method == "dora":
            weight = (self.magnitude / weight.norm(dim=1).detach())[:, None] * weight
        return F.linear(x, weight, self.base.bias)


class PlainFull(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(base.weight.detach().clone()), base.bias

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


def plain_model(model: nn.Sequential, factors, configuration) -> nn.Sequential:
    """A copy of ``model`` with plain adapters that start from ``factors`` (layer → (A, B))."""
    layers = []
    for name, module in model.named_children():
        if not isinstance(module, nn.Linear):
            layers.append(module)
        elif configuration.method == "full":
            layers.append(PlainFull(module))
        else:
            a, b = factors[name]
            layers.append(PlainLoRA(module, a, b, configuration.scale, method=configuration.method))
    return nn.Sequential(*layers)


def train_plain(workload, model, configuration, train):
    """Losses of every step, by ``torch.optim`` and a hand-written schedule."""
    b_like = [p for name, p in model.named_parameters() if name.endswith(".B")]
    others = [p for name, p in model.named_parameters() if not name.endswith(".B") and p.requires_grad]
    c = configuration
    groups = [
        {"params": others, "lr": c.lr, "eps": train.eps, "weight_decay": train.weight_decay},
        {
            "params": b_like,
            "lr": c.lr * c.lr_ratio,
            "eps": train.eps * c.eps_ratio,
            "weight_decay": train.weight_decay * c.weight_decay_ratio,
        },
    ]
    groups = [group for group in groups if group["params"]]
    if train.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, betas=train.betas)
    else:
        optimizer = torch.optim.SGD([{"params": g["params"], "lr": g["lr"]} for g in groups])
    rates = [group["lr"] for group in optimizer.param_groups]
    losses = []
    for step in range(train.steps):
        if step < train.warmup:
            factor = (step + 1) / train.warmup
        elif train.lr_schedule == "cosine":
            share = (step - train.warmup) / (train.steps - train.warmup)
            factor = 0.5 * (1 + math.cos(math.pi * share))
        else:
            factor = 1.0
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        batch = workload.batch(model, step=step, seeds=[c.seed], batch_size=train.batch_size)
        loss = workload.losses(model, batch, num_configs=1)[0]
        optimizer.zero_grad()
        loss.backward()
        if train.clip is not None:
            torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], train.clip)
        optimizer.step()
        losses.append(loss.item())
    return losses
