"""What a person reads when a verb cannot do what it was asked."""

from __future__ import annotations

import pytest

from command_line import app
from lora_alpha.errors import FieldProblem, InvalidSpec


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InvalidSpec([FieldProblem("", "no optimum at rank 2")]), "no optimum at rank 2"),
        (InvalidSpec([FieldProblem("rank", "got 0"), FieldProblem("lr", "got x")]), "rank: got 0\nlr: got x"),
        (
            FileNotFoundError(2, "No such file or directory", "/nowhere/x.csv"),
            "/nowhere/x.csv: No such file or directory; choose another place",
        ),
    ],
)
def test_an_error_is_one_line_and_status_2(error, said, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip() == said
