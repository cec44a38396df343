"""The workload of ``docs/your-workload.md``, installed from that page: catalogue, planner and engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.services import status
from lora_alpha.catalog import WORKLOADS
from lora_alpha.catalog.resolve import resolve
from lora_alpha.errors import InvalidSpec, WorkloadError
from lora_alpha.planning.fleet import Fleet
from lora_alpha.planning.planner import plan_packs
from lora_alpha.request import SweepRequest
from lora_alpha.spec import Configuration, TrainSpec, expand
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import CheckpointDue, PackFinished
from lora_alpha.workloads.registry import load_workload
from tests.installed_packages import write_package, write_page
from tests.lora_alpha.training.curves import curves

PAGE = Path(__file__).parents[2] / "docs" / "your-workload.md"
NAME = "linear-shift"
TRAIN = TrainSpec(
    workload=NAME,
    workload_options={"features": 8},
    steps=20,
    batch_size=12,
    dtype="float64",
    warmup=0,
    eval_every=10,
    checkpoint_steps=7,
)
PACK = [
    Configuration(method="lora", rank=rank, alpha=alpha, lr=1e-2, seed=seed)
    for rank, alpha, seed in [(1, 8.0, 0), (4, 16.0, 0), (4, 64.0, 1)]
]
ENTRY = """
from dataclasses import replace
from lora_alpha.catalog import WORKLOADS
ODD = replace(WORKLOADS["mlp"], name="odd", {changed})
"""


@pytest.fixture(autouse=True)
def installed(packages):
    write_page(packages, PAGE)
    WORKLOADS.refresh()
    yield packages
    WORKLOADS.refresh()


def install(folder, offered: str, source: str) -> None:
    module = offered.replace("-", "_")
    offers = {"lora_alpha.workloads": {offered: f"{module}:{module.upper()}"}}
    write_package(folder, offered, {f"{module}.py": source}, offers)
    WORKLOADS.refresh()


def train(pack=PACK, **how):
    return list(train_pack(load_workload(NAME, TRAIN.workload_options), TRAIN, pack, **how))


def test_it_is_listed_with_its_options_after_the_built_in_ones():
    *others, item = status.workloads()
    assert [item.id, item.family] == [NAME, "synthetic"]
    assert item.options_schema["properties"]["features"]["maximum"] == 1024
    assert "mlp" in [other.id for other in others]


def test_it_is_accepted_with_its_defaults_and_planned():
    spec = resolve(SweepRequest(workload=NAME, workload_options={"noise": 0.5}))
    assert spec.train.workload_options == {"features": 32, "shift_rank": 4, "noise": 0.5}
    assert (spec.ranks, spec.train.steps) == ([1, 2, 4, 8], 200)
    runs = expand(spec)
    packs = plan_packs(spec.train, [run.configuration for run in runs], fleet=Fleet(num_workers=2))
    assert sorted(index for pack in packs for index in pack) == list(range(len(runs)))
    with pytest.raises(InvalidSpec, match="features"):
        resolve(SweepRequest(workload=NAME, workload_options={"features": 1}))


def test_in_a_pack_it_trains_as_one_at_a_time_and_learns():
    together = curves(train())
    for index, configuration in enumerate(PACK):
        alone = curves(train([configuration]))
        for metric, points in alone.items():
            for step, values in points.items():
                assert together[metric][step][index] == pytest.approx(values[0], rel=1e-9, abs=1e-12)
    losses = together["eval_loss"]
    assert all(losses[20] < losses[0])


def test_after_a_stop_it_goes_on_as_if_there_had_been_none():
    events = train()
    state = next(event.state for event in events if isinstance(event, CheckpointDue))
    assert isinstance(events[-1], PackFinished)
    resumed = train(resume=state)[-1].results
    assert [run.final_loss for run in resumed] == [run.final_loss for run in events[-1].results]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("options=dict", "options"),
        ("defaults={}", "defaults"),
        ("family='nonsense'", "family"),
        ("implementation=None", "implementation"),
    ],
)
def test_a_description_that_cannot_be_used_is_left_out_with_one_warning(installed, caplog, changed, reason):
    install(installed, "odd", ENTRY.format(changed=changed))
    assert [item.id for item in status.workloads()][-1] == NAME
    (record,) = caplog.records
    assert "odd = odd:ODD of odd" in record.getMessage()
    assert reason in record.getMessage()


def test_a_form_that_cannot_be_drawn_leaves_its_workload_out(installed, caplog):
    source = ENTRY.format(changed="options=Strange")
    model = """
from pydantic import BaseModel, ConfigDict

class Thing:
    pass

class Strange(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Thing
"""
    install(installed, "odd", model + source)
    assert [item.id for item in status.workloads()][-1] == NAME
    (record,) = caplog.records
    assert "odd = odd:ODD of odd: PydanticInvalidForJsonSchema" in record.getMessage()


def test_a_package_cannot_take_the_name_of_a_built_in_workload(installed, caplog):
    own = WORKLOADS["mlp"]
    install(installed, "mlp", "from linear_shift import LINEAR_SHIFT as MLP\n")
    assert WORKLOADS["mlp"] is own
    assert "there is a 'mlp' already" in caplog.text


@pytest.mark.parametrize("place", ["nowhere:Task", "linear_shift_task:Gone", "linear_shift:Options"])
def test_an_implementation_that_is_none_is_named_when_it_is_asked_for(installed, place):
    install(installed, "odd", ENTRY.format(changed=f"implementation={place!r}"))
    with pytest.raises(WorkloadError, match=f"odd names '{place}' as its implementation"):
        load_workload("odd", {})


def test_only_a_workload_that_reads_files_is_told_the_roots(installed):
    task = "\nfrom linear_shift_task import LinearShift\nclass Task(LinearShift):\n"
    task += "    def __init__(self, options, *, roots):\n        self.roots = roots\n"
    install(installed, "odd", ENTRY.format(changed="implementation='odd:Task', reads_files=True") + task)
    roots = [Path("/data")]
    assert load_workload("odd", {}, roots=roots).roots == roots
    assert load_workload(NAME, {}, roots=roots).name == NAME


def test_without_its_package_a_workload_is_unknown(installed):
    for info in installed.glob("*.dist-info/entry_points.txt"):
        info.unlink()
    WORKLOADS.refresh()
    with pytest.raises(InvalidSpec, match=f"got '{NAME}': choose one of carry, "):
        resolve(SweepRequest(workload=NAME))
