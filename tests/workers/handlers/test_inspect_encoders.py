"""Inspections of classifiers and dual encoders: what is found, and what is wrong, before any run."""

from __future__ import annotations

import json

from tests.tiny_encoders import write_bare_bert, write_clip, write_pictures
from tests.tiny_folders import write_jsonl

ROWS = [{"text": f"text {n}", "label": ("no", "yes")[n % 2]} for n in range(40)]


def test_a_classifier_and_its_labels_are_described(inspect, tmp_path):
    options = {
        "model": str(write_bare_bert(tmp_path / "allowed" / "bert")),
        "data": str(write_jsonl(tmp_path / "allowed" / "texts.jsonl", ROWS)),
    }
    shown = inspect(options, "hf-classify")
    assert (shown.state, shown.error) == ("finished", None)
    assert shown.result["labels"] == ["no", "yes"]
    assert shown.result["num_targets"] == 2 * 6 + 1 + 1  # the layers, the pooler and the new classifier
    assert shown.result["memory"]["pack_bytes"] > shown.result["memory"]["base_bytes"] > 0
    json.dumps(shown.result)
    wrong = inspect({**options, "label_column": "mood"}, "hf-classify")
    assert wrong.state == "failed"
    assert wrong.error == "workload_options.label_column: there is no column 'mood': there are text, label"


def test_a_dual_encoder_and_its_pictures_are_described(inspect, tmp_path):
    options = {
        "model": str(write_clip(tmp_path / "allowed" / "clip")),
        "data": str(write_pictures(tmp_path / "allowed" / "data")),
        "max_tokens": 24,
    }
    shown = inspect(options, "hf-clip")
    assert (shown.state, shown.error) == ("finished", None)
    assert shown.result["picture"] == "3×8×8"
    assert shown.result["memory"]["pack_bytes"] > shown.result["memory"]["base_bytes"] > 0
    json.dumps(shown.result)
    (tmp_path / "allowed" / "data" / "pictures" / "3.png").unlink()
    wrong = inspect(options, "hf-clip")
    assert wrong.state == "failed"
    assert "there is no picture pictures/3.png beside it" in wrong.error
