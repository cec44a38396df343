"""The form in a real browser: presets, the check of model and data, and what people add to a sweep."""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

sys.path.insert(0, str(Path(__file__).parent))
from browsing import open_page  # noqa: E402
from conftest import Stack, run_stack  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of its own words and a file of questions, as a user would have them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.tiny_models import tiny_llama

    root = tmp_path_factory.mktemp("mine")
    words = [
        "<pad>",
        "<end>",
        *"0123456789",
        "+",
        "=",
        "?",
        "what",
        "is",
        "#",
        "####",
        ":",
        "Question",
        "Answer",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    saved.save_pretrained(root / "model")
    tiny_llama(max_position_embeddings=1024).save_pretrained(root / "model")
    rows = [
        {"question": f"what is {a} + {b} ?", "answer": f"{a} + {b} = {a + b} #### {a + b}"}
        for a in range(5)
        for b in range(5)
    ]
    (root / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture(scope="module")
def stack(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("home"), allowed_roots=str(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with open_page(stack.address) as opened:
        yield opened


def option(page: Page, name: str):
    return page.locator(f'input[id*=\'"name":"{name}","type":"option"\']')


def fill(page: Page, name: str, text: str) -> None:
    option(page, name).fill(text)
    option(page, name).blur()
    page.wait_for_timeout(300)  # what is typed counts after a pause


def test_a_models_sweep_is_submitted_only_after_its_check_and_gives_cells(page, stack, folder):
    page.goto(f"{stack.address}/new?workload=hf-reasoning-sft")
    option(page, "model").wait_for()
    fill(page, "model", str(folder / "model"))
    fill(page, "data", str(folder / "missing.jsonl"))
    page.get_by_text("Check model and data first").wait_for()
    expect(page.get_by_role("button", name="Submit sweep")).to_be_disabled()
    page.get_by_role("button", name="Check model and data").click()
    page.get_by_text("This cannot be trained").wait_for(timeout=60_000)
    page.get_by_text("missing.jsonl").wait_for()
    fill(page, "data", str(folder / "sums.jsonl"))
    page.get_by_role("button", name="Check model and data").click()
    page.get_by_text("Model and data are ready").wait_for(timeout=60_000)
    page.get_by_text("LlamaForCausalLM").wait_for()
    for label, text in (
        ("Ranks r", "1, 2, 4"),
        ("α", "4, 16, 64"),
        ("Seeds", "0"),
        ("Steps", "10"),
        ("Evaluate every", "5"),
    ):
        field = page.get_by_label(label, exact=True)
        field.fill(text)
        field.blur()
    page.wait_for_timeout(600)  # what is typed counts after a pause
    page.get_by_text("9", exact=True).wait_for()
    expect(page.get_by_role("button", name="Submit sweep")).to_be_enabled()
    page.get_by_role("button", name="Submit sweep").click()
    page.wait_for_url(re.compile(r"/sweep/\w+"))
    sweep_id = re.search(r"/sweep/(\w+)", page.url)[1]
    ended = stack.wait(sweep_id, timeout_s=120)
    assert ended.counts.finished == ended.counts.total == 9
    page.get_by_role("tab", name="α–η map").click()
    page.locator("#map-figure .scatterlayer .trace").first.wait_for(state="attached")


def test_a_changed_option_needs_a_new_check(page, stack, folder):
    page.goto(f"{stack.address}/new?workload=hf-reasoning-sft")
    option(page, "model").wait_for()
    fill(page, "model", str(folder / "model"))
    fill(page, "data", str(folder / "sums.jsonl"))
    page.get_by_role("button", name="Check model and data").click()
    page.get_by_text("Model and data are ready").wait_for(timeout=60_000)
    expect(page.get_by_role("button", name="Submit sweep")).to_be_enabled()
    fill(page, "data", str(folder))
    expect(page.get_by_role("button", name="Submit sweep")).to_be_disabled()


def test_a_preset_runs_with_one_click_and_says_what_it_asks(page, stack):
    page.goto(f"{stack.address}/new")
    page.get_by_text("Ready-made sweeps").click()
    page.locator("button[id*='identity']").click()
    page.wait_for_url(re.compile(r"/sweep/\w+"))
    page.get_by_text("What exactly does α do under Adam?").wait_for()
    sweep_id = re.search(r"/sweep/(\w+)", page.url)[1]
    assert stack.wait(sweep_id).counts.finished == 24


def test_a_preset_that_needs_a_model_fills_the_form(page, stack):
    page.goto(f"{stack.address}/new")
    page.get_by_text("Ready-made sweeps").click()
    page.locator("a[href*='preset=gsm8k-sft']").click()
    option(page, "model").wait_for()
    expect(page.get_by_label("Ranks r", exact=True)).to_have_value("4, 16, 64")
    expect(page.get_by_role("button", name="Submit sweep")).to_be_disabled()


def test_notes_tags_and_views_are_kept(page, stack):
    with stack.client() as client:
        sweep = client.sweeps().items[0]
    page.goto(f"{stack.address}/sweep/{sweep.id}?tab=notes&colour=alpha")
    page.get_by_label("Notes", exact=True).last.fill("the flat one")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved.").wait_for()
    with stack.client() as client:
        assert client.sweep(sweep.id).notes == "the flat one"
        assert client.sweep(sweep.id).tags == sweep.tags
    page.get_by_placeholder("Name of the view").fill("by alpha")
    page.get_by_role("button", name="Save view").click()
    page.get_by_text("is among the saved views").wait_for()
    page.goto(stack.address)
    page.get_by_role("link", name="by alpha").click()
    page.wait_for_url(re.compile("colour=alpha"))
    assert "tab=notes" not in page.url


def test_a_runs_adapter_is_downloaded_from_its_drawer(page, stack):
    with stack.client() as client:
        sweep = next(item for item in client.sweeps().items if item.workload == "hf-reasoning-sft")
    page.goto(f"{stack.address}/sweep/{sweep.id}?tab=runs")
    page.get_by_role("gridcell", name="r1-a4-s0").click()
    expect(page.get_by_role("row", name="rank, α, s 1, 4, 4")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile(r"final loss [\d.]+ at step 10 of 10"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as PEFT adapter").click()
    content = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert any(name.endswith("adapter_model.safetensors") for name in content.namelist())


def test_a_sweep_is_deleted_after_a_question(page, stack):
    with stack.client() as client:
        sweep = client.create_sweep({"workload": "mlp", "workload_options": {"width": 8}, "ranks": [1],
                                     "alphas": [8], "seeds": [0], "steps": 5})  # fmt: skip
    stack.wait(sweep.id)
    page.goto(f"{stack.address}/sweep/{sweep.id}?tab=notes")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete sweep").click()
    page.wait_for_url(re.compile(r":\d+/$"))
    with stack.client() as client:
        assert sweep.id not in [item.id for item in client.sweeps().items]
