"""Tables given as pandas DataFrames: the same table as their CSV, the same checks."""

import dataclasses

import numpy as np
import pandas
import pytest
from pymatgen.core import Composition

from irnet_hpc import pack_table
from irnet_hpc.data.loading import Loaded, load_source
from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError

FRAME = pandas.DataFrame(
    {
        "formula": ["Fe2O3", "NaN", "Xx", "Si", None, "MgO"],
        "material_id": ["a", None, "c", "d", "e", "f"],
        "split": ["train", "train", "val", "test", "test", "train"],
        "band_gap": [2.1, np.nan, 1 / 3, 1.1, 0.0, 7.8],
        "temperature": pandas.array([1, 2, None, 4, 5, 6], "Int64"),
        "pressure": np.arange(6, dtype=np.float32) / 3,
        "note": ["x", "with, comma", 'with "quotes"', "", "\u00e5", "NaN"],
    }
)


def load_frame(frame: pandas.DataFrame, **options) -> Loaded:
    return load_source(resolve_source(frame, name="mine"), **options)


@pytest.mark.parametrize("n_rows", [6, 20_000])
def test_a_frame_is_the_table_that_its_csv_is(n_rows, tmp_path):
    frame = pandas.concat([FRAME] * (n_rows // 6), ignore_index=True)
    path = tmp_path / "mine.csv"
    frame.to_csv(path, index=False)
    ours = load_frame(frame, columns=True)
    theirs = load_source(resolve_source(path), columns=True)
    assert (ours.identity, ours.units) == (theirs.identity, theirs.units)
    assert ours.table.ignored == theirs.table.ignored == ("note",)
    assert ours.table.sha256 == theirs.table.sha256
    for one, other in zip(
        parse_materials(ours.table)[0].__dict__.items(),
        parse_materials(theirs.table)[0].__dict__.items(),
        strict=True,
    ):
        np.testing.assert_equal(one, other)
    assert parse_materials(ours.table)[1] == parse_materials(theirs.table)[1]


def test_the_index_and_the_order_of_columns_do_not_matter():
    frame = FRAME.set_axis(list("uvwxyz"))[FRAME.columns[::-1]]
    found, expected = load_frame(frame).table, load_frame(FRAME).table
    for field in dataclasses.fields(found):
        if field.name not in ("sha256", "ignored"):
            np.testing.assert_equal(getattr(found, field.name), getattr(expected, field.name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"band_gap": [None, *[np.inf] * 5]}, "mine, row 2: band_gap must be a finite number"),
        ({"band_gap": [1, 1, *["wide"] * 4]}, "mine, row 3: band_gap must be a finite number"),
        ({"split": ["dev", *["train"] * 5]}, "mine, row 1: split must be train, val, test"),
        ({"formula": ["Fe"] * 5 + ["F" * 1001]}, "mine, row 6: formula must be at most 1000"),
        ({"material_id": ["a\0"] * 6}, "mine, row 1: material_id must be text"),
        ({"formula": ["Fe\nO"] * 6}, "mine, row 1: a quoted field extends over several lines"),
        ({"material_id": ["\udcff"] * 6}, "mine is not UTF-8 text"),
        ({"band_gap": [None] * 6}, "property 'band_gap' has no value in any row of mine"),
    ],
)
def test_a_frame_is_checked_as_a_file_is_and_its_rows_are_named(change, words):
    with pytest.raises(UserError, match=words):
        load_frame(FRAME.assign(**change))


def test_columns_have_one_name_each():
    with pytest.raises(UserError, match="has no column named formula"):
        load_frame(FRAME.drop(columns="formula"))
    with pytest.raises(UserError, match="repeats column names"):
        load_frame(pandas.concat([FRAME, FRAME[["note"]]], axis=1))
    with pytest.raises(UserError, match="2 levels"):
        load_frame(FRAME.set_axis(pandas.MultiIndex.from_product([["a"], FRAME.columns]), axis=1))
    with pytest.raises(UserError, match="has a header and no rows"):
        load_frame(FRAME[:0])


def test_a_source_is_a_name_a_path_or_a_frame():
    with pytest.raises(UserError, match="got dict"):
        resolve_source({"formula": ["Fe2O3"]})


@pytest.mark.parametrize("names", ["material_id", "formula", ["formula", "temperature"]])
def test_levels_of_the_index_that_have_names_are_columns(names):
    expected, indexed = load_frame(FRAME, columns=True), FRAME.set_index(names)
    table = load_frame(indexed, columns=True).table
    assert table.material_id == expected.table.material_id
    assert table.formula == expected.table.formula
    np.testing.assert_array_equal(
        table.columns["temperature"], expected.table.columns["temperature"]
    )


def test_an_index_without_a_name_or_with_that_of_a_column_is_no_column():
    unnamed = FRAME.set_index(pandas.Index(list("uvwxyz")))
    twice = FRAME.set_index(pandas.Index(list("uvwxyz"), name="material_id"))
    for frame in (unnamed, twice):
        assert load_frame(frame).table.material_id == load_frame(FRAME).table.material_id


def test_polymorphs_whose_ids_are_the_index_are_not_one_material(tmp_path):
    frame = pandas.DataFrame(
        {"formula": ["C", "C"], "bulk_modulus": [440.0, np.nan], "band_gap": [np.nan, 0.0]},
        index=pandas.Index(["diamond", "graphite"], name="material_id"),
    )
    with pack_table(frame, features="elements", pack_dir=tmp_path, workers=1) as pack:
        (name,) = pack.material_ids(slice(0, pack.n_rows))
        values = [float(pack.y(property, slice(0, 1))[0]) for property in pack.units]
    assert name in ("diamond", "graphite") and np.isnan(values).sum() == 1


def test_compositions_are_the_formulas_that_prediction_reads():
    magnetite = Composition({"Fe2+": 1, "Fe3+": 2, "O2-": 4})
    given = [Composition("Fe2O3"), magnetite, Composition("D2O"), None, "Si", Composition("CuZn")]
    table = load_frame(FRAME.assign(formula=given)).table
    materials, rejected = parse_materials(table)
    assert materials.reduced.tolist() == ["Fe2O3", "Fe3O4", "Si", "CuZn"]
    assert [row.reason for row in rejected] == ["isotope, not an element", "formula is empty"]
