"""Which configurations of a pack share a group of their layers."""

from torch import nn

from lora_alpha.models.packed import inject
from lora_alpha.spec import Configuration


def test_a_group_holds_one_layer_class_one_rank_and_one_answer_to_what_trains():
    model = nn.Sequential(nn.Linear(6, 4)).requires_grad_(False)
    methods = ["lora", "dora", "lora-fa", "rslora", "full", "lora+"]
    ranks = [2, 2, 2, 2, None, 3]
    pack = [
        Configuration(method=method, rank=rank, alpha=rank and 4.0, lr=1.0)
        for method, rank in zip(methods, ranks, strict=True)
    ]
    adapters = inject(model, ["0"], pack)
    groups = [[methods[i] for i in adapters.order[g.start : g.stop]] for _, g, _ in adapters.group_layers()]
    assert groups == [["dora"], ["full"], ["lora-fa"], ["lora", "rslora"], ["lora+"]]
    trained = [sorted(layer.roles()) for _, _, layer in adapters.group_layers()]
    assert trained == [["A", "B", "magnitude"], ["weight"], ["B"], ["A", "B"], ["A", "B"]]
