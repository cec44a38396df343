"""A Krylov space with full re-orthogonalisation, the part that Lanczos and quadrature share.

Shape legend: P coordinates, M vectors in the basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float64]

# A candidate shorter than this many machine epsilons of ‖H‖ is rounding noise: the space is invariant.
NOISE_EPSILONS = 10.0
RESTART_BLOCK = 65_536  # columns rotated at a time, so that a restart needs no second basis


class SymmetricOperator(Protocol):
    """What the solvers need of a Hessian."""

    @property
    def dim(self) -> int:
        """Number of coordinates P."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the products."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the products run."""
        ...

    def matvec(self, vector_P: Tensor, /) -> Tensor:
        """H·v, shape (P,)."""
        ...


@dataclass
class _Candidate:
    """A direction waiting to join the basis: what of H·V lies outside it, or a random start.

    The part of H·(basis vector j) outside the basis is the sum over candidates of
    ``vector_P * coupling_M[j]``; a random start has coupling 0.
    """

    vector_P: Tensor
    coupling_M: FloatArray
    scale: float


@dataclass(frozen=True)
class RitzPairs:
    """Eigenvalues of the projected matrix, ascending.

    Attributes:
        values_M: Ritz values θ.
        coefficients_MM: Column i holds pair i's coordinates in the basis.
        residuals_M: ‖H·y - θ·y‖ of each pair: some eigenvalue lies at most that far from θ.
    """

    values_M: FloatArray
    coefficients_MM: FloatArray
    residuals_M: FloatArray


class KrylovSpace:
    """Orthonormal basis, projected matrix and residual couplings, grown by one product at a time.

    Candidates wait in a queue. With one start vector this is the Lanczos process; a random vector pushed
    later makes it a band Lanczos process, which is how copies of a multiple eigenvalue are found: a
    single start vector sees only one copy. ``compress`` is a thick restart.

    Args:
        operator: The symmetric operator.
        capacity: Most basis vectors; their memory (capacity × P) is reserved here.

    Source: Wu & Simon 2000 for thick restarts; twice Gram-Schmidt as in Giraud et al. 2005.
    """

    def __init__(self, operator: SymmetricOperator, *, capacity: int) -> None:
        self.operator = operator
        self.capacity = min(capacity, operator.dim)
        self.size = 0
        self._basis_MP = torch.empty(
            (self.capacity, operator.dim), dtype=operator.dtype, device=operator.device
        )
        self._projected_MM = np.zeros((self.capacity, self.capacity))
        self._queue: list[_Candidate] = []
        self._norm = 0.0  # largest ‖H·v‖ seen, a lower bound of ‖H‖

    def push(self, vector_P: Tensor) -> None:
        """Let ``vector_P`` (any length above 0) join the basis next."""
        norm = float(vector_P.norm())
        coupling_M = np.zeros(self.size)
        self._queue.insert(0, _Candidate(vector_P.to(self.operator.dtype) / norm, coupling_M, scale=1.0))

    def expand(self, *, depth_first: bool = False) -> bool:
        """Add one vector to the basis with one product; False if no direction is left.

        With ``depth_first`` the image of the new vector is next in the queue, so that the direction pushed
        last is followed; otherwise all directions take turns.
        """
        if self.size >= self.capacity or not self._append_candidate():
            return False
        newest = self.size - 1
        image_P = self.operator.matvec(self._basis_MP[newest])
        self._norm = max(self._norm, float(image_P.norm()))
        column_M = self._orthogonalise(image_P)
        self._projected_MM[: self.size, newest] = column_M
        self._projected_MM[newest, : self.size] = column_M
        coupling_M = np.zeros(self.size)
        coupling_M[newest] = 1.0
        image = _Candidate(image_P, coupling_M, scale=self._norm)
        self._queue.insert(0 if depth_first else len(self._queue), image)
        return True

    def ritz(self) -> RitzPairs:
        """The eigenpairs of the operator seen through the basis."""
        values_M, coefficients_MM = np.linalg.eigh(self._projected_MM[: self.size, : self.size])
        coupled = [candidate for candidate in self._queue if candidate.coupling_M.any()]
        if not coupled:
            return RitzPairs(values_M, coefficients_MM, np.zeros_like(values_M))
        vectors = torch.stack([candidate.vector_P for candidate in coupled]).double()
        gram = (vectors @ vectors.T).cpu().numpy()
        weights = np.stack([candidate.coupling_M for candidate in coupled]) @ coefficients_MM
        squares_M = np.einsum("im,ij,jm->m", weights, gram, weights)
        return RitzPairs(values_M, coefficients_MM, np.sqrt(np.maximum(squares_M, 0.0)))

    def vectors(self, coefficients_MK: FloatArray) -> Tensor:
        """The combinations of basis vectors with these coefficients, one per row, shape (K, P)."""
        rotation_KM = self._to_device(coefficients_MK.T)
        return rotation_KM @ self._basis_MP[: self.size]

    def compress(self, pairs: RitzPairs, keep: NDArray[np.intp]) -> None:
        """Thick restart: the basis becomes the Ritz vectors ``keep``; the queue stays."""
        chosen_MK = pairs.coefficients_MM[:, keep]
        rotation_KM = self._to_device(chosen_MK.T)
        kept = len(keep)
        for start in range(0, self.operator.dim, RESTART_BLOCK):
            block = slice(start, start + RESTART_BLOCK)
            self._basis_MP[:kept, block] = rotation_KM @ self._basis_MP[: self.size, block]
        self._projected_MM[:] = 0.0
        self._projected_MM[:kept, :kept] = np.diag(pairs.values_M[keep])
        for candidate in self._queue:
            candidate.coupling_M = candidate.coupling_M @ chosen_MK
        self.size = kept

    def _append_candidate(self) -> bool:
        epsilon = torch.finfo(self.operator.dtype).eps
        while self._queue:
            candidate = self._queue.pop(0)
            self._orthogonalise(candidate.vector_P)
            norm = float(candidate.vector_P.norm())
            if norm <= NOISE_EPSILONS * epsilon * candidate.scale:
                continue
            direction_P = candidate.vector_P / norm
            # Once more at unit length: a short candidate keeps only few correct digits.
            self._orthogonalise(direction_P)
            direction_P /= direction_P.norm()
            self._basis_MP[self.size] = direction_P
            self.size += 1
            for other in self._queue:
                other.vector_P -= direction_P * (direction_P @ other.vector_P)
                other.coupling_M = np.append(other.coupling_M, 0.0)
            return True
        return False

    def _orthogonalise(self, vector_P: Tensor) -> FloatArray:
        """Take the basis out of ``vector_P`` in place, twice; returns the coefficients taken out."""
        basis_MP = self._basis_MP[: self.size]
        total_M = torch.zeros(self.size, dtype=torch.float64)
        for _ in range(2):
            coefficients_M = basis_MP @ vector_P
            vector_P.addmv_(basis_MP.T, coefficients_M, alpha=-1.0)
            total_M += coefficients_M.double().cpu()
        return np.asarray(total_M.numpy())

    def _to_device(self, array: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(
            device=self.operator.device, dtype=self.operator.dtype
        )
