"""Raw tables of comma-separated values, good and bad."""

import gzip
import lzma

import numpy as np
import pytest

from irnet_hpc.errors import UserError
from tests.builders import load_table

TABLE = "formula,band_gap\nFe2O3,2.1\nNaN,\nSi,1.1\n"


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "mine.csv") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_a_table_is_the_same_however_it_is_packed(write):
    packed = {
        "t.csv": TABLE.encode(),
        "t.csv.gz": gzip.compress(TABLE.encode()),
        "t.csv.xz": lzma.compress(TABLE.encode()),
    }
    tables = [load_table(write(content, name)).table for name, content in packed.items()]
    assert len({table.sha256 for table in tables}) == 1
    for table in tables:
        assert table.formula == ["Fe2O3", "NaN", "Si"]  # the second is sodium nitride
        assert np.array_equal(table.targets["band_gap"], [2.1, np.nan, 1.1], equal_nan=True)
        assert table.material_id == ["t-1", "t-2", "t-3"]


def test_spreadsheet_marks_and_blank_lines_are_read_over(write):
    table = load_table(write("\ufeffformula, band_gap\r\nFeO,1\r\n\r\nMgO,7.8\r\n\r\n")).table
    assert table.formula == ["FeO", "MgO"]
    assert table.line.tolist() == [2, 4]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty; a table must name its columns"),
        ("formula,band_gap\n", "has a header and no rows"),
        (
            "stuff,band_gap\nFeO,1\n",
            "has no column named formula; its columns: stuff, band_gap",
        ),
        ("formula,gap\nFeO,1\n", "has no column named like a property"),
        ("formula,band_gap\nFeO,\nMgO,\n", "property 'band_gap' has no value in any row of"),
        (
            "formula,band_gap,band_gap\nFeO,1,2\n",
            "repeats column names: 'band_gap'; name each once",
        ),
        ("formula,band_gap\nFeO,1\nMgO\n", "line 3 must have 2 fields, got 1"),
        ("formula,band_gap\nFeO,1,2\n", "line 2 must have 2 fields, got 3"),
        ('formula,band_gap\nFeO,1\n"MgO,2\nCaO,3\n', "line 3 is not valid CSV"),
        ('formula,band_gap\n"Mg"O,2\n', "line 2 is not valid CSV"),
        ('formula,band_gap\n"MgO\n",2\n', "line 2: a quoted field extends over several lines"),
        (
            "formula,band_gap\nFeO,\nMgO,wide\n",
            "line 3: band_gap must be a finite number, or empty",
        ),
        ("formula,band_gap\nFeO,inf\n", "line 2: band_gap must be a finite number, or empty"),
        (
            "formula,band_gap,split\nFeO,1,train\nMgO,1,dev\n",
            "line 3: split must be train, val, test, got 'dev'",
        ),
        (b"formula,band_gap\nFe\xffO,1\n", "is not UTF-8 text"),
    ],
)
def test_a_table_that_is_not_sound_is_one_sentence(write, content, sentence):
    with pytest.raises(UserError) as error:
        load_table(write(content), columns=True)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty.csv.xz"),
        (b"", "empty.csv.gz"),
        (lzma.compress(TABLE.encode() * 1000)[:-40], "cut.csv.xz"),
        (gzip.compress(TABLE.encode() * 1000)[:-40], "cut.csv.gz"),
        (TABLE.encode(), "plain.csv.xz"),
        (TABLE.encode(), "plain.csv.gz"),
    ],
)
def test_a_packed_table_that_cannot_be_unpacked_is_one_sentence(write, content, name):
    with pytest.raises(UserError, match=r"cannot be unpacked|is empty"):
        load_table(write(content, name))
