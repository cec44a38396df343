"""Options that workloads on a Hugging Face model and the user's own data share."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from lora_alpha.spec import Frozen, Positive, Rank

Text = Annotated[str, Field(max_length=4096)]
Template = Annotated[str, Field(max_length=16_384)]


def _joined(given: Any) -> Any:
    """A list of names as one text."""
    return ", ".join(given) if isinstance(given, list) and all(isinstance(n, str) for n in given) else given


def _mapping(given: Any) -> Any:
    """``q_proj=8, v_proj=4`` or a JSON object typed into a form, as a mapping."""
    if not isinstance(given, str):
        return given
    if given.strip().startswith("{"):
        try:
            return json.loads(given)
        except json.JSONDecodeError:
            raise ValueError("this is no JSON object: write q_proj=8, v_proj=4") from None
    parts = [part.split("=") for part in given.split(",") if part.strip()]
    if not all(len(part) == 2 for part in parts):
        raise ValueError("write a layer's name, =, and the number, with commas between: q_proj=8, v_proj=4")
    return {name.strip(): value.strip() for name, value in parts}


def compiled(field: str, pattern: str) -> re.Pattern[str]:
    """``pattern`` as a regular expression that matches across lines.

    Raises:
        ValueError: If it is none; the message says where.
    """
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ValueError(f"{field}: {pattern!r} is no regular expression: {error}") from None


class ModelOptions(Frozen):
    """Which model, and which of its layers get adapters."""

    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description="Folder of a transformers model (config.json, safetensors, tokenizer), or its name "
            "on the Hugging Face hub",
        ),
    ]
    revision: Annotated[Text, Field(description="Branch, tag or commit on the hub; empty: main")] = ""
    targets: Annotated[
        Text,
        BeforeValidator(_joined),
        Field(
            min_length=1,
            description="Layers with adapters: all-linear (all but the output layer), names with commas "
            "between, or a regular expression on full names",
        ),
    ] = "all-linear"
    rank_pattern: Annotated[
        dict[str, Rank],
        BeforeValidator(_mapping),
        Field(description="Layers (regular expressions) with a rank of their own: q_proj=8, v_proj=4"),
    ] = {}
    alpha_pattern: Annotated[
        dict[str, Positive],
        BeforeValidator(_mapping),
        Field(description="Layers (regular expressions) with an α of their own: q_proj=64"),
    ] = {}
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations twice instead of keeping them: less memory, slower")
    ] = False
    accumulation: Annotated[
        int,
        Field(
            ge=1, le=4096, description="Parts into which each batch is cut: less memory, the same gradient"
        ),
    ] = 1

    @model_validator(mode="after")
    def _patterns_compile(self) -> Self:
        if not names_in(self.targets):
            compiled("targets", self.targets)
        for field in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, field):
                compiled(field, pattern)
        return self


class DataOptions(Frozen):
    """Which files, and which of their rows are held out."""

    data: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description="File or folder (JSONL, CSV, TSV, Parquet), or a dataset's name on the Hugging Face "
            "hub; in a folder, files named train… are trained on and files named test… held out",
        ),
    ]
    data_files: Annotated[Text, Field(description="Which files of the folder, such as main/train*")] = ""
    test_data: Annotated[
        Text, Field(description="File, folder or dataset that is held out; empty: a share of the data")
    ] = ""
    test_files: Annotated[Text, Field(description="Which files of the held-out folder, such as test*")] = ""
    held_out: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of the rows held out where there is no test file"),
    ] = 0.1
    num_eval: Annotated[
        int, Field(ge=1, le=100_000, description="Most held-out examples that an evaluation reads")
    ] = 64
    max_examples: Annotated[
        int, Field(ge=0, description="Most rows that are read of the training files; 0: all")
    ] = 0


class ColumnOptions(Frozen):
    """How a row becomes a prompt and a completion; what is left empty is guessed from the columns' names."""

    prompt_column: Annotated[Text, Field(description="Column with the prompt")] = ""
    completion_column: Annotated[Text, Field(description="Column with what is learnt")] = ""
    prompt_template: Annotated[
        Template,
        Field(description="Prompt with columns in braces, such as Question: {question}\\nAnswer:"),
    ] = ""
    completion_template: Annotated[
        Template, Field(description="Completion with columns in braces; taken exactly as it is")
    ] = ""


class SFTColumnOptions(ColumnOptions):
    """Also whole texts and conversations."""

    text_column: Annotated[Text, Field(description="Column with plain text, all of which is learnt")] = ""
    messages_column: Annotated[
        Text,
        Field(
            description="Column with a conversation (role, content): its last answer is learnt, through the "
            "tokenizer's chat template"
        ),
    ] = ""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        pair = ("prompt_column", "completion_column", "prompt_template", "completion_template")
        forms = [
            [name for name in names if getattr(self, name)]
            for names in (("text_column",), ("messages_column",), pair)
        ]
        given = [form for form in forms if form]
        if len(given) > 1:
            named = " and ".join(form[0] for form in given)
            raise ValueError(f"got {named}: give a text, a conversation, or a prompt with a completion")
        return self


class DriftOptions(Frozen):
    """What measures forgetting."""

    source_data: Annotated[
        Text,
        Field(
            description="Text file (txt, JSONL, CSV, TSV, Parquet with a text column) whose loss measures "
            "forgetting; empty: the KL divergence from the frozen base on held-out prompts"
        ),
    ] = ""
    source_column: Annotated[Text, Field(description="Column of source_data with the text")] = "text"


class CausalLMOptions(ModelOptions, DataOptions, DriftOptions):
    """What every workload on a causal language model knows."""

    max_tokens: Annotated[
        int, Field(ge=2, le=131_072, description="Longest example; longer ones are cut at their end")
    ] = 512


NAMES = re.compile(r"[\w-]+(\.[\w-]+)*(\s*,\s*[\w-]+(\.[\w-]+)*)*")


def names_in(targets: str) -> list[str]:
    r"""The names in a list with commas; [] where ``targets`` is a regular expression.

    >>> names_in("q_proj, v_proj"), names_in(r".*\.(q|v)_proj")
    (['q_proj', 'v_proj'], [])
    """
    if not NAMES.fullmatch(targets.strip()):
        return []
    return [name.strip() for name in targets.split(",")]
