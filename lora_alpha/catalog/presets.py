"""Ready-made sweeps that each show one claim, with what to expect in honest words.

Torch-free, as everything here: a preset is a request like any other and goes through ``resolve``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lora_alpha.errors import FieldProblem, InvalidSpec
from lora_alpha.methods import METHODS
from lora_alpha.request import SweepRequest
from lora_alpha.spec import AlphaSchedule, Configuration, ProbePlan

SEEDS = (0, 1, 2)
# GSM8K: columns question and answer; an answer ends with a line "#### 42".
GSM8K = {"prompt_template": "Question: {question}\nAnswer:", "completion_column": "answer"}
GSM8K_ALPHAS = [float(4**exponent) for exponent in range(2, 7)]
GSM8K_FORM = r".*####\s*-?[\d,.]+"


@dataclass(frozen=True)
class Preset:
    """A named sweep.

    Attributes:
        name: Key in addresses and on the command line.
        title: A few words for menus.
        question: What the sweep answers.
        expect: What it showed when it was measured, the unwelcome parts included.
        page: The page that answers the question: ``dynamics``, ``curvature``, or a tab of the sweep.
        request: The sweep itself.
    """

    name: str
    title: str
    question: str
    expect: str
    page: str
    request: SweepRequest


def preset(name: str) -> Preset:
    """The preset ``name``.

    Raises:
        InvalidSpec: If there is none; the message lists those that exist.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise InvalidSpec([FieldProblem("preset", f"got {name!r}: choose one of {known}")])
    return PRESETS[name]


def _alpha_against_lr() -> Iterable[Configuration]:
    """From one base point (rank 16, α 16, η 5e-4): α×k and η×k."""
    for seed in SEEDS:
        for k in (1, 4, 16, 32, 64, 128, 256):
            yield Configuration(method="lora", rank=16, alpha=16.0 * k, lr=5e-4, seed=seed)
            if k > 1:
                yield Configuration(method="lora", rank=16, alpha=16.0, lr=5e-4 * k, seed=seed)


def _identity() -> Iterable[Configuration]:
    """α×k beside lr_B×k with its conditions, and with A frozen beside η×k."""
    for seed in SEEDS:
        for k in (4.0, 64.0):
            for method in ("lora", "lora-fa"):
                scaled = Configuration(method=method, rank=8, alpha=16.0 * k, lr=5e-4, seed=seed)
                conditions = {"alpha": 16.0, "eps_ratio": 1 / k, "weight_decay_ratio": 1 / k}
                # With A frozen there is one learning rate to raise, otherwise it is B's alone.
                faster = {"lr_ratio": k} if METHODS[method].trains_A else {"lr": 5e-4 * k}
                yield scaled
                yield scaled.model_copy(update=conditions | faster)


SCHEDULES = (
    AlphaSchedule(),
    AlphaSchedule(kind="ramp", start=0.1, ramp_steps=100),
    AlphaSchedule(kind="ramp", start=0.1, ramp_steps=300),
    AlphaSchedule(kind="ramp", start=8.0, ramp_steps=100),
    # where the best constant α ends up
    AlphaSchedule(kind="hold", target_metric="update_norm", target=7.0),
)


def _alpha_over_time() -> Iterable[Configuration]:
    """Rank 16 at η = 2e-4, five seeds: every schedule on the same six α."""
    for schedule in SCHEDULES:
        for exponent in range(7, 13):
            for seed in range(5):
                yield Configuration(
                    method="lora",
                    rank=16,
                    alpha=2.0**exponent,
                    lr=2e-4,
                    seed=seed,
                    alpha_schedule=schedule,
                )


def _preset(name: str, *, title: str, question: str, expect: str, page: str, **request: Any) -> Preset:
    """A preset whose sweep has its title for a name and its key among the tags."""
    sweep = SweepRequest(name=title, tags=[f"preset:{name}"], **request)
    return Preset(name=name, title=title, question=question, expect=expect, page=page, request=sweep)


PRESETS: dict[str, Preset] = {
    item.name: item
    for item in (
        _preset(
            name="alpha-vs-lr",
            title="α×k versus η×k",
            question="Is raising α by k the same as raising the learning rate by k?",
            expect=(
                "No. η×128 diverges while α×256 stays stable, and the drift ratio grows with η but not with "
                "α. Yet at α×256 the loss is far worse than at a modest k, and the best loss of all is found "
                "along η (about k = 16), not along α: stability is what α buys here, not a better optimum."
            ),
            page="dynamics",
            workload="mlp",
            workload_options={"width": 128, "shift_rank": "full"},
            steps=300,
            batch_size=64,
            lr_schedule="constant",
            warmup=0,
            dynamics_every=10,
            cells=list(_alpha_against_lr()),
        ),
        _preset(
            name="alpha-and-lr",
            title="One grid over α and η",
            question="Is α a second learning rate?",
            expect=(
                "For the final loss it is worse here: from the smallest α and η the best of the α route ends "
                "at 0.57, that of the η route at 0.31 with the largest η of the grid. On charlm such a "
                "grid says equivalent: the two routes differ by 0.5 %."
            ),
            page="equivalence",
            workload="mlp",
            ranks=[8],
            alphas=[float(2**exponent) for exponent in range(2, 13)],
            lrs=[5e-5, 2e-4, 8e-4, 3.2e-3, 1.28e-2],
            seeds=SEEDS,
        ),
        _preset(
            name="identity",
            title="α×k is lr_B×k",
            question="What exactly does α do under Adam?",
            expect=(
                "α×k at η trains exactly as lr_A = η, lr_B = k·η (with ε and weight decay of B divided by "
                "k): each pair of curves lies on one line, and bit for bit within one pack, because k is a "
                "power of two. With A frozen (LoRA-FA) α×k is η×k as well. So α and η differ in A's learning "
                "rate alone."
            ),
            page="convergence",
            workload="mlp",
            workload_options={"width": 64},
            steps=200,
            batch_size=64,
            weight_decay=0.1,
            dynamics_every=10,
            cells=list(_identity()),
        ),
        _preset(
            name="spectral-suppression",
            title="Spectral suppression",
            question="How sharp is the loss in LoRA coordinates, against full-weight coordinates?",
            expect=(
                "At α = r the largest curvature in LoRA coordinates is a fraction of that in full-weight "
                "coordinates; it grows between s and s², and the two meet near or below α = √(3·in·r). At "
                "low rank the gradient's block decides and they meet earlier. Curvature is indefinite "
                "throughout."
            ),
            page="curvature",
            workload="mlp",
            workload_options={"width": 64},
            ranks=[2, 8],
            alphas=[float(2**exponent) for exponent in range(1, 10)],
            seeds=[0],
            steps=100,
            batch_size=64,
            probes=ProbePlan(at=["init", "end"], kinds=["extremes"], spaces=["lora", "full"]),
        ),
        _preset(
            name="gsm8k-sft",
            title="GSM8K by worked solutions",
            question="Which α for which rank, when your model learns to reason from GSM8K's solutions?",
            expect=(
                "That depends on your model; nothing is promised. Only the solution is learnt, and the "
                "held-out loss is that of test.jsonl where the folder has one. Look at the width of the "
                "optimum's basin before its place, and at forgetting, which grows with α."
            ),
            page="convergence",
            workload="hf-reasoning-sft",
            workload_options=GSM8K,
            ranks=[4, 16, 64],
            alphas=GSM8K_ALPHAS,
            steps=200,
            batch_size=8,
        ),
        _preset(
            name="gsm8k-rl",
            title="GSM8K by reward",
            question="Does training by reward want the same α as training on solutions?",
            expect=(
                "A model that never finds a right answer gets no signal: its accuracy at step 0 must be some "
                "per cent at least. Choosing among skills that a model has needs little rank, so α* may "
                "hardly depend on it (as mod-rl shows)."
            ),
            page="convergence",
            workload="hf-rl",
            workload_options={
                **GSM8K,
                "max_new_tokens": 256,
                "form_pattern": GSM8K_FORM,
                "form_weight": 0.1,
            },
            ranks=[1, 8, 64],
            alphas=GSM8K_ALPHAS,
            steps=100,
            batch_size=4,
        ),
        _preset(
            name="alpha-over-time",
            title="α over time",
            question="Does any schedule of α beat the best constant α?",
            expect=(
                "No. A ramp to the full α over the first 100 steps is as good as constant α; a ramp over "
                "the whole run, or down from 8·α, costs 7 %. Holding the update norm where the best constant "
                "α ends up costs about 1 %, but makes the α that one starts from nearly irrelevant: over "
                "five octaves the loss moves by 3 %, with constant α by 16 %."
            ),
            page="dynamics",
            workload="mlp",
            steps=300,
            batch_size=64,
            dynamics_every=10,
            cells=list(_alpha_over_time()),
        ),
        _preset(
            name="sharpness-vs-lr",
            title="Best η against 1/λ_max",
            question="Does the best learning rate follow the curvature in LoRA coordinates?",
            expect=(
                "Under SGD, as here, yes: over a 1000-fold range of λ_max, moved by α and rank, the best η "
                "goes as 1/λ_max to the power 0.99, and η·λ_max stays between 0.6 and 3. Under AdamW "
                "(duplicate the sweep, η from 2^-16 to 2^-5) no: the power is 0.37. One seed."
            ),
            page="curvature",
            workload="mlp",
            workload_options={"width": 64},
            ranks=[2, 8],
            alphas=[8, 32, 128, 512],
            lrs=[2.0**exponent for exponent in range(-13, 2)],
            seeds=[0],
            steps=100,
            batch_size=64,
            lr_schedule="constant",
            warmup=0,
            optimizer="sgd",
            probes=ProbePlan(at=["init"], kinds=["extremes"], spaces=["lora"]),
        ),
    )
}
