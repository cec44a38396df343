import pytest

from lora_alpha.errors import InvalidSpec
from lora_alpha.importers.sweep_yaml import from_wandb, read_sweep_yaml

WANDB = """
name: rank scan
method: grid
metric: {name: eval_loss, goal: minimize}
parameters:
  workload: {value: mlp}
  lora_r: {values: [1, 4]}
  lora_alpha: {min: 32, max: 200, distribution: log_uniform_values}
  learning_rate: {value: 2.0e-4}
  steps: {value: 40}
"""


def test_wandb_sweep_becomes_a_request(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(WANDB)
    request = read_sweep_yaml(path)
    assert (request.workload, request.ranks, request.alphas) == ("mlp", [1, 4], [32, 64, 128])
    assert (request.lrs, request.steps, request.name) == ([2e-4], 40, "rank scan")


def test_own_request_as_yaml_is_read(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("workload: digits\nranks: [2]\n")
    assert read_sweep_yaml(path).workload == "digits"


def test_every_problem_of_a_wandb_sweep_is_reported():
    with pytest.raises(InvalidSpec) as caught:
        from_wandb({"parameters": {"alpha": {"min": 3}, "steps": {"values": [1, 2]}}})
    assert [problem.field for problem in caught.value.problems] == ["parameters.alpha", "parameters.steps"]


@pytest.mark.parametrize(("text", "field"), [("[1]", "file"), ("a: [", "file"), ("wrkload: mlp", "wrkload")])
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text, field):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(InvalidSpec) as caught:
        read_sweep_yaml(path)
    assert field in {problem.field for problem in caught.value.problems}
