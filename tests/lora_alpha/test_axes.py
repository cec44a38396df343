import pytest

from lora_alpha.axes import parse_axis, parse_whole_axis


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 2,4", [1, 2, 4]),
        ("1 .. 64 x 4", [1, 4, 16, 64]),
        ("32, 2^5..2^7, 1000", [32, 64, 128, 1000]),
        ("2e-5", [2e-5]),
        ("1..3", [1, 2]),
        ("", []),
    ],
)
def test_parse_axis_reads_lists_powers_and_ranges(text, values):
    assert parse_axis(text) == pytest.approx(values)


@pytest.mark.parametrize("text", ["a", "1,-2", "8..2", "1..8 x1", "nan", "1..1e300 x1.001", "1e999"])
def test_parse_axis_names_what_it_cannot_read(text):
    with pytest.raises(ValueError, match="got"):
        parse_axis(text)


def test_parse_whole_axis_takes_zero_and_refuses_fractions():
    assert parse_whole_axis("0, 1..4") == [0, 1, 2, 4]
    with pytest.raises(ValueError, match="whole"):
        parse_whole_axis("1.5")
