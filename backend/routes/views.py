"""/views: names for page addresses of the dashboard."""

from __future__ import annotations

import time

from fastapi import APIRouter

from backend.routes.deps import BackendDep
from backend.services import saved_views
from lora_alpha.wire.jobs import SavedView, ViewRequest
from lora_alpha.wire.sweeps import Page

router = APIRouter(prefix="/views", tags=["views"])


@router.get("")
def list_views(backend: BackendDep) -> Page[SavedView]:
    """Every saved view."""
    return saved_views.listing(backend.store)


@router.post("", status_code=201)
def save_view(request: ViewRequest, backend: BackendDep) -> SavedView:
    """Save a view; a name that exists gets the new address."""
    return saved_views.create(backend.store, request, now=time.time())


@router.delete("/{view_id}", status_code=204)
def delete_view(view_id: str, backend: BackendDep) -> None:
    """Forget a view."""
    saved_views.remove(backend.store, view_id)
