"""Tables of spreadsheets, of pandas and of databases: the same cells, whatever file holds them."""

import datetime
import io
import json
import tracemalloc
import zipfile

import numpy as np
import pandas
import pytest

from irnet_hpc.data import json_stream, raw_files
from irnet_hpc.data.loading import load_source
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError

openpyxl = pytest.importorskip("openpyxl")
FRAME = pandas.DataFrame(
    {
        "formula": ["NaN", "Fe2O3", "MgO", "CaO"],  # the first is sodium nitride
        "material_id": ["a", "b", "c", "null"],
        "band_gap": [1.5, np.nan, 7.25, 1 / 3],
        "note": ["two\nlines", "", None, "x"],
        "charge": [1, 2, 3, 4],
    }
)


def load(path, **reading):
    return load_source(resolve_source(path, reading=Reading(**reading)), columns=True)


def write(frame: pandas.DataFrame, path) -> None:
    writers = {
        ".csv": lambda: frame.to_csv(path, index=False),
        ".tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        ".txt": lambda: frame.to_csv(path, index=False, sep=";", decimal=","),
        ".xlsx": lambda: frame.to_excel(path, index=False),
        ".parquet": lambda: frame.to_parquet(path),
        ".feather": lambda: frame.to_feather(path),
        ".json": lambda: frame.to_json(path, orient="records", double_precision=15),
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True, double_precision=15),
    }
    writers[path.suffix]()


@pytest.mark.parametrize(
    "ending", [".csv", ".tsv", ".txt", ".xlsx", ".parquet", ".feather", ".json", ".jsonl"]
)
def test_a_table_is_the_same_in_every_file(tmp_path, ending):
    if ending in (".parquet", ".feather"):
        pytest.importorskip("pyarrow")
    path, frame = tmp_path / f"t{ending}", FRAME
    if ending in (".csv", ".tsv", ".txt"):
        frame = FRAME.assign(note=["one", "", None, "x"])
    write(frame, path)
    table = load(path).table
    assert table.formula == ["NaN", "Fe2O3", "MgO", "CaO"]
    assert table.material_id == ["a", "b", "c", "null"]
    np.testing.assert_allclose(table.targets["band_gap"], FRAME.band_gap, rtol=1e-15)
    assert table.columns["charge"].tolist() == [1, 2, 3, 4] and table.ignored == ("note",)
    # Lines are those of the file; a row of a file without lines is counted from 1.
    first = 2 if ending in (".csv", ".tsv", ".txt", ".xlsx") else 1
    assert table.line.tolist() == list(range(first, first + 4))
    assert table.faults == {}


def test_an_index_of_pandas_is_a_column_only_if_it_has_a_name(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    FRAME.drop(columns="material_id").set_axis(list("uvwx")).to_parquet(path)
    table = load(path).table
    assert table.material_id == [f"t-{row}" for row in range(1, 5)]
    assert table.ignored == ("note", "__index_level_0__ (an index)")
    FRAME.set_index("material_id").to_parquet(path)
    assert load(path).table.material_id == ["a", "b", "c", "null"]


def workbook(path, *rows, sheets=("Data",)):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name in sheets:
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


HEADER = ("Composition", "band_gap")


def test_rows_of_a_sheet_keep_their_numbers(tmp_path):
    rows = [[], HEADER, ["FeO", 1], [], ["MgO", "n/a"], ["CaO", 7.5, None, "a remark"]]
    table = load(workbook(tmp_path / "t.xlsx", *rows)).table
    assert table.line.tolist() == [3, 5, 6] and table.formula == ["FeO", "MgO", "CaO"]
    np.testing.assert_array_equal(table.targets["band_gap"], [1, np.nan, 7.5])


def test_cells_of_a_sheet_that_are_no_numbers_cost_their_rows(tmp_path):
    rows = [
        HEADER,
        *([f"Fe{n}O", n / 4] for n in range(1, 9)),
        ["MgO", "=B2+B3"],  # openpyxl stores no value, as some programs do not
        ["CaO", datetime.datetime(2024, 1, 31)],
        ["SrO", True],
        ["BaO", "~2.1"],
    ]
    table = load(workbook(tmp_path / "t.xlsx", *rows)).table
    assert [(int(table.line[row]), fault.reason) for row, fault in table.faults.items()] == [
        (10, "a spreadsheet formula without a stored value"),
        (11, "a date"),
        (12, "not a number"),
        (13, "an approximate value"),
    ]


def test_a_sheet_is_chosen_by_its_name(tmp_path):
    path = workbook(tmp_path / "t.xlsx", HEADER, ["FeO", 1], sheets=("Data", "Old"))
    with pytest.raises(UserError, match="has 2 sheets; choose one with --sheet: 'Data', 'Old'"):
        load(path)
    with pytest.raises(UserError, match=r"unknown sheet of .* 'Dta' \(did you mean 'Data'\?\)"):
        load(path, sheet="Dta")
    assert load(path, sheet="Old").table.formula == ["FeO"]
    (tmp_path / "t.csv").write_text("formula,band_gap\nFeO,1\n")
    with pytest.raises(UserError, match="--sheet names a sheet of an Excel workbook"):
        load(tmp_path / "t.csv", sheet="Data")


def rewritten(path, part: str, content: bytes):
    """Replace a part of a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()} | {part: content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'


@pytest.mark.parametrize(
    ("part", "content", "sentence"),
    [
        ("xl/worksheets/sheet1.xml", SHEET + b" " * 2**25, "unpacks to 32 MiB, more than"),
        ("xl/sharedStrings.xml", b"<sst>" + b" " * 2**25, "unpacks to 32 MiB, more than"),
        ("xl/styles.xml", b"<styleSheet>" + b" " * 2**25, "unpacks to 32 MiB, more than"),
        (
            "xl/worksheets/sheet1.xml",
            SHEET + b"<row>" + b'<c r="A1"/>' * 2**20,
            "has a row of more than 8 MiB",
        ),
        ("xl/worksheets/sheet1.xml", b"<!DOCTYPE a>" + SHEET, "has a document type"),
        ("xl/worksheets/sheet1.xml", SHEET + b"<row><c", "cannot be read as an Excel workbook"),
        ("xl/workbook.xml", b"", "cannot be read as an Excel workbook"),
    ],
)
def test_a_workbook_that_is_made_to_fill_the_memory_is_refused(
    tmp_path, monkeypatch, part, content, sentence
):
    # A sixteenth of the limits, so that a test does not take a gigabyte.
    monkeypatch.setattr(raw_files, "MAX_PART_BYTES", {b"<worksheet": 2**24, b"<sst": 2**23})
    path = rewritten(workbook(tmp_path / "t.xlsx", HEADER, ["FeO", 1]), part, content)
    tracemalloc.start()
    with pytest.raises(UserError, match=sentence) as error:
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
    assert "\n" not in str(error.value)


def test_texts_that_a_workbook_repeats_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "ALWAYS_UNPACKED", 2**20)
    rows = [HEADER, *(["Fe" * 15_000, 1] for _ in range(200))]
    path = workbook(tmp_path / "t.xlsx", *rows)
    with pytest.raises(UserError, match="unpacks to more than 300 times its size"):
        load(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "must be a list of JSON objects"),
        ("[1]", "object 1, must be an object, got '1'"),
        ('[{"formula": "FeO", "band_gap": 1}', "object 2, is not JSON"),
        ("", "must be a list of JSON objects"),
        ("[]", "is empty"),
        ('[{"formula": "FeO", "a": ' + "[" * 100_000, "is not JSON"),
    ],
)
def test_a_json_file_that_is_no_list_of_objects_is_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        load(path)


def test_json_objects_are_read_one_by_one_and_keep_their_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 7)
    path = tmp_path / "t.json"
    rows = [{"formula": f"Fe{n}O", "band_gap": n / 7, "id": n} for n in range(1, 50)]
    path.write_text(json.dumps(rows, indent=1))
    table = load(path).table
    assert table.targets["band_gap"].tolist() == [n / 7 for n in range(1, 50)]
    assert table.material_id == [str(n) for n in range(1, 50)]


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".xlsx"])
def test_a_file_that_is_none_of_its_kind_is_one_sentence(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    for content in (b"", b"formula,band_gap\n", io.BytesIO().getvalue() + b"PK\x03\x04junk"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as") as error:
            load(path)
        assert "\n" not in str(error.value)
