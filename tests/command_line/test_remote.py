"""What verbs print of the service's answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from command_line import remote
from command_line.app import app
from lora_alpha.analysis.horizon import Horizon, HorizonPoint
from lora_alpha.errors import InvalidSpec
from lora_alpha.wire.analysis import Horizons

POINT = HorizonPoint(
    step=50, exponent=0.46, exponent_low=0.41, exponent_high=0.52, coefficient=374.2, coefficient_low=301.0,
    coefficient_high=460.0, num_ranks=7, num_censored=1, num_seeds=3, num_diverged=0, num_pending=4,
    decaying=True, warming=False, reasons=(), verdict="p = 0.46",
)  # fmt: skip
NONE = dataclasses.replace(
    POINT, step=25, reasons=("2 ranks have an optimum",),
    **dict.fromkeys(("exponent", "exponent_low", "exponent_high")),
    **dict.fromkeys(("coefficient", "coefficient_low", "coefficient_high")),
)  # fmt: skip
HORIZON = Horizon(
    method="lora", lr=2e-4, alpha=None, lr_ratio=1.0, target="alpha", points=(NONE, POINT), change=None,
    change_low=None, change_high=None, trend=None, crosses_from=None, crosses_to=None, verdict="p rises.",
)  # fmt: skip


class FakeClient:
    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def horizon(self, sweep: str, *, steps: Sequence[int] | None, fixed: float | None) -> Horizons:
        self.asked = {"sweep": sweep, "steps": steps, "fixed": fixed}
        return Horizons(
            sweep_id=sweep, objective="final", steps=[25, 50], horizons=[HORIZON], warnings=["η decays"]
        )

    def export_csv(self, kind: str, sweep: str | None) -> list[bytes]:
        return [f"{kind} of {sweep}\n".encode()]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    fake = FakeClient()
    monkeypatch.setattr(remote, "connect", lambda _: fake)
    monkeypatch.setenv("COLUMNS", "200")
    return fake


def test_the_horizon_is_a_table_with_what_it_says(client: FakeClient, capsys: Any) -> None:
    app(["horizon", "s1", "--steps", "25..50", "--lr", "2e-4"], standalone_mode=False)
    assert client.asked == {"sweep": "s1", "steps": [25, 50], "fixed": 2e-4}
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line]
    assert rows[0][:9] == ["25", "–", "", "–", "", "7", "1", "3", "4"]
    assert rows[1][:9] == ["50", "0.46", "0.41 to 0.52", "374.2", "301 to 460", "7", "1", "3", "4"]
    assert "2 ranks have an optimum" in rows[0][9]
    assert "no law of shorter runs" in rows[1][9]
    for text in ("lora, η = 0.0002", "p rises.", "η decays"):
        assert text in said


def test_the_horizon_as_csv_is_the_export(client: FakeClient, capfdbinary: Any) -> None:
    app(["horizon", "s1", "--csv"], standalone_mode=False)
    assert b"horizon of s1\n" in capfdbinary.readouterr().out


def test_steps_that_are_none_are_refused(client: FakeClient) -> None:
    with pytest.raises(InvalidSpec, match="steps"):
        app(["horizon", "s1", "--steps", "many"], standalone_mode=False)
    assert client.asked == {}
