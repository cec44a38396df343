"""What a probe says while it runs and when it is done. Plain Python: readers need no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProbeEstimate:
    """What the probe will take, from one timed product, before it starts.

    Attributes:
        num_parameters: Coordinates P of the whole probe.
        strategy: ``retained`` or ``fresh`` graphs.
        product_seconds: Wall time of one Hessian product.
        expected_products: A typical number of products for this kind.
        max_products: The most it may use.
        expected_seconds: ``expected_products`` times ``product_seconds``.
        max_seconds: The same for ``max_products``.
        basis_bytes: Memory of the Lanczos basis.
        graph_bytes: Memory of the retained gradient graphs, 0 for fresh ones.
    """

    num_parameters: int
    strategy: str
    product_seconds: float
    expected_products: int
    max_products: int
    expected_seconds: float
    max_seconds: float
    basis_bytes: int
    graph_bytes: int


@dataclass(frozen=True)
class ProbeProgress:
    """``done`` of at most ``total`` products; ``message`` says what is being done and how it stands."""

    done: int
    total: int
    message: str
    wall_time_s: float


@dataclass(frozen=True)
class ProbeRow:
    """One number of the result, as exported: kind, place in its list, value, error bound.

    Kinds: ``lambda_max, lambda_min`` (error: residual), ``top`` (residual), ``trace`` and
    ``squared_norm`` (standard error), ``density`` beside ``density_grid``, ``moment`` (standard error).
    For a single layer the kind is followed by ``/<layer>``.
    """

    kind: str
    index: int
    value: float
    error: float | None


@dataclass(frozen=True)
class ProbeResult:
    """A finished probe.

    Attributes:
        rows: Every number with its error.
        converged: False where the products ran out before the tolerance was met.
        context: What the numbers belong to: loss, gradient norm, error of the products, number of
            parameters, examples, precision, layers with their sizes, seconds.
    """

    kind: str
    space: str
    rows: tuple[ProbeRow, ...]
    converged: bool
    num_products: int
    context: dict[str, Any] = field(default_factory=dict)

    def values(self, kind: str) -> list[float]:
        """The values of one row kind, in order."""
        return [row.value for row in self.rows if row.kind == kind]

    def as_json(self) -> dict[str, Any]:
        """The result as stored: the headline numbers by name, every row, and the context."""
        headline: dict[str, Any] = {}
        for name in ("lambda_max", "lambda_min", "trace"):
            found = [row for row in self.rows if row.kind == name]
            if found:
                headline[name] = found[0].value
                headline[f"{name}_error"] = found[0].error
        return {
            **headline,
            "kind": self.kind,
            "space": self.space,
            "converged": self.converged,
            "num_products": self.num_products,
            "rows": [asdict(row) for row in self.rows],
            **self.context,
        }


ProbeEvent = ProbeEstimate | ProbeProgress | ProbeResult
