import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irnet_hpc.doctor import filesystem
from irnet_hpc.doctor.checks import Level

ROOT = Path(__file__).parents[2]


def test_a_good_file_system_passes_and_nothing_stays(tmp_path, run_doctor):
    status, checks = run_doctor("--only", "results", "--results", tmp_path / "not" / "yet")
    assert status == 0
    assert [checks[name]["level"] for name in ("names", "HDF5", "clock")] == ["ok"] * 3
    assert checks["HDF5"]["facts"]["same"] and checks["HDF5"]["facts"]["locks"]
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_results_folder_is_a_failure(tmp_path, run_doctor):
    (tmp_path / "file").touch()
    status, checks = run_doctor("--only", "results", "--results", tmp_path / "file")
    assert status == 1 and "Not a directory" in checks["results"]["found"]
    assert checks.keys() == {"results", "space"}  # the others are not tried


def run_on_tmpfs(options: str, folder: Path) -> subprocess.CompletedProcess:
    """Run the doctor in a mount namespace with a small file system in memory on `folder`."""
    script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    doctor = [sys.executable, "-m", "irnet_hpc.doctor", "--only", "results", "--json"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", options, folder]
    command += [*doctor, "--results", folder]
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=600
    )


needs_mounts = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="this user may not mount",
)


@needs_mounts
def test_a_read_only_file_system_is_a_failure_that_says_so(tmp_path):
    done = run_on_tmpfs("ro", tmp_path)
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)["checks"]["results"]
    assert str(tmp_path) in verdict["found"]
    assert "Read-only file system (tmpfs)" in verdict["found"]
    assert f"ls -ld {tmp_path}" in verdict["todo"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_others_own_is_a_failure_that_says_so(tmp_path, run_doctor):
    tmp_path.chmod(0o555)
    status, checks = run_doctor("--only", "results", "--results", tmp_path / "results")
    assert status == 1 and "Permission denied" in checks["results"]["found"]


@needs_mounts
def test_a_full_disk_is_a_failure_in_every_check_that_needs_room(tmp_path):
    done = run_on_tmpfs("size=96k", tmp_path)
    assert done.returncode == 1, done.stderr
    checks = json.loads(done.stdout)["checks"]
    failed = {name for name, verdict in checks.items() if verdict["level"] == "failure"}
    assert failed == {"space", "HDF5", "names"}
    assert "No space left on device" in checks["names"]["found"]
    assert checks["clock"]["level"] == "ok"


@pytest.mark.parametrize(("locks", "level"), [(False, Level.WARNING), (True, Level.NOTE)])
def test_a_file_system_without_locks_is_reported(settings, monkeypatch, locks, level):
    facts = {"same": True, "locks": locks, "hdf5_locks": False}
    monkeypatch.setattr(filesystem, "run_probe", lambda arguments: (facts, ""))
    verdict = filesystem.check_hdf5(settings)
    assert verdict.level == level and "HDF5_USE_FILE_LOCKING=FALSE" in verdict.todo


def test_a_rename_that_is_not_atomic_is_found(settings, monkeypatch):
    @contextlib.contextmanager
    def copy_in_place(path, sync):
        temporary = path.with_name("temporary")
        yield temporary
        path.write_bytes(b"")
        path.write_bytes(temporary.read_bytes())

    monkeypatch.setattr(filesystem.files, "replacing", copy_in_place)
    monkeypatch.setattr(filesystem, "N_RENAMES", 200)
    assert filesystem.check_names(settings).level == Level.FAILURE


def test_the_type_of_a_file_system_is_that_of_the_nearest_mount():
    mounts = "\n".join(
        f"{number} 1 0:{number} / {where} rw - {kind} none rw"
        for number, (where, kind) in enumerate(
            [("/", "ext4"), ("/home", "nfs4"), (r"/home/a\040b", "lustre"), ("/home", "xfs")]
        )
    )
    types = {
        path: filesystem.file_system_type(Path(path), mounts)
        for path in ("/homes", "/home/c", "/home/a b/results", "/")
    }
    assert types == {"/homes": "ext4", "/home/c": "xfs", "/home/a b/results": "lustre", "/": "ext4"}


@pytest.mark.parametrize(("ahead_s", "level"), [(0, "ok"), (-3600, "warning"), (90, "warning")])
def test_a_clock_that_differs_from_the_file_systems_is_a_warning(
    settings, monkeypatch, ahead_s, level
):
    monkeypatch.setattr(filesystem.time, "time", lambda real=time.time: real() + ahead_s)
    assert filesystem.check_clock(settings).level == level
