"""Numbers as people write them, and columns that identify a row."""

import json
import math

import numpy as np
import pytest

from irnet_hpc.data.download.records import number
from irnet_hpc.data.identifying import identifying_name
from irnet_hpc.data.loading import load_source
from irnet_hpc.data.numerals import parse_number, parse_reported
from irnet_hpc.data.reading import Reading
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.predict.candidates import open_table
from tests.builders import load_table

# float() takes all of these.
NOT_MEANT = ["2_1", "3_805", "1_000.5", "1e1_0", "infinity", "-inf", "１２", "٣.٥", "-nan", "+NaN"]


@pytest.mark.parametrize(
    "text", [*NOT_MEANT, "0x10", "1,5", "1.2.3", "5 GPa", "--1", "", "1e", "."]
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("21", 21), ("-3.805", -3.805), (" +1. ", 1), (".5", 0.5), ("1.5e-3", 0.0015), ("2E2", 200)],
)
def test_numbers_have_digits_a_point_and_an_exponent(text, value):
    assert parse_number(text) == parse_reported(text) == value


@pytest.mark.parametrize("text", ["", "  ", "nan", "NaN"])
def test_empty_and_nan_are_not_reported(text):
    assert math.isnan(parse_reported(text))


@pytest.mark.parametrize("text", [*NOT_MEANT, "1e999"])
def test_a_property_that_is_no_number_is_refused_with_its_line(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(f"formula,band_gap\nFeO,1\nMgO,{text}\n")
    (fault,) = load_table(str(path)).table.faults.items()
    assert (fault[0], fault[1].column, fault[1].text) == (1, "band_gap", text)
    with pytest.raises(UserError, match="line 3") as refused:
        load_source(resolve_source(path, reading=Reading(strict=True)))
    assert text in str(refused.value)
    assert number(text) is None


def test_candidates_with_such_a_feature_are_not_predicted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,t\n" + "".join(f"FeO,{text}\n" for text in ["300", *NOT_MEANT, ""]))
    with open_table(str(path), ["t"], True) as table:
        (batch,) = table.batches
    assert batch.columns[0, 0] == 300 and np.isnan(batch.columns[1:]).all()
    assert sorted(batch.problems) == list(range(1, len(NOT_MEANT) + 2))


def test_a_column_of_screw_axes_or_codes_is_left_out_and_named(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"Fe{n}O,{n},{n % 2 + 2}_1,{n:05d},{n / 7}\n" for n in range(1, 30)]
    path.write_text("formula,band_gap,screw,entry,mass\n" + "".join(rows))
    table = load_table(str(path), columns=True).table
    assert list(table.columns) == ["mass"]
    assert table.ignored == ("screw", "entry")


def test_columns_that_identify_are_left_out_and_named(tmp_path):
    path = tmp_path / "t.csv"
    header = ",formula,band_gap,Unnamed: 0,icsd,place,shuffled,temperature,valence,\n"
    order = [(7 * n) % 30 for n in range(30)]
    rows = [
        f"{n},Fe{n + 1}O,1.5,{n},{7 * n},{n + 1},{order[n]},{301 + n},{n % 3},\n" for n in range(30)
    ]
    path.write_text(header + "".join(rows))
    table = load_table(str(path), columns=True).table
    # The temperature rises with the row, but does not number it.
    assert sorted(table.columns) == ["temperature", "valence"]
    assert table.material_id == [str(7 * n) for n in range(30)]  # of the one column of ids
    assert table.ignored == (
        "column 1 (without a name)",
        "Unnamed: 0 (an index)",
        "place (row numbers)",
        "shuffled (row numbers)",
        "column 10 (without a name)",
    )


def test_an_id_that_is_text_in_some_rows_is_left_out_and_not_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,band_gap,icsd,doi,t\nFeO,1,1001,a,5\nMgO,2,1002;7,b,6\n")
    table = load_table(str(path), columns=True).table
    assert (list(table.columns), table.ignored) == (["t"], ("doi (an id)",))
    assert table.material_id == ["1001", "1002;7"]


def test_keys_of_json_lines_that_identify_are_left_out_and_named(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [
        {"formula": f"Fe{n}O", "targets": {"band_gap": 1}, "entry_id": 5 * n, "n": n, "t": 3}
        for n in range(1, 21)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = load_table(str(path), columns=True).table
    assert list(table.columns) == ["t"]
    assert table.ignored == ("entry_id (an id)", "n (row numbers)")


def test_an_index_that_is_named_as_a_property_is_one(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,index,t\n" + "".join(f"Fe{n}O,{n},{n * n}\n" for n in range(1, 21)))
    table = load_table(str(path), units={"index": "1"}, columns=True).table
    assert table.targets["index"].tolist() == list(range(1, 21))


@pytest.mark.parametrize(
    ("name", "identifies"),
    [
        *((name, True) for name in ("", "index", "Unnamed: 0", "level_0", "id", "ID", "sample_id")),
        *((name, True) for name in ("materialId", "icsd", "ICSD number", "id_icsd", "No.", "#")),
        *((name, True) for name in ("Unnamed: 0.1", "S. No.", "Sl No", "ICSD #", "CollCode")),
        *((name, False) for name in ("refractive_index", "atomic number", "No", "solid", "hybrid")),
        *((name, False) for name in ("mp", "cod", "row", "Identity", "grid", "width", "fluid")),
        *((name, False) for name in ("SnO", "sno", "sl", "code", "serial")),
    ],
)
def test_names_of_indices_and_ids_are_whole_names(name, identifies):
    assert bool(identifying_name(name)) == identifies
