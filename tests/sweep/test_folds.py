"""Folds and published parts in a matrix: one pack for each fold, and no other split."""

import pytest

from irnet_hpc.data.download import wheels
from irnet_hpc.errors import UserError
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.raw_tables import fetch_tables
from tests.builders import write_pack
from tests.data.download.wheel_index import crabnet_wheel
from tests.data.http_server import FAST

STEELS = {"name": "steels", "source": "matbench:steels", "features": "elements"}
REST = {"properties": ["yield_strength"], "models": ["irnet-17"]}


def read(folder, packs, **keys):
    return read_matrix({"packs": packs, **REST, **keys}, folder)


def test_each_fold_is_a_pack_and_has_its_cells(tmp_path):
    matrix = read(tmp_path, [STEELS], folds=[0, 3])
    assert [pack.name for pack in matrix.packs] == ["steels-fold0", "steels-fold3"]
    assert [cell.spec.pack for cell in matrix.cells] == ["steels-fold0", "steels-fold3"]
    options = " ".join(matrix.packs[1].options)
    assert options == "--source matbench:steels --features elements --fold 3"
    assert matrix.packs[0].units == {"yield_strength": "MPa"}
    own = read(tmp_path, [STEELS | {"folds": [1]}], folds=[0, 3])
    assert [pack.name for pack in own.packs] == ["steels-fold1"]


@pytest.mark.parametrize(
    ("pack", "keys", "message"),
    [
        (STEELS, {}, "must have fold or folds"),
        (STEELS, {"folds": [5]}, "from 0 to 4"),
        (STEELS | {"fold": 7}, {}, "from 0 to 4, got 7"),
        (STEELS, {"folds": [0], "split_seeds": [1]}, "must have no split_seed"),
        ({"name": "a", "source": "alloys"}, {"folds": [0]}, "must have no folds in a list"),
        ({"name": "a", "source": "crabnet:mp_mu_b"}, {"splits": ["element:O"]}, "no split, since"),
    ],
)
def test_a_split_that_a_benchmark_does_not_have_is_refused(tmp_path, pack, keys, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, [pack], **keys)


OWN = {"name": "mine", "source": "mine.csv", "units": {"hardness": "GPa"}}


def test_a_number_of_folds_deals_a_table_of_ones_own(tmp_path):
    (tmp_path / "mine.csv").write_text("formula,hardness\nFe,1\n")
    own = OWN | {"source": str(tmp_path / "mine.csv"), "properties": ["hardness"]}
    matrix = read(tmp_path, [own, STEELS | {"folds": [2]}], folds=3, repeats=2)
    names = [f"mine-folds3-fold{k}" for k in range(6)]
    assert sorted(pack.name for pack in matrix.packs) == [*names, "steels-fold2"]
    (second,) = (pack for pack in matrix.packs if pack.name == names[1])
    options = " ".join(second.options)
    assert "--split folds:3 --split-seed 1" in options and "--folds" not in options
    once = read(tmp_path, [own | {"folds": 2}], folds=3)
    assert [pack.name for pack in once.packs] == ["mine-folds2-fold0", "mine-folds2-fold1"]
    halogens = read(tmp_path, [own | {"splits": ["random"]}], folds=3)
    assert [pack.name for pack in halogens.packs] == ["mine"]


@pytest.mark.parametrize(
    ("pack", "keys", "message"),
    [
        (OWN, {"folds": 1}, "from 2 to 50"),
        (OWN, {"folds": True}, "folds must be"),
        (OWN, {"folds": 3, "split_seeds": [1]}, "takes no split_seeds"),
        (OWN, {"repeats": 2}, "beside folds with a number"),
        (OWN | {"folds": 3, "split_seed": 1}, {}, "folds or split_seed, got both"),
        (STEELS, {"folds": 3}, "must have fold or folds, from 0 to 4"),
    ],
)
def test_folds_that_cannot_be_dealt_are_refused(tmp_path, pack, keys, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, [pack], **keys)


def test_a_pack_of_another_fold_is_not_taken_for_this_one(tmp_path):
    split = {"by": "fold", "seed": 2}
    write_pack(
        tmp_path,
        "steels-fold2",
        {"yield_strength": "MPa"},
        source="matbench:steels",
        features="elements",
        split=split,
    )
    (pack,) = read(tmp_path, [STEELS], folds=[2]).packs
    assert pack.exists
    (tmp_path / "steels-fold2.h5").rename(tmp_path / "steels-fold1.h5")
    with pytest.raises(UserError, match="fold of pack steels-fold1 is not the one"):
        read(tmp_path, [STEELS], folds=[1])


def test_tables_in_wheels_are_fetched_for_packs_that_are_still_to_be_built(tmp_path, monkeypatch):
    made = crabnet_wheel({"mp_mu_b": {"train": {"Fe1": "2.2"}, "test": {"Ni1": "0.6"}}}, {})
    monkeypatch.setattr(wheels, "CRABNET", made.wheel)
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("IRNET_DATA", str(tmp_path / "data"))
    wheels.cache_folder().mkdir(parents=True)
    (wheels.cache_folder() / made.wheel.file_name).write_bytes(made.body)
    packs = [
        {"name": "moments", "source": "crabnet:mp_mu_b"},
        {"name": "alloys-magpie", "source": "alloys"},
    ]
    matrix = read(tmp_path, packs, properties=["total_magnetization"])
    assert fetch_tables(matrix.packs) == ["crabnet:mp_mu_b"]
    assert (tmp_path / "data" / "crabnet-mp_mu_b.csv.xz").is_file()
    assert fetch_tables(matrix.packs) == []
