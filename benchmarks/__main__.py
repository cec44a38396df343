"""``python -m benchmarks [NAME …]``: runs the named benchmarks, or lists them; some take options."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys

import benchmarks

# Those whose ``main`` takes options and returns an exit status.
WITH_OPTIONS = {"coverage", "gpu"}


def main() -> int:
    """Run every benchmark that is named; each module has a ``main()`` that prints its table."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_"]
    arguments = sys.argv[1:]
    if arguments and arguments[0] in WITH_OPTIONS:
        status: int = importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
        return status
    unknown = sorted(set(arguments) - {*names, "all"})
    if unknown or not arguments:
        options = " | ".join(f"{name} [--help]" if name in WITH_OPTIONS else name for name in names)
        print(f"usage: python -m benchmarks all | {options}")
        return 2 if unknown else 0
    print(f"Python {platform.python_version()}, {platform.machine()}, {platform.system()}")
    # All of them, but for those that are checks of their own.
    for name in [name for name in names if name not in WITH_OPTIONS] if "all" in arguments else arguments:
        print(f"\n== {name}")
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
