"""A column of numbers and texts is judged as a whole: the order of its rows decides nothing."""

import itertools
import json

import pytest

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.pack import cli as pack
from irnet_hpc.pack.store import open_pack

FORMULAS = ("Fe2O3", "GaAs", "ZnO", "NaCl")
MOST_NUMBERS = (1.5, "n/a", 2.5, 3.5)
MOST_TEXTS = ("as cast", "n/a", 2.5, "rolled")


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
def test_a_text_among_numbers_is_refused_in_any_order(tmp_path, capsys, ending, cells):
    table = write(tmp_path, ending, cells)
    options = ["--source", str(table), "--features", "columns", "--pack-dir", str(tmp_path)]
    assert exit_status(lambda: pack.main(options)) == ExitStatus.USER_ERROR
    line = cells.index("n/a") + (2 if ending == "csv" else 1)
    assert f"line {line}: T " in capsys.readouterr().err


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
