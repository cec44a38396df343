"""The parts of a group-relative policy gradient: sampling, advantages, the clipped surrogate, a KL estimate.

Source: Shao et al. 2024 (2402.03300), GRPO; Schulman et al. 2017 (1707.06347) for the clipped surrogate;
Schulman 2020, "Approximating KL divergence", for the estimate k3.

Shapes: R prompts, G answers of each, M categories.
"""

from __future__ import annotations

import torch
from torch import Tensor

ADVANTAGE_EPS = 1e-4  # keeps a group of equal rewards at advantage 0 instead of 0/0


def sample_by_inversion(probabilities: Tensor, draws: Tensor) -> Tensor:
    """Category of each uniform draw, (R, G) from (R, M) probabilities and (R, G) draws in [0, 1)."""
    cumulative = probabilities.cumsum(1)
    # dividing by the last entry keeps rounding from leaving a gap above the last category
    found = torch.searchsorted(cumulative / cumulative[:, -1:], draws.to(cumulative), right=True)
    return found.clamp(max=probabilities.shape[1] - 1)


def group_advantages(rewards: Tensor) -> Tensor:
    """(reward − group mean) / (group standard deviation + 1e-4), (R, G); 0 where all rewards are equal."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + ADVANTAGE_EPS)


def clipped_surrogate(
    log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, *, clip_range: float
) -> Tensor:
    """min(ρ·A, clip(ρ, 1 ± clip_range)·A) with ρ = exp(log p − log p_behaviour), elementwise."""
    ratio = (log_probs - behaviour_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return torch.minimum(ratio * advantages, clipped * advantages)


def divergence_estimate(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """k3 = exp(q - p) - (q - p) - 1 of samples' log-probabilities p and, under the reference, q; elementwise.

    Its mean over samples is KL(policy ‖ reference) without bias, and it is never negative.
    """
    difference = reference_log_probs - log_probs
    return difference.exp() - difference - 1
