"""From a name of the catalogue to the workload that trains. Implementations are imported when asked for."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.resolve import problems_from
from lora_alpha.errors import InvalidSpec, MissingExtra, WorkloadError
from lora_alpha.workloads.base import Workload


def load_workload(name: str, options: dict[str, Any], *, roots: Sequence[Path] | None = None) -> Workload:
    """The workload ``name`` with ``options`` laid over its defaults; nothing costly happens here.

    Args:
        name: Of the catalogue.
        options: What differs from the defaults.
        roots: Folders that local models and data may come from; None: anywhere, for a caller that trains in
            its own process. A service hands in its allowed roots.

    Raises:
        InvalidSpec: If the name is unknown or an option is invalid.
        WorkloadError: If its implementation cannot be imported, or is no subclass of ``Workload``.
    """
    info = workload_info(name)
    try:
        parsed = info.options.model_validate(options)
    except ValidationError as error:
        raise InvalidSpec(problems_from(error, prefix="workload_options")) from None
    implementation = _implementation(name, info.implementation)
    return implementation(parsed, roots=roots) if info.reads_files else implementation(parsed)


def _implementation(name: str, place: str) -> Callable[..., Workload]:
    try:
        found = pkgutil.resolve_name(place)
    except MissingExtra:
        raise
    except (ImportError, AttributeError, ValueError) as error:
        raise WorkloadError(
            f"{name} names {place!r} as its implementation, which cannot be imported: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Workload)):
        raise WorkloadError(
            f"{name} names {place!r} as its implementation: it must be a subclass of Workload"
        )
    return found
