"""What a user asks for: a sweep of which everything but the workload may be left open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, create_model

from lora_alpha.spec import (
    AlphaRule,
    Configuration,
    LearningRate,
    Positive,
    Rank,
    Seed,
    SweepSettings,
    TrainSettings,
)

Tag = Annotated[str, Field(min_length=1, max_length=64)]
ExplicitCells = Annotated[list[Configuration], Field(max_length=20_000)]
Model = TypeVar("Model", bound=BaseModel)


def with_open_fields(of: type[BaseModel]) -> Callable[[type[Model]], type[Model]]:
    """Class decorator that adds the fields of ``of``, each as declared there but optional.

    None, the default, leaves a field open. Static types see the decorated class's own fields alone: read the
    added ones by ``model_dump``, and validate them as ``of`` to have them typed.
    """

    def add(model: type[Model]) -> type[Model]:
        added: dict[str, Any] = {
            name: (Annotated[field.rebuild_annotation() | None, field], None)
            for name, field in of.model_fields.items()
        }
        return create_model(
            model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **added
        )

    return add


@with_open_fields(TrainSettings)
class SweepRequest(SweepSettings):
    """Body of ``POST /sweeps`` and ``/sweeps/plan``. Only ``workload`` is required."""

    name: Annotated[str, Field(max_length=200)] | None = None
    workload: Annotated[str, Field(max_length=200)]
    workload_options: dict[str, Any] = {}
    methods: Annotated[list[str], Field(min_length=1, max_length=16)] | None = None
    ranks: Annotated[list[Rank], Field(min_length=1, max_length=64)] | None = None
    alphas: Annotated[list[Positive], Field(min_length=1, max_length=128)] | None = None
    alpha_rule: AlphaRule | None = None
    lrs: Annotated[list[LearningRate], Field(min_length=1, max_length=64)] | None = None
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=100)] | None = None
    tags: Annotated[list[Tag], Field(max_length=32)] = []
    cells: ExplicitCells = []

    @property
    def rule(self) -> AlphaRule:
        """The α rule, LoRA-α's 256·√r unless given."""
        return self.alpha_rule or AlphaRule()
