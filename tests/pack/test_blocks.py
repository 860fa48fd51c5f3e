"""Packs that were interrupted: finished blocks stay, and the same command computes the rest."""

import os
import re
import subprocess

import pytest

from irnet_hpc.pack.store import verify
from tests.pack.builders import (
    METALS,
    MPIRUN,
    N_BLOCKS,
    needs_mpi,
    rank_1,
    undisturbed_hash,
    wait_for,
)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param({}, {}, id="one process"),
        pytest.param({"options": ("--workers", 2)}, {}, id="two workers, then one"),
        pytest.param(
            {"launcher": MPIRUN, "victim": rank_1},
            {},
            id="a rank, then one process",
            marks=needs_mpi,
        ),
        pytest.param({}, {"launcher": MPIRUN}, id="one process, then two ranks", marks=needs_mpi),
    ],
)
def test_after_kill_9_the_same_command_computes_only_what_is_not_finished(first, then, place):
    running = place.start(
        "--features",
        "awkward",
        *first.get("options", ()),
        launcher=first.get("launcher", ()),
        row_s=0.04,
    )
    place.kill_when(3, running, first.get("victim"))
    running.communicate(timeout=600)
    assert running.returncode != 0
    assert not place.path.exists()
    finished, before = place.finished(), place.computed()
    assert 3 <= len(finished) < N_BLOCKS
    again = place.pack("--features", "awkward", **then)
    assert again.returncode == 0, again.stderr
    assert f"resuming: {len(finished)} of {N_BLOCKS} blocks are finished\n" in again.stdout
    twice = [formula for formula, count in place.computed().items() if count > 1]
    assert len(twice) <= sum(before.values()) - 6 * len(
        finished
    )  # of blocks that were not finished
    assert set(place.computed()) == {f"{metal}O" for metal in METALS}
    assert sorted(path.name for path in place.path.parent.iterdir()) == [
        "oxides.h5",
        "oxides.rejected.csv",
    ]
    assert verify(place.path) == undisturbed_hash(place, "awkward")


def test_finished_blocks_are_not_touched_until_the_pack_is_there(place):
    inodes = []
    for n_blocks in (2, 5):
        running = place.start("--features", "awkward", row_s=0.04)
        place.kill_when(n_blocks, running)
        inodes.append(place.finished())
    before, after = inodes
    assert len(before) < len(after) < N_BLOCKS
    assert before.items() <= after.items()


def test_a_damaged_or_torn_block_is_found_and_computed_again(place):
    running = place.start("--features", "awkward", row_s=0.04)
    place.kill_when(4, running)
    names = sorted(place.finished())
    damaged = bytearray((place.parts / names[1]).read_bytes())
    damaged[-3] ^= 16
    (place.parts / names[1]).write_bytes(damaged)
    (place.parts / names[2]).write_bytes((place.parts / names[2]).read_bytes()[:40])
    (place.parts / names[3]).write_bytes(b"")
    again = place.pack("--features", "awkward")
    assert f"{len(names) - 3} of {N_BLOCKS} blocks are finished; 3 damaged" in again.stdout
    assert verify(place.path) == undisturbed_hash(place, "awkward")


def test_what_is_left_of_another_pack_of_that_name_is_not_used(place):
    running = place.start("--features", "awkward", row_s=0.04)
    place.kill_when(3, running)
    place.write([f"{metal}2O" for metal in METALS])
    again = place.pack("--features", "awkward")
    assert "they differ in source_sha256, rows\n" in again.stdout
    assert "resuming" not in again.stdout
    assert verify(place.path) == undisturbed_hash(place, "awkward")


def test_the_second_of_two_packs_of_one_name_says_who_makes_the_first_and_stops(place):
    running = place.start("--features", "awkward", row_s=0.5)
    wait_for(lambda: place.finished())
    second = place.pack("--features", "awkward")
    assert second.returncode == 2
    host = re.escape(os.uname().nodename)
    assert re.fullmatch(
        rf"error: packs/oxides\.h5 .* process {running.pid} on {host} since [-0-9]+ [:0-9]+; .*\n",
        second.stderr,
    )
    assert "featurising" not in second.stdout
    assert place.pack("--features", "awkward", "--name", "other").returncode == 0
    running.communicate(timeout=600)
    assert running.returncode == 0
    assert verify(place.path) == verify(place.path.with_name("other.h5"))


def test_the_unfinished_file_of_a_killed_pack_goes_with_the_next_and_no_other(place):
    (place.folder / "packs").mkdir()
    stale = [".oxides.0123abcd.tmp.h5", ".oxides.rejected.0123abcd.tmp.csv", ".oxides.lock"]
    foreign = [".oxides.b.0123abcd.tmp.h5", ".other.0123abcd.tmp.h5", ".oxides.tmp.h5"]
    for name in stale + foreign:
        (place.folder / "packs" / name).write_text("half of it")
    assert place.pack("--features", "elements").returncode == 0
    left = {path.name for path in (place.folder / "packs").iterdir()}
    assert left == {*foreign, "oxides.h5", "oxides.rejected.csv"}


def test_a_disk_that_fills_up_leaves_nothing_that_looks_finished_and_then_it_goes_on(place):
    packs = place.folder / "packs"
    packs.mkdir()
    # 6,000 rows of 86 features are 2 MiB in parts; 4 are reserved for the pack, by whole chunks
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", packs], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        arguments = ("--source", "alloys", "--rows", 6000, "--features", "elements")
        done = place.pack(*arguments)
        assert done.returncode == 2
        assert re.fullmatch(
            r"error: cannot write block \d into packs/.oxides.parts: No space left on device\n",
            done.stderr,
        )
        n_finished = len(place.finished())
        assert 0 < n_finished < 6
        assert [path.name for path in packs.iterdir()] == [".oxides.parts"]
        subprocess.run(["mount", "-o", "remount,size=9m", packs], check=True)
        again = place.pack(*arguments)
        assert again.returncode == 0, again.stderr
        assert f"resuming: {n_finished} of 6 blocks are finished\n" in again.stdout
        verify(place.path)
        subprocess.run(["mount", "-o", "remount,ro", packs], check=True)
        assert "the pack exists already: packs/oxides.h5\n" in place.pack(*arguments).stdout
    finally:
        subprocess.run(["umount", packs], check=True)
