"""Presets as the API shows them."""

from __future__ import annotations

from lora_alpha.catalog import workload_info
from lora_alpha.catalog.presets import PRESETS, Preset
from lora_alpha.wire.jobs import PresetItem


def listing() -> list[PresetItem]:
    """Every preset."""
    return [_show(preset) for preset in PRESETS.values()]


def _show(preset: Preset) -> PresetItem:
    options = workload_info(preset.request.workload).options.model_fields
    given = preset.request.workload_options
    return PresetItem(
        id=preset.name,
        name=preset.name,
        title=preset.title,
        question=preset.question,
        expect=preset.expect,
        page=preset.page,
        needs=[name for name, field in options.items() if field.is_required() and name not in given],
        request=preset.request.model_dump(mode="json", exclude_unset=True),
    )
