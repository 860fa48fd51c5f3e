"""A messy table of one's own, from the file to the pack: every cell and row is accounted for."""

import csv

import numpy as np
import pandas
import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.pack import cli, pack_table
from irnet_hpc.pack.store import open_pack

MESSY = """Sample ID,Composition,Eg (meV),Remarks
S1,FeO,2100,
S2,MgO,~7000,thin film
S3,CaO,7.0e3,
S4,GaAs,1400 ± 50,
S5,GaAs,3000,
S6,GaAs,2000,
S7,ZnO,n/a,
S8,NiO,-9999,
S9,Xx2,1,
S10,CoO,"2,400.5",
"""


@pytest.fixture
def messy(tmp_path):
    path = tmp_path / "lab.csv"
    path.write_text(MESSY, encoding="utf-8")
    return path


def make(path, tmp_path, *options):
    arguments = ["--source", str(path), "--features", "elements", "--pack-dir", str(tmp_path)]
    return cli.main([*arguments, "--workers", "1", "--missing", "-9999", *options])


def values(path, property="band_gap") -> dict[str, float]:
    """Return formula -> the value that is packed."""
    with open_pack(path) as pack:
        everything = slice(0, pack.n_rows)
        return dict(zip(pack.formulas(everything), pack.y(property, everything), strict=True))


def test_a_messy_table_is_packed_and_each_row_left_out_is_listed(messy, tmp_path, capsys):
    assert make(messy, tmp_path) == 0
    path = tmp_path / "lab-elements.h5"
    found = values(path)
    assert {name: round(value, 9) for name, value in found.items()} == {
        "FeO": 2.1,
        "CaO": 7.0,
        "GaAs": 2.0,  # the median of three
        "CoO": 2.4005,
    }
    with (tmp_path / "lab-elements.rejected.csv").open() as file:
        rejected = list(csv.DictReader(file))
    assert [(row["line"], row["material_id"], row["reason"]) for row in rejected] == [
        ("3", "S2", "an approximate value"),
        ("6", "S5", "duplicate formula"),
        ("7", "S6", "duplicate formula"),
        ("8", "S7", "no property reported"),
        ("9", "S8", "no property reported"),
        ("10", "S9", "formula not readable"),
    ]
    assert (rejected[0]["column"], rejected[0]["text"]) == ("Eg (meV)", "~7000")
    printed = capsys.readouterr().out
    for line in (
        "column 'Composition' holds the formulas",
        "column 'Sample ID' holds the ids",
        "column 'Eg (meV)' is band_gap in meV",
        "band_gap is converted from meV to eV",
        "1 cells of Eg (meV) say '-9999': not reported",
        "GaAs: 1.4 in line 5, 3 in line 6",
    ):
        assert line in printed
    with open_pack(path) as pack:
        assert pack.identity["reading"] == {"missing": ["-9999"]}
        (conflict,) = pack.attrs["conflicts"]
        assert (conflict["n_repeated"], conflict["n_differing"]) == (1, 1)
        assert sum(pack.attrs["rejected"].values()) == 6


def test_the_same_command_finds_its_pack_and_another_reading_does_not(messy, tmp_path, capsys):
    for _ in range(2):
        assert make(messy, tmp_path, "--name", "p") == 0
    assert "the pack exists already" in capsys.readouterr().out
    for option in (["--missing", "x"], ["--drop", "Remarks"], ["--duplicates", "mean"]):
        with pytest.raises(UserError, match="a different pack, which differs in reading"):
            make(messy, tmp_path, "--name", "p", *option)


@pytest.mark.parametrize(
    ("rule", "gap"), [("median", 2.0), ("mean", 6.4 / 3), ("first", 1.4), ("lowest-energy", 2.0)]
)
def test_rows_of_one_formula_have_the_value_of_the_rule(messy, tmp_path, rule, gap):
    assert make(messy, tmp_path, "--duplicates", rule) == 0
    assert values(tmp_path / "lab-elements.h5")["GaAs"] == pytest.approx(gap, rel=1e-12)


def test_rows_that_disagree_can_be_an_error(messy, tmp_path):
    with pytest.raises(UserError, match=r"GaAs: 1.4 in line 5, 3 in line 6"):
        make(messy, tmp_path, "--duplicates", "error")
    text = MESSY.replace("3000", "1400").replace("2000", "1400")
    messy.write_text(text, encoding="utf-8")
    assert make(messy, tmp_path, "--duplicates", "error") == 0
    assert values(tmp_path / "lab-elements.h5")["GaAs"] == 1.4


def test_tables_with_ids_or_energies_keep_the_values_of_one_phase(tmp_path):
    frame = pandas.DataFrame({"formula": ["C", "C"], "band_gap": [4.0, 0.0]})
    energies = frame.assign(formation_energy=[0.1, 0.0])
    ids = frame.assign(material_id=["diamond", "graphite"], density=[3.5, np.nan])
    packed = {}
    for name, table in (("plain", frame), ("energies", energies), ("ids", ids)):
        with pack_table(table, name=name, features="elements", pack_dir=tmp_path, workers=1):
            packed[name] = values(tmp_path / f"{name}.h5")["C"]
    assert packed == {"plain": 2.0, "energies": 0.0, "ids": 4.0}
    with pack_table(
        ids, name="own", features="elements", pack_dir=tmp_path, workers=1, duplicates="median"
    ) as pack:
        assert pack.identity["reading"] == {"duplicates": "median"}
        assert values(pack.path) == {"C": 2.0}


def test_duplicates_are_of_features_that_a_formula_has(messy, tmp_path):
    options = ("--features", "columns+elements", "--duplicates", "mean")
    with pytest.raises(UserError, match="--duplicates is for features of formulas alone"):
        make(messy, tmp_path, *options)


def test_a_code_is_not_converted_like_a_value(messy, tmp_path):
    with pytest.raises(UserError, match=r"'Eg \(meV\)' look like a code .* missing -9999"):
        pack_table(messy, features="elements", pack_dir=tmp_path, workers=1)


def test_one_bad_cell_ends_a_strict_command(messy, tmp_path):
    with pytest.raises(UserError, match=r"line 3: Eg \(meV\) must be .*'~7000'"):
        make(messy, tmp_path, "--strict")
    assert not (tmp_path / "lab-elements.h5").exists()


def test_check_says_what_would_happen_and_writes_nothing(messy, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    command = ["--check", str(messy), "--missing", "-9999", "--pack-dir", str(tmp_path)]
    assert cli.main(command) is None
    lines = capsys.readouterr().out.splitlines()
    assert sorted(tmp_path.rglob("*")) == before
    assert "columns left out: Remarks" in lines
    assert "left out: 1 an approximate value (line 3)" in lines
    assert any(line.startswith("4 rows would be packed as lab-magpie") for line in lines)
    step = lines[-1].split()
    assert step[:4] == ["next:", "python", "-m", "irnet_hpc.pack"]
    assert step[4:] == ["--source", *command[1:]]


def test_few_rows_and_equal_values_are_said(tmp_path, capsys):
    path = tmp_path / "ten.csv"
    path.write_text("formula,band_gap\n" + "".join(f"Fe{n}O,1.5\n" for n in range(1, 11)))
    assert cli.main(["--check", str(path)]) is None
    printed = capsys.readouterr().out
    assert "warning: all 10 values of band_gap are 1.5" in printed
    assert "warning: only 10 rows report band_gap" in printed
    path.write_text("formula,band_gap\n" + "".join(f"Fe{n}O,{n / 4}\n" for n in range(1, 60)))
    assert cli.main(["--check", str(path)]) is None
    printed = capsys.readouterr().out
    assert "values of band_gap are" not in printed and "only" not in printed


def test_check_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no raw table of oqmd was found"):
        cli.main(["--check", "oqmd", "--data-dir", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_options_of_reading_are_for_tables_of_ones_own(tmp_path):
    with pytest.raises(UserError, match="missing can be stated for a table of your own"):
        cli.main(["--source", "alloys", "--missing", "na", "--pack-dir", str(tmp_path)])


@pytest.mark.parametrize(
    "options",
    [
        {"rename": {"Eg (meV)": "gap"}, "properties": "gap"},
        {"properties": "Eg (meV)"},
        {"formula_column": "Composition", "drop": "Remarks"},
    ],
)
def test_python_reads_a_table_as_the_command_does(messy, tmp_path, options):
    given = {"features": "elements", "workers": 1, "missing": "-9999", **options}
    with pack_table(messy, name="a", pack_dir=tmp_path, **given) as pack:
        identity = dict(pack.identity)
    command = []
    for name, value in options.items():
        option = {"properties": "property"}.get(name, name).replace("_", "-")
        pairs = [f"{old}={new}" for old, new in value.items()] if name == "rename" else [value]
        command += [f"--{option}", *pairs]
    assert make(messy, tmp_path, "--name", "b", *command) == 0
    with open_pack(tmp_path / "b.h5") as pack:
        assert pack.identity == identity


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rename": ["Eg"]}, "rename must be a mapping"),
        ({"drop": 3}, "drop must be a string or a list"),
        ({"missing": [-9999]}, "missing must be a string or a list"),
        ({"sheet": 0}, "sheet must be a string"),
        ({"duplicates": "min"}, "unknown rule .of duplicates. 'min'"),
    ],
)
def test_arguments_of_another_type_are_one_sentence(messy, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        pack_table(messy, pack_dir=tmp_path, **options)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("formula,band_gap\n" + "".join(f"Fe{n}O,\n" for n in range(1, 9)), "has no value in any"),
        (
            "Composition,Compound,band_gap\nFeO,MgO,1\n",
            "several columns that may hold the formulas",
        ),
        ("formula,Eg (GPa)\n" + "".join(f"Fe{n}O,x\n" for n in range(9)), "holds numbers"),
        ("formula,band_gap\n" + "".join(f"Fe{n}O,2024-01-0{n}\n" for n in range(1, 9)), "a date"),
    ],
)
def test_a_table_that_cannot_be_packed_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "t.csv"
    path.write_text(text)
    for task in ("--source", "--check"):
        with pytest.raises(UserError, match=sentence) as error:
            cli.main([task, str(path), "--pack-dir", str(tmp_path)])
        assert "\n" not in str(error.value)
