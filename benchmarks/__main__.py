"""``python -m benchmarks [NAME …]``: runs the named benchmarks, or lists them."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys

import benchmarks


def main() -> None:
    """Run every benchmark that is named; each module has a ``main()`` that prints its table."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_"]
    wanted = sys.argv[1:]
    unknown = sorted(set(wanted) - {*names, "all"})
    if unknown or not wanted:
        print(f"usage: python -m benchmarks all | {' | '.join(names)}")
        sys.exit(2 if unknown else 0)
    print(f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}")
    for name in names if "all" in wanted else wanted:
        print(f"\n== {name}")
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
