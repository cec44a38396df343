from __future__ import annotations

from typing import Any

import pytest

from lora_alpha.workloads.huggingface.findings import FEW_HELD_OUT, data_warnings

SOUND = {"num_train": 80, "num_held_out": FEW_HELD_OUT, "num_truncated": 0, "tokens_max": 9}


def warnings(**changes: Any) -> list[str]:
    return data_warnings(
        {**SOUND, **changes}, max_tokens=8, example=("pair", "pairs"), text=("caption", "captions")
    )


def test_sound_data_is_not_warned_about() -> None:
    assert warnings() == warnings(num_dropped=0, num_shared=0) == []


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"num_held_out": 1}, "only 1 pair is held out: differences"),
        ({"num_held_out": 2}, "only 2 pairs are held out: differences"),
        ({"num_dropped": 1}, "1 pair is left out: either the prompt"),
        ({"num_dropped": 1200}, "1,200 pairs are left out: either the prompt"),
        ({"num_shared": 1}, "1 held-out pair is trained on as well"),
        ({"num_shared": 3}, "3 held-out pairs are trained on as well"),
        (
            {"num_truncated": 1},
            "1 of 100 captions is longer than max_tokens = 8 and loses its end (the longest has 9 tokens)",
        ),
        (
            {"num_truncated": 2, "tokens_max": 8},
            "2 of 100 captions are longer than max_tokens = 8 and lose their end",
        ),
    ],
)
def test_one_and_many_are_told_apart(facts: dict[str, Any], message: str) -> None:
    (found,) = warnings(**facts)
    assert found.startswith(message)
