"""Many adapters over one frozen base: N configurations go through an unmodified model together.

Rows are configuration-major: a batch of N configurations with B examples each has leading dimension N·B.
Each target layer is replaced by ``PackedLinear``: one base GEMM over all rows, then small batched products
per *group*: neighbouring configurations of equal method and rank. Nothing is padded.

Shapes: N configurations, G configurations of one group, M rows per configuration (examples × tokens),
I in features, O out features, R rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.models.dropout import AdapterDropout
from lora_alpha.models.group_layer import GroupLayer, LayerSetting, group_layer
from lora_alpha.models.low_rank_product import low_rank_sum
from lora_alpha.models.targets import check_targets
from lora_alpha.models.targets import linear_bias as linear_bias
from lora_alpha.models.targets import linear_weight as linear_weight
from lora_alpha.spec import Configuration

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """Configurations ``start … stop-1`` of the pack, equal in layer and rank; ``method`` is the first's."""

    method: str
    rank: int | None
    start: int
    stop: int


class PackedLinear(nn.Module):
    """A frozen linear layer with one adapter per configuration.

    Takes (N·B, …, I) and returns (N·B, …, O). ``base`` is ``nn.Linear`` or transformers' ``Conv1D``, whose
    weight is stored transposed. Where every method of the pack adds a low-rank product the whole layer is
    one autograd operation; otherwise, and while inputs are dropped, each group computes its own output.
    """

    def __init__(
        self,
        base: nn.Module,
        groups: Sequence[tuple[Group, GroupLayer]],
        *,
        name: str,
        layer_index: int,
        dropout: AdapterDropout,
    ) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.layer_index = layer_index
        self.dropout = dropout
        self.groups = tuple(group for group, _ in groups)
        self.adapters = nn.ModuleList(layer for _, layer in groups)
        self.num_configs = self.groups[-1].stop
        self.enabled = True

    @property
    def weight(self) -> Tensor:
        """The base's own weight, as models read it for its dtype or shape."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The base's own bias."""
        return linear_bias(self.base)

    def forward(self, x: Tensor) -> Tensor:
        """The adapted output of every configuration.

        Raises:
            InvalidSpec: If the rows cannot be N·B, as where a router sends tokens to experts.
        """
        if not self.enabled:
            base: Tensor = self.base(x)
            return base
        if x.shape[0] % self.num_configs:
            raise InvalidSpec([FieldProblem("targets", _layout_message(self.name, x, self.num_configs))])
        x_NMI = x.reshape(self.num_configs, -1, x.shape[-1])
        if self.dropout.active:
            tokens = x[0, ..., 0].numel()
            seen_NMI = self.dropout.drop(x_NMI, layer_index=self.layer_index, tokens=tokens)
            return self._by_group(x_NMI, seen_NMI).view(*x.shape[:-1], -1)
        factors = [layer.factors(start=group.start, dtype=x.dtype) for group, layer in self.group_layers()]
        parts = [part for part in factors if part is not None]
        if len(parts) == len(factors):
            y_NMO = low_rank_sum(x_NMI.contiguous(), linear_weight(self.base), linear_bias(self.base), parts)
        else:
            y_NMO = self._by_group(x_NMI, x_NMI)
        return y_NMO.view(*x.shape[:-1], y_NMO.shape[-1])

    def group_layers(self) -> Iterator[tuple[Group, GroupLayer]]:
        """Each group with its parameters."""
        for group, layer in zip(self.groups, self.adapters, strict=True):
            assert isinstance(layer, GroupLayer)
            yield group, layer

    def _by_group(self, x_NMI: Tensor, seen_NMI: Tensor) -> Tensor:
        frozen = linear_weight(self.base), linear_bias(self.base)
        if len(self.groups) == 1:
            y_NMO: Tensor = self.adapters[0](x_NMI, seen_NMI, *frozen)
            return y_NMO
        # Split, not sliced: the backward pass of each slice would fill a whole gradient with zeros.
        sizes = [group.stop - group.start for group in self.groups]
        rows = torch.split(x_NMI, sizes)
        seen = rows if seen_NMI is x_NMI else torch.split(seen_NMI, sizes)
        outputs = [
            layer(x_GMI, seen_GMI, *frozen)
            for layer, x_GMI, seen_GMI in zip(self.adapters, rows, seen, strict=True)
        ]
        return torch.cat(outputs)


def _layout_message(name: str, x: Tensor, num_configs: int) -> str:
    return (
        f"{name} got {x.shape[0]} rows for {num_configs} configurations: adapters need whole examples of "
        "each, one configuration after the other. Layers behind a router (mixtures of experts), or fed with "
        "what all examples share (relative positions), cannot be packed; leave them out of the targets"
    )


class PackedAdapters:
    """Every adapter of a pack: where they sit, what trains, how they come out again.

    ``order`` lists the caller's configuration indices in pack order: at pack index i is the caller's
    configuration ``order[i]``. All tensors of this class are in pack order.
    """

    def __init__(
        self,
        layers: Mapping[str, PackedLinear],
        *,
        order: Sequence[int],
        configurations: Sequence[Configuration],
        dropout: AdapterDropout,
    ) -> None:
        self.layers = dict(layers)
        self.dropout = dropout
        self.order = tuple(order)
        self.configurations = tuple(configurations)

    @property
    def num_configs(self) -> int:
        """N."""
        return len(self.configurations)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model is the frozen base."""
        for layer in self.layers.values():
            layer.enabled = False
        try:
            yield
        finally:
            for layer in self.layers.values():
                layer.enabled = True

    def group_layers(self) -> Iterator[tuple[str, Group, GroupLayer]]:
        """(layer name, group, the group's parameters in that layer), in a fixed order."""
        for name, layer in self.layers.items():
            for group, adapter in layer.group_layers():
                yield name, group, adapter

    def set_scale_factor(self, factor_N: Tensor) -> None:
        """Multiply each configuration's own scale by ``factor_N``, shape (N,); A and B stay as they are."""
        for _, group, layer in self.group_layers():
            layer.set_scale_factor(factor_N[group.start : group.stop])

    def reset(self, pack_index: int) -> None:
        """Put one configuration back to the frozen base, finite whatever it held."""
        with torch.no_grad():
            for _, group, layer in self.group_layers():
                if group.start <= pack_index < group.stop:
                    layer.reset(pack_index - group.start)

    @torch.no_grad()
    def norms(self) -> dict[str, Tensor]:
        """``norm_A``, ``norm_B`` and ``update_norm`` = ‖ΔW‖_F over all layers, each (N,).

        From R×R Grams: ‖s·B·A‖² = s²·tr((BᵀB)(AAᵀ)).
        """
        squares: dict[str, Tensor] = {}
        for _, group, layer in self.group_layers():
            for name, value in layer.squared_norms().items():
                if name not in squares:
                    squares[name] = torch.zeros(self.num_configs, dtype=torch.float64, device=value.device)
                squares[name][group.start : group.stop] += value
        return {name: value.clamp(min=0).sqrt() for name, value in squares.items()}

    @torch.no_grad()
    def export(self) -> list[dict[str, dict[str, Tensor]]]:
        """Per configuration, in the *caller's* order: layer → tensors on the CPU.

        For low-rank methods ``A`` (R, I), ``B`` (O, R), ``scale`` () and what the method's layer adds; for
        full fine-tuning ``weight`` (O, I). ``base_norm`` () is ‖W0‖_F: what a merge would round is said
        from it.
        """
        exported: list[dict[str, dict[str, Tensor]]] = [{} for _ in self.configurations]
        norms = {name: _norm(linear_weight(layer.base)) for name, layer in self.layers.items()}
        for name, group, layer in self.group_layers():
            for pack_index in range(group.start, group.stop):
                tensors = {**layer.export(pack_index - group.start), "base_norm": norms[name]}
                exported[self.order[pack_index]][name] = {
                    key: value.detach().cpu().clone() for key, value in tensors.items()
                }
        return exported

    def state(self) -> dict[str, Tensor]:
        """Every tensor of every adapter, by ``layer/group/name``."""
        return {
            f"{name}/{group.start}/{key}": value.detach().clone()
            for name, group, layer in self.group_layers()
            for key, value in layer.state_dict().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Undo ``state``."""
        for name, group, layer in self.group_layers():
            prefix = f"{name}/{group.start}/"
            own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            layer.load_state_dict(own)

    @torch.no_grad()
    def load_adapter(self, adapter: Mapping[str, Mapping[str, Tensor]], *, pack_index: int) -> None:
        """Put one configuration where an adapter is that ``export`` gave."""
        for name, group, layer in self.group_layers():
            if group.start <= pack_index < group.stop:
                layer.load(adapter[name], pack_index - group.start)


def pack_order(configurations: Sequence[Configuration]) -> list[int]:
    """Indices that put configurations of equal method, rank and optimiser settings side by side."""

    def key(index: int) -> tuple[str, bool, int, float, float, float, float]:
        c = configurations[index]
        return (
            METHODS[c.method].layer,
            METHODS[c.method].trains_A,
            c.rank or 0,
            c.lr,
            c.lr_ratio,
            c.eps_ratio,
            c.weight_decay_ratio,
        )

    return sorted(range(len(configurations)), key=key)


def inject(
    model: nn.Module,
    targets: Sequence[str],
    configurations: Sequence[Configuration],
    *,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    dropout: float = 0.0,
) -> PackedAdapters:
    """Replace every target of ``model`` by a packed layer; the model itself is not otherwise touched.

    A starts uniform in ±1/√I (kaiming with a = √5) from a generator that depends on the configuration's seed
    and the layer's index in ``targets`` alone, so equal seed and rank give equal A in any pack. B starts at
    0.

    Args:
        model: The frozen base.
        targets: Qualified names of linear modules.
        configurations: N configurations in the caller's order.
        rank_pattern: Regular expression on the layer's name → rank there, as in PEFT.
        alpha_pattern: The same for α.
        dropout: Share of each adapter's inputs that is dropped inside ``PackedAdapters.dropout.dropping``.

    Raises:
        InvalidSpec: If a pattern matches no target, or a target is no plain linear layer.
    """
    order = pack_order(configurations)
    ordered = [configurations[index] for index in order]
    patterns = (rank_pattern or {}, alpha_pattern or {})
    check_targets(model, targets)
    _check_patterns(targets, *patterns)
    drop = AdapterDropout(dropout, [c.seed for c in ordered])
    layers = {}
    for layer_index, name in enumerate(targets):
        base = model.get_submodule(name)
        weight_OI = linear_weight(base).detach()
        groups = []
        svd = cache(partial(_svd, weight_OI))
        for group in _groups(ordered):
            members = ordered[group.start : group.stop]
            rank = _override(patterns[0], name, group.rank)
            setting = LayerSetting(
                weight_OI=weight_OI,
                rank=rank or 0,
                scales=[_scale(c, rank, _override(patterns[1], name, c.alpha)) for c in members],
                generators=[_generator(c.seed, layer_index) for c in members],
                trains_A=METHODS[group.method].trains_A,
                svd=svd,
            )
            groups.append((group, group_layer(group.method)(setting)))
        layers[name] = PackedLinear(base, groups, name=name, layer_index=layer_index, dropout=drop)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layers[name])
    return PackedAdapters(layers, order=order, configurations=ordered, dropout=drop)


def _norm(weight: Tensor) -> Tensor:
    """‖W‖_F, summed in float32 at least."""
    norm: Tensor = torch.linalg.vector_norm(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    return norm


def _groups(ordered: Sequence[Configuration]) -> list[Group]:
    groups: list[Group] = []
    for pack_index, c in enumerate(ordered):
        last = groups[-1] if groups else None
        if (
            last
            and METHODS[last.method].layer == METHODS[c.method].layer
            and last.rank == c.rank
            and METHODS[last.method].trains_A == METHODS[c.method].trains_A
        ):
            groups[-1] = Group(last.method, last.rank, last.start, pack_index + 1)
        else:
            groups.append(Group(c.method, c.rank, pack_index, pack_index + 1))
    return groups


def _svd(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if weight_OI.dtype != torch.float64:
        weight_OI = weight_OI.float()  # there is no SVD in half precision
    u, s, vh = torch.linalg.svd(weight_OI, full_matrices=False)
    return u, s, vh


def _generator(seed: int, layer_index: int) -> torch.Generator:
    # A prime stride keeps the streams of neighbouring seeds and layers apart.
    return torch.Generator().manual_seed(seed * 1_000_003 + layer_index)


def _scale(configuration: Configuration, rank: int | None, alpha: float | None) -> float:
    scale = METHODS[configuration.method].scale(rank=rank, alpha=alpha)
    return 1.0 if scale is None else scale


def _override(pattern: Mapping[str, T], name: str, default: T | None) -> T | None:
    if default is None:
        return None
    return next((value for key, value in pattern.items() if _matches(key, name)), default)


def _matches(pattern: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def _check_patterns(targets: Sequence[str], ranks: Mapping[str, int], alphas: Mapping[str, float]) -> None:
    problems = [
        FieldProblem(
            f"{field}.{key}", f"matches none of the {len(targets)} adapted layers, e.g. {targets[0]}"
        )
        for field, pattern in (("rank_pattern", ranks), ("alpha_pattern", alphas))
        for key in pattern
        if not any(_matches(key, name) for name in targets)
    ]
    if problems:
        raise InvalidSpec(problems)
