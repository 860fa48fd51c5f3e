"""A composition has the same values in every pack of a table, whatever else is packed."""

import csv
import math
import random

import numpy as np
import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.pack.cli import pack_options, parser
from irnet_hpc.pack.store import open_pack
from irnet_hpc.pack.table import pack_table

HEADER = "material_id,formula,formation_energy,band_gap,bulk_modulus"
ROWS = [
    "aflow-0a,KN3,0.62,0,20",
    "aflow-9f,KN3,-0.43,4.16,",
    "aflow-1b,Ho2O3,-1.92,0,",
    "aflow-7c,Ho2O3,-4.05,3.95,140",
    "mp-2,FeO,-25,2.4,170",  # this energy is absurd, so it must not decide
    "mp-9,Fe2O2,-1.4,1.7,160",
    "mp-1,C,0.1,4.1,",
    "mp-4,C,0,,38",
    *(f"z-{n},NaCl{n},-1,{n},{10 * n}" for n in range(2, 30)),
]
# composition as spelled -> formation energy (eV/atom), gap (eV), modulus (GPa)
EXPECTED = {
    "KN3": (-0.43, 4.16, None),
    "Ho2O3": (-4.05, 3.95, 140),
    "Fe2O2": (-1.4, 1.7, 160),
    "C": (0, None, 38),
}
NAMES = ("formation_energy", "band_gap", "bulk_modulus")


def values_of(pack) -> dict[str, dict[str, float]]:
    """Read the reported values of each formula of a pack."""
    rows = slice(0, pack.n_rows)
    columns = {name: pack.y(name, rows) for name in pack.units}
    return {
        formula: {name: y[row] for name, y in columns.items() if not np.isnan(y[row])}
        for row, formula in enumerate(pack.formulas(rows))
    }


@pytest.mark.parametrize("order", ["as written", "backwards", "shuffled"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"properties": "band_gap"},
        {"properties": "bulk_modulus"},
        {"rows": 20},
        {"features": "magpie"},
        {"split": "element:K"},
    ],
    ids=str,
)
def test_a_formula_keeps_its_row_in_any_order_and_whatever_is_packed(order, options, tmp_path):
    rows = {"as written": ROWS, "backwards": ROWS[::-1]}.get(order) or random.Random(1).sample(
        ROWS, len(ROWS)
    )
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    # FeO's -25 eV/atom lies beyond the hard limits.
    with pack_table(
        tmp_path / "t.csv", **{"features": "elements", "pack_dir": tmp_path} | options
    ) as pack:
        found = values_of(pack)
        asked = tuple(pack.units)
    for formula, numbers in EXPECTED.items():
        expected = {
            name: number
            for name, number in zip(NAMES, numbers, strict=True)
            if number is not None and name in asked
        }
        # A sample may lack the formula, and a row that reports nothing is not packed.
        assert found.get(formula, {}) in (expected, {} if "rows" in options else expected)
    assert found.keys() <= {*EXPECTED, *(f"NaCl{n}" for n in range(2, 30))}


def test_a_sample_packs_the_rows_that_all_rows_would_give(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    packs = {}
    for size in (None, 30, 15):
        with pack_table(tmp_path / "t.csv", features="elements", rows=size, pack_dir=tmp_path) as p:
            packs[size] = values_of(p)
            assert p.attrs["n_read"] == (size or len(ROWS)) == p.n_rows + p.attrs["n_rejected"]
    assert packs[15].items() <= packs[30].items() <= packs[None].items()


def test_an_outlier_does_not_save_another_and_every_value_that_goes_is_listed(
    pack_command, tmp_path
):
    (tmp_path / "data").mkdir()
    energies = [-1 + n / 100 for n in range(100)]  # mean -0.505, sd 0.289
    rows = [f"FeO{n},{energy},0,100,50" for n, energy in enumerate(energies, start=2)]
    rows += [
        "KCl2,4.9,0,20000000,3295",  # beyond 5 sd only once 4.99 and 4.95 are both gone
        "KCl3,4.95,150,784,-3476",
        "KCl4,99999,-400,-20,-30",  # negative moduli stay
        "NaCl,-400,-0.21,443,535",  # so does the hardest solid
    ]
    (tmp_path / "data/mp.csv").write_text(
        "formula,formation_energy,band_gap,bulk_modulus,shear_modulus\n" + "\n".join(rows) + "\n"
    )
    done = pack_command("--source", "mp", "--features", "elements")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "packs/mp-elements.values.csv").open() as file:
        lost = {(row["line"], row["property"]): float(row["value"]) for row in csv.DictReader(file)}
    assert lost == {
        ("102", "formation_energy"): 4.9,
        ("102", "bulk_modulus"): 2e7,
        ("102", "shear_modulus"): 3295,
        ("103", "formation_energy"): 4.95,
        ("103", "band_gap"): 150,
        ("103", "bulk_modulus"): 784,
        ("103", "shear_modulus"): -3476,
        ("104", "formation_energy"): 99999,
        ("104", "band_gap"): -400,
        ("105", "formation_energy"): -400,
        ("105", "band_gap"): -0.21,
    }
    with open_pack(tmp_path / "packs/mp-elements.h5") as pack:
        found = values_of(pack)
    assert found["KCl4"] == {"bulk_modulus": -20, "shear_modulus": -30}
    assert found["NaCl"] == {"bulk_modulus": 443, "shear_modulus": 535}
    # They are named with their line, and go if the user asks for it.
    assert "line 104 (KCl4) -20" in done.stderr and "line 104 (KCl4) -30" in done.stderr
    limits = ("--limit", "bulk_modulus=0:", "--limit", "shear_modulus=0:500")
    done = pack_command("--source", "mp", "--features", "elements", *limits)
    assert done.returncode == 0, done.stderr
    name = "mp-elements-bulk_modulus=0..inf-shear_modulus=0..500.h5"
    with open_pack(tmp_path / "packs" / name) as pack:
        found = values_of(pack)
        assert "bulk_modulus >= 0 GPa" in pack.identity["filters"]
    assert found["KCl4"] == {} and found["NaCl"] == {"bulk_modulus": 443}
    refused = pack_command("--source", "mp", "--limit", "bulk_modulus=5:1")
    assert refused.returncode == 2


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("-9999", True),
        ("99999", True),
        ("1e30", True),
        ("-999.9", True),
        ("2e5", True),
        ("12", False),
    ],
)
def test_a_code_for_not_reported_in_the_users_own_property_is_named_with_its_row(
    value, named, tmp_path, caplog
):
    rows = [f"FeO{n},{n / 10}" for n in range(2, 200)]
    rows[40] = f"FeO42,{value}"
    (tmp_path / "t.csv").write_text("formula,hardness\n" + "\n".join(rows) + "\n")
    pack_table(
        tmp_path / "t.csv", features="elements", units={"hardness": "GPa"}, pack_dir=tmp_path
    ).close()
    assert ("line 42 (FeO42)" in caplog.text) == named


@pytest.mark.parametrize(
    ("texts", "limits"),
    [
        (["hardness=0:"], {"hardness": (0, math.inf)}),
        (["hardness=-1.5e1:inf"], {"hardness": (-15, math.inf)}),
        (["a=b=:2", "hardness=-inf:3"], {"a=b": (-math.inf, 2), "hardness": (-math.inf, 3)}),
    ],
)
def test_a_limit_is_read(texts, limits):
    options = [word for text in texts for word in ("--limit", text)]
    arguments = parser().parse_args(["--source", "t.csv", *options])
    assert pack_options(arguments).limits == limits


@pytest.mark.parametrize("option", ["--limit", "--unit"])
def test_an_option_that_is_given_twice_for_a_property_is_refused(option):
    """Of `--limit K=0: --limit K=:300`, only the second had acted."""
    values = {
        "--limit": ("hardness=0:", "hardness=:300"),
        "--unit": ("hardness=GPa", "hardness=HV"),
    }
    options = [word for value in values[option] for word in (option, value)]
    with pytest.raises(UserError, match=f"{option} .* got hardness twice"):
        pack_options(parser().parse_args(["--source", "t.csv", *options]))


@pytest.mark.parametrize(
    "text",
    [
        "hardness",
        "hardness=1",
        "hardness=:",
        "hardness=a:b",
        "=1:2",
        "hardness=1_0:",
        "hardness=nan:",
    ],
)
def test_a_limit_that_cannot_be_read_is_refused(text, pack_command, tmp_path):
    (tmp_path / "t.csv").write_text("formula,hardness\nFeO,1\n")
    done = pack_command("--source", "t.csv", "--unit", "hardness=GPa", "--limit", text)
    assert done.returncode == 2 and "--limit" in done.stderr


@pytest.mark.parametrize(
    ("name", "factor"), [("density", 1000), ("band_gap", 1000), ("formation_energy", 96.5)]
)
def test_a_column_in_another_unit_is_refused_or_said_to_be_suspect(name, factor, tmp_path, caplog):
    (tmp_path / "all.csv").write_text(
        f"formula,{name}\n" + "".join(f"FeO{n},{n * factor}\n" for n in range(2, 30))
    )
    with pytest.raises(UserError, match="unit"):
        pack_table(tmp_path / "all.csv", features="elements", pack_dir=tmp_path)
    assert not list(tmp_path.glob("*.h5"))
    with pack_table(
        tmp_path / "all.csv", features="elements", filters=False, pack_dir=tmp_path
    ) as pack:
        assert values_of(pack)["FeO2"] == {name: 2 * factor}
    (tmp_path / "some.csv").write_text(
        f"formula,{name}\n" + "".join(f"FeO{n},{n * factor / 100}\n" for n in range(2, 500, 9))
    )
    pack_table(tmp_path / "some.csv", features="elements", pack_dir=tmp_path).close()
    assert "unit?" in caplog.text
