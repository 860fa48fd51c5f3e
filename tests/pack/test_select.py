"""Which rows and values are packed: filters, duplicates, splits of the table and of ours."""

import numpy as np

from irnet_hpc.data.formulas import (
    parse_formula,
)
from irnet_hpc.data.materials import Materials, parse_materials
from irnet_hpc.data.raw_table import RawTable
from irnet_hpc.data.splits import ROLES, count_on_two_sides
from irnet_hpc.pack.select import one_per_formula
from irnet_hpc.pack.store import open_pack
from tests.pack.builders import TABLE


def test_a_database_is_filtered_by_default_and_its_pure_elements_go(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/oqmd.csv").write_text(
        TABLE + "".join(f"FeO{i},{i / 1000},0\n" for i in range(2, 60))
    )
    assert pack_command("--source", "oqmd", "--features", "elements").returncode == 0
    done = pack_command("--source", "oqmd", "--features", "elements", "--no-filters")
    with open_pack(tmp_path / "packs/oqmd-elements.h5") as pack:
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert np.isnan(y["CaO"])  # 7 eV/atom
        assert "Al" not in y
        assert np.isnan(y["TiO2"])  # -3: the values that the limits leave have sd 0.50 about -0.11
        assert not np.isnan(y["ZnO"])
        assert pack.attrs["rejected"]["pure element"] == 1
        assert pack.attrs["filtered"]["formation_energy"] == {
            "-20 < formation_energy < 5 eV/atom": 1,
            "|formation_energy - mean| <= 5 sd": 1,
        }
        assert pack.identity["filters"] == [
            "-20 < formation_energy < 5 eV/atom",
            "|formation_energy - mean| <= 5 sd",
        ]
    with open_pack(tmp_path / "packs/oqmd-elements-nofilters.h5") as pack:
        assert done.returncode == 0
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert (y["CaO"], y["TiO2"]) == (7, -3)
        assert pack.attrs["filtered"] == {} and pack.identity["filters"] == []


def test_limits_act_before_the_lowest_energy_is_taken_and_deviations_after(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    rows = [
        "FeO,-25",
        "Fe2O2,-1.4",
        *["Fe3O3,4.9"] * 9,
        *(f"MgO{i},{i / 1000}" for i in range(2, 30)),
        "CaO,-4",
    ]
    (tmp_path / "data/oqmd.csv").write_text(
        "formula,formation_energy\n" + "".join(f"{row}\n" for row in rows)
    )
    assert (
        pack_command("--source", "oqmd", "--features", "elements", "--workers", "1").returncode == 0
    )
    with open_pack(tmp_path / "packs/oqmd-elements.h5") as pack:
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert y["Fe2O2"] == -1.4
        # 30 values have a mean of -0.166 and an sd of 0.756; with FeO's other nine rows they would
        # be 1.003 and 2.235.
        assert np.isnan(y["CaO"])
        assert (pack.n_rows, pack.attrs["rejected"]) == (30, {"duplicate formula": 10})
        assert list(pack.attrs["filtered"]["formation_energy"].values()) == [1, 1]
        assert pack.identity["rules"] == 3


def test_features_of_the_users_own_with_a_split_of_their_own(pack_command, tmp_path):
    roles = ["train", "val", "test"] * 3 + ["train"] * 3
    rows = "".join(
        f"s{i},Fe{i % 3 + 1}C,{role},{300 + i},{i / 7},{100 + i}\n" for i, role in enumerate(roles)
    )
    (tmp_path / "steels.csv").write_text(
        "material_id,formula,split,temperature,carbon,hardness\n" + rows + "s12,Fe,test,,1,5\n"
    )
    arguments = [
        "--source",
        "steels.csv",
        "--features",
        "columns",
        "--property",
        "hardness",
        "--unit",
        "hardness=HV",
    ]
    done = pack_command(*arguments, "--name", "steels")
    assert done.returncode == 0, done.stderr
    with open_pack(tmp_path / "packs/steels.h5") as pack:
        # Formulas may repeat if features depend on more than the formula.
        assert (pack.n_train, pack.n_val, pack.n_test) == (6, 3, 3)
        assert pack.feature_labels == ["temperature", "carbon"]
        assert pack.units == {"hardness": "HV"}
        hardness, temperature = pack.y("hardness", slice(0, 12)), pack.x(slice(0, 12))[:, 0]
        np.testing.assert_array_equal(hardness - temperature, np.full(12, -200.0))
        assert pack.attrs["rejected"] == {"feature column empty": 1}
        assert pack.identity["split"] == {"by": "column"}
    assert (
        "warning: the table's own split has 2 formulas in more than one of its parts" in done.stdout
    )
    refused = pack_command(*arguments, "--split-seed", "1", "--name", "other")
    assert refused.returncode == 2 and "column named split" in refused.stderr


def test_packs_of_two_sources_agree_on_who_is_test(alloys_pack, pack_command, tmp_path):
    with open_pack(alloys_pack) as pack:
        split = {formula: side for side in ROLES for formula in pack.formulas(pack.rows(side))}
    other = list(split)[::5]
    # The same alloys with the elements in the opposite order and twice the amounts.
    backwards = {
        "".join(
            f"{symbol}{2 * amount:g}" for symbol, amount in reversed(parse_formula(formula).items())
        ): formula
        for formula in other
    }
    (tmp_path / "lab.csv").write_text(
        "formula,density\n" + "".join(f"{formula},1\n" for formula in backwards)
    )
    assert pack_command("--source", "lab.csv", "--features", "elements").returncode == 0
    with open_pack(tmp_path / "packs/lab-elements.h5") as pack:
        roles = {formula: side for side in ROLES for formula in pack.formulas(pack.rows(side))}
    assert roles == {spelling: split[formula] for spelling, formula in backwards.items()}


NAN = np.nan


def materials(
    formulas: list[str], split: list[str] | None = None, **targets: list[float]
) -> Materials:
    """Return materials with these formulas, roles and targets."""
    line = np.arange(2, len(formulas) + 2)
    ids = [f"id-{number}" for number in line]
    found, rejected = parse_materials(
        RawTable(
            line,
            formulas,
            ids,
            role=split,
            targets={name: np.array(v, float) for name, v in targets.items()},
        )
    )
    assert not rejected
    return found


def test_of_one_formula_the_entry_of_lowest_formation_energy_stays():
    found, rejected = one_per_formula(
        materials(
            ["TiO2", "Ti2O4", "FeO", "O2Ti"],
            formation_energy=[-1, -3, 0, -2],
            band_gap=[1, 2, 0, 3],
        )
    )
    assert list(found.formula) == ["Ti2O4", "FeO"]
    assert list(found.targets["band_gap"]) == [2, 0]
    assert [(row.line, row.reason, row.detail) for row in rejected] == [
        (5, "duplicate formula", "line 3"),
        (2, "duplicate formula", "line 3"),
    ]


def test_values_of_one_formula_reported_in_several_rows_are_brought_together():
    found, rejected = one_per_formula(
        materials(
            ["Al2O3", "Al4O6", "Al6O9", "AlO1.5"],
            formation_energy=[NAN, -3, -3, NAN],
            # 6 and 5 contradict each other: the first completes the entry, the second goes.
            band_gap=[6, NAN, NAN, 5],
            bulk_modulus=[NAN, NAN, 250, NAN],
        )
    )
    assert list(found.formula) == ["Al4O6"]
    assert {name: values.tolist() for name, values in found.targets.items()} == {
        "formation_energy": [-3],
        "band_gap": [6],
        "bulk_modulus": [250],
    }
    assert [row.reason for row in rejected] == 2 * ["merged into a row of the same formula"] + [
        "duplicate formula"
    ]


def test_duplicates_on_two_sides_of_a_given_split_both_stay():
    found, rejected = one_per_formula(
        materials(["FeO", "Fe2O2"], split=["train", "test"], band_gap=[1, 2])
    )
    assert len(found) == 2
    assert not rejected
    assert count_on_two_sides(found.reduced, found.role) == 1
