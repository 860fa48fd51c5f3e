"""Packs of benchmarks: nothing is removed, parts are those published, folds repeat one another."""

import csv
import math

import pytest

from irnet_hpc.data.download import wheels
from irnet_hpc.errors import UserError
from irnet_hpc.pack.pipeline import PackOptions, pack_source
from irnet_hpc.pack.store import open_pack
from irnet_hpc.pack.table import pack_table
from tests.data.download.wheel_index import crabnet_wheel, matbench_wheel

# Beyond the filter of energies, beyond the hard limit, and one composition in two spellings.
ENERGIES = {
    "train": {"Cs1Cl1": "-2.5", "Fe1O1": "7", "Fe2O3": "-150"},
    "val": {"Mg1O1": "-3"},
    "test": {"Na1": "0.5", "Mg2O2": "-3"},
}
N_ROWS = 50
STEELS = [(f"Fe{n}C1", str(n)) for n in range(1, N_ROWS)] + [("Fe1C1", "7")]
FOLDS = [[f"mb-steels-{row + 1:03d}" for row in range(k, N_ROWS, 5)] for k in range(5)]


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Expect small wheels; return their files."""
    made = [
        crabnet_wheel({"OQMD_Formation_Enthalpy": ENERGIES}, {"steels_yield": STEELS}),
        matbench_wheel("steels", FOLDS),
    ]
    monkeypatch.setattr(wheels, "CRABNET", made[0].wheel)
    monkeypatch.setattr(wheels, "MATBENCH", made[1].wheel)
    paths = []
    for one in made:
        paths.append(tmp_path / one.wheel.file_name)
        paths[-1].write_bytes(one.body)
    return tuple(paths)


def make(tmp_path, source, files, **options):
    """Make a pack of elemental fractions, and open it."""
    settings = PackOptions(
        source,
        features="elements",
        data_dir=tmp_path / "data",
        pack_dir=tmp_path / "packs",
        wheels=files,
        workers=1,
        **options,
    )
    return open_pack(pack_source(settings))


def test_published_rows_are_packed_as_they_are_and_the_rest_is_listed(files, tmp_path):
    with make(tmp_path, "crabnet:OQMD_Formation_Enthalpy", files[:1]) as pack:
        frame = pack.to_frame(features=False)
        assert (pack.n_train, pack.n_val, pack.n_test) == (3, 1, 2)
        assert pack.identity["filters"] == []
        got = dict(zip(frame["formula"], frame["formation_energy"], strict=True))
        expected = {k: float(v) for part in ENERGIES.values() for k, v in part.items()}
        assert got == expected
        assert set(frame[frame["part"] == "test"]["formula"]) == {"Na1", "Mg2O2"}
    with (tmp_path / "packs" / f"{pack.name}.kept.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert {(row["formula"], row["property"]) for row in kept} == {
        ("Na1", ""),  # a pure element
        ("Mg2O2", ""),  # the composition of a row of val
        ("Fe1O1", "formation_energy"),
        ("Fe2O3", "formation_energy"),
    }


def test_each_fold_tests_its_rows_and_together_they_test_every_row_once(files, tmp_path):
    tested, names = [], []
    for fold in range(5):
        with make(tmp_path, "matbench:steels", files, fold=fold) as pack:
            names.append(pack.name)
            ids = pack.material_ids(pack.rows("test"))
            assert sorted(ids) == FOLDS[fold]
            assert pack.identity["split"] == {"by": "fold", "seed": fold}
            assert pack.n_train > 3 * pack.n_val > 0
            frame = pack.to_frame(features=False)
            value = {own: float(STEELS[int(own[-3:]) - 1][1]) for own in frame["material_id"]}
            assert (frame["yield_strength"] == frame["material_id"].map(value)).all()
            tested += ids
    where = {"data_dir": tmp_path / "data", "pack_dir": tmp_path / "packs"}
    with pack_table("matbench:steels", features="elements", fold=3, **where) as pack:
        assert sorted(pack.material_ids(pack.rows("test"))) == FOLDS[3]
    assert sorted(tested) == sorted(own for fold in FOLDS for own in fold)
    assert names == [f"matbench-steels-elements-fold{fold}" for fold in range(5)]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("matbench:steels", {}, "--fold of matbench:steels must be one of 0, 1, 2, 3, 4, got none"),
        ("matbench:steels", {"fold": 5}, "got 5"),
        ("matbench:steels", {"fold": 0, "split_seed": 1}, "no --split"),
        ("crabnet:OQMD_Formation_Enthalpy", {"fold": 0}, "--fold is for matbench:TASK"),
        ("crabnet:OQMD_Formation_Enthalpy", {"split": "element:O"}, "has published parts"),
        (
            "crabnet:OQMD_Formation_Enthalpy",
            {"limits": {"formation_energy": (0, math.inf)}},
            "takes no --limit",
        ),
    ],
)
def test_options_that_would_change_a_benchmark_are_refused(
    files, tmp_path, source, options, message
):
    with pytest.raises(UserError, match=message):
        make(tmp_path, source, files if "matbench" in source else files[:1], **options)


def test_a_replaced_pack_says_that_its_results_are_stale(files, tmp_path, caplog):
    table = tmp_path / "mine.csv"
    table.write_text("formula,band_gap\nMgO,4\nNaCl,8\nAl2O3,8.8\n")
    make(tmp_path, str(table), ()).close()
    make(tmp_path, str(table), (), overwrite=True).close()
    assert "stale" not in caplog.text
    table.write_text("formula,band_gap\nMgO,4\nNaCl,8\nAl2O3,8.7\n")
    with pytest.raises(UserError, match="stale"):
        make(tmp_path, str(table), ())
    make(tmp_path, str(table), (), overwrite=True).close()
    assert "differs in source_sha256; results of the earlier pack are stale" in caplog.text
