"""What each extra of the package brings, and what to say where it is missing.

The base is light: a client, the importers and the analysis need neither torch nor a web server. Whatever
needs more asks here first, so that its absence is said with the command that ends it.
"""

from __future__ import annotations

from importlib.util import find_spec

from lora_alpha.errors import MissingExtra

# Modules by extra, as pyproject.toml declares their distributions.
SERVER = (
    "fastapi",
    "uvicorn",
    "pydantic_settings",
    "sqlalchemy",
    "alembic",
    "psycopg",
    "celery",
    "kombu",
    "redis",
    "dash",
    "plotly",
    "dash_mantine_components",
    "dash_iconify",
    "dash_ag_grid",
    "tsdownsample",
)
TRAIN = ("torch", "transformers", "huggingface_hub", "PIL", "sklearn")
EXTRAS = {"server": SERVER, "train": TRAIN}


def require(*modules: str, by: str) -> None:
    """Check that modules of the extras are installed; imports none of them.

    Args:
        modules: Names out of ``EXTRAS``.
        by: What needs them, as its user calls it.

    Raises:
        MissingExtra: If one is not installed; the message has the ``pip install`` that brings it.
    """
    missing = [name for name in modules if not _installed(name)]
    if missing:
        extras = [extra for extra, brought in EXTRAS.items() if set(missing) & set(brought)]
        extra = extras[0] if len(extras) == 1 else "all"
        raise MissingExtra(
            f"{by} needs {', '.join(missing)}, which the base installation leaves out: "
            f'pip install "lora-alpha[{extra}]"'
        )


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
