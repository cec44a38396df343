from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.huggingface.data.sources import data_path, model_folder
from lora_alpha.workloads.registry import load_workload
from tests.lora_alpha.workloads.huggingface.conftest import sums
from tests.tiny_folders import write_jsonl

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_names_are_looked_for_below_the_roots(tmp_path: Path) -> None:
    (tmp_path / "root" / "llama").mkdir(parents=True)
    roots = [tmp_path / "root"]

    assert model_folder("llama", revision="", roots=roots) == tmp_path / "root" / "llama"
    assert model_folder(str(tmp_path / "root" / "llama"), revision="", roots=roots).name == "llama"


@pytest.mark.parametrize("how", ["absolute", "dots", "link"])
def test_nothing_outside_the_roots_is_read(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.jsonl"
    root.mkdir()
    write_jsonl(secret, sums(3))
    (root / "link.jsonl").symlink_to(secret)
    monkeypatch.chdir(root)
    name = {"absolute": str(secret), "dots": "../secret.jsonl", "link": "link.jsonl"}[how]

    with pytest.raises(InvalidSpec, match=r"data: .*secret.jsonl lies outside the allowed folders"):
        data_path(name, option="data", roots=[root])
    assert data_path(name, option="data", roots=None) == secret


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidSpec, match=r"is a file: give the folder that holds config.json"):
        model_folder(str(tmp_path / "model.safetensors"), revision="", roots=None)


@pytest.fixture
def hub(tmp_path: Path, models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's own cache with one model and one data set in it, and no connection."""
    for kind, files in (("models--ours--tiny", models()), ("datasets--ours--sums", None)):
        snapshot = tmp_path / "hub" / kind / "snapshots" / COMMIT
        if files is not None:
            shutil.copytree(files, snapshot)
        else:
            blob = tmp_path / "hub" / kind / "blobs" / "abc"
            blob.parent.mkdir(parents=True)
            write_jsonl(blob, sums())
            (snapshot / "main").mkdir(parents=True)
            (snapshot / "main" / "train.jsonl").symlink_to(blob)
        refs = tmp_path / "hub" / kind / "refs"
        refs.mkdir()
        (refs / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_hub_names_are_read_from_the_hubs_cache_without_a_connection(hub: Path, tmp_path: Path) -> None:
    workload = load_workload(
        "hf-sft", {"model": "ours/tiny", "data": "ours/sums", "max_tokens": 64}, roots=[tmp_path / "none"]
    )
    for _ in workload.prepare(tmp_path / "cache"):
        pass
    assert workload.folder.is_relative_to(hub)
    assert workload.data.facts["rows"] == 40
    assert any("give a commit as revision" in warning for warning in workload.findings()["warnings"])


def test_a_repository_that_cannot_be_fetched_says_why(hub: Path) -> None:
    del hub
    with pytest.raises(InvalidSpec, match=r"'ours/other' is no local folder, and as a model on the hub it"):
        model_folder("ours/other", revision="", roots=[])
