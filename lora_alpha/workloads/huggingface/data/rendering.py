"""From a row to a prompt and a completion: columns, templates, conversations.

Where the options leave it open the columns' names decide: ``messages``, then the pairs of ``KNOWN_PAIRS``,
then ``text``. A column's completion is set off from its prompt by one space unless either has white space
there; a completion template is taken as it is.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_alpha.catalog.huggingface_options import ColumnOptions
from lora_alpha.workloads.huggingface.data.tables import Row
from lora_alpha.workloads.huggingface.problems import problem

KNOWN_PAIRS = (("prompt", "completion"), ("question", "answer"), ("instruction", "output"))
QUESTION_TEMPLATE = "Question: {question}\nAnswer:"


@dataclass(frozen=True)
class Example:
    """One rendered row; ``special``: whether the tokenizer adds its own first token (chats have theirs)."""

    prompt: str
    completion: str
    special: bool = True


Render = Callable[[Row], Example]


@dataclass(frozen=True)
class Rendering:
    """How rows are rendered.

    Attributes:
        describe: In words, for the inspection.
        columns: Columns that are used.
        render: Row → example; raises ``InvalidSpec`` on a row that does not fit.
        is_text: Whether everything is learnt and long rows are cut into windows.
    """

    describe: str
    columns: tuple[str, ...]
    render: Render
    is_text: bool = False


def choose_rendering(options: ColumnOptions, columns: Sequence[str], *, tokenizer: Any) -> Rendering:
    """The rendering that ``options`` ask for, or that the names of ``columns`` suggest.

    Raises:
        InvalidSpec: If a column does not exist, or nothing is asked for and nothing is recognised.
    """
    text = getattr(options, "text_column", "")
    messages = getattr(options, "messages_column", "")
    if text:
        return _text(_existing("text_column", text, columns))
    if messages:
        return _conversation(_existing("messages_column", messages, columns), tokenizer)
    if any((options.prompt_column, options.prompt_template, options.completion_template)) or (
        options.completion_column
    ):
        return _pair(options, columns)
    takes_text = hasattr(options, "text_column")
    if takes_text and "messages" in columns:
        return _conversation("messages", tokenizer)
    for prompt, completion in KNOWN_PAIRS:
        if prompt in columns and completion in columns:
            template = QUESTION_TEMPLATE if prompt == "question" else f"{{{prompt}}}"
            return _templates(template, f"{{{completion}}}", columns, verbatim=False)
    if takes_text and "text" in columns:
        return _text("text")
    raise problem(
        "prompt_column",
        f"say how the columns {', '.join(columns)} make a prompt and a completion: give prompt_column or "
        "prompt_template, and completion_column" + (", or text_column" if takes_text else ""),
    )


def fields_of(template: str, *, option: str, columns: Sequence[str]) -> list[str]:
    """Columns that a template names.

    Raises:
        InvalidSpec: If its braces do not pair, or a column does not exist.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise problem(option, f"{template!r}: {error}; a brace that is meant as one is doubled") from None
    unknown = [field for field in fields if field not in columns]
    if unknown:
        named = ", ".join(f"{{{field}}}" for field in unknown)
        raise problem(option, f"{named} is no column: there are {', '.join(columns)}")
    return fields


def unescaped(template: str) -> str:
    r"""A template with ``\n`` and ``\t`` typed as two characters turned into what they mean.

    >>> unescaped(r"Q: {q}\nA:")
    'Q: {q}\nA:'
    """
    return template.replace("\\n", "\n").replace("\\t", "\t")


def joined(prompt: str, completion: str) -> str:
    """``completion``, set off from ``prompt`` by one space unless white space or nothing is there."""
    spaced = not prompt or prompt[-1].isspace() or completion[:1].isspace()
    return completion if spaced else f" {completion}"


def _text(column: str) -> Rendering:
    def render(row: Row) -> Example:
        return Example(prompt="", completion=_string(row, column))

    return Rendering(f"text of column {column}", (column,), render, is_text=True)


def _pair(options: ColumnOptions, columns: Sequence[str]) -> Rendering:
    if options.prompt_column and options.prompt_template:
        raise problem("prompt_template", "got a prompt_column as well: give one of the two")
    if options.completion_column and options.completion_template:
        raise problem("completion_template", "got a completion_column as well: give one of the two")
    if not (options.prompt_column or options.prompt_template):
        raise problem("prompt_column", "got a completion without a prompt: give this or prompt_template")
    if not (options.completion_column or options.completion_template):
        given = next((c for p, c in KNOWN_PAIRS if c in columns), None)
        if given is None:
            raise problem("completion_column", "got a prompt without a completion: name its column")
    else:
        given = options.completion_column
    prompt = unescaped(options.prompt_template)
    if options.prompt_column:
        prompt = f"{{{_existing('prompt_column', options.prompt_column, columns)}}}"
    if options.completion_template:
        return _templates(prompt, unescaped(options.completion_template), columns, verbatim=True)
    column = _existing("completion_column", given or "", columns)
    return _templates(prompt, f"{{{column}}}", columns, verbatim=False)


def _templates(prompt: str, completion: str, columns: Sequence[str], *, verbatim: bool) -> Rendering:
    used = [
        *fields_of(prompt, option="prompt_template", columns=columns),
        *fields_of(completion, option="completion_template", columns=columns),
    ]

    def render(row: Row) -> Example:
        values = {column: _string(row, column) for column in used}
        first, second = _filled(prompt, values), _filled(completion, values)
        return Example(prompt=first, completion=second if verbatim else joined(first, second))

    return Rendering(f"prompt {prompt!r}, completion {completion!r}", tuple(dict.fromkeys(used)), render)


def _filled(template: str, values: dict[str, str]) -> str:
    # str.format would also follow attributes and indices of the values: {a.__class__} is no column's name.
    parts = []
    for literal, field, _, _ in string.Formatter().parse(template):
        parts += [literal, "" if field is None else values[field]]
    return "".join(parts)


def _conversation(column: str, tokenizer: Any) -> Rendering:
    if not getattr(tokenizer, "chat_template", None):
        raise problem(
            "messages_column",
            "the model's tokenizer has no chat template: take a model that has one, or give prompt and "
            "completion columns",
        )

    def render(row: Row) -> Example:
        messages = row.get(column)
        if not isinstance(messages, list) or not messages or not all(_is_message(m) for m in messages):
            raise problem("messages_column", f"column {column} is no list of (role, content)")
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise problem("messages_column", f"the conversation in {column} does not end with an answer")
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        if not whole.startswith(prompt):
            raise problem(
                "messages_column",
                "the chat template renders a conversation and its beginning differently, so that the answer "
                "cannot be told apart: give prompt and completion columns",
            )
        return Example(prompt=prompt, completion=whole[len(prompt) :], special=False)

    return Rendering(f"last answer of the conversation in column {column}", (column,), render)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message


def _existing(option: str, column: str, columns: Sequence[str]) -> str:
    if column not in columns:
        raise problem(option, f"there is no column {column!r}: there are {', '.join(columns)}")
    return column


def _string(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        raise problem("data", f"column {column} is empty: fill it or leave the row out")
    return value if isinstance(value, str) else str(value)
