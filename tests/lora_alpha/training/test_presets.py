"""The presets, trained: they show what their text says."""

import numpy as np

from lora_alpha.catalog.presets import preset
from lora_alpha.catalog.resolve import resolve
from lora_alpha.spec import expand
from lora_alpha.training.engine import train_pack
from lora_alpha.workloads.registry import load_workload


def train(name, *, seed, wanted=lambda configuration: True):
    """Configurations of one seed, their results and their metrics (metric → (N, points))."""
    spec = resolve(preset(name).request)
    configurations = [
        run.configuration
        for run in expand(spec)
        if run.configuration.seed == seed and wanted(run.configuration)
    ]
    workload = load_workload(spec.train.workload, spec.train.workload_options)
    metrics, results = {}, None
    for event in train_pack(workload, spec.train, configurations):
        for block in getattr(event, "blocks", ()):
            metrics.setdefault(block.metric, []).append(block.values)
        results = getattr(event, "results", results)
    return configurations, results, {name: np.concatenate(parts, 1) for name, parts in metrics.items()}


def test_identity_lays_each_pair_of_curves_on_one_line():
    configurations, _, metrics = train("identity", seed=1)
    assert len(configurations) == 8
    for first in range(0, 8, 2):
        for metric in ("train_loss", "eval_loss", "forgetting_loss"):
            assert metrics[metric][first].tobytes() == metrics[metric][first + 1].tobytes()
    assert len({values.tobytes() for values in metrics["train_loss"]}) == 4


def test_large_lr_diverges_where_larger_alpha_is_stable_but_worse_than_modest():
    configurations, results, metrics = train("alpha-vs-lr", seed=0)
    by_point = {
        (round(c.alpha / 16), round(c.lr / 5e-4)): (result, ratio)
        for c, result, ratio in zip(configurations, results, metrics["drift_ratio"], strict=True)
    }
    assert by_point[1, 128][0].diverged
    assert not by_point[256, 1][0].diverged
    assert by_point[256, 1][0].final_loss > 1.3 * by_point[16, 1][0].final_loss
    # what the text admits: the best loss is found along η
    best_along_alpha = min(by_point[k, 1][0].final_loss for k in (1, 4, 16, 32, 64))
    best_along_lr = min(by_point[1, k][0].final_loss for k in (4, 16, 32))
    assert best_along_lr < best_along_alpha
    drift = {point: float(np.nanmedian(ratio)) for point, (_, ratio) in by_point.items()}
    assert drift[1, 16] > 3 * drift[1, 1]
    assert drift[16, 1] < 1.5 * drift[1, 1]


def test_no_schedule_beats_constant_alpha_but_a_held_norm_forgives_a_wrong_one():
    chosen = {("constant", 512), ("constant", 4096), ("ramp 0.1→1 in 100", 512), ("ramp 8→1 in 100", 512)}
    chosen |= {("hold update_norm 7", 512), ("hold update_norm 7", 4096)}
    configurations, results, _ = train(
        "alpha-over-time", seed=0, wanted=lambda c: (c.alpha_schedule.label, c.alpha) in chosen
    )
    losses = {
        (c.alpha_schedule.label, c.alpha): result.final_loss
        for c, result in zip(configurations, results, strict=True)
    }
    assert set(losses) == chosen
    best = losses["constant", 512]
    assert best < 1.02 * min(losses.values())
    assert losses["ramp 0.1→1 in 100", 512] < 1.02 * best
    assert losses["ramp 8→1 in 100", 512] > 1.04 * best
    held = [losses["hold update_norm 7", alpha] for alpha in (512, 4096)]
    assert max(held) / min(held) < 1.05
    assert losses["constant", 4096] / best > 1.1
