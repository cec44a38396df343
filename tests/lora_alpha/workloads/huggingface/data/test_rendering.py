from __future__ import annotations

from typing import Any

import pytest

from lora_alpha.catalog.huggingface_options import SFTColumnOptions
from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.huggingface.data.rendering import choose_rendering
from tests.tiny_folders import byte_tokenizer

ROW = {"question": "6*7?", "answer": "42", "topic": "sums {x}", "score": 3}


def rendered(row: dict[str, Any], *, chat: bool = False, **options: str) -> tuple[str, str]:
    rendering = choose_rendering(SFTColumnOptions(**options), list(row), tokenizer=byte_tokenizer(chat=chat))
    example = rendering.render(row)
    return example.prompt, example.completion


@pytest.mark.parametrize(
    ("row", "options", "expected"),
    [
        (ROW, {}, ("Question: 6*7?\nAnswer:", " 42")),
        ({"prompt": "a", "completion": "b"}, {}, ("a", " b")),
        ({"prompt": "a\n", "completion": "b"}, {}, ("a\n", "b")),
        ({"instruction": "a", "output": " b"}, {}, ("a", " b")),
        ({"text": "all of it", "other": 1}, {}, ("", "all of it")),
        (ROW, {"prompt_column": "topic", "completion_column": "score"}, ("sums {x}", " 3")),
        (
            ROW,
            {"prompt_template": r"{topic}\n{question} = ", "completion_column": "answer"},
            ("sums {x}\n6*7? = ", "42"),
        ),
        (
            ROW,
            {"prompt_template": "{{{topic}}}:", "completion_template": "[{answer}]"},
            ("{sums {x}}:", "[42]"),
        ),
        (ROW, {"prompt_column": "topic"}, ("sums {x}", " 42")),
    ],
)
def test_rows_become_prompts_and_completions(
    row: dict[str, Any], options: dict[str, str], expected: tuple[str, str]
) -> None:
    assert rendered(row, **options) == expected


def test_a_conversation_learns_its_last_answer() -> None:
    messages = [
        {"role": "user", "content": "6*7?"},
        {"role": "assistant", "content": "41"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "42"},
    ]
    prompt, completion = rendered({"messages": messages}, chat=True)
    assert prompt == "<user>6*7?\n<assistant>41\n<user>sure?\n<assistant>"
    assert completion == "42\n"


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (ROW, {"text_column": "body"}, r"text_column: there is no column 'body': there are question, answer"),
        (ROW, {"prompt_template": "{q}", "completion_column": "answer"}, r"{q} is no column: there are"),
        (ROW, {"prompt_template": "{question.x}", "completion_column": "answer"}, r"{question.x} is no col"),
        (ROW, {"prompt_template": "{", "completion_column": "answer"}, r"a brace that is meant as one"),
        (ROW, {"completion_column": "answer"}, r"got a completion without a prompt"),
        (
            {"a": "1", "b": "2"},
            {"prompt_column": "a"},
            r"completion_column: got a prompt without a completion",
        ),
        (
            ROW,
            {"prompt_column": "topic", "prompt_template": "{topic}"},
            r"prompt_template: got a prompt_column as well",
        ),
        ({"question": None, "answer": "1"}, {}, r"column question is empty: fill it"),
        ({"messages": []}, {}, r"is no list of"),
        ({"messages": [{"role": "user", "content": "a"}]}, {}, r"does not end with an answer"),
        ({"a": 1}, {}, r"say how the columns a make a prompt"),
    ],
)
def test_what_does_not_fit_is_said_with_the_columns_that_exist(
    row: dict[str, Any], options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidSpec, match=message):
        rendered(row, chat=True, **options)
