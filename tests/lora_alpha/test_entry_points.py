"""Built-in names stay whatever other packages offer, and good offers join them."""

from __future__ import annotations

import sys
from fractions import Fraction

import pytest

from lora_alpha.entry_points import Registry
from tests.installed_packages import write_package

GROUP = "lora_alpha.test_numbers"


@pytest.fixture
def install(packages):
    """``install(name, source, offers)``: a distribution with one module."""

    def write(name, source, offers):
        write_package(packages, name, {f"{name}.py": source}, {GROUP: offers})

    return write


def registry():
    return Registry(GROUP, Fraction, {"1/2": Fraction(1, 2)}, name_of=str)


def test_an_installed_package_adds_to_the_built_in_names(install, caplog):
    install("thirds", "from fractions import Fraction\nTHIRD = Fraction(1, 3)\n", {"1/3": "thirds:THIRD"})
    found = registry()
    assert list(found) == ["1/2", "1/3"]
    assert found["1/3"] == Fraction(1, 3)
    assert len(found) == 2
    assert not caplog.records


def test_offers_that_cannot_be_used_are_named_in_one_warning_and_left_out(install, caplog):
    good = "from fractions import Fraction\nHALF = Fraction(1, 2)\nTHIRD = Fraction(1, 3)\nTEXT = 'text'\n"
    install(
        "several",
        good,
        {
            "1/2": "several:HALF",
            "1/3": "several:THIRD",
            "1/4": "several:THIRD",
            "1/5": "several:TEXT",
            "1/6": "several:MISSING",
            "1/7": "broken",
            "1/8": "nowhere:OBJECT",
            "1/9": "leaving",
        },
    )
    install("another", good, {"1/3": "another:THIRD"})
    install("broken", "raise RuntimeError('half installed')\n", {})
    install("leaving", "raise SystemExit('no licence')\n", {})
    found = registry()
    assert list(found) == ["1/2", "1/3"]
    (record,) = caplog.records
    message = record.getMessage()
    for part in (
        "1/2 = several:HALF of several: there is a '1/2' already",
        "1/3 = several:THIRD of several: there is a '1/3' already",
        "1/4 = several:THIRD of several: the object calls itself '1/3'",
        "1/5 = several:TEXT of several: it is a str: it must be a Fraction",
        "1/6 = several:MISSING of several: AttributeError",
        "1/7 = broken of several: RuntimeError: half installed",
        "1/8 = nowhere:OBJECT of several: ModuleNotFoundError",
        "1/9 = leaving of several: SystemExit: no licence",
    ):
        assert part in message


def test_packages_are_looked_for_at_the_first_reading_and_after_a_refresh(install):
    found = registry()
    install("thirds", "from fractions import Fraction\nTHIRD = Fraction(1, 3)\n", {"1/3": "thirds:THIRD"})
    assert "1/3" in found
    install("fourths", "from fractions import Fraction\nFOURTH = Fraction(1, 4)\n", {"1/4": "fourths:FOURTH"})
    assert "1/4" not in found
    found.refresh()
    assert "1/4" in found


def test_a_package_that_reads_the_registry_while_it_is_loaded_finds_the_built_in_ones(
    install, monkeypatch, caplog
):
    found = registry()
    monkeypatch.setattr(sys.modules[__name__], "FOUND", found, raising=False)
    source = f"from {__name__} import FOUND\nTHIRD = FOUND['1/2'] - type(FOUND['1/2'])(1, 6)\n"
    install("reader", source, {"1/3": "reader:THIRD"})
    assert found["1/3"] == Fraction(1, 3)
    assert not caplog.records
