"""Batches of examples: who sees which when, padded or packed rows, and the masks that keep examples apart.

Padding is on the right and attention is causal, so no real token ever attends to padding and no mask is
needed. Packed rows hold several examples; their mask lets a token attend to its own example alone, and
positions start anew in each.

Shapes: N configurations, R rows, T tokens, E examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_alpha.workloads.counter_rng import uniforms
from lora_alpha.workloads.huggingface.data.tokens import TokenSet

ORDER_STREAM = 11
PER_CONFIG = {"num_learnt", "num_rows"}
# Rows are padded to a multiple of this, so that a compiled step meets few shapes.
MULTIPLE = 8


def drawn_indices(seeds: Sequence[int], *, step: int, count: int, num_examples: int) -> NDArray[np.int64]:
    """Which examples each configuration sees at ``step``, (N, count): every example once an epoch.

    A pure function: place p = step·count + i of a seed's endless stream is example p mod E of epoch p div E,
    in that epoch's own order.
    """
    places = step * count + np.arange(count)
    epochs, within = np.divmod(places, num_examples)
    rows = []
    for seed in seeds:
        orders = {int(epoch): _order(seed, int(epoch), num_examples) for epoch in np.unique(epochs)}
        rows.append([orders[int(epoch)][place] for epoch, place in zip(epochs, within, strict=True)])
    return np.array(rows, dtype=np.int64)


@lru_cache(maxsize=64)  # two epochs of a large pack's seeds
def _order(seed: int, epoch: int, num_examples: int) -> NDArray[np.int32]:
    draws = uniforms([seed], step=epoch, count=num_examples, stream=ORDER_STREAM)[0]
    return np.argsort(draws, kind="stable").astype(np.int32)


def padded_tokens(
    examples: TokenSet, chosen: NDArray[np.int64], *, pad: int, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """One example a row, for an encoder.

    Args:
        examples: All of them.
        chosen: Which ones, (R,).
        pad: What stands at the end of short rows.
        most: Positions that the model has; None: any number.

    Returns:
        Tokens (R, T); and (R, T), whether each is no padding.
    """
    lengths = examples.lengths[chosen]
    width = _width(int(lengths.max()), most)
    tokens = np.full((len(chosen), width), pad, dtype=np.int64)
    for place, index in enumerate(chosen):
        tokens[place, : lengths[place]] = examples.example(int(index))
    return torch.from_numpy(tokens), torch.from_numpy(np.arange(width) < lengths[:, None])


def padded_rows(examples: TokenSet, chosen: Iterable[int], *, most: int | None = None) -> dict[str, Tensor]:
    """One example a row; the arguments are :func:`padded_tokens`'s.

    Returns:
        ``tokens`` (R, T), zeros at the end of short rows; ``learnt`` (R, T), whether a token is predicted;
        ``real`` (R, T), whether it is no padding.
    """
    return packed_rows(examples, [[int(index)] for index in chosen], separate=False, most=most)


def packed_rows(
    examples: TokenSet, rows: Sequence[Sequence[int]], *, separate: bool = True, most: int | None = None
) -> dict[str, Tensor]:
    """Several examples a row, in the order of ``rows``.

    Returns:
        As :func:`padded_rows`, and with ``separate`` also ``segments`` (R, T): 1, 2, … by example, 0 for
        padding; ``positions`` (R, T): from 0 in each example.
    """
    lengths = examples.lengths
    longest = max(int(sum(lengths[index] for index in row)) for row in rows)
    width = _width(longest, most)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    learnt = np.zeros((len(rows), width), dtype=bool)
    segments = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        start = 0
        for number, index in enumerate(row, start=1):
            stop = start + int(lengths[index])
            tokens[place, start:stop] = examples.example(index)
            # The first token of all has nothing before it that could predict it.
            learnt[place, start + max(1, int(examples.prompt_lengths[index])) : stop] = True
            segments[place, start:stop] = number
            positions[place, start:stop] = np.arange(stop - start)
            start = stop
    batch = {
        "tokens": torch.from_numpy(tokens),
        "learnt": torch.from_numpy(learnt),
        "real": torch.from_numpy(segments > 0),
    }
    if separate:
        batch |= {"segments": torch.from_numpy(segments), "positions": torch.from_numpy(positions)}
    return batch


def _width(longest: int, most: int | None) -> int:
    width = -(-longest // MULTIPLE) * MULTIPLE
    return width if most is None else min(width, most)


def pack_examples(examples: TokenSet, *, max_tokens: int) -> list[list[int]]:
    """Which examples share a row of at most ``max_tokens`` tokens: in order, each row filled until one fails.

    >>> pack_examples(TokenSet.of([([1, 2], 0), ([3, 4], 0), ([5, 6, 7], 0)]), max_tokens=4)
    [[0, 1], [2]]
    """
    rows: list[list[int]] = []
    room = 0
    for index, length in enumerate(examples.lengths.tolist()):
        if not rows or length > room:
            rows.append([])
            room = max_tokens
        rows[-1].append(index)
        room -= length
    return rows


def micro_batches(batch: Mapping[str, Tensor], *, num_configs: int, parts: int) -> list[dict[str, Tensor]]:
    """``batch`` in at most ``parts`` pieces, each with the same number of rows of every configuration.

    Args:
        batch: Tensors (N·B, …); ``PER_CONFIG`` names those of shape (N,), which go into every piece.
        num_configs: N.
        parts: Most pieces; fewer where B is smaller.
    """
    num_rows = len(batch["tokens"])
    per_config = num_rows // num_configs
    rows = torch.arange(num_rows).view(num_configs, per_config)
    pieces = []
    for columns in torch.arange(per_config).chunk(min(parts, per_config)):
        chosen = rows[:, columns].flatten()
        pieces.append(
            {
                name: value if name in PER_CONFIG else value[chosen.to(value.device)]
                for name, value in batch.items()
            }
        )
    return pieces
