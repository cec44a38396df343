"""Which modules are changed, and which tests have to notice.

A module's tests are those at its mirrored path (``lora_alpha/analysis/optimum.py`` →
``tests/lora_alpha/analysis/test_optimum*.py``) and whatever ``ALSO`` names.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

# Where nine of ten changes must be noticed; any other module may be named on the command line.
GUARDED = (
    "backend/services/jobs*.py",
    "backend/services/jobs/*.py",
    "backend/store/jobs.py",
    "backend/store/metrics.py",
    "lora_alpha/analysis/equivalence.py",
    "lora_alpha/analysis/optimum.py",
    "lora_alpha/analysis/power_law.py",
    "lora_alpha/training/optimizers.py",
)
# Whose constants are changed, one number at a time.
WITH_CONSTANTS = (
    "backend/security.py",
    "backend/services/jobs*.py",
    "backend/services/jobs/*.py",
    "backend/store/*.py",
    "lora_alpha/analysis/*.py",
    "lora_alpha/training/engine.py",
    "lora_alpha/training/optimizers.py",
)
ALSO = {
    "backend/store/engines.py": ("tests/backend/store",),
    "backend/store/jobs.py": ("tests/backend/store", "tests/backend/services"),
    "backend/store/metrics.py": ("tests/backend/store", "tests/backend/services"),
    "lora_alpha/analysis/collapse.py": ("tests/backend/services/test_analysis_limits.py",),
    "lora_alpha/analysis/equivalence.py": ("tests/lora_alpha/analysis/test_verdicts.py",),
    "lora_alpha/analysis/recommend.py": ("tests/lora_alpha/analysis/test_verdicts.py",),
    "lora_alpha/analysis/refine.py": ("tests/backend/services/test_analysis_limits.py",),
    "lora_alpha/analysis/rules.py": ("tests/lora_alpha/analysis/test_verdicts.py",),
}


def found(patterns: tuple[str, ...]) -> list[str]:
    """The modules that ``patterns`` match, as paths from the root."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.name != "__init__.py"}
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def tests_of(module: str) -> list[str]:
    """Test files (or folders of them) whose failure counts as noticing a change of ``module``."""
    mirrored = ROOT / "tests" / Path(module).parent
    own = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(
            mirrored.glob(f"test_{Path(module).stem}*.py"), reverse=True
        )  # quick "_exact" first
    ]
    also = ALSO.get(module, ())
    return [*(path for path in own if not path.startswith(also)), *also]
