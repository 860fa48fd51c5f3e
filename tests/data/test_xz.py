"""Compressed tables whose streams are several, padded, cut or damaged: all rows or one sentence."""

import gzip
import lzma
import shutil
import subprocess

import pytest

from irnet_hpc.data.raw_table import read_lines
from irnet_hpc.data.xz import open_xz
from irnet_hpc.errors import UserError
from irnet_hpc.predict.candidates import open_table
from tests.builders import load_table

HEAD = b"formula,band_gap\n"
ROWS = [b"Fe%dO,%d\n" % (n, n) for n in range(1, 201)]
PARTS = [b"".join(ROWS[:100]), b"".join(ROWS[100:])]
TEXT = HEAD + b"".join(PARTS)
FIRST, SECOND = lzma.compress(HEAD + PARTS[0]), lzma.compress(PARTS[1])
FORMULAS = [f"Fe{n}O" for n in range(1, 201)]


def candidates(path) -> list[str]:
    with open_table(str(path), [], True) as table:
        return [formula for batch in table.batches for formula in batch.formula]


@pytest.mark.parametrize(
    "content",
    [
        FIRST + SECOND,
        FIRST + bytes(4) + SECOND,
        FIRST + bytes(2**18) + SECOND,
        FIRST + bytes(8) + SECOND + bytes(12),
        FIRST + lzma.compress(b"") + bytes(4) + SECOND,
        lzma.compress(TEXT, lzma.FORMAT_ALONE),
    ],
    ids=["two", "padded", "much padding", "padded end", "empty stream", "lzma"],
)
def test_every_stream_of_an_xz_table_is_read(tmp_path, content):
    path = tmp_path / "t.csv.xz"
    path.write_bytes(content)
    with open_xz(path) as file:
        assert file.read() == TEXT
    if shutil.which("xz"):
        assert subprocess.run(["xz", "-dc", path], capture_output=True).stdout == TEXT
    table = load_table(str(path)).table
    assert table.formula == FORMULAS
    assert table.targets["band_gap"].sum() == 200 * 201 / 2
    assert candidates(path) == FORMULAS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.xz", FIRST + b"\xfd7zXY" + SECOND[5:]),  # damaged head
        ("t.csv.xz", FIRST + bytes(3) + SECOND),
        ("t.csv.xz", FIRST + SECOND + bytes(2)),
        ("t.csv.xz", FIRST + SECOND[:-20]),
        ("t.csv.xz", FIRST + SECOND[:7]),
        ("t.csv.xz", FIRST + b"and more"),
        ("t.csv.xz", bytes(4) + FIRST),
        ("t.csv.xz", b""),
        ("t.csv.gz", gzip.compress(TEXT[:900]) + b"\x1f\x8c" + gzip.compress(TEXT[900:])[2:]),
        ("t.csv.gz", gzip.compress(TEXT[:900]) + gzip.compress(TEXT[900:])[:-9]),
        ("t.csv.gz", gzip.compress(TEXT[:900]) + b"and more"),
    ],
)
def test_a_table_with_an_unreadable_part_is_refused_and_not_cut(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_table(str(path))
    with pytest.raises(UserError):
        candidates(path)


def test_every_member_of_a_padded_gz_table_is_read(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(
        gzip.compress(TEXT[:900]) + bytes(512) + gzip.compress(TEXT[900:]) + bytes(512)
    )
    assert "".join(read_lines(path)).encode() == TEXT
    assert candidates(path) == FORMULAS
