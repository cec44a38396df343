"""Names that this project knows, and those that other installed packages add by entry points.

A package that is installed beside this one offers an object with two lines in its ``pyproject.toml``::

    [project.entry-points."lora_alpha.methods"]
    lora-half = "lora_half:LORA_HALF"
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

T = TypeVar("T")
LOG = logging.getLogger(__name__)


class Registry(Mapping[str, T]):
    """Built-in objects by name, then those that entry points of ``group`` offer, by name too.

    Packages are looked for when the registry is first read, not when it is made: theirs may import ours. An
    offer that cannot be used (its import fails, its name is taken or is not the object's own, its type is
    another, a check fails) is left out: one warning in the log names all of them with the reason, and
    nothing is raised.

    Args:
        group: Name of the entry points' group.
        kind: What an offer must be an instance of.
        builtin: The project's own objects, which no package can replace.
        name_of: An object's own name, which must be that of its entry point.
        check: Raises whatever it likes if an offer cannot be used after all.
    """

    def __init__(
        self,
        group: str,
        kind: type[T],
        builtin: Mapping[str, T],
        *,
        name_of: Callable[[T], str],
        check: Callable[[T], object] = lambda _: None,
    ) -> None:
        self.group = group
        self._kind = kind
        self._builtin = dict(builtin)
        self._name_of = name_of
        self._check = check
        self._found: dict[str, T] | None = None
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> T:
        """The object of that name."""
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        """Built-in names first."""
        return iter(self._all())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all())

    def refresh(self) -> None:
        """Look for packages again at the next reading, as after an installation in a running notebook."""
        with self._lock:
            self._found = None

    def _all(self) -> dict[str, T]:
        with self._lock:
            if self._found is None:
                # What is imported below may read this very registry: it finds what is here so far.
                self._found = dict(self._builtin)
                self._add_offers(self._found)
            return self._found

    def _add_offers(self, found: dict[str, T]) -> None:
        problems = []
        for offer in sorted(entry_points(group=self.group), key=lambda offer: (offer.name, offer.value)):
            try:
                found[offer.name] = self._load(offer, found)
            except (Exception, SystemExit) as error:  # whatever a stranger's package does must not stop us
                reason = str(error) if isinstance(error, _Unusable) else f"{type(error).__name__}: {error}"
                package = f" of {offer.dist.name}" if offer.dist else ""
                problems.append(f"{offer.name} = {offer.value}{package}: {reason}")
        if problems:
            LOG.warning("entry points of %s that are left out: %s", self.group, "; ".join(problems))

    def _load(self, offer: EntryPoint, found: Mapping[str, T]) -> T:
        if offer.name in found:
            raise _Unusable(f"there is a {offer.name!r} already: choose another name")
        loaded = offer.load()
        if not isinstance(loaded, self._kind):
            raise _Unusable(f"it is a {type(loaded).__name__}: it must be a {self._kind.__name__}")
        own = self._name_of(loaded)
        if own != offer.name:
            raise _Unusable(f"the object calls itself {own!r}: both names must be the same")
        self._check(loaded)
        return loaded


class _Unusable(Exception):
    """Why an offer is left out."""
