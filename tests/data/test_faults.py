"""Cells that are no numbers: the whole column decides, so the order of its rows decides nothing."""

import itertools
import json

import pytest

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.pack import cli as pack
from irnet_hpc.pack.store import open_pack
from tests.builders import load_table

FORMULAS = ("Fe2O3", "GaAs", "ZnO", "NaCl")
MOST_NUMBERS = (1.5, "high", 2.5, 3.5)
MOST_TEXTS = ("as cast", "wide", 2.5, "rolled")


def write(folder, ending: str, cells):
    """Write a table in which `mass` is a feature, and `T` has these cells."""
    path = folder / f"t.{ending}"
    rows = list(zip(FORMULAS, (2.1, 1.4, 3.3, 8.0), cells, strict=True))
    if ending == "csv":
        path.write_text(
            "formula,band_gap,mass,T\n" + "".join(f"{f},{g},{g + 1},{t}\n" for f, g, t in rows)
        )
    else:
        path.write_text(
            "".join(
                json.dumps({"formula": f, "targets": {"band_gap": g}, "mass": g + 1, "T": t}) + "\n"
                for f, g, t in rows
            )
        )
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("cells", list(itertools.permutations(MOST_NUMBERS))[::5])
def test_a_text_among_numbers_costs_its_row_in_any_order(tmp_path, capsys, ending, cells):
    table = write(tmp_path, ending, cells)
    options = ["--source", str(table), "--features", "columns", "--pack-dir", str(tmp_path)]
    assert exit_status(lambda: pack.main([*options, "--strict"])) == ExitStatus.USER_ERROR
    line = cells.index("high") + (2 if ending == "csv" else 1)
    assert f"line {line}: T " in capsys.readouterr().err
    assert pack.main(options) == 0
    rejected = (tmp_path / "t-columns.rejected.csv").read_text().splitlines()
    formula = FORMULAS[cells.index("high")]
    assert [row.split(",") for row in rejected[1:]] == [
        [
            str(line),
            f"t-{cells.index('high') + 1}",
            formula,
            "not a number",
            "",
            "T",
            "high",
            "",
            "",
        ]
    ]
    with open_pack(tmp_path / "t-columns.h5") as packed:
        assert packed.n_rows == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("cells", list(itertools.permutations(MOST_TEXTS))[::5])
def test_a_column_of_mostly_text_is_left_out_in_any_order(tmp_path, capsys, ending, cells):
    table = write(tmp_path, ending, cells)
    options = ["--source", str(table), "--features", "columns", "--pack-dir", str(tmp_path)]
    assert pack.main(options) == 0
    assert "columns left out: T" in capsys.readouterr().out
    with open_pack(tmp_path / "t-columns.h5") as packed:
        assert packed.to_frame().filter(regex="mass|T$").columns.tolist() == ["mass"]


def test_a_column_that_is_no_feature_may_hold_anything(tmp_path):
    table = write(tmp_path, "csv", MOST_NUMBERS)
    assert pack.main(["--source", str(table), "--pack-dir", str(tmp_path)]) == 0


def test_a_property_of_mostly_text_is_the_wrong_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,band_gap\nFeO,2024-01-02\nMgO,2024-01-03\nCaO,7\n")
    with pytest.raises(UserError, match=r"line 2: band_gap .*a date.*1 rows have a number, and 2"):
        load_table(str(path))
    # A unit in a header does not make a property of a column of remarks.
    path.write_text("formula,band_gap,Furnace (K)\nFeO,1,old\nMgO,7,new\n")
    loaded = load_table(str(path))
    assert loaded.units == {"band_gap": "eV"} and loaded.table.faults == {}
    assert loaded.table.ignored == ("Furnace (K)",)


def test_the_first_bad_cell_of_a_row_is_named_and_the_others_beside_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,band_gap,density\nFeO,1,5\nMgO,>7,~3\nCaO,7,3\n")
    (fault,) = load_table(str(path)).table.faults.values()
    assert (fault.column, fault.text, fault.detail) == ("band_gap", ">7", "also density '~3'")


def test_a_row_of_another_length_is_left_out_unless_most_rows_are(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("formula,band_gap\nFeO,1\nMgO,7,8\nCaO,7\n")
    table = load_table(str(path)).table
    assert {row: fault.text for row, fault in table.faults.items()} == {1: "MgO,7,8"}
    # Decimal commas without quotes: no row has the length of the header.
    path.write_text("formula,band_gap\nFeO,1,5\nMgO,7,8\n")
    with pytest.raises(UserError, match="line 2 must have 2 fields, got 3; so do 1 more lines"):
        load_table(str(path))
