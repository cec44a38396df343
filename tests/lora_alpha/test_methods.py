"""A method answers for itself, and nobody else asks for its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lora_alpha.methods import METHODS, method_scale, recognised_method
from lora_alpha.models.group_layer import GroupLayer, group_layer

ROOT = Path(__file__).parents[2]
OWN = ("lora_alpha/methods/", "lora_alpha/models/")
ROOMS = ("lora_alpha", "backend", "workers", "dashboard", "command_line")
# Also names of spaces that a probe may have: as methods they are seen by what they are compared with.
SPACES = {"lora", "full"}
TENSORS = {"magnitude", "A0", "B0"}


def test_names_are_keys() -> None:
    assert all(name == info.name for name, info in METHODS.items())


@pytest.mark.parametrize(
    "name", ["lora", "rslora", "lora-alpha", "lora+", "lora-fa", "pissa", "dora", "full"]
)
def test_every_promised_method_exists(name: str) -> None:
    assert METHODS[name].summary.endswith(".")


def test_rslora_alone_divides_by_the_root() -> None:
    assert method_scale("rslora", rank=16, alpha=64) == 16.0
    assert {method_scale(name, rank=16, alpha=64) for name in METHODS if name not in {"rslora", "full"}} == {
        4.0
    }


def test_full_fine_tuning_has_no_scale() -> None:
    assert method_scale("full", rank=None, alpha=None) is None
    assert method_scale("full", rank=4, alpha=8) is None


def test_what_sets_the_variants_apart() -> None:
    assert METHODS["lora+"].default_lr_ratio == 16.0
    assert not METHODS["lora-fa"].trains_A
    assert METHODS["lora-alpha"].alpha_from_rule
    assert not METHODS["full"].uses_rank


@pytest.mark.parametrize(
    ("config", "seen", "expected"),
    [
        (None, {}, "full"),
        ({}, {}, "lora"),
        ({"use_dora": True, "use_rslora": True}, {}, "dora"),
        ({"use_dora": "true"}, {}, "dora"),
        ({"use_rslora": 1}, {}, "rslora"),
        ({"use_rslora": False, "use_dora": "False"}, {}, "lora"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "pissa"),
        ({"init_lora_weights": "pissa", "use_rslora": True}, {}, "rslora"),
        ({"use_rslora": True}, {"trains_A": False}, "rslora"),
        ({}, {"trains_A": False}, "lora-fa"),
        ({}, {"lr_ratio": 4.0}, "lora+"),
    ],
)
def test_trainings_by_other_trainers_are_recognised(config, seen, expected) -> None:
    assert recognised_method(config, **seen).name == expected


def test_a_merge_is_the_base_and_what_the_method_adds() -> None:
    numbers = np.random.default_rng(0)
    weight, lora_A, lora_B = (numbers.normal(size=shape) for shape in ((4, 5), (2, 5), (4, 2)))
    parts = {"A": lora_A, "B": lora_B, "scale": np.asarray(0.5)}
    adapted = weight + 0.5 * lora_B @ lora_A
    assert METHODS["lora"].merged(weight, parts) == pytest.approx(adapted)
    start = {"A0": lora_A - 1, "B0": lora_B + 1}
    removed = 0.5 * (lora_B + 1) @ (lora_A - 1)
    assert METHODS["pissa"].merged(weight, {**parts, **start}) == pytest.approx(adapted - removed)
    rows = METHODS["dora"].merged(weight, {**parts, "magnitude": np.arange(1.0, 5.0)})
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 2, 3, 4])
    assert rows[0] / np.linalg.norm(rows[0]) == pytest.approx(adapted[0] / np.linalg.norm(adapted[0]))


@pytest.mark.parametrize(
    ("method", "tensors", "message"),
    [
        ("lora", "A B scale base_norm", None),
        ("dora", "A B scale magnitude", None),
        ("lora", "A B scale magnitude", "a plain LoRA adapter, got an adapter with magnitude"),
        ("lora-fa", "A B scale A0 B0", "got an adapter with A0, B0"),
        ("dora", "A B scale", "an adapter with magnitude, got a plain LoRA adapter"),
        ("pissa", "A B scale", "pissa cannot start"),
        ("full", "A B scale", "full cannot start"),
    ],
)
def test_what_runs_can_start_from(method: str, tensors: str, message: str | None) -> None:
    problem = METHODS[method].start_problem(tensors.split())
    assert problem is None if message is None else message in (problem or "")


def test_every_method_has_a_layer() -> None:
    assert all(issubclass(group_layer(name), GroupLayer) for name in METHODS)


def test_no_code_outside_the_methods_own_files_tests_for_one() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).glob("**/*.py")]
    outside = [path for path in files if not str(path.relative_to(ROOT)).startswith(OWN)]
    outside += [ROOT / "lora_alpha/models/packed.py", ROOT / "lora_alpha/models/init_adapter.py"]
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in outside for line in lines_that_ask_for_a_method(path)
    ]
    assert not found, "ask the method or its layer instead"


def lines_that_ask_for_a_method(path: Path) -> Iterator[int]:
    """Lines that compare with a method's name or own tensors, or ask for a layer's or method's class."""
    classes = {group_layer(name).__name__ for name in METHODS} | {type(m).__name__ for m in METHODS.values()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            constants = {c.value for part in parts for c in ast.walk(part) if isinstance(c, ast.Constant)}
            names = METHODS.keys() if "method" in ast.unparse(node) else METHODS.keys() - SPACES
            if constants & (names | TENSORS):
                yield node.lineno
        elif isinstance(node, ast.MatchValue) and isinstance(node.value, ast.Constant):
            if node.value.value in METHODS.keys() - SPACES:
                yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}:
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            if asked & classes:
                yield node.lineno


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("c.method == 'lora'", True),
        ("row['method'] != 'full'", True),
        ("name in ('dora', 'pissa')", True),
        ("'magnitude' in parts", True),
        ("isinstance(layer, (LowRank, Full))", True),
        ("space == 'lora'", False),
        ("METHODS[method].trains_A", False),
    ],
)
def test_a_test_for_a_method_is_seen(tmp_path: Path, line: str, seen: bool) -> None:
    (tmp_path / "code.py").write_text(line)
    assert bool(list(lines_that_ask_for_a_method(tmp_path / "code.py"))) == seen
