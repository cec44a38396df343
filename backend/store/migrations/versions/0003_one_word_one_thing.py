"""One word, one thing: ``lr_schedule`` in training settings, kind ``hold`` in schedules of α"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = (("sweeps", "spec"), ("runs", "configuration"), ("jobs", "spec"), ("probes", "spec"))


def upgrade() -> None:
    _rewrite(lambda value: _renamed(value, key=("schedule", "lr_schedule"), kind=("drift", "hold")))


def downgrade() -> None:
    _rewrite(lambda value: _renamed(value, key=("lr_schedule", "schedule"), kind=("hold", "drift")))


def _rewrite(change: Callable[[Any], Any]) -> None:
    connection = op.get_bind()
    for name, column in COLUMNS:
        table = sa.table(name, sa.column("id", sa.String), sa.column(column, sa.JSON))
        rows = connection.execute(sa.select(table.c.id, table.c[column])).all()
        for row_id, before in rows:
            after = change(before)
            if after != before:
                connection.execute(sa.update(table).where(table.c.id == row_id).values({column: after}))


def _renamed(value: Any, *, key: tuple[str, str], kind: tuple[str, str]) -> Any:
    """``value`` with the words of training settings and of α schedules changed, however deep they are."""
    if isinstance(value, list):
        return [_renamed(item, key=key, kind=kind) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _renamed(item, key=key, kind=kind) for name, item in value.items()}
    if "target_metric" in changed and changed.get("kind") == kind[0]:
        changed["kind"] = kind[1]
    if key[0] in changed and "batch_size" in changed:  # training settings
        changed = {key[1] if name == key[0] else name: item for name, item in changed.items()}
    return changed
