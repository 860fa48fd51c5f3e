"""The list of predictions: which rows, in which order, in a file that is complete."""

import csv
import gzip
import os

import numpy as np
import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json, write_text
from irnet_hpc.predict import cli as predict
from tests.predict.builders import numbers, table


def test_bounds_and_the_first_rows_are_those_of_the_whole_list_sorted(runs, ask):
    space = ("--enumerate", "Al|Cu-Ni|Fe-Ti, step 0.1")
    _, everything, _ = ask(runs[0], *space)
    value = numbers(everything, "predicted_mixing_enthalpy")
    ordered = np.sort(value)
    low, high = (
        ordered[[60, 120]] + ordered[[61, 121]]
    ) / 2  # between values, which are written rounded
    _, between, _ = ask(runs[0], *space, "--min", low, "--max", f"mixing_enthalpy={high}")
    assert between == [row for row, v in zip(everything, value, strict=True) if low <= v <= high]
    for flags, order in (((), -value), (("--lowest",), value)):
        _, first, _ = ask(runs[0], *space, "--top", 7, *flags)
        assert first == [everything[row] for row in np.argsort(order, kind="stable")[:7]]


@pytest.mark.parametrize(
    "bounds",
    [
        ["--min", "2_1"],
        ["--max", "nan"],
        ["--max", "1,5"],
        ["--min", "mixing_enthalpy=1e3x"],
        ["--min", "1", "--min", "mixing_enthalpy=0"],
    ],
)
def test_a_bound_is_one_number_that_people_write_and_given_once(bounds, runs, ask):
    status, _, err = ask(runs[0], "--enumerate", "Al-Ni, step 0.5", *bounds)
    assert status == 2 and f"error: {bounds[0]} must be" in err


def test_the_file_is_whole_and_says_its_unit(runs, tmp_path, alloys_pack, monkeypatch, capfd):
    monkeypatch.setenv("IRNET_PACKS", str(alloys_pack.parent))
    formulas, output = table(tmp_path / "t.csv", ["AlNi", "Foo"]), tmp_path / "out.csv.gz"
    assert predict.main([str(runs[0]), str(formulas), "-o", str(output)]) == 0
    with gzip.open(output, "rt") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["AlNi", "Foo"]
    about = read_json(f"{output}.about.json")
    assert about["properties"][0]["unit"] == "eV/atom" and about["rows"]["n_problems"] == 1
    (tmp_path / "torn.csv").write_bytes(b'formula\nAlNi\n"open\nCuZn\n')
    with pytest.raises(UserError):
        predict.main([str(runs[0]), str(tmp_path / "torn.csv"), "-o", str(tmp_path / "never.csv")])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.csv.gz",
        "out.csv.gz.about.json",
        "t.csv",
        "torn.csv",
    ]


@pytest.mark.parametrize("link", ["to a file", "relative", "to a link", "to nothing yet"])
def test_a_link_that_is_named_for_the_list_stays_a_link(link, runs, ask, tmp_path):
    """The link had become a file, and whoever reads the file behind it kept the old list."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    behind, named = scratch / "list.csv", tmp_path / "out.csv"
    if link != "to nothing yet":
        behind.write_text("old\n")
    targets = {"relative": "scratch/list.csv", "to a link": tmp_path / "middle.csv"}
    (tmp_path / "middle.csv").symlink_to(behind)
    named.symlink_to(targets.get(link, behind))
    formulas = table(tmp_path / "t.csv", ["AlNi"])
    status = exit_status(lambda: predict.main([str(runs[0]), str(formulas), "-o", str(named)]))
    assert status == 0
    assert named.is_symlink() and (tmp_path / "middle.csv").is_symlink()
    with behind.open() as file:
        assert [row["formula"] for row in csv.DictReader(file)] == ["AlNi"]
    assert sorted(path.name for path in scratch.iterdir()) == ["list.csv"]


def test_a_pipe_is_no_file_to_write(runs, ask, tmp_path, capfd):
    """Its name had become that of a file, while the reader of the pipe waited for ever."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path / "link.csv"):
        if path != pipe:
            path.symlink_to(pipe)
        formulas = table(tmp_path / "t.csv", ["AlNi"])
        status = exit_status(lambda: predict.main([str(runs[0]), str(formulas), "-o", str(path)]))  # noqa: B023
        assert status == 2 and str(pipe) in capfd.readouterr().err
        assert pipe.is_fifo()
    for write in (write_text, write_json):
        with pytest.raises(UserError):
            write(pipe, "x")
    assert pipe.is_fifo() and len(list(tmp_path.iterdir())) == 3
