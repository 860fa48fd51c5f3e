"""Packs are read without HDF5's locks, and damage that its checksums miss is found when reading."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError
from irnet_hpc.pack.store import can_be_locked, open_pack, verify
from irnet_hpc.pack.table import pack_table

READ = """
import sys
from irnet_hpc.pack.store import open_pack
with open_pack(sys.argv[1]) as pack:
    print(pack.n_rows)
"""
LOCK = """
import sys
from irnet_hpc.pack.store import can_be_locked
print(can_be_locked(sys.argv[1]))
"""
WRITE = """
import fcntl, sys
from pathlib import Path
import numpy as np
from irnet_hpc.pack.writer import create_pack
path = Path(sys.argv[1])
with create_pack(path, ["a"], 3) as writer:
    writer.append(np.zeros((3, 1), "f4"))
    (temporary,) = path.parent.glob(".*.tmp.h5")
    with temporary.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if HDF5 holds a lock
    names = ["Fe", "Ni", "Co"]
    identity = {"properties": {"density": "g/cm³"}, "source": "s", "source_sha256": "",
        "rules": 1, "n_source_rows": 3, "features": "f", "feature_versions": {}, "filters": [],
        "split": {}}
    counts = {"train": 1, "val": 1, "test": 1}
    writer.finish(names, names, {"density": np.ones(3)}, counts, identity, {})
print("written")
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A pack of 60 rows; the density of every third is 0."""
    folder = tmp_path_factory.mktemp("guards")
    rows = "".join(f"FeO{n},{n % 3},{0 if n % 2 else n}\n" for n in range(2, 62))
    (folder / "t.csv").write_text("formula,density,temperature\n" + rows)
    with pack_table(folder / "t.csv", features="columns", pack_dir=folder) as pack:
        return pack.path


def in_python(code: str, path, locking: str) -> str:
    """Run code in a process with the variable of HDF5."""
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": locking}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("locking", ["TRUE", "BEST_EFFORT", "FALSE"])
def test_packs_are_read_and_written_whatever_the_site_says_of_locks(locking, sound, tmp_path):
    with sound.open("rb") as stream:
        # As on a file system without locks: nobody else gets one.
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert in_python(READ, sound, locking) == "60"
    assert in_python(WRITE, tmp_path / "new.h5", locking) == "written"
    # Whether files can be locked is a fact about the file system, not about the variable.
    assert in_python(LOCK, sound, locking) == "True"


def test_a_pack_that_this_process_has_open_by_other_means_is_not_damaged(sound):
    with h5py.File(sound, "r") as plain, open_pack(sound) as pack:
        assert plain["x"].shape == (60, 1) == pack.x(slice(0, 60)).shape
    assert can_be_locked(sound)


def damage(sound, path, dataset: str, place: int, n_bytes: int):
    """Copy a pack and turn one of its zeros into a NaN of ones only; the checksum stays right."""
    shutil.copy(sound, path)
    with h5py.File(path, "r") as file:
        row = np.flatnonzero(file[dataset][:].ravel() == 0)[place]
        offset = file[dataset].id.get_chunk_info(0).byte_offset + n_bytes * int(row)
    content = bytearray(path.read_bytes())
    assert content[offset : offset + n_bytes] == bytes(n_bytes)
    content[offset : offset + n_bytes] = b"\xff" * n_bytes
    path.write_bytes(content)
    with h5py.File(path, "r") as file:
        assert np.isnan(file[dataset][:].ravel()[row])  # HDF5 reads it without complaint
    return path, int(row)


@pytest.mark.parametrize("place", [0, 7, -1])
def test_a_zero_of_the_features_that_became_nan_is_damage(place, sound, tmp_path):
    path, row = damage(sound, tmp_path / "p.h5", "x", place, 4)
    with open_pack(path) as pack:
        for read in (
            lambda: pack.x(slice(0, 60)),
            lambda: pack.x_into(np.empty((4, 1), "f4"), slice(row, row + 1)),
            lambda: pack.to_frame(),
        ):
            with pytest.raises(UserError, match="damaged"):
                read()
        others = [one for one in range(60) if one != row]
        assert np.isfinite(pack.x(slice(others[0], others[0] + 1))).all()
    with pytest.raises(UserError, match="damaged"):
        verify(path)


@pytest.mark.parametrize("place", [0, 7, -1])
def test_a_zero_of_a_property_that_became_nan_is_damage(place, sound, tmp_path):
    path, row = damage(sound, tmp_path / "p.h5", "y/density", place, 8)
    with open_pack(path) as pack:
        role = next(name for name in ("train", "val", "test") if row in range(60)[pack.rows(name)])
        for rows in (pack.rows(role), slice(0, 60)):
            with pytest.raises(UserError, match="damaged"):
                pack.y("density", rows)


@pytest.mark.parametrize(
    "reported",
    [None, [], {"density": 5}, {"density": {"train": 5}}, {"density": dict.fromkeys(ROLES, "5")}],
)
def test_counts_of_another_form_are_a_sentence(reported, sound, tmp_path):
    path = shutil.copy(sound, tmp_path / "t.h5")
    text = json.dumps(reported).encode()
    with h5py.File(path, "r+") as file:
        file.attrs["reported"] = np.array(text, h5py.string_dtype("utf-8", len(text)))
    with pytest.raises(UserError, match="reported must count the train, val, test rows"):
        open_pack(path)
