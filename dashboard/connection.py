"""How callbacks reach the API: a function that opens a client."""

from __future__ import annotations

from collections.abc import Callable

from lora_alpha.wire.client import Client

Connect = Callable[[], Client]
