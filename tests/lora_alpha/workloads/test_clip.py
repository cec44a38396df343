from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lora_alpha.workloads.base import Workload
from lora_alpha.workloads.clip import ClipWorkload, _captions, _patches, contrastive_losses

CPU = torch.device("cpu")
Prepared = Callable[..., Workload]


def test_contrastive_loss_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0], [1.0, 3.0]]], dtype=torch.float64)

    loss = contrastive_losses(logits, torch.eye(2, dtype=torch.float64)[None])

    rows = [torch.log_softmax(logits[0, i], 0)[i] for i in range(2)]
    columns = [torch.log_softmax(logits[0, :, i], 0)[i] for i in range(2)]
    assert loss.item() == pytest.approx(-float(sum(rows + columns)) / 4)


def test_equal_captions_are_no_negatives_of_each_other() -> None:
    same = torch.tensor([[[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]])
    sharp = torch.where(same > 0, 30.0, 0.0)

    loss = contrastive_losses(sharp, same)

    # two equal captions can at best share the probability
    assert loss.item() == pytest.approx(2 / 3 * torch.tensor(2.0).log().item(), abs=1e-6)


def test_patches_cut_the_picture_without_mixing() -> None:
    images = torch.arange(128.0).view(1, 8, 16)

    patches = _patches(images)

    assert patches.shape == (1, 8, 16)
    assert torch.equal(patches[0, 0].view(4, 4), images[0, :4, :4])
    assert torch.equal(patches[0, 3].view(4, 4), images[0, :4, 12:])
    assert torch.equal(patches[0, 4].view(4, 4), images[0, 4:, :4])


def test_captions_name_both_digits_in_the_phrasing_asked_for() -> None:
    labels = torch.tensor([[7, 3]])

    assert _captions(labels, turned=False).tolist() == [[10, 7, 11, 3]]
    assert _captions(labels, turned=True).tolist() == [[11, 3, 10, 7]]


def test_held_out_pictures_show_every_caption_once_and_are_never_trained_on(prepared: Prepared) -> None:
    workload = prepared("clip")
    assert isinstance(workload, ClipWorkload)
    model = workload.build_model(device=CPU, dtype=torch.float32)

    halves = workload._held_out.split(8, dim=2)
    held_out = {half.numpy().tobytes() for side in halves for half in side.contiguous()}
    trained = set()
    for step in range(30):
        images = workload.batch(model, step=step, seeds=[0], batch_size=64)["images"]
        trained |= {h.numpy().tobytes() for side in images.split(8, dim=2) for h in side.contiguous()}

    assert workload._held_out.shape == (100, 8, 16)
    assert len(held_out) > 60
    assert len(trained) > 1000
    assert not held_out & trained


def test_picture_shows_the_digits_that_the_labels_name(prepared: Prepared) -> None:
    workload = prepared("clip")
    assert isinstance(workload, ClipWorkload)
    model = workload.build_model(device=CPU, dtype=torch.float32)
    by_pixels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(workload._images, workload._labels, strict=True)
    }

    batch = workload.batch(model, step=0, seeds=[3], batch_size=20)

    for image, labels in zip(batch["images"], batch["labels"].tolist(), strict=True):
        shown = [by_pixels[half.contiguous().numpy().tobytes()] for half in image.split(8, dim=1)]
        assert shown == labels
    held_out = [
        [by_pixels[half.contiguous().numpy().tobytes()] for half in image.split(8, dim=1)]
        for image in workload._held_out
    ]
    assert held_out == [[left, right] for left in range(10) for right in range(10)]


@pytest.mark.parametrize("target", ["rephrased", "upside-down", "both"])
def test_target_differs_from_source_for_a_trained_base(prepared: Prepared, target: str) -> None:
    workload = prepared("clip", target=target, pretrain_steps=150)
    model = workload.build_model(device=CPU, dtype=torch.float32)

    metrics = workload.evaluate(model, num_configs=1)

    assert metrics["forgetting_loss"] < 3.5  # chance is ln 100 = 4.6
    assert metrics["eval_loss"] > metrics["forgetting_loss"] + 0.2
