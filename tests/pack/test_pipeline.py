"""From a source to a pack: content, names, packs that are there, and processes that are killed."""

import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from irnet_hpc.data.formulas import parse_formula, reduced_formula
from irnet_hpc.data.splits import ROLES, role_of
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import ELEMENTS
from irnet_hpc.pack.store import open_pack, verify
from tests.pack.builders import ROOT, TABLE, wait_for


def test_alloys_pack_is_what_its_parts_say(alloys_pack):
    with open_pack(alloys_pack) as pack:
        everything = slice(0, pack.n_rows)
        assert (pack.n_rows, pack.n_features) == (600, 86)
        assert pack.n_train + pack.n_val + pack.n_test == 600
        assert pack.units == {"mixing_enthalpy": "eV/atom", "size_mismatch": "%"}
        assert pack.feature_labels == list(ELEMENTS)
        np.testing.assert_allclose(pack.x(everything).sum(1), 1, atol=1e-6)
        for split in ROLES:
            for formula in pack.formulas(pack.rows(split)):
                assert role_of(reduced_formula(parse_formula(formula))) == split
        # The order of the rows is random, but fixed.
        numbers = [int(name.removeprefix("alloys-")) for name in pack.material_ids(everything)]
        assert sorted(numbers) == list(range(1, 601))
        assert numbers[: pack.n_train] != sorted(numbers[: pack.n_train])
    verify(alloys_pack)


def test_one_and_two_workers_give_the_same_content(pack_command, tmp_path):
    for workers in (1, 2):
        arguments = [
            "--source",
            "alloys",
            "--rows",
            "1100",
            "--workers",
            workers,
            "--name",
            f"by-{workers}",
        ]
        assert pack_command(*arguments, "--features", "magpie").returncode == 0
    assert verify(tmp_path / "packs/by-1.h5") == verify(tmp_path / "packs/by-2.h5")


def test_packing_again_does_nothing_and_another_pack_of_that_name_is_refused(
    pack_command, tmp_path
):
    (tmp_path / "mine.csv").write_text(TABLE)
    arguments = ["--source", "mine.csv", "--features", "elements", "--name", "same", "--workers", 1]
    assert pack_command(*arguments).returncode == 0
    before = (tmp_path / "packs/same.h5").stat()
    again = pack_command(*arguments)
    assert again.returncode == 0
    assert "the pack exists already: packs/same.h5" in again.stdout
    assert (tmp_path / "packs/same.h5").stat().st_mtime_ns == before.st_mtime_ns
    (tmp_path / "mine.csv").write_text(TABLE + "KCl,-2,5\n")
    other = pack_command(*arguments)
    assert other.returncode == 2
    assert "source_sha256, n_source_rows" in other.stderr
    assert pack_command(*arguments, "--overwrite").returncode == 0
    with open_pack(tmp_path / "packs/same.h5") as pack:
        assert pack.attrs["n_read"] == 16


def test_what_is_not_default_is_in_the_name(pack_command, tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    options = "--rows 6 --features elements --split-seed 3 --no-filters --property band_gap"
    assert pack_command("--source", "mine.csv", *options.split()).returncode == 0
    assert (tmp_path / "packs/mine-elements-band_gap-n6-split3-nofilters.h5").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_pack_leaves_nothing_that_opens_and_no_process(how, tmp_path):
    command = [
        sys.executable,
        "-m",
        "irnet_hpc.pack",
        "--source",
        "alloys",
        "--workers",
        "2",
        "--pack-dir",
        str(tmp_path),
    ]
    running = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(
        lambda: (
            running.poll() is not None
            or (list(tmp_path.iterdir()) and len(psutil.Process(running.pid).children()) >= 2)
        )
    )
    workers = psutil.Process(running.pid).children()
    os.kill(running.pid, how)
    assert running.wait(timeout=600) == (-9 if how == signal.SIGKILL else 143)
    assert not (tmp_path / "alloys-magpie.h5").exists()
    for left in tmp_path.iterdir():  # the blocks that are finished stay in any case
        assert how == signal.SIGKILL or left.name == ".alloys-magpie.parts"
        with pytest.raises(UserError):
            open_pack(left)
    wait_for(
        lambda: not any(worker.is_running() and worker.status() != "zombie" for worker in workers)
    )


def test_a_disk_without_room_is_one_sentence_and_nothing_is_left(tmp_path):
    (tmp_path / "mine.csv").write_text(TABLE)
    # Files may not exceed 100 blocks of 1024 bytes: a full disk or a quota, for one process.
    command = (
        f"ulimit -f 100; {sys.executable} -m irnet_hpc.pack --source mine.csv --features elements"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: packs has no room for a pack of 1 MiB: File too large\n"
    assert list((tmp_path / "packs").iterdir()) == []
    # The last to need room is the list of rejected rows, here of 5 MB; the pack itself takes 1.
    (tmp_path / "mine.csv").write_text(
        TABLE + "".join(f"{'Xx' * 490},{row},\n" for row in range(5000))
    )
    command = command.replace("100;", "3000;")
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: packs/mine-elements.rejected.csv: File too large\n",
    )
    assert [path.name for path in (tmp_path / "packs").iterdir()] == [".mine-elements.parts"]
