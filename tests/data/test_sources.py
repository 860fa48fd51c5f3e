"""Sources: the alloys against matminer's own featurizers, raw tables good and bad, filters, which columns are targets."""

import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from matminer.featurizers.composition.alloy import WenAlloys
from pymatgen.core import Composition

from irnet_hpc.data import alloys
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.data.sources import SOURCES, Filter
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


def test_alloys_agree_with_matminers_featurizer():
    table = alloys.compute_alloys(120)
    featurizer = WenAlloys()
    place = {label: column for column, label in enumerate(featurizer.feature_labels())}
    kj_per_mol = table.targets["mixing_enthalpy"] * 96.48533212
    for row, formula in enumerate(table.formula):
        features = featurizer.featurize(Composition(formula))
        # matminer gives the absolute value, and at least 1e-6.
        assert abs(kj_per_mol[row]) == pytest.approx(
            features[place["Mixing enthalpy"]], rel=1e-9, abs=1e-6
        )
        assert table.targets["size_mismatch"][row] == pytest.approx(
            100 * features[place["Yang delta"]], rel=1e-9
        )


def test_equimolar_CoCrNi_mixes_at_minus_4_89_kJ_per_mol():
    # Co-Cr -4, Co-Ni 0, Cr-Ni -7 kJ/mol: 4 × -11 / 9 (Takeuchi and Inoue 2005). Radii 125, 130, 126 pm, mean 127.
    elements, enthalpy, radius = alloys.element_data()
    fractions = np.array([[1 / 3 if symbol in ("Co", "Cr", "Ni") else 0 for symbol in elements]])
    assert alloys.mixing_enthalpy(fractions, enthalpy) == pytest.approx(-44 / 9 / 96.48533212)
    assert alloys.size_mismatch(fractions, radius) == pytest.approx(
        100 * np.sqrt((4 + 9 + 1) / 3) / 127
    )


def test_alloys_are_different_have_3_to_5_elements_and_fewer_are_the_first_of_more():
    table = alloys.compute_alloys(2000)
    amounts = [Composition(formula).as_dict() for formula in table.formula]
    assert all(sum(parts.values()) == 100 and min(parts.values()) >= 1 for parts in amounts)
    assert {len(parts) for parts in amounts} == {3, 4, 5}
    assert len({tuple(sorted(parts.items())) for parts in amounts}) == 2000
    assert alloys.compute_alloys(20).formula == table.formula[:20]
    assert table.formula[0] == "Hg2Mn65N5Rb26Tm2"  # the same on every machine


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
    # So is a column whose unit is given, beside those whose unit is known: a matrix says no more of its packs.
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


def test_the_papers_filters_on_numbers_worked_out_by_hand():
    limits, deviations = SOURCES["oqmd"].filters[:2]
    values = np.array([-20, -19.9, 0, 4.9, 5, 43, np.nan])
    assert limits.breaks(values).tolist() == [True, False, False, False, True, True, False]
    # 99 zeros and a 100: mean 1, sd 9.95, so 100 lies 9.95 sd away; a 1 among 99 zeros just as well, the 0s 0.1 sd.
    values = np.array([0.0] * 99 + [100.0] + [np.nan])
    assert np.flatnonzero(deviations.breaks(values)).tolist() == [99]
    assert [str(limits), str(deviations)] == [
        "-20 < formation_energy < 5 eV/atom",
        "|formation_energy - mean| <= 5 sd",
    ]
    assert not Filter("formation_energy", deviations=5).breaks(np.full(3, np.nan)).any()


def test_names_of_sources():
    assert resolve_source("oqmd").name == "oqmd"
    assert resolve_source("some/my steels (2024).csv.gz").name == "my_steels_2024"
    with pytest.raises(
        UserError,
        match=r"unknown source 'oqdm' \(did you mean 'oqmd'\?\); known: .*aflow, alloys, jarvis",
    ):
        resolve_source("oqdm")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty; its first line must name its columns, formula among them"),
        ("formula,band_gap\n", "has a header and no rows"),
        (
            "composition,band_gap\nFeO,1\n",
            "must have a column named formula; its columns: composition, band_gap",
        ),
        ("formula,gap\nFeO,1\n", "has no column named like a property"),
        ("formula,band_gap\nFeO,\nMgO,\n", "property 'band_gap' has no values in"),
        (
            "formula,band_gap,band_gap\nFeO,1,2\n",
            "must name each column once, got 'band_gap' twice",
        ),
        ("formula,band_gap\nFeO,1\nMgO\n", "line 3 must have 2 fields, got 1"),
        ("formula,band_gap\nFeO,1,2\n", "line 2 must have 2 fields, got 3"),
        ('formula,band_gap\nFeO,1\n"MgO,2\nCaO,3\n', "line 3 is not sound CSV"),
        ('formula,band_gap\n"Mg"O,2\n', "line 2 is not sound CSV"),
        ('formula,band_gap\n"MgO\n",2\n', "line 2: a quoted field runs over several lines"),
        (
            "formula,band_gap\nFeO,1\nMgO,wide\n",
            "line 3: band_gap must be a finite number, or empty",
        ),
        ("formula,band_gap\nFeO,inf\n", "line 2: band_gap must be a finite number, or empty"),
        ("formula,band_gap,t\nFeO,1,2\nMgO,1,?\n", "line 3: t must be a finite number, or empty"),
        (
            "formula,band_gap,split\nFeO,1,train\nMgO,1,dev\n",
            "line 3: split must be train, val, test, got 'dev'",
        ),
        (b"formula,band_gap\nFe\xffO,1\n", "must be UTF-8 text"),
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


def test_what_is_asked_of_a_table_must_be_in_it(write, tmp_path):
    path = write(TABLE + "MgO,7.8\n")
    with pytest.raises(
        UserError,
        match=r"unknown property of .* 'bandgap' \(did you mean 'band_gap'\?\); known: band_gap",
    ):
        load_table(path, properties=["bandgap"])
    with pytest.raises(
        UserError, match="the unit of 'hardness' is not known; give it with --unit hardness=UNIT"
    ):
        load_table(write("formula,hardness\nFeO,1\n", "hard.csv"), properties=["hardness"])
    with pytest.raises(UserError, match="band_gap is in eV, but --unit says 'meV'"):
        load_table(path, units={"band_gap": "meV"})
    with pytest.raises(UserError, match="there is no raw table"):
        load_table(str(tmp_path / "nothing.csv"))
    with pytest.raises(UserError, match=r"must end in \.csv, \.csv\.gz, \.csv\.xz"):
        load_table(write(TABLE, "mine.tsv"))
    with pytest.raises(
        UserError,
        match=r"no raw table of oqmd in .*: looked for oqmd.csv, oqmd.csv.gz, oqmd.csv.xz, oqmd.jsonl",
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
