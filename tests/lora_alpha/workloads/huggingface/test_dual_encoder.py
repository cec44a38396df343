from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torch.nn import functional as F
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lora_alpha.errors import InvalidSpec
from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.engine import train_pack
from lora_alpha.training.records import PackFinished
from lora_alpha.workloads.registry import load_workload
from tests.tiny_encoders import picture, write_clip, write_pictures
from tests.tiny_folders import write_jsonl, write_model

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "data")


@pytest.fixture
def prepared(clip: Path, data: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(roots: list[Path] | None = None, **options: Any) -> Any:
        given = {"model": str(clip), "data": str(data), "max_tokens": 24, "held_out": 0.25}
        workload = load_workload("hf-clip", {**given, **options}, roots=roots)
        for _ in workload.prepare(tmp_path / "cache"):
            pass
        return workload

    return make


def configurations() -> list[Configuration]:
    return [
        Configuration(method="lora", rank=rank, alpha=alpha, lr=5e-3, seed=seed)
        for rank, alpha, seed in ((2, 32.0, 0), (4, 64.0, 0), (4, 64.0, 1))
    ]


def train(workload: Any, members: list[Configuration], **changes: Any) -> PackFinished:
    given = {"workload": workload.name, "steps": 20, "batch_size": 8, "eval_every": 20, "warmup": 2}
    (finished,) = (
        event
        for event in train_pack(workload, TrainSpec(**{**given, **changes}), members)
        if isinstance(event, PackFinished)
    )
    return finished


def test_the_held_out_loss_falls(prepared: Callable[..., Any]) -> None:
    workload = prepared()
    before = workload.evaluate(workload.build_model(device=CPU, dtype=torch.float32), num_configs=1)
    for result in train(workload, configurations()).results:
        assert result.final_loss < float(before["eval_loss"]) - 0.3
        assert result.summary["accuracy"] > 0.5
        assert result.forgetting > 1e-3


def test_a_pack_trains_as_one_at_a_time_does(prepared: Callable[..., Any]) -> None:
    exact = {"steps": 5, "dtype": "float64"}
    together = train(prepared(), configurations(), **exact)
    for member, result in zip(configurations(), together.results, strict=True):
        (alone,) = train(prepared(), [member], **exact).results
        assert result.final_loss == pytest.approx(alone.final_loss, rel=1e-10)
        assert result.forgetting == pytest.approx(alone.forgetting, rel=1e-8)


def test_gradient_checkpointing_changes_nothing_else(prepared: Callable[..., Any]) -> None:
    exact = {"steps": 2, "dtype": "float64"}
    (plain,) = train(prepared(), configurations()[:1], **exact).results
    (saving,) = train(prepared(gradient_checkpointing=True), configurations()[:1], **exact).results
    assert saving.final_loss == pytest.approx(plain.final_loss, rel=1e-10)


def test_pixels_are_those_of_the_models_own_preprocessor(
    prepared: Callable[..., Any], clip: Path, data: Path
) -> None:
    workload = prepared()
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    batch = workload.batch(
        workload.build_model(device=CPU, dtype=torch.float32), step=0, seeds=[0], batch_size=36
    )
    paths = [data.parent / json.loads(line)["image"] for line in data.read_text().splitlines()]
    images = [Image.open(path) for path in paths]
    theirs = processor(images=images, return_tensors="pt")["pixel_values"]
    for pixels in batch["pixels"]:
        assert (theirs - pixels).abs().amax((1, 2, 3)).min() < 1e-5


def test_the_loss_is_clips_own_where_captions_differ(prepared: Callable[..., Any], data: Path) -> None:
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    write_jsonl(data, [{**row, "caption": f"{n} {row['caption']}"} for n, row in enumerate(lines)])
    workload = prepared()
    model = workload.build_model(device=CPU, dtype=torch.float64)
    adapters = inject(model, workload.targets(model), configurations()[:2])
    for _, _, layer in adapters.group_layers():
        torch.nn.init.normal_(layer.B, std=0.05, generator=torch.Generator().manual_seed(3))
    batch = workload.batch(model, step=0, seeds=[0, 1], batch_size=6)
    losses = workload.losses(model, batch, num_configs=2).detach()
    for index in range(2):
        # The same six rows for both configurations; the second's outputs are those that count for it.
        mine = {
            name: value[6 * index : 6 * (index + 1)].repeat(2, *[1] * (value.ndim - 1))
            for name, value in batch.items()
        }
        with torch.no_grad():
            output = model(
                input_ids=mine["tokens"], attention_mask=mine["real"].long(), pixel_values=mine["pixels"]
            )
        image, text = (e[6 * index : 6 * (index + 1)] for e in (output.image_embeds, output.text_embeds))
        logits = model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
        right = torch.arange(6)
        expected = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        assert float(losses[index]) == pytest.approx(float(expected), rel=1e-9)


def test_bytes_in_parquet_are_the_same_pictures(
    prepared: Callable[..., Any], tmp_path: Path, data: Path
) -> None:
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    images = [{"bytes": (data.parent / row["image"]).read_bytes(), "path": None} for row in rows]
    table = pa.table({"image": images, "caption": [row["caption"] for row in rows]})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    found = prepared(data=str(tmp_path / "pairs.parquet")).data
    expected = prepared().data

    def all_pixels(side: Any) -> set[bytes]:
        return {pixels.tobytes() for part in (side.train, side.held_out) for pixels in part.pixels}

    assert all_pixels(found) == all_pixels(expected)


def test_pictures_are_prepared_once(prepared: Callable[..., Any], tmp_path: Path) -> None:
    prepared()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "pictures").rglob("*.npy")}
    prepared()
    assert len(files) == 2
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_pictures_that_are_wrong_are_named(
    prepared: Callable[..., Any], data: Path, clip: Path, tmp_path: Path
) -> None:
    (data.parent / "pictures" / "7.png").write_bytes(b"no picture")
    with pytest.raises(InvalidSpec, match=r"7\.png is no picture that Pillow reads"):
        prepared()
    (data.parent / "pictures" / "7.png").unlink()
    with pytest.raises(InvalidSpec, match=r"there is no picture pictures/7\.png beside it"):
        prepared()
    buffer = io.BytesIO()
    picture(0)[0].save(buffer, "PNG")
    (tmp_path / "secret.png").write_bytes(buffer.getvalue())
    write_jsonl(data, [{"image": "../secret.png", "caption": f"x{n}"} for n in range(20)])
    with pytest.raises(InvalidSpec, match="outside the allowed folders"):
        prepared(roots=[data.parent, clip.parent])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caption_column": "title"}, "no column 'title': there are image, caption"),
        ({"max_tokens": 77}, "reads at most 32"),
        ({"accumulation": 2}, "every pair of a batch is compared"),
    ],
)
def test_what_is_wrong_is_said(prepared: Callable[..., Any], options: Any, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        prepared(**options)


def test_another_kind_of_model_is_refused(prepared: Callable[..., Any], clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="give a dual encoder such as CLIP"):
        prepared(model=str(write_model(tmp_path / "bert", "bert")))
    bare = shutil.copytree(clip, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidSpec, match="has no preprocessor_config"):
        prepared(model=str(bare))


def test_an_inspection_says_what_was_found(prepared: Callable[..., Any]) -> None:
    found = prepared().findings()
    assert found["architecture"] == "CLIPModel"
    assert found["picture"] == "3×8×8"
    assert found["rendering"] == "image ↔ caption"
    assert found["num_captions"] == 4
    assert found["num_targets"] == 2 * 2 * 6 + 2
