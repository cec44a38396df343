from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from lora_alpha.errors import InvalidSpec
from lora_alpha.workloads.huggingface.data.tables import file_digest, read_table, split_files
from tests.tiny_folders import write_jsonl

ROWS = [{"question": "wie, so?", "answer": 'a "b"\n'}, {"question": "zwei", "answer": "2"}]


def write(folder: Path, ending: str) -> Path:
    path = folder / f"rows{ending}"
    if ending == ".jsonl":
        return write_jsonl(path, ROWS)
    if ending == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    comma = "," if ending == ".csv" else "\t"
    lines = [
        comma.join(("question", "answer")),
        comma.join(('"wie, so?"', '"a ""b""\n"')),
        comma.join(("zwei", "2")),
    ]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    table = read_table([write(tmp_path, ending)], option="data")

    assert table.columns == ("question", "answer")
    assert list(table.rows) == ROWS
    assert len(read_table([write(tmp_path, ending)], option="data", limit=1).rows) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"[1, 2]\n", r"line 1: list instead of an object"),
        ("x.jsonl", b'\n{"a": 1}\n{"a": 2', r"line 3: no valid JSON"),
        ("x.jsonl", b'{"a": "\xff"}\n', r"is not UTF-8 text"),
        ("x.jsonl", b"\n\n", r"is empty"),
        ("x.csv", b"a,b\n", r"is empty"),
        ("x.tsv", b"a\tb\n1\t2\t3\n", r"line 2: another number of fields than the 2"),
        ("x.parquet", b"PAR1 no", r"cannot be read as Parquet"),
        ("x.json", b"[]", r"ends in '.json': what can be read are .jsonl"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InvalidSpec, match=rf"workload_options.data: .*{message}"):
        read_table([tmp_path / name], option="data")


def test_a_folder_is_split_by_the_names_of_its_files(tmp_path: Path) -> None:
    for name in ("main/train-0.jsonl", "main/train-1.jsonl", "main/test.jsonl", "main/notes.txt", "x.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_jsonl(tmp_path / name, ROWS)

    found = split_files(tmp_path, "", option="data")
    assert [file.name for file in found.train] == ["train-0.jsonl", "train-1.jsonl"]
    assert [file.name for file in found.test] == ["test.jsonl"]
    chosen = split_files(tmp_path, "main/*-1.*", option="data")
    assert [file.name for file in chosen.train] == ["train-1.jsonl"]
    assert chosen.test == ()


def test_files_with_other_columns_are_not_mixed(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", ROWS)
    second = write_jsonl(tmp_path / "b.jsonl", [{"text": "x"}])

    with pytest.raises(InvalidSpec, match=r"b.jsonl has the columns text but a.jsonl has question, answer"):
        read_table([first, second], option="data")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("../*", "without .."), ("/etc/*", "relative to"), ("test*", "no table below .* matches 'test")],
)
def test_a_pattern_stays_below_its_folder(tmp_path: Path, pattern: str, message: str) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(InvalidSpec, match=rf"workload_options.data_files: .*{message}"):
        split_files(tmp_path, pattern, option="data")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "secret.jsonl", ROWS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").symlink_to(tmp_path / "secret.jsonl")

    with pytest.raises(InvalidSpec, match="holds no table"):
        split_files(tmp_path / "data", "", option="data")


def test_the_digest_is_of_content_and_order(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", ROWS)
    copy = write_jsonl(tmp_path / "copy.jsonl", ROWS)
    other = write_jsonl(tmp_path / "b.jsonl", ROWS[:1])

    assert file_digest([first]) == file_digest([copy])
    assert file_digest([first, other]) != file_digest([other, first])
