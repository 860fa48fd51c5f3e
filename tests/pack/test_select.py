"""Which rows and values are packed: filters, duplicates, splits of the table and of ours."""

import numpy as np

from irnet_hpc.data.formulas import (
    parse_formula,
)
from irnet_hpc.data.raw_table import Place
from irnet_hpc.data.splits import ROLES
from irnet_hpc.pack.select import where
from irnet_hpc.pack.store import open_pack
from tests.pack.builders import TABLE


def test_a_database_is_filtered_by_default_and_its_pure_elements_go(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/oqmd.csv").write_text(
        TABLE.replace("TiO2,-3,3", "TiO2,-6,3")
        + "".join(f"FeO{i},{(i - 30) / 30},0\n" for i in range(2, 60))
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
        # -6: the values that the limits leave have a mean of -0.15 and an sd of 0.97; without -6
        # these are -0.05 and 0.63.
        assert np.isnan(y["TiO2"])
        assert not np.isnan(y["ZnO"])
        assert pack.attrs["rejected"]["pure element"] == 1
        assert pack.attrs["filtered"]["formation_energy"] == {
            "-20 <= formation_energy <= 20 eV/atom": 0,
            "-20 < formation_energy < 5 eV/atom": 1,
            "|formation_energy - mean| <= 5 sd": 1,
        }
        assert pack.identity["filters"] == [
            "-20 <= formation_energy <= 20 eV/atom",
            "0 <= band_gap <= 50 eV",
            "-20 < formation_energy < 5 eV/atom",
            "|formation_energy - mean| <= 5 sd",
        ]
    with open_pack(tmp_path / "packs/oqmd-elements-nofilters.h5") as pack:
        assert done.returncode == 0
        everything = slice(0, pack.n_rows)
        y = dict(
            zip(pack.formulas(everything), pack.y("formation_energy", everything), strict=True)
        )
        assert (y["CaO"], y["TiO2"]) == (7, -6)
        assert pack.attrs["filtered"] == {} and pack.identity["filters"] == []


def test_limits_act_before_the_lowest_energy_is_taken_and_deviations_after(pack_command, tmp_path):
    (tmp_path / "data").mkdir()
    rows = [
        "FeO,-25",
        "Fe2O2,-1.4",
        *["Fe3O3,4.9"] * 9,
        *(f"MgO{i},{(i - 15.5) / 27}" for i in range(2, 30)),
        "CaO,-9",
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
        # 30 values have a mean of -0.347 and an sd of 1.644; with FeO's other nine rows they would
        # be 0.864 and 2.646.
        assert np.isnan(y["CaO"])
        assert (pack.n_rows, pack.attrs["rejected"]) == (30, {"duplicate formula": 10})
        assert list(pack.attrs["filtered"]["formation_energy"].values()) == [1, 0, 1]
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
        "warning: the table's own split has 2 formulas in more than one of its parts" in done.stderr
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


def test_a_row_is_called_by_its_line_or_by_its_file_and_block():
    places = {
        1: Place("a.cif", "x"),
        2: Place("b.cif", "x"),
        3: Place("b.cif", "y"),
        4: Place("", "7"),
        5: Place("", ""),
    }
    assert [where(line, places) for line in (1, 3, 4, 5, 6)] == [
        "a.cif",
        "b.cif, block y",
        "row 7",
        "line 5",
        "line 6",
    ]
