from __future__ import annotations

import re

import pytest

from lora_alpha.workloads.huggingface.data.rewards import Rewards, final_answer, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48/2 = <<48/2=24>>24\n#### 72", "72"),
        ("#### 1 no wait\n#### 1,200 \nQuestion: next", "1,200"),
        ("so it is 3.5 apples, not 4.", "4"),
        ("-7 degrees", "-7"),
        ("yes", "yes"),
        ("", None),
        ("####", None),
    ],
)
def test_the_final_answer_follows_the_marker_or_is_the_last_number(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_a_pattern_says_where_the_answer_stands() -> None:
    boxed = re.compile(r"\\boxed\{(.*?)\}")
    assert final_answer(r"first \boxed{3}, then \boxed{x+1} of 9", boxed) == "x+1"
    assert final_answer("no box: 9", boxed) is None
    assert final_answer("a1 b2", re.compile(r"[a-z]\d")) == "b2"


@pytest.mark.parametrize(
    ("given", "reference", "equal"),
    [
        ("72", "72", True),
        ("72.0", "72", True),
        ("$1,200.", "1200", True),
        ("50%", "50", True),
        ("0.30", ".3", True),
        ("7", "-7", False),
        ("720", "72", False),
        ("Paris ", "paris", True),
        ("Paris", "72", False),
        ("nan", "nan", True),
        ("inf", "Infinity", False),
    ],
)
def test_answers_are_compared_as_numbers_first(given: str, reference: str, equal: bool) -> None:
    assert same_answer(given, reference) == equal


def test_the_reward_is_the_weighted_mean_of_its_parts() -> None:
    rewards = Rewards(
        exact=2.0,
        pattern=1.0,
        pattern_of=re.compile("because"),
        form=1.0,
        form_of=re.compile(r".*####\s*-?\d+", re.DOTALL),
    )
    assert rewards.score("because\n#### 4", "4") == 1.0
    assert rewards.score("because\n#### 5", "4") == 0.5
    assert rewards.score("4", "4") == 0.5
    assert rewards.score("4 #### and more", "4") == 0.0
    assert Rewards().score("it is 4", "4") == 1.0
