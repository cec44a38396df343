"""Packs over an unmodified LLaMA against PEFT one configuration at a time, eager and compiled, in one run.

Alone: ``python -c "from benchmarks.packing import *; main([ON_GPU])"``.

On a CPU: a LLaMA of 4 blocks, width 128, rank 8 on every linear layer, float32, one thread. With a GPU also
the shape of Llama-3.2-1B with random weights in bfloat16 and adapters in float32: PEFT's default, which
multiplies in float32 too. Contenders take turns; a figure is the median of its turns. Time on a CPU is what
the process itself used, so that other programs do not count. Compilation, without a cache, is timed apart.
Memory is the peak of one step above what was there before it: activations, logits, gradients, not the base.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config as inductor
from torch import Tensor, nn
from torch.nn import functional as F

from lora_alpha.catalog.entry import Footprint
from lora_alpha.models.packed import inject
from lora_alpha.planning.planner import PAYING_GPU_ROWS, PAYING_ROWS, largest_pack
from lora_alpha.spec import Configuration, TrainSpec
from lora_alpha.training.optimizers import make_optimizer

RANK, ALPHA, LR = 8, 16.0, 1e-4
EAGER, COMPILED = "PEFT eager", "PEFT compiled"
WANTED_BEST, WANTED_EAGER, WANTED_EAGER_GPU = 0.95, 2.0, 4.0


@dataclass(frozen=True)
class Setting:
    """A model and what it is trained on: ``sequence`` tokens an example, ``tokens`` per configuration.

    ``compiled_at`` are those of ``tokens`` for which PEFT is compiled as well; a pack has ``most_rows``
    tokens at most. Each contender has ``turns`` turns of at least ``turn_seconds``.
    """

    title: str
    shape: dict[str, Any]
    device: str
    dtype: torch.dtype
    sequence: int
    tokens: tuple[int, ...]
    compiled_at: tuple[int, ...]
    counts: tuple[int, ...] = (1, 4, 16)
    most_rows: int = 2**62
    turns: int = 5
    turn_seconds: float = 0.8


TINY = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
LLAMA_1B = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
ON_CPU = Setting("tiny LLaMA, float32", TINY, "cpu", torch.float32, 32, (32, 128, 512), (32, 128, 512))
# Logits of 8,192 rows are 2 GiB in bfloat16 and several times that in the loss.
ON_GPU = Setting(
    "Llama-3.2-1B's shape, bfloat16",
    LLAMA_1B,
    "cuda",
    torch.bfloat16,
    128,
    (128, 256, 512, 1024, 2048, 4096),
    compiled_at=(512, 4096),
    most_rows=8192,
    turns=3,
    turn_seconds=0.5,
)


@dataclass
class Contender:
    """A way to train: one call of ``step`` is an optimiser step of ``num_configs`` configurations."""

    name: str
    num_configs: int
    step: Callable[[], None]
    compile_s: float = 0.0
    peak_bytes: float | None = None
    turns: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Per configuration-step."""
        return statistics.median(self.turns) / self.num_configs


def main(settings: Sequence[Setting] = (ON_CPU, ON_GPU)) -> None:
    """Print samples a second, ratios and memory for each number of tokens per configuration."""
    configure()
    for setting in settings:
        if setting.device == "cuda" and not torch.cuda.is_available():
            print(f"\nno CUDA device: {setting.title} is left out")
            continue
        print(f"\n{setting.title}, rank {RANK}; a sample is {setting.sequence} tokens")
        print("tokens  contender         samples/s   × eager   × best alone   peak MiB   compile s")
        for tokens in setting.tokens:
            report(setting, tokens, compare(setting, tokens))


def configure() -> None:
    """What every figure here presumes of its process."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    inductor.force_disable_caches = True  # or a second run would compile for a few seconds only


def compare(setting: Setting, tokens: int) -> list[Contender]:
    """Every contender's turns at ``tokens`` per configuration."""
    torch.compiler.reset()  # what was compiled before keeps its model and its memory
    base, examples = build(setting), tokens // setting.sequence
    contenders = [Contender(EAGER, 1, peft_step(setting, base, examples, compiled=False))]
    if tokens in setting.compiled_at:
        contenders.append(Contender(COMPILED, 1, peft_step(setting, base, examples, compiled=True)))
    counts = {count for count in setting.counts if count * tokens <= setting.most_rows} | {1}
    for count in sorted(counts | {planned(setting, tokens)}):
        contenders.append(Contender(f"packed N={count}", count, packed_step(setting, base, examples, count)))
    for contender in contenders:
        started = time.perf_counter()
        contender.step()
        synchronize(setting)
        contender.compile_s = time.perf_counter() - started
        contender.step()
        contender.peak_bytes = peak_of(contender.step, setting)
    for _ in range(setting.turns):
        for contender in contenders:
            contender.turns.append(seconds(contender.step, setting))
    return contenders


def planned(setting: Setting, tokens: int) -> int:
    """The planner's pack size for one configuration's ``tokens`` where memory does not matter."""
    rows = PAYING_GPU_ROWS if setting.device == "cuda" else PAYING_ROWS
    return largest_pack(Footprint(tokens_per_example=tokens), batch_size=1, limit=64, row_budget=rows)


def report(setting: Setting, tokens: int, contenders: Sequence[Contender]) -> None:
    """One line a contender, and whether what is wanted holds."""
    examples = tokens // setting.sequence
    eager = contenders[0].seconds
    alone = [contender for contender in contenders if contender.num_configs == 1]
    best = min(contender.seconds for contender in alone)
    for contender in contenders:
        memory = "–" if contender.peak_bytes is None else f"{contender.peak_bytes / 2**20:.1f}"
        compiling = f"{contender.compile_s:.0f}" if contender.name == COMPILED else ""
        print(
            f"{tokens:6d}  {contender.name:16s} {examples / contender.seconds:10.1f}"
            f" {eager / contender.seconds:9.2f} {best / contender.seconds:14.2f}"
            f" {memory:>10s} {compiling:>11s}",
            flush=True,
        )
    by_count = {c.num_configs: c for c in contenders if c.name.startswith("packed")}
    chosen = by_count[planned(setting, tokens)]
    print(
        f"        the planner takes N={chosen.num_configs}: {best / chosen.seconds:.2f} × the best alone"
        f" (wanted ≥ {WANTED_BEST})"
    )
    if setting.device == "cuda" and tokens <= 512:
        print(f"        it is {eager / chosen.seconds:.2f} × PEFT eager (wanted ≥ {WANTED_EAGER_GPU})")
    if tokens == 32:
        print(f"        N=16: {eager / by_count[16].seconds:.2f} × PEFT eager (wanted ≥ {WANTED_EAGER})")
    for compiled in (c for c in contenders if c.name == COMPILED):
        saved = chosen.seconds - compiled.seconds
        pays = f"{compiled.compile_s / saved:,.0f} configuration-steps" if saved > 0 else "no number of steps"
        print(f"        compiling for {compiled.compile_s:.0f} s pays for itself after {pays}")


def packed_step(setting: Setting, base: nn.Module, examples: int, count: int) -> Callable[[], None]:
    """A step of a pack as the engine does it."""
    model = sharing_weights(base)
    configurations = [
        Configuration(method="lora", rank=RANK, alpha=ALPHA, lr=LR, seed=seed) for seed in range(count)
    ]
    adapters = inject(model, targets(model), configurations)
    optimizer = make_optimizer(adapters, TrainSpec(workload="", steps=1, batch_size=examples))
    tokens = batch_of(setting, count * examples)

    def step() -> None:
        optimizer.zero_grad()
        token_losses(model, tokens).view(count, -1).mean(1).sum().backward()
        optimizer.gradient_norms()
        optimizer.step(1.0)

    return step


def peft_step(setting: Setting, base: nn.Module, examples: int, *, compiled: bool) -> Callable[[], None]:
    """A step of one configuration with PEFT and the fastest AdamW."""
    import peft

    settings = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets(base))
    model = peft.get_peft_model(sharing_weights(base), settings)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, fused=True)
    tokens = batch_of(setting, examples)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        token_losses(forward, tokens).mean().backward()
        optimizer.step()

    return step


def token_losses(model: Callable[..., Any], tokens: Tensor) -> Tensor:
    """Cross-entropy of every next token, flat."""
    logits = model(input_ids=tokens).logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits.float(), tokens[:, 1:].flatten(), reduction="none")


def build(setting: Setting) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        **setting.shape,
        tie_word_embeddings=True,
        max_position_embeddings=max(setting.sequence, 128),
        use_cache=False,
    )
    with torch.device(setting.device):
        model = LlamaForCausalLM(config)
    return model.to(setting.dtype).eval().requires_grad_(False)


def sharing_weights(base: nn.Module) -> nn.Module:
    """A model of its own modules over the very same frozen weights."""
    return copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})


def targets(model: nn.Module) -> list[str]:
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linear if name != "lm_head"]


def batch_of(setting: Setting, rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (rows, setting.sequence)
    return torch.randint(setting.shape["vocab_size"], size, generator=generator).to(setting.device)


def seconds(step: Callable[[], None], setting: Setting) -> float:
    """Seconds per call over one turn."""
    clock = time.perf_counter if setting.device == "cuda" else time.process_time
    step()
    synchronize(setting)
    started, calls = clock(), 0
    until = time.perf_counter() + setting.turn_seconds
    while calls < 2 or time.perf_counter() < until:
        step()
        synchronize(setting)
        calls += 1
    return (clock() - started) / calls


def synchronize(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def peak_of(step: Callable[[], None], setting: Setting) -> float | None:
    """Bytes that one step needs above what was in use before it; None where the system does not tell."""
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        synchronize(setting)
        return float(torch.cuda.max_memory_allocated() - before)
    if platform.system() != "Linux":
        return None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark starts again
    before_kib = _status("VmRSS")
    step()
    return 1024.0 * (_status("VmHWM") - before_kib)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
