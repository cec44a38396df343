from __future__ import annotations

import ast
from pathlib import Path

import pytest

from backend.home import Home
from backend.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    made.prepare()
    return made


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_no_other_module_joins_paths_under_home():
    sources = [
        path for room in ("backend", "workers", "command_line") for path in (ROOT / room).rglob("*.py")
    ]
    assert len(sources) > 50
    found = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path in sources
        if path.name != "home.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.BinOp) and ast.unparse(node.left).split(".")[-1] in {"home", "root"}
    ]
    assert found == []


def test_settings_name_what_lies_under_home(tmp_path):
    settings = Settings(home=tmp_path / "home", database_url="", broker_url="")
    assert settings.files == Home(tmp_path / "home")
    assert settings.database == f"sqlite:///{tmp_path}/home/lora_alpha.db"


def test_every_path_lies_under_home(home):
    paths = [value for name in dir(home) if isinstance(value := getattr(home, name), Path)]
    paths += [
        home.cache_lock("mlp"),
        home.checkpoint("job", step=3, attempt=2),
        home.adapter("run"),
        home.adapter("run", step=3),
        home.runner_log("worker"),
    ]
    assert len(paths) == len(set(paths)) == 13
    assert all(path.is_relative_to(home.root) for path in paths)


def test_a_pointer_leads_back_to_its_path(home):
    path = home.adapter("run", step=3)
    assert home.pointer(path) == "adapters/run-step3.safetensors"
    assert home.at(home.pointer(path)) == path


def test_a_folder_of_before_gets_todays_name(tmp_path):
    kept = touch(tmp_path / "starts" / "abc" / "adapter_model.safetensors")
    home = Home(tmp_path)
    for _ in range(2):
        home.prepare()
    assert not kept.exists()
    assert (home.init_adapters / "abc" / kept.name).read_bytes() == b"x"


def test_todays_folder_is_never_replaced_by_one_of_before(tmp_path):
    home = Home(tmp_path)
    old, new = touch(tmp_path / "starts" / "a"), touch(home.init_adapters / "b")
    home.prepare()
    assert old.exists()
    assert new.exists()


def test_a_new_checkpoint_displaces_the_jobs_others_alone(home):
    first, second = (home.checkpoint("job", step=step, attempt=1) for step in (10, 20))
    other = home.checkpoint("other", step=10, attempt=1)
    for path in (first, second, other):
        touch(path)
    home.forget_checkpoints("job", keep=second)
    assert [path.exists() for path in (first, second, other)] == [False, True, True]
    home.forget_checkpoints("job")
    home.forget_checkpoints("never-began")
    assert not home.checkpoints("job").exists()
    assert other.exists()


def test_a_runs_adapters_go_and_no_other_runs(home):
    mine = [home.adapter("run"), home.adapter("run", step=3)]
    others = [home.adapter("run2"), home.adapter("run2", step=3)]
    for path in (*mine, *others):
        touch(path)
    home.forget_adapters("run", home.pointer(mine[0]))
    home.forget_adapters("without", None)
    assert [path.exists() for path in (*mine, *others)] == [False, False, True, True]
