"""Which numbers a probe may promise at which precision; whatever would lie is refused."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lora_alpha.curvature.hvp import HessianOperator
from lora_alpha.errors import ProbeError

# The tightest relative residual that products of this precision can support: rounding in one product is
# a few tens of machine epsilons of ‖H‖, and a residual below that measures noise.
TIGHTEST_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def check_precision(dtype: torch.dtype, *, tolerance: float, device: torch.device) -> None:
    """Refuse a precision in which a Hessian probe would not give a truthful number.

    Args:
        dtype: Of the probed parameters.
        tolerance: Relative residual asked for, dimensionless, > 0.
        device: Where the products run; autocast and TF32 are looked up for it.

    Raises:
        ProbeError: For bfloat16 and float16, under autocast, under TF32 matrix products, and for a
            tolerance that is not positive or that ``dtype`` cannot support.
    """
    if dtype not in TIGHTEST_TOLERANCE:
        raise ProbeError(
            f"got parameters of {_name(dtype)}: second derivatives at that precision are mostly rounding "
            "error; probe in float32 or float64 (the base can be loaded in float32 for the probe alone)"
        )
    if torch.is_autocast_enabled(device.type):
        raise ProbeError(f"autocast is on for {device.type}: leave it off while the Hessian is probed")
    if device.type == "cuda" and dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest":
        raise ProbeError(
            "float32 matrix products are set to TF32 (about 3 digits): call "
            "torch.set_float32_matmul_precision('highest') or probe in float64"
        )
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ProbeError(f"got tolerance {tolerance!r}: it must be a finite number above 0, 1e-3 as a rule")
    tightest = TIGHTEST_TOLERANCE[dtype]
    if tolerance < tightest:
        advice = "probe in float64" if dtype == torch.float32 else "ask for less"
        raise ProbeError(
            f"got tolerance {tolerance:g} in {_name(dtype)}: products of that precision support "
            f"{tightest:g} at best; {advice}"
        )


def product_error(operator: HessianOperator, *, seed: int = 0) -> float:
    """Relative error of one Hessian product, seen from outside with three products.

    A Hessian is symmetric, so uᵀ(Hv) - vᵀ(Hu) is made of the products' errors e alone; for random signs
    u it is about ‖e‖ in size. Returned is the root mean square over three pairs, over ‖Hu‖. It catches
    what a dtype does not show: a layer that works in float32 inside a float64 model, say.
    """
    signs = [random_signs(operator, seed=seed + offset) for offset in range(3)]
    images = [operator.matvec(u_P).double() for u_P in signs]
    pairs = ((0, 1), (0, 2), (1, 2))
    differences = [float(signs[i].double() @ images[j] - signs[j].double() @ images[i]) for i, j in pairs]
    size = math.sqrt(sum(float(image_P @ image_P) for image_P in images) / 3)
    if size == 0:
        return 0.0
    return math.sqrt(sum(difference**2 for difference in differences) / (2 * len(pairs))) / size


def check_products(operator: HessianOperator, *, tolerance: float, seed: int = 0) -> float:
    """The measured :func:`product_error`, refused where it exceeds ``tolerance``.

    Raises:
        ProbeError: If the products are not finite, or less exact than the tolerance asked for.
    """
    error = product_error(operator, seed=seed)
    if not math.isfinite(error):
        raise ProbeError("the Hessian product is not finite at this point: the run has diverged there")
    if error > tolerance:
        raise ProbeError(
            f"Hessian products are off by {error:.1e} (relative, from their asymmetry), more than the "
            f"tolerance {tolerance:g}: some layer works at lower precision or at random; loosen the "
            "tolerance, or probe in float64 with every layer in exact arithmetic"
        )
    return error


def random_signs(operator: HessianOperator, *, seed: int) -> Tensor:
    """A Rademacher vector of ±1, shape (P,), the same for the same seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    bits_P = torch.randint(0, 2, (operator.dim,), generator=generator, dtype=torch.int8)
    return (2 * bits_P - 1).to(device=operator.device, dtype=operator.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
