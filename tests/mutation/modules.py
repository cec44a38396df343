"""Which modules are changed, and which tests have to notice.

A module's tests are those at its mirrored path (``lora_alpha/analysis/optimum.py`` →
``tests/lora_alpha/analysis/test_optimum*.py``), those of its folder (``backend/services/jobs/held.py`` →
``tests/backend/services/test_jobs*.py``) and whatever ``ALSO`` names for the module or its folder.
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
    "lora_alpha/analysis/intervals.py",
    "lora_alpha/analysis/law.py",
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
    "backend/services/jobs/": ("tests/backend/services",),
    "backend/store/engines.py": ("tests/backend/store",),
    "backend/store/jobs.py": ("tests/backend/store", "tests/backend/services"),
    "backend/store/metrics.py": ("tests/backend/store", "tests/backend/services"),
    "lora_alpha/analysis/collapse_verdict.py": (
        "tests/backend/services/test_analysis_limits.py",
        "tests/lora_alpha/analysis/test_collapse.py",
    ),
    "lora_alpha/analysis/collapse_words.py": ("tests/lora_alpha/analysis/test_collapse.py",),
    "lora_alpha/analysis/exponents.py": ("tests/lora_alpha/analysis/test_collapse_calibration.py",),
    "lora_alpha/analysis/leave_out.py": ("tests/lora_alpha/analysis/test_collapse_calibration.py",),
    "lora_alpha/analysis/equivalence.py": ("tests/lora_alpha/analysis/test_verdicts.py",),
    "lora_alpha/analysis/cells.py": ("tests/lora_alpha/analysis/test_recommend.py",),
    "lora_alpha/analysis/intervals.py": (
        "tests/lora_alpha/analysis/test_equivalence.py",
        "tests/lora_alpha/analysis/test_schedules.py",
    ),
    "lora_alpha/analysis/law.py": ("tests/lora_alpha/analysis/test_power_law_exact.py",),
    "lora_alpha/analysis/recommend.py": ("tests/lora_alpha/analysis/test_verdicts.py",),
    "lora_alpha/analysis/refine.py": ("tests/backend/services/test_analysis_limits.py",),
    "lora_alpha/analysis/rules.py": ("tests/lora_alpha/analysis/test_verdicts.py",),
}


def found(patterns: tuple[str, ...]) -> list[str]:
    """The modules that ``patterns`` match, as paths from the root."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.name != "__init__.py"}
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def tests_of(module: str) -> list[str]:
    """Test files whose failure counts as noticing a change of ``module``, the likeliest first."""
    path = Path(module)
    mirrored = ROOT / "tests" / path.parent
    own = [
        # In reverse, so that test_power_law_exact.py, which is quick, comes before test_power_law.py.
        *sorted(mirrored.glob(f"test_{path.stem}*.py"), reverse=True),
        *sorted(mirrored.parent.glob(f"test_{path.parent.name}*.py")),
    ]
    for also in ALSO.get(module, ALSO.get(f"{path.parent}/", ())):
        own += sorted((ROOT / also).rglob("test_*.py")) if (ROOT / also).is_dir() else [ROOT / also]
    return [test.relative_to(ROOT).as_posix() for test in dict.fromkeys(own)]
