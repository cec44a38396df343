"""Use cases of saved views: names for page addresses."""

from __future__ import annotations

from sqlalchemy import select

from backend.services.presenters import timestamp
from backend.store.engines import Store
from backend.store.jobs import new_id
from backend.store.tables import ViewRow
from lora_alpha.errors import NotFound
from lora_alpha.wire.jobs import SavedView, ViewRequest
from lora_alpha.wire.sweeps import Page

MAX_VIEWS = 1000


def create(store: Store, request: ViewRequest, *, now: float) -> SavedView:
    """Save a view; a name that exists gets the new address."""
    with store.write() as session:
        row = session.scalars(select(ViewRow).where(ViewRow.name == request.name)).first()
        if row is None:
            row = ViewRow(id=new_id(), name=request.name, address=request.address, created=now)
            session.add(row)
        row.address, row.created = request.address, now
        return _show(row)


def listing(store: Store) -> Page[SavedView]:
    """Every saved view by name."""
    with store.read() as session:
        rows = session.scalars(select(ViewRow).order_by(ViewRow.name).limit(MAX_VIEWS))
        return Page(items=[_show(row) for row in rows])


def remove(store: Store, view_id: str) -> None:
    """Forget a view.

    Raises:
        NotFound: If there is none.
    """
    with store.write() as session:
        row = session.get(ViewRow, view_id)
        if row is None:
            raise NotFound(f"there is no saved view {view_id!r}")
        session.delete(row)


def _show(row: ViewRow) -> SavedView:
    created = timestamp(row.created)
    assert created is not None
    return SavedView(id=row.id, name=row.name, address=row.address, created_at=created)
