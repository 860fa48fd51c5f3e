"""Loaded sources: targets, features, units, samples."""

import json
import os
from pathlib import Path

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


def test_numeric_columns_are_features_words_are_left_out_and_properties_are_targets(write):
    path = write(
        "material_id,formula,temperature,band_gap,author,hardness,pressure,density\n"
        "a,FeO,300,1.5,Ann,7,,5.7\n"
        ",MgO,350,,2 people,8,1,\n"
    )
    assert load_table(path).table.columns == {}
    loaded = load_table(path, columns=True)
    assert list(loaded.table.columns) == ["temperature", "hardness", "pressure"]
    assert loaded.table.ignored == ("author",)
    assert loaded.units == {"band_gap": "eV", "density": "g/cm³"}
    assert loaded.table.material_id == ["a", "mine-2"]
    # Asked for, a column is a target; a property that is not asked for never becomes a feature.
    loaded = load_table(path, properties=["hardness"], units={"hardness": "GPa"}, columns=True)
    assert loaded.units == {"hardness": "GPa"}
    assert list(loaded.table.columns) == ["temperature", "pressure"]
    # So is a column whose unit is given, beside those whose unit is known: a matrix says no more of
    # its packs.
    loaded = load_table(path, units={"hardness": "GPa"}, columns=True)
    assert loaded.units == {"band_gap": "eV", "hardness": "GPa", "density": "g/cm³"}
    assert list(loaded.table.columns) == ["temperature", "pressure"]
    with pytest.raises(
        UserError,
        match=r"unknown property \(of --unit\) 'toughness'; known: author, band_gap, density",
    ):
        load_table(path, units={"toughness": "GPa"})
    with pytest.raises(
        UserError, match=r"unknown property \(of --unit\) 'hardness'; known: band_gap$"
    ):
        load_table(path, properties=["band_gap"], units={"hardness": "GPa"})


def test_a_smaller_number_of_rows_is_a_fixed_sample(write):
    path = write("formula,band_gap\n" + "".join(f"Fe{i}O,{i}\n" for i in range(1, 101)))
    assert load_table(path, n_rows=10).table.formula == load_table(path, n_rows=10).table.formula
    assert set(load_table(path, n_rows=10).table.formula) < set(
        load_table(path, n_rows=50).table.formula
    )
    assert load_table(path, n_rows=1000).n_available == 100


def test_what_is_asked_of_a_table_must_be_in_it(write, tmp_path):
    path = write(TABLE + "MgO,7.8\n")
    with pytest.raises(
        UserError,
        match=r"unknown property of .* 'bandgap' \(did you mean 'band_gap'\?\); known: band_gap",
    ):
        load_table(path, properties=["bandgap"])
    with pytest.raises(
        UserError, match="the unit of 'hardness' is unknown; state it with --unit hardness=UNIT"
    ):
        load_table(write("formula,hardness\nFeO,1\n", "hard.csv"), properties=["hardness"])
    with pytest.raises(UserError, match="band_gap is in eV, but --unit says 'meV'"):
        load_table(path, units={"band_gap": "meV"})
    with pytest.raises(UserError, match=r"the raw table .* does not exist"):
        load_table(str(tmp_path / "nothing.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="has no files of structures"):
        load_table(str(tmp_path / "folder.csv"))
    with pytest.raises(UserError, match=r"must end in \.csv, \.csv\.gz, .*save it as \.xlsx"):
        load_table(write(TABLE, "mine.xls"))
    with pytest.raises(
        UserError,
        match=r"no raw table of oqmd was found in .*oqmd.csv, oqmd.csv.gz, oqmd.csv.xz, oqmd.jsonl",
    ):
        load_table("oqmd", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("source", "n_rows"), [("oqmd", 319_061), ("mp", 75_917), ("jarvis", 24_092), ("aflow", 26_913)]
)
def test_real_tables_are_read_whole(source, n_rows):
    folder = os.environ.get("IRNET_DATA")
    if not folder or not Path(folder, f"{source}.csv.xz").exists():
        pytest.skip(f"$IRNET_DATA has no {source}.csv.xz")
    loaded = load_table(source)
    assert loaded.n_available == len(loaded.table) == n_rows
    if source == "mp":
        assert loaded.table.formula[loaded.table.material_id.index("mp-1080032")] == "NaN"


def test_what_lies_beside_a_table_says_what_it_is(tmp_path):
    (tmp_path / "matminer-steel.csv").write_text(
        "formula,yield_strength\nFe9Ni,2411\nFe8Ni2,1123\n", encoding="utf-8"
    )
    about = {
        "title": "steels",
        "licence": "CC BY 4.0",
        "citation": "Someone 2018",
        "units": {"yield_strength": "MPa"},
    }
    (tmp_path / "matminer-steel.about.json").write_text(json.dumps(about), encoding="utf-8")
    loaded = load_table("matminer:steel", tmp_path)
    assert loaded.identity == "matminer:steel"
    assert loaded.units == {"yield_strength": "MPa"}
    assert (loaded.source.title, loaded.source.licence, loaded.source.citation) == (
        "steels",
        "CC BY 4.0",
        "Someone 2018",
    )
    with pytest.raises(
        UserError, match="yield_strength is in MPa according to its table, but --unit says 'GPa'"
    ):
        load_table("matminer:steel", tmp_path, units={"yield_strength": "GPa"})
