"""What every message has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """What crosses HTTP: unknown fields, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Answer(Wire):
    """A message that nests records of ``lora_alpha.analysis``, which is what checks them when it is made."""

    model_config = ConfigDict(revalidate_instances="always")
