"""Packs on disk: what is written is read, and what is damaged is found."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.pack import writer
from irnet_hpc.pack.store import open_pack, pack_path, verify
from irnet_hpc.pack.writer import create_pack

IDENTITY = {
    "source": "test",
    "source_sha256": "0" * 64,
    "rules": 1,
    "n_source_rows": 7,
    "properties": {"band_gap": "eV", "volume_per_atom": "Å³/atom"},
    "features": "columns",
    "feature_versions": {"columns": 1},
    "filters": [],
    "split": {"by": "reduced formula", "seed": 0},
}
X = np.arange(21, dtype=np.float32).reshape(7, 3)
GAP = np.array([0, 1.5, np.nan, 3, 4, 5, 6])
FORMULAS = ["NaN", "Fe2O3", "MgO", "Ag(AuS)2", "C", "Si", "GaAs"]
IDS = [f"Müller-{row}" for row in range(7)]


@pytest.fixture
def path(tmp_path):
    """A pack of 7 rows, written in two blocks."""
    path = tmp_path / "small.h5"
    with create_pack(path, ["a", "b", "größe"], 7) as new:
        new.append(X[:4])
        new.append(X[4:])
        new.finish(
            FORMULAS,
            IDS,
            {"band_gap": GAP, "volume_per_atom": GAP * 10},
            {"train": 4, "val": 2, "test": 1},
            IDENTITY,
            {"licence": "CC BY 4.0", "filtered": {}},
        )
    return path


def test_what_is_written_is_read(path):
    with open_pack(path) as pack:
        assert (pack.path, pack.name, pack.features) == (path, "small", "columns")
        assert (pack.n_rows, pack.n_features, pack.n_train, pack.n_val, pack.n_test) == (
            7,
            3,
            4,
            2,
            1,
        )
        assert [pack.rows(split) for split in ("train", "val", "test")] == [
            slice(0, 4),
            slice(4, 6),
            slice(6, 7),
        ]
        assert pack.feature_labels == ["a", "b", "größe"]
        assert pack.units == {"band_gap": "eV", "volume_per_atom": "Å³/atom"}
        x, y = pack.x(slice(2, 6)), pack.y("band_gap", slice(0, 7))
        assert (x.dtype, y.dtype) == (np.float32, np.float64)
        np.testing.assert_array_equal(x, X[2:6])
        np.testing.assert_array_equal(y, GAP)
        assert pack.formulas(pack.rows("train")) == FORMULAS[:4]
        assert pack.material_ids(slice(0, 7)) == IDS
        assert pack.attrs["licence"] == "CC BY 4.0"
        assert json.loads(json.dumps(pack.identity)) == pack.identity
        assert pack.identity == {
            **IDENTITY,
            "format": "irnet-pack/1",
            "content_sha256": verify(path),
        }


def test_a_pack_can_be_read_without_this_project(path):
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"irnet-pack/1"
        assert file["y/volume_per_atom"].attrs["unit"].decode() == "Å³/atom"
        assert file["formula"].asstr()[1] == "Fe2O3"
        assert sorted(file) == ["feature_label", "formula", "material_id", "x", "y"]


def test_the_hash_is_of_content_not_of_chunks_or_the_time(path, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHUNK_ROWS", 2)
    other = tmp_path / "other.h5"
    with create_pack(other, ["a", "b", "größe"], 7) as new:
        new.append(X)
        targets = {"band_gap": GAP, "volume_per_atom": GAP * 10}
        new.finish(
            FORMULAS,
            IDS,
            targets,
            {"train": 4, "val": 2, "test": 1},
            IDENTITY,
            {"created": "later"},
        )
    assert verify(other) == verify(path)


def test_unknown_properties_and_splits_list_the_known(path):
    with open_pack(path) as pack:
        with pytest.raises(
            UserError,
            match=r"unknown property of pack small 'gap'.*; known: band_gap, volume_per_atom",
        ):
            pack.y("gap", slice(0, 1))
        with pytest.raises(UserError, match="unknown role 'dev'; known: test, train, val"):
            pack.rows("dev")


def test_any_flipped_byte_of_the_data_is_found_when_it_is_read(path, tmp_path):
    whole = path.read_bytes()
    with h5py.File(path) as file:
        places = {}
        for name in (
            "x",
            "y/band_gap",
            "y/volume_per_atom",
            "formula",
            "material_id",
            "feature_label",
        ):
            chunk = file[name].id.get_chunk_info(0)
            places[name] = [
                chunk.byte_offset,
                chunk.byte_offset + chunk.size // 2,
                chunk.byte_offset + chunk.size - 1,
            ]
    for name, offsets in places.items():
        for offset in offsets:
            damaged = tmp_path / "damaged.h5"
            damaged.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
            with pytest.raises(UserError, match=r"damaged\.h5 cannot be read as a pack"):
                verify(damaged)
            if name == "x":
                with (
                    open_pack(damaged) as pack,
                    pytest.raises(UserError, match=r"damaged\.h5 cannot be read"),
                ):
                    pack.x(slice(0, 1))


def test_any_flipped_byte_of_the_file_is_found_or_changes_nothing(path, tmp_path):
    whole, content = path.read_bytes(), verify(path)
    random = np.random.default_rng(0)
    n_found = 0
    for offset in random.integers(len(whole), size=120):
        damaged = tmp_path / "damaged.h5"
        damaged.write_bytes(
            whole[:offset]
            + bytes([whole[offset] ^ (1 << random.integers(8))])
            + whole[offset + 1 :]
        )
        try:
            assert verify(damaged) == content  # unused space
        except UserError as error:
            assert "damaged.h5" in str(error)
            n_found += 1
    assert n_found > 12


def test_another_content_under_sound_checksums_is_found_by_verify(path):
    with h5py.File(path, "r+") as file:
        file["x"][3, 1] += 1
    with open_pack(path) as pack:
        pack.x(pack.rows("train"))
    with pytest.raises(UserError, match="is damaged: the hash of its content is"):
        verify(path)


def test_a_file_cut_short_anywhere_is_one_sentence(path, tmp_path):
    whole = path.read_bytes()
    for length in [0, 1, 100, len(whole) // 2, len(whole) - 1]:
        short = tmp_path / "short.h5"
        short.write_bytes(whole[:length])
        with pytest.raises(
            UserError,
            match=r"short\.h5 cannot be read as a pack; it is damaged, cut short or not HDF5",
        ):
            open_pack(short)


def test_foreign_files_are_one_sentence(tmp_path):
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match=r"is HDF5, but not a finished pack of format irnet-pack/1"):
        open_pack(foreign)
    foreign.write_text("formula,band_gap\n")
    with pytest.raises(UserError, match="cannot be read as a pack"):
        open_pack(foreign)
    with pytest.raises(UserError, match=r"there is no pack .*nothing\.h5"):
        open_pack(tmp_path / "nothing.h5")
    with pytest.raises(UserError, match="cannot be read as a pack"):
        open_pack(tmp_path)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), create_pack(tmp_path / "never.h5", ["a"], 3) as new:
        new.append(np.zeros((2, 1)))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_pack_that_is_not_what_was_to_be_written_never_gets_its_name(tmp_path, path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(writer, "verify", lambda _: (_ for _ in ()).throw(UserError("damaged")))
    with pytest.raises(UserError), create_pack(path, ["a"], 1) as new:
        new.append(np.zeros((1, 1)))
        new.finish(["Fe"], ["1"], {}, {"train": 1, "val": 0, "test": 0}, IDENTITY, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_wide_rows_get_chunks_that_fit_in_memory(tmp_path):
    path = tmp_path / "wide.h5"
    with create_pack(path, [f"f{i}" for i in range(5000)], 2000) as new:
        new.append(np.ones((2000, 5000), np.float32))
        ids = [str(row) for row in range(2000)]
        new.finish(
            ids, ids, {}, {"train": 2000, "val": 0, "test": 0}, {**IDENTITY, "properties": {}}, {}
        )
    with h5py.File(path) as file:
        assert file["x"].chunks[0] * 5000 * 4 <= writer.MAX_CHUNK_BYTES


def test_packs_are_found_by_name_or_path(monkeypatch, tmp_path):
    monkeypatch.delenv("IRNET_PACKS", raising=False)
    assert str(pack_path("oqmd-magpie")) == "packs/oqmd-magpie.h5"
    assert str(pack_path("oqmd-magpie", "there")) == "there/oqmd-magpie.h5"
    assert str(pack_path("some/where.h5", "there")) == "some/where.h5"
    monkeypatch.setenv("IRNET_PACKS", "/scratch/packs")
    assert str(pack_path("oqmd-magpie")) == "/scratch/packs/oqmd-magpie.h5"
    assert str(pack_path("oqmd-magpie", "there")) == "there/oqmd-magpie.h5"


def test_many_processes_read_one_pack(alloys_pack):
    program = (
        "from irnet_hpc.pack.store import open_pack; "
        f"print(open_pack({str(alloys_pack)!r}).x(slice(0, 600)).sum())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    with open_pack(alloys_pack) as pack:
        sums = {float(process.communicate()[0]) for process in running}
        assert sums == {float(pack.x(slice(0, 600)).sum())}


def test_a_read_only_folder_is_no_obstacle(alloys_pack, tmp_path):
    copy = Path(shutil.copy(alloys_pack, tmp_path / "copy.h5"))
    copy.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert verify(copy) == verify(alloys_pack)
    finally:
        tmp_path.chmod(0o755)


def test_a_pack_shows_its_name_and_its_rows(path):
    with open_pack(path) as pack:
        assert pack.name in repr(pack) and f"{pack.n_test} test" in repr(pack)
