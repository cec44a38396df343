"""A probe's point gives the very loss that the run trained on, for every method and space."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_alpha.curvature.coordinates import probed_model
from lora_alpha.curvature.points import factors_at, tensors_at_start
from lora_alpha.curvature.probe import run_probe
from lora_alpha.errors import ProbeError
from lora_alpha.methods import METHODS
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, ProbeSettings, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.workloads.registry import load_workload

CPU = torch.device("cpu")
CASES = [(name, space) for name in METHODS for space in ("lora", "full")]
REFUSED = {("full", "lora"), ("dora", "lora")}


def configuration(method, **changes):
    rank = {"rank": 4, "alpha": 8.0} if METHODS[method].uses_rank else {}
    return Configuration(method=method, lr=1e-2, seed=3, **(rank | changes))


@pytest.fixture(scope="module")
def workload():
    return load_workload("mlp", {"width": 16})


def trained(workload, method):
    train = TrainSpec(
        workload="mlp",
        workload_options={"width": 16},
        steps=8,
        batch_size=16,
        dtype="float64",
        warmup=0,
        eval_every=8,
    )
    return list(train_pack(workload, train, [configuration(method)]))[-1].adapters["adapters"][0]


@pytest.mark.parametrize(("method", "space"), [case for case in CASES if case not in REFUSED])
def test_probed_loss_is_the_loss_of_the_trained_model(workload, method, space):
    exported = trained(workload, method)
    adapted = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(adapted, workload.targets(adapted), [configuration(method)])
    adapters.load_adapter(exported, pack_index=0)
    batch = workload.batch(adapted, step=5, seeds=[3], batch_size=16)
    expected = workload.losses(adapted, batch, num_configs=1).detach()
    model = workload.build_model(device=CPU, dtype=torch.float64)
    factors = factors_at(model, exported, method=method, space=space)
    settings = ProbeSettings(kind="trace", space=space, dtype="float64", max_products=10)
    result = list(run_probe(workload, model, factors, settings, batch_size=16, seed=3, step=5))[-1]
    assert result.context["loss"] == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("method", "space"), sorted(REFUSED))
def test_methods_without_such_coordinates_are_refused(workload, method, space):
    start = tensors_at_start(workload, configuration(method), device=CPU, dtype=torch.float64)
    model = workload.build_model(device=CPU, dtype=torch.float64)
    with pytest.raises(ProbeError, match="probe it in space 'full'"):
        factors_at(model, start, method=method, space=space)


def test_fresh_point_is_where_the_engine_starts(workload):
    start = tensors_at_start(workload, configuration("lora"), device=CPU, dtype=torch.float64)
    model = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, workload.targets(model), [configuration("lora", alpha=2.0)])
    for name, parts in adapters.export()[0].items():
        assert torch.equal(parts["A"], start[name]["A"])
        assert not start[name]["B"].any()
        assert float(start[name]["scale"]) == 2.0


def test_a_layer_that_the_model_lacks_is_named(workload):
    model = workload.build_model(device=CPU, dtype=torch.float64)
    with pytest.raises(ProbeError, match="'missing'"):
        factors_at(model, {"missing": {}}, method="lora", space="lora")


def test_layers_with_transposed_weights_are_probed_too():
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(6, 5), nn.Tanh(), nn.Linear(6, 3)).double().requires_grad_(False)
    x = torch.randn(4, 5, dtype=torch.float64)
    expected = model(x)
    exported = inject(model, ["0", "2"], [configuration("lora", rank=2)]).export()[0]
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(6, 5), nn.Tanh(), nn.Linear(6, 3)).double().requires_grad_(False)
    for space in ("lora", "full"):
        factors = factors_at(model, exported, method="lora", space=space)
        with probed_model(model, factors, space=space):
            torch.testing.assert_close(model(x), expected, rtol=1e-13, atol=1e-14)
