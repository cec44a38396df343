from __future__ import annotations

from collections.abc import Iterator

import pytest

from lora_alpha.wire.client import Client
from tests.dashboard.service import FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with service.client() as opened:
        yield opened
