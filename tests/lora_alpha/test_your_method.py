"""The methods of ``docs/your-method.md``, installed from that page, from the request to the probe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from backend.services import status
from lora_alpha.catalog.resolve import resolve
from lora_alpha.curvature.points import factors_at
from lora_alpha.curvature.probe import run_probe
from lora_alpha.errors import InvalidSpec, ProbeError, WorkloadError
from lora_alpha.methods import METHODS, method_scale
from lora_alpha.models.init_adapter import start_from
from lora_alpha.models.packed import inject
from lora_alpha.peft_format.export import to_peft, write_folder
from lora_alpha.peft_format.read import read_peft_folder
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import plan_packs
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration, ProbeSettings, TrainSpec, expand
from lora_alpha.training.engine import train_pack
from lora_alpha.workloads.registry import load_workload
from tests.installed_packages import write_package, write_page

PAGE = Path(__file__).parents[2] / "docs" / "your-method.md"
OPTIONS = {"width": 16}
TRAIN = TrainSpec(
    workload="mlp",
    workload_options=OPTIONS,
    steps=20,
    batch_size=12,
    dtype="float64",
    warmup=0,
    eval_every=20,
    dynamics_every=5,
)
PACK = [
    Configuration(method="lora-gate", rank=3, alpha=8.0, lr=1e-2, seed=1),
    Configuration(method="lora", rank=3, alpha=4.0, lr=1e-2, seed=1),
    Configuration(method="lora-half", rank=3, alpha=8.0, lr=1e-2, seed=1),
    Configuration(method="lora-gate", rank=3, alpha=2.0, lr=1e-2, seed=2),
]


@pytest.fixture(autouse=True)
def installed(packages):
    write_page(packages, PAGE)
    METHODS.refresh()
    yield packages
    METHODS.refresh()


@pytest.fixture
def workload():
    return load_workload("mlp", OPTIONS)


def trained(workload, pack=PACK):
    """Curve of each configuration by metric, and adapters."""
    *events, finished = train_pack(workload, TRAIN, pack)
    curves = [{} for _ in pack]
    for event in events:
        for block in event.blocks:
            for curve, values in zip(curves, block.values, strict=True):
                curve.setdefault(block.metric, []).extend(values.tolist())
    return curves, finished.adapters["adapters"]


def loss_after(workload, put, configurations):
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    adapters = inject(model, workload.targets(model), configurations)
    put(adapters)
    with torch.no_grad():
        return workload.evaluate(model, num_configs=len(configurations))["eval_loss"].tolist()


def arrays(layers):
    return {name: {key: t.numpy() for key, t in parts.items()} for name, parts in layers.items()}


def test_they_are_listed_accepted_and_planned():
    assert [item.id for item in status.methods()][-2:] == ["lora-gate", "lora-half"]
    request = {"workload": "mlp", "methods": ["lora-half", "lora-gate"], "ranks": [4], "alphas": [8.0]}
    spec = resolve(SweepRequest(**request, lrs=[1e-3], seeds=[0, 1]))
    runs = expand(spec)
    assert [run.configuration.scale for run in runs] == [1.0, 1.0, 2.0, 2.0]
    packs = plan_packs(spec.train, [run.configuration for run in runs], fleet=Fleet(num_workers=1))
    assert sorted(index for pack in packs for index in pack) == [0, 1, 2, 3]


def test_half_the_scale_is_lora_at_half_the_alpha(workload):
    curves, _ = trained(workload)
    assert len(curves[1]["train_loss"]) == 20
    assert curves[2] == curves[1]


def test_in_a_pack_they_train_as_one_at_a_time(workload):
    curves, adapters = trained(workload)
    for index, configuration in enumerate(PACK):
        alone, exported = trained(workload, [configuration])
        for metric, values in alone[0].items():
            assert curves[index][metric] == pytest.approx(values, rel=1e-10, abs=1e-13)
        for name, parts in exported[0].items():
            for key, tensor in parts.items():
                torch.testing.assert_close(adapters[index][name][key], tensor, rtol=1e-10, atol=1e-13)
    assert all((parts["gate"] != 1).any() for parts in adapters[0].values())


def test_the_layer_computes_the_formula_of_the_page():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4)).double().requires_grad_(False)
    x, base = torch.randn(3, 5, dtype=torch.float64), model(torch.zeros(1, 5, dtype=torch.float64))
    adapters = inject(model, ["0"], PACK[:1])
    ((_, _, layer),) = adapters.group_layers()
    with torch.no_grad():
        layer.B.normal_()
        layer.gate.normal_()
    A, B, gate = layer.A[0], layer.B[0], layer.gate[0]
    expected = F.linear(x, model[0].weight) + 8 / 3 * gate * (x @ A.mT @ B.mT) + base
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    adapters.reset(0)
    assert torch.equal(model(x), F.linear(x, model[0].weight, model[0].bias))


@pytest.mark.parametrize("index", [0, 2])
def test_what_is_exported_is_read_back_as_the_same_function(workload, tmp_path, index):
    curves, adapters = trained(workload)
    write_folder(to_peft(arrays(adapters[index]), method=PACK[index].method), tmp_path / "adapter")
    read = read_peft_folder(tmp_path / "adapter").layers
    tensors = {name: {key: torch.from_numpy(a) for key, a in parts.items()} for name, parts in read.items()}
    losses = loss_after(workload, lambda adapters: start_from(adapters, tensors), PACK)
    assert losses == pytest.approx([curves[index]["eval_loss"][-1]] * len(PACK), rel=1e-6)
    own = loss_after(workload, lambda a: a.load_adapter(adapters[index], pack_index=0), [PACK[index]])
    assert own == pytest.approx([curves[index]["eval_loss"][-1]], rel=1e-12)


@pytest.mark.parametrize(("index", "space"), [(0, "full"), (2, "full"), (2, "lora")])
def test_a_probe_stands_where_the_run_trained(workload, index, space):
    _, adapters = trained(workload)
    c = PACK[index]
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    injected = inject(model, workload.targets(model), [c])
    injected.load_adapter(adapters[index], pack_index=0)
    batch = workload.batch(model, step=5, seeds=[c.seed], batch_size=12)
    expected = float(workload.losses(model, batch, num_configs=1).detach())
    bare = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    factors = factors_at(bare, adapters[index], method=c.method, space=space)
    settings = ProbeSettings(kind="trace", space=space, dtype="float64", max_products=10)
    result = list(run_probe(workload, bare, factors, settings, batch_size=12, seed=c.seed, step=5))[-1]
    assert result.context["loss"] == pytest.approx(expected, rel=1e-12)


def test_a_space_that_the_method_has_not_is_refused_with_its_reason(workload):
    model = workload.build_model(device=torch.device("cpu"), dtype=torch.float64)
    with pytest.raises(ProbeError, match="lora-gate has no LoRA coordinates: a gate trains beside A and B"):
        factors_at(model, {}, method="lora-gate", space="lora")


def test_a_broken_package_takes_nothing_down(installed, caplog):
    offers = {"lora": "strange:OTHER_LORA", "no-method": "strange:TEXT", "gone": "nowhere:METHOD"}
    source = "from lora_alpha.methods import Method\nOTHER_LORA = Method('lora', 'Ours.')\nTEXT = ''\n"
    write_package(installed, "strange", {"strange.py": source}, {"lora_alpha.methods": offers})
    METHODS.refresh()
    names = [item.id for item in status.methods()]
    assert "lora-half" in names
    assert not {"no-method", "gone"} & set(names)
    assert METHODS["lora"].summary.startswith("Low-rank")
    (record,) = caplog.records
    assert all(name in record.getMessage() for name in offers)


@pytest.mark.parametrize("layer", ["nowhere:Layer", "lora_alpha.methods:METHODS"])
def test_a_layer_that_is_none_is_named_when_a_model_is_adapted(installed, layer):
    source = f"from lora_alpha.methods import Method\nODD = Method('odd', 'Odd.', layer={layer!r})\n"
    write_package(installed, "odd", {"odd.py": source}, {"lora_alpha.methods": {"odd": "odd:ODD"}})
    METHODS.refresh()
    model = torch.nn.Sequential(torch.nn.Linear(5, 4))
    with pytest.raises(WorkloadError, match=layer):
        inject(model, ["0"], [Configuration(method="odd", rank=1, alpha=1.0, lr=1.0)])


def test_without_its_package_a_method_is_unknown_and_its_runs_stay_readable(installed):
    for info in installed.glob("*.dist-info/entry_points.txt"):
        info.unlink()
    METHODS.refresh()
    assert method_scale("lora-half", rank=4, alpha=8.0) is None
    with pytest.raises(InvalidSpec, match="lora-half"):
        resolve(SweepRequest(workload="mlp", methods=["lora-half"]))
