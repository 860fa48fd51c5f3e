"""Published numbers beside ours."""

import pandas as pd
import pytest

from irnet_hpc.aggregate.document import document
from irnet_hpc.aggregate.mae_table import markdown, tidy_csv
from irnet_hpc.aggregate.published import (
    published_csv,
    published_markdown,
    published_on,
    read_published,
)
from irnet_hpc.data.properties import PROPERTIES
from tests.aggregate.results import tables_of, write_run


def test_published_numbers_are_those_of_the_file():
    lines = read_published()
    assert len(lines) > 80 and all(line.mae > 0 and line.source and line.split for line in lines)
    irnet = [
        line
        for line in lines
        if (line.dataset, line.property, *line.our_model)
        == ("oqmd", "formation_energy", "irnet", 48)
    ]
    assert [(line.mae, line.n_rows, line.unit) for line in irnet] == [(0.048, 341443, "eV/atom")]
    assert {line.n_rows for line in lines if line.model == "brnet"} == {None}
    forests = [line for line in lines if line.model == "random-forest"]
    assert forests and all(line.our_model == ("random_forest", None) for line in forests)
    known = {name: one.unit for name, one in PROPERTIES.items()}
    assert {(line.property, line.unit) for line in lines} <= set(known.items())
    assert not published_on("oqmd", [("formation_energy", "eV")])  # another unit is another number


def test_published_numbers_stand_below_the_table_beside_ours_and_not_in_it(tmp_path):
    write_run(tmp_path, 0.05, "irnet-17", identity={"source": "oqmd"}, n_train=121046)
    write_run(tmp_path, 0.09, "random_forest", identity={"source": "oqmd"}, n_train=121046)
    tables = tables_of(tmp_path)
    ours, theirs = (
        next(table for table in tables if (table.recipe == "grid") == classical)
        for classical in (False, True)
    )
    text = published_markdown(ours)
    lines = {
        tuple(cell.strip() for cell in line.split("|")[2:-1])
        for line in text.splitlines()
        if line.startswith("| form")
    }
    selected = "90:10, selected on the reported set"
    assert (
        "irnet-17",
        "magpie",
        "0.054",
        "341,443",
        selected,
        "0.05000 (n=1)",
        "121,046",
        "1",
    ) in lines
    assert ("irnet-48", "magpie", "0.048", "341,443", selected, "not run", "121,046", "1") in lines
    best = "random_forest 0.09000 (n=1)"
    assert (
        "best of 10 classical",
        "magpie",
        "0.077",
        "341,443",
        selected,
        best,
        "121,046",
        "1",
    ) in lines
    assert "\n1. IRNet, KDD 2019" in text and "band_gap" not in text
    assert "random-forest | " in published_markdown(theirs) and "0.083408" in published_markdown(
        theirs
    )
    assert "0.054" not in markdown(ours) and "0.054" not in tidy_csv(tables)
    whole = document(tables, [], [])
    assert whole.index(markdown(ours)) < whole.index(text)
    (tmp_path / "published.csv").write_text(published_csv(tables))
    frame = pd.read_csv(tmp_path / "published.csv")
    frame = frame[frame["recipe"] == "onecycle"].set_index("published_model")
    assert (
        frame.loc["irnet-17", "published_mae"] == 0.054
        and frame.loc["irnet-17", "our_test_mae_mean"] == 0.05
    )
    assert frame.loc["irnet-17", "our_model"] == "irnet-17" and pd.isna(
        frame.loc["irnet-48", "our_model"]
    )
    assert frame.loc["best of 10 classical", "our_model"] == "random_forest"


@pytest.mark.parametrize(
    "changes",
    [
        {"train_rows": 100},
        {
            "identity": {
                "source": "oqmd",
                "split": {"by": "family", "family": "halogens", "seed": 0},
            }
        },
    ],
)
def test_nothing_published_stands_beside_first_rows_or_held_out_chemistry(tmp_path, changes):
    write_run(tmp_path, 0.05, "irnet-17", **{"identity": {"source": "oqmd"}} | changes)
    tables = tables_of(tmp_path)
    assert published_markdown(tables[0]) == published_csv(tables) == ""


@pytest.mark.parametrize("identity", [{}, {"source": "alloys"}, {"source": "my_oqmd"}])
def test_nothing_published_is_shown_for_another_dataset(tmp_path, identity):
    write_run(tmp_path, 0.05, identity=identity)
    tables = tables_of(tmp_path)
    assert published_markdown(tables[0]) == published_csv(tables) == ""
    assert "Published" not in document(tables, [], [])
