"""Hessian-vector products of a mean loss by double backward.

Shape legend: P number of probed coordinates, K number of vectors. Coordinates are the given tensors
flattened row by row (PyTorch's order) and laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lora_alpha.errors import ProbeError

LossFunction = Callable[[Sequence[Tensor]], Tensor]
Strategy = Literal["retained", "fresh"]


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Gradients on, and attention by the plain formula: the fused kernels have no second derivative."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


class HessianOperator:
    """v ↦ H·v, where H is the Hessian of the mean of ``losses`` at ``parameters``.

    ``retained`` builds each gradient graph once and walks it for every product: about twice as fast as
    building it anew, at the price of keeping every graph in memory. ``fresh`` builds and drops one graph
    per loss and product, so that memory stays that of a single microbatch.

    A loss that draws random numbers (dropout) gives one fixed sample when retained and a different
    Hessian for every product when fresh: put the model in ``eval()`` first.

    Args:
        losses: Functions of the coordinates, each returning a scalar; the probed loss is their mean. More
            than one stands for microbatches.
        parameters: The point, tensors of one floating dtype and device. They are not changed: the
            functions receive leaves that share no memory with them.
        strategy: ``retained`` or ``fresh``.

    Raises:
        ProbeError: If there are no losses, no coordinates, mixed dtypes or devices, or a loss that is not
            a finite scalar.

    Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian".
    """

    def __init__(
        self,
        losses: LossFunction | Sequence[LossFunction],
        parameters: Sequence[Tensor],
        *,
        strategy: Strategy = "retained",
    ) -> None:
        self._losses = list(losses) if isinstance(losses, Sequence) else [losses]
        if not self._losses or not parameters:
            raise ProbeError("a Hessian needs at least one loss and one coordinate tensor: got none")
        kinds = {(tensor.dtype, tensor.device) for tensor in parameters}
        if len(kinds) > 1:
            raise ProbeError(f"the coordinate tensors differ in dtype or device: {sorted(map(str, kinds))}")
        self.dtype, self.device = kinds.pop()
        if not self.dtype.is_floating_point:
            raise ProbeError(f"got coordinates of {self.dtype}: only floating-point ones have a Hessian")
        self._leaves = [tensor.detach().clone().requires_grad_() for tensor in parameters]
        self._sizes = [leaf.numel() for leaf in self._leaves]
        self.dim = sum(self._sizes)
        self.strategy: Strategy = strategy
        self.num_products = 0
        self._graphs = [self._gradient_graph(loss) for loss in self._losses] if strategy == "retained" else []

    def loss(self) -> float:
        """The mean loss at the point, in the losses' own unit."""
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            values = [float(loss(self._leaves)) for loss in self._losses]
        return sum(values) / len(values)

    def gradient(self) -> Tensor:
        """The gradient of the mean loss, shape (P,)."""
        total_P = torch.zeros(self.dim, dtype=self.dtype, device=self.device)
        for index in range(len(self._losses)):
            gradients = self._graphs[index] if self._graphs else self._gradient_graph(self._losses[index])
            total_P += torch.cat([gradient.detach().reshape(-1) for gradient in gradients])
        return total_P / len(self._losses)

    def matvec(self, vector_P: Tensor) -> Tensor:
        """H·v for one vector of shape (P,), in the coordinates' dtype."""
        return self._product(vector_P, batched=False)

    def matmat(self, vectors_KP: Tensor) -> Tensor:
        """H·v for each row of a (K, P) matrix in one vectorised pass, shape (K, P).

        On a GPU up to K times as fast where a pass is many small kernels; on a CPU slower than K single ones.
        """
        return self._product(vectors_KP, batched=True)

    def _product(self, vector: Tensor, *, batched: bool) -> Tensor:
        if vector.shape[-1] != self.dim:
            raise ProbeError(f"got a vector of {vector.shape[-1]} entries for a Hessian of {self.dim}")
        total = torch.zeros_like(vector)
        pieces = [
            piece.reshape(*vector.shape[:-1], *leaf.shape)
            for piece, leaf in zip(torch.split(vector, self._sizes, dim=-1), self._leaves, strict=True)
        ]
        for index in range(len(self._losses)):
            gradients = self._graphs[index] if self._graphs else self._gradient_graph(self._losses[index])
            total += self._second_backward(gradients, pieces, batched=batched)
        self.num_products += vector.shape[0] if batched else 1
        return total / len(self._losses)

    def _gradient_graph(self, loss: LossFunction) -> tuple[Tensor, ...]:
        with twice_differentiable():
            value = loss(self._leaves)
            if value.numel() != 1 or not bool(torch.isfinite(value).all()):
                raise ProbeError(f"the probed loss must be one finite number: got {value.detach()}")
            return torch.autograd.grad(
                value.reshape(()), self._leaves, create_graph=True, materialize_grads=True
            )

    def _second_backward(
        self, gradients: Sequence[Tensor], pieces: Sequence[Tensor], *, batched: bool
    ) -> Tensor:
        lead = pieces[0].shape[:1] if batched else ()
        # A gradient that does not depend on the coordinates has a zero row in the Hessian.
        curved = [index for index, gradient in enumerate(gradients) if gradient.requires_grad]
        if not curved:
            return torch.zeros(*lead, self.dim, dtype=self.dtype, device=self.device)
        with twice_differentiable():
            rows = torch.autograd.grad(
                [gradients[index] for index in curved],
                self._leaves,
                grad_outputs=[pieces[index] for index in curved],
                retain_graph=bool(self._graphs),
                materialize_grads=True,
                is_grads_batched=batched,
            )
        return torch.cat([row.reshape(*lead, -1) for row in rows], dim=-1)


def graph_bytes(loss: LossFunction, parameters: Sequence[Tensor]) -> int:
    """Memory that one retained gradient graph of ``loss`` keeps alive, in bytes.

    Builds the graph once and counts the distinct storages that autograd saves, the coordinates apart.
    """
    leaves = [tensor.detach().clone().requires_grad_() for tensor in parameters]
    own = {leaf.untyped_storage().data_ptr() for leaf in leaves}
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with twice_differentiable(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        torch.autograd.grad(loss(leaves), leaves, create_graph=True, materialize_grads=True)
    return sum(seen.values())
