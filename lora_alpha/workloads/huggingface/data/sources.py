"""Where a model or a data set lies: a local path below an allowed root, or a snapshot of a hub repository.

A name is local where it begins with ``/``, ``~`` or ``.``, where it ends like a data file, or where it exists
below an allowed root; any other is a repository ``owner/name`` or ``name``. What lies outside the roots is
refused after links are followed. Nothing but configuration, tokenizer, safetensors and tables is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.huggingface.problems import problem

DATA_SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

Roots = Sequence[Path] | None


def model_folder(name: str, *, revision: str, roots: Roots) -> Path:
    """The folder with the files of model ``name``, fetched from the hub if need be.

    Args:
        name: Local folder, or repository.
        revision: Branch, tag or commit of a repository; "" for its main branch.
        roots: Folders that local models may come from; None: anywhere (the caller's own process).

    Raises:
        InvalidSpec: If the folder is missing or outside the roots, or the hub does not give the repository.
    """
    path = local_path(name, option="model", roots=roots)
    if path is None:
        return _snapshot(name, option="model", revision=revision, kind="model", patterns=MODEL_FILES)
    if not path.is_dir():
        raise problem("model", f"{path} is a file: give the folder that holds config.json and the weights")
    return path


def data_path(name: str, *, option: str, roots: Roots) -> Path:
    """The file or folder of data set ``name``, fetched from the hub if need be.

    Args:
        name: Local file or folder, or data-set repository.
        option: The option that named it, for messages.
        roots: As for :func:`model_folder`.

    Raises:
        InvalidSpec: As there.
    """
    path = local_path(name, option=option, roots=roots)
    if path is not None:
        return path
    patterns = [f"*{suffix}" for suffix in DATA_SUFFIXES]
    return _snapshot(name, option=option, revision="", kind="dataset", patterns=patterns)


def local_path(name: str, *, option: str, roots: Roots) -> Path | None:
    """The existing local path that ``name`` means, with links followed; None where it is a hub name.

    Raises:
        InvalidSpec: If it is local but missing, or lies outside the roots.
    """
    given = Path(name).expanduser()
    if given.is_absolute() or name.startswith("."):
        candidates = [given]
    else:
        candidates = [base / given for base in (*(roots or ()), Path.cwd())]
    found = next((path.resolve() for path in candidates if path.exists()), None)
    if found is None:
        local = given.is_absolute() or name.startswith((".", "~")) or given.suffix in {*DATA_SUFFIXES, ".txt"}
        if local or not HUB_NAME.fullmatch(name):
            raise problem(option, f"there is no file or folder {name!r} on the machine that trains")
        return None
    _check_allowed(found, option=option, roots=roots)
    return found


def _check_allowed(path: Path, *, option: str, roots: Roots) -> None:
    if roots is None or any(path.is_relative_to(root.resolve()) for root in roots):
        return
    allowed = ", ".join(str(root) for root in roots)
    raise problem(
        option,
        f"{path} lies outside the allowed folders ({allowed}): move it there, or name its folder in "
        "LORA_ALPHA_ALLOWED_ROOTS and start again",
    )


def _snapshot(name: str, *, option: str, revision: str, kind: str, patterns: list[str]) -> Path:
    try:
        # Models keep copies in other formats in subfolders; data sets keep their configurations there.
        folder = snapshot_download(
            name,
            repo_type=kind,
            revision=revision or None,
            allow_patterns=patterns,
            ignore_patterns=["*/*"] if kind == "model" else None,
        )
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise _not_fetched(name, option=option, kind=kind, error=error) from error
    return Path(folder)


def _not_fetched(name: str, *, option: str, kind: str, error: Exception) -> InvalidSpec:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return problem(
        option,
        f"{name!r} is no local folder, and as a {kind} on the hub it could not be fetched ({reason[:200]}): "
        "check the name and the connection, or give the path of a local copy",
    )
