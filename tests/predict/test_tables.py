"""Candidates from the files that packing reads: the same formulas, numbers by the same rules."""

import numpy as np
import pandas
import pytest

from irnet_hpc.data.reading import Reading
from irnet_hpc.errors import UserError
from irnet_hpc.predict.candidates import BATCH_ROWS, frame_candidates, open_table

FRAME = pandas.DataFrame({"Compound": ["NaN", "Fe2O3"], "T": [300.5, 77.25], "note": ["a", ""]})


def read(path, columns=("T",), **reading):
    with open_table(str(path), columns, True, Reading(**reading)) as table:
        return table.header, list(table.batches)


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "xlsx", "parquet", "feather", "json"])
def test_candidates_are_the_same_in_every_file(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    writers = {
        "csv": lambda: FRAME.to_csv(path, index=False),
        "tsv": lambda: FRAME.to_csv(path, index=False, sep="\t"),
        "txt": lambda: FRAME.to_csv(path, index=False, sep=";", decimal=","),
        "xlsx": lambda: FRAME.to_excel(path, index=False),
        "json": lambda: FRAME.to_json(path, orient="records"),
    }
    if ending in ("parquet", "feather"):
        pytest.importorskip("pyarrow")
    writers.get(ending, lambda: getattr(FRAME, f"to_{ending}")(path))()
    header, (batch,) = read(path)
    # The output keeps the columns of the table under their own names.
    assert header == ["Compound", "T", "note"] and batch.fields[0][::2] == ["NaN", "a"]
    assert batch.formula == ["NaN", "Fe2O3"] and batch.problems == {}
    assert batch.columns[:, 0].tolist() == [300.5, 77.25]


def test_rows_of_a_workbook_come_in_batches(tmp_path):
    n_rows = BATCH_ROWS + 3
    frame = pandas.DataFrame({"formula": [f"Fe{n}O" for n in range(1, n_rows + 1)]})
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    _, batches = read(tmp_path / "t.xlsx", columns=())
    assert [len(batch.formula) for batch in batches] == [BATCH_ROWS, 3]


def test_a_cell_that_is_no_number_is_a_problem_of_its_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('Formula,T\nFeO,"1,234.5"\nMgO,>3\nCaO,"1,234"\nZnO,-9999\nSrO,3.5 ± 0.1\n')
    _, (batch,) = read(path, missing=("-9999",))
    assert sorted(batch.problems) == [1, 2, 3]
    np.testing.assert_array_equal(batch.columns[:, 0], [1234.5, *[np.nan] * 3, 3.5])


def test_the_columns_have_the_names_that_packing_gave_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Sample,Composition,Temp (K)\nFeO,MgO,5\n")
    reading = {"rename": {"Temp (K)": "T"}}
    assert read(path, **reading)[1][0].formula == ["MgO"]
    header, (batch,) = read(path, **reading, formula_column="Sample")
    assert header == ["Sample", "Composition", "Temp (K)"] and batch.formula == ["FeO"]
    assert batch.columns.tolist() == [[5]]
    for name in ("Smple", "Temp"):
        with pytest.raises(UserError, match="unknown column of"):
            read(path, **reading, formula_column=name)
    path.write_text("Composition,Compound,T\nFeO,MgO,5\n")
    with pytest.raises(UserError, match="several columns that may hold the formulas"):
        read(path)


def test_a_frame_may_call_its_formulas_otherwise():
    (batch,) = frame_candidates(FRAME, ["T"], True).batches
    assert batch.formula == ["NaN", "Fe2O3"] and batch.columns[:, 0].tolist() == [300.5, 77.25]
