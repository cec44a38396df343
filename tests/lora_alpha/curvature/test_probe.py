import pytest
import torch

from lora_alpha.curvature.probe import run_probe
from lora_alpha.curvature.records import ProbeEstimate, ProbeProgress, ProbeResult
from lora_alpha.errors import ProbeError
from lora_alpha.models.group_layer import LayerFactors
from lora_alpha.spec import ProbeSettings


def probe(block, workload, factors, **settings):
    settings = ProbeSettings(**{"dtype": "float64", **settings})
    return list(run_probe(workload, block, factors, settings, batch_size=8))


@pytest.mark.parametrize("space", ["lora", "full"])
def test_top_ten_and_extremes_equal_the_dense_spectrum(block, workload, factors, dense, space):
    exact = torch.linalg.eigvalsh(dense[space].hessian)
    top = probe(block, workload, factors, kind="top", space=space, tolerance=1e-12)[-1]
    assert top.converged
    assert top.values("top") == pytest.approx(exact.flip(0)[:10].tolist(), abs=1e-9)
    extremes = probe(block, workload, factors, kind="extremes", space=space, tolerance=1e-12)[-1]
    assert extremes.as_json()["lambda_max"] == pytest.approx(float(exact[-1]), abs=1e-9)
    assert extremes.as_json()["lambda_min"] == pytest.approx(float(exact[0]), abs=1e-9)
    assert exact[0] < 0 < exact[-1]


@pytest.mark.parametrize("space", ["lora", "full"])
def test_default_tolerance_keeps_five_digits(block, workload, factors, dense, space):
    exact = torch.linalg.eigvalsh(dense[space].hessian).flip(0)[:10]
    for seed in range(4):
        found = probe(block, workload, factors, kind="top", space=space, probe_seed=seed)[-1]
        assert found.values("top") == pytest.approx(exact.tolist(), rel=1e-5)


@pytest.mark.parametrize("space", ["lora", "full"])
def test_trace_and_moments_are_within_their_stated_error(block, workload, factors, dense, space):
    exact = torch.linalg.eigvalsh(dense[space].hessian)
    trace = probe(block, workload, factors, kind="trace", space=space, max_products=100)[-1]
    row = next(row for row in trace.rows if row.kind == "trace")
    assert abs(row.value - float(exact.sum())) < 4 * row.error
    density = probe(block, workload, factors, kind="density", space=space, num_vectors=10, iterations=25)[-1]
    moments = [row for row in density.rows if row.kind == "moment"]
    assert [row.index for row in moments] == [1, 2, 3, 4]
    for row in moments:
        assert abs(row.value - float((exact**row.index).mean())) < 4 * row.error
    assert len(density.values("density")) == len(density.values("density_grid"))


def test_single_layers_are_the_diagonal_blocks(block, workload, factors, dense):
    found = probe(block, workload, factors, space="lora", per_layer=True, tolerance=1e-10)[-1]
    start = 0
    for name, layer in factors.items():
        size = layer.A.numel() + layer.B.numel()
        block_values = torch.linalg.eigvalsh(
            dense["lora"].hessian[start : start + size, start : start + size]
        )
        assert found.values(f"lambda_max/{name}") == pytest.approx([float(block_values[-1])], abs=1e-8)
        assert found.values(f"lambda_min/{name}") == pytest.approx([float(block_values[0])], abs=1e-8)
        start += size


def test_both_spaces_probe_the_same_function(block, workload, factors):
    lora, full = (probe(block, workload, factors, space=space)[-1].context for space in ("lora", "full"))
    assert lora["loss"] == pytest.approx(full["loss"], rel=1e-13)
    assert (lora["num_parameters"], full["num_parameters"]) == (2016, 2048)


def test_estimate_comes_first_and_progress_reaches_the_result(block, workload, factors):
    events = probe(block, workload, factors, kind="top")
    estimate, *progress, result = events
    assert isinstance(estimate, ProbeEstimate)
    assert estimate.strategy == "retained"
    assert estimate.basis_bytes == 304 * 2016 * 8
    assert estimate.graph_bytes > 0
    assert estimate.max_seconds == pytest.approx(estimate.product_seconds * 300)
    assert all(isinstance(event, ProbeProgress) and event.done <= event.total for event in progress)
    assert isinstance(result, ProbeResult)
    assert result.num_products == len(progress)


def test_several_fresh_batches_are_the_mean_of_retained_ones(block, workload, factors):
    fresh, retained = (
        probe(block, workload, factors, num_batches=3, strategy=strategy, tolerance=1e-10)[-1]
        for strategy in ("fresh", "retained")
    )
    assert fresh.context["strategy"] == "fresh"
    assert fresh.values("lambda_max") == pytest.approx(retained.values("lambda_max"), rel=1e-12)
    single = probe(block, workload, factors, tolerance=1e-10)[-1]
    assert fresh.values("lambda_max") != pytest.approx(single.values("lambda_max"), rel=1e-3)


def test_the_model_comes_back_as_it_was_even_when_stopped_midway(block, workload, factors):
    layers = dict(block.named_modules())
    block.train()
    events = run_probe(workload, block, factors, ProbeSettings(dtype="float64"), batch_size=8)
    for _ in range(4):
        next(events)
    events.close()
    assert dict(block.named_modules()) == layers
    assert block.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused_with_the_way_out(block, workload, factors, dtype):
    halved = type(block)(fused=True).to(dtype).requires_grad_(False)
    with pytest.raises(ProbeError, match=r"rounding error; probe in float32 or float64"):
        probe(halved, workload, factors)


def test_a_tolerance_that_float32_cannot_keep_is_refused(block, workload, factors):
    single = type(block)(fused=True).requires_grad_(False)
    with pytest.raises(ProbeError, match=r"tolerance 1e-08 in float32.*probe in float64"):
        probe(single, workload, factors, dtype="float32", tolerance=1e-8)


def test_autocast_is_refused(block, workload, factors):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ProbeError, match="autocast"):
        probe(block, workload, factors)


def test_a_layer_of_hidden_low_precision_is_noticed(block, workload, factors):
    class Rough(type(workload)):
        def losses(self, model, batch, *, num_configs):
            batch = {**batch, "x": batch["x"].float()}
            hidden = model.up(batch["x"].double()).bfloat16().double().square()
            return (hidden.mean() + super().losses(model, batch, num_configs=1)).reshape(1)

    with pytest.raises(ProbeError, match=r"off by .* lower precision or at random"):
        probe(block, Rough(), factors, tolerance=1e-10)


def test_a_diverged_point_is_refused(block, workload, factors):
    broken = dict(factors)
    broken["q"] = LayerFactors(factors["q"].A * torch.nan, factors["q"].B, 1.0)
    with pytest.raises(ProbeError, match="not finite: the run has diverged"):
        probe(block, workload, broken)


def test_layers_that_cannot_be_probed_are_named(block, workload, factors):
    with pytest.raises(ProbeError, match="no layer 'nope'"):
        probe(block, workload, {"nope": factors["q"]})
    with pytest.raises(ProbeError, match=r"'up' is 32×16: its factors are B \(16, 9\)"):
        probe(block, workload, {"up": factors["q"]})
    with pytest.raises(ProbeError, match="probe it in space 'full'"):
        probe(block, workload, {"q": LayerFactors(None, None)}, space="lora")


def test_a_basis_that_does_not_fit_is_refused_before_it_starts(block, workload, factors, monkeypatch):
    monkeypatch.setattr("lora_alpha.curvature.probe.available_bytes", lambda device: 200_000)
    with pytest.raises(ProbeError, match=r"2,016 coordinates need a basis .* or the trace"):
        probe(block, workload, factors, kind="top")


def test_scarce_memory_means_restarts_and_fresh_graphs_not_other_numbers(
    block, workload, factors, dense, monkeypatch
):
    monkeypatch.setattr("lora_alpha.curvature.probe.available_bytes", lambda device: 1_200_000)
    events = probe(block, workload, factors, kind="top", tolerance=1e-10)
    assert events[0].strategy == "fresh"
    assert events[0].basis_bytes < 600_000
    exact = torch.linalg.eigvalsh(dense["lora"].hessian).flip(0)[:10]
    assert events[-1].values("top") == pytest.approx(exact.tolist(), abs=1e-9)
