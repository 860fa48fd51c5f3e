"""Cells that are trained together, each with a lease of its own: what becomes of the others where one is another process's.

Stand-ins for SLURM and for trainings are those of test_sweep.py; the trainings that contend are real.
"""
# ruff: noqa: F811  fixtures are imported by their names

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.files import read_json, write_json
from irnet_hpc.runs import lease
from irnet_hpc.runs import lease as holding
from irnet_hpc.runs.spec import run_key
from irnet_hpc.sweep import cli as sweep
from irnet_hpc.sweep import local as running
from irnet_hpc.sweep.ledger import Entry, read_ledger
from irnet_hpc.sweep.local import horovodrun
from irnet_hpc.train import loop as training
from irnet_hpc.train import run_writer as folder
from tests.builders import write_result
from tests.runs.test_lease import lose, start
from tests.sweep.test_sweep import Place, place, slurm  # noqa: F401
from tests.sweep.test_sweep_again import HOLD, end_trainings
from tests.train import train_bundles
from tests.train.test_train import command, run

FOUR = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [plain-17]
recipes: [onecycle, {name: slow, base: onecycle, learning_rate: 1e-4}]
seeds: [0, 1]
resources: {minutes: 60, memory_gb: 8}
"""  # in this order: onecycle 0, slow 0, onecycle 1, slow 1


def hold(run: Path) -> subprocess.Popen:
    process = start(HOLD, run)
    assert process.stdout.readline() == "holds\n"
    return process


def entries_of(place: Place) -> list[Entry]:
    return list(read_ledger(place.matrix, place.results).cells)


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("n_ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cell_that_is_trained_elsewhere_is_left_out_and_the_others_go_on(
    alloys_pack, tmp_path, n_ranks
):
    assert run(alloys_pack, tmp_path, seed="1").returncode == 0
    (theirs,) = tmp_path.rglob("seed1")
    (theirs / "result.json").unlink()
    before, process = sorted(path.name for path in theirs.iterdir()), hold(theirs)
    launcher = [] if n_ranks == 1 else horovodrun(n_ranks)
    together = [*launcher, *command(alloys_pack, tmp_path, seed="0,1,2")]
    done = subprocess.run(together, capture_output=True, text=True, timeout=600)
    assert (
        done.returncode != 0
        and f"left out: {theirs} is being trained by process {process.pid} on " in done.stdout
    )
    assert (
        f"error: 1 of 3 cells were left out: {theirs} is being trained by process {process.pid}"
        in done.stderr
    )
    results = sorted(path.parent.name for path in tmp_path.rglob("result.json"))
    assert results == ["seed0", "seed2"]
    assert {read_json(path)["bundle_size"] for path in tmp_path.rglob("result.json")} == {2}
    assert sorted(path.name for path in theirs.iterdir()) == sorted([*before, lease.LEASE_FILE])
    assert [path.parent for path in tmp_path.rglob(lease.LEASE_FILE)] == [
        theirs
    ]  # the others' were given back
    process.communicate()
    last = run(alloys_pack, tmp_path, seed="0,1,2")
    assert last.returncode == 0 and last.stdout.count("already done") == 2


class LoseAfter:
    """No signal; but in a given step another process takes a run over."""

    def __init__(self, n_steps: int, run: Path) -> None:
        self.left, self.run = n_steps, run

    @property
    def asked(self) -> bool:
        self.left -= 1
        if self.left == 0:
            lose(self.run, token="another's")
        return False


def test_a_cell_that_another_process_takes_over_leaves_the_stack_and_the_others_end_as_they_would(
    alloys_pack, tmp_path
):
    torch.set_num_threads(1)
    of = {}
    for name in ("disturbed", "undisturbed"):
        replicas = train_bundles.replicas_of("irnet", alloys_pack, tmp_path / name)
        with holding.released_after():
            for replica in replicas:
                holding.take(replica.path)
            stop = LoseAfter(2, replicas[2].path) if name == "disturbed" else training.StopSignals()
            ended = training.train(replicas, Alone(), torch.device("cpu"), stop)
            of[name] = {one.replica.spec.seed: one for one in ended}
    found, expected = of["disturbed"], of["undisturbed"]
    assert (
        list(found) == [2, 1, 0] and "has taken over" in found[2].error and found[2].network is None
    )
    assert (
        len((tmp_path / "disturbed/2/history.csv").read_text().splitlines()) == 1
    )  # its head: no epoch was added
    assert lease.read_lease(tmp_path / "disturbed/2").lease.token == "another's"
    for seed in (0, 1):
        assert found[seed].error is None
        rows = [[row[:5] for row in one.state.history] for one in (found[seed], expected[seed])]
        np.testing.assert_allclose(rows[0], rows[1], 1e-9)


def test_a_rank_that_has_not_taken_the_lease_writes_while_the_one_that_has_holds_it(tmp_path):
    mine = lose(tmp_path / "run", machine="another")
    holding.share(tmp_path / "run", mine.token)
    folder.failed(tmp_path / "run", "the pack has gone")
    assert read_json(tmp_path / "run/error.json")["error"] == "the pack has gone"
    lose(tmp_path / "run", token="another's")
    folder.failed(tmp_path / "run", "late")
    with pytest.raises(lease.RunIsHeld):
        folder.append_history(tmp_path / "run", [1])
    holding.release(tmp_path / "run")
    assert read_json(tmp_path / "run/error.json")["error"] == "the pack has gone"
    assert (
        lease.read_lease(tmp_path / "run").lease.token == "another's"
        and holding.token_of(tmp_path / "run") is None
    )


# ------------------------------------------------------------------------------------------------------------- in a sweep


@pytest.fixture
def together(place, monkeypatch):
    """Trainings of bundles: each cell does what `together[<recipe><seed>]` says to the shell, else it is done; the last line is
    `together["exit"]`. `together["sizes"]`: cells of each command, as they are asked for."""
    place.path.write_text(FOUR)
    sizes: list[int] = []
    said = {"exit": "exit 0", "sizes": sizes}

    def train_command(entry, n_ranks, results, pack_dir, *others):
        cells, lines = (entry, *others), []
        sizes.append(len(cells))
        for one in cells:
            spec, prepared = (
                one.cell.spec,
                write_result(place.matrix, one.cell, place.folder / "prepared"),
            )
            lines.append(f"mkdir -p {one.folder}")
            lines.append(said.get(f"{spec.recipe}{spec.seed}") or f"cp {prepared} {one.folder}")
        return ["sh", "-c", "\n".join([*lines, said["exit"]])]

    monkeypatch.setattr(running, "train_command", train_command)
    monkeypatch.setattr(running, "gpu_gb_here", lambda: None)
    return said


def test_a_sweep_leaves_out_of_a_bundle_what_is_trained_elsewhere(
    place, together, monkeypatch, capsys
):
    second, holders = entries_of(place)[1], []
    # which the sweep calls when it has read the ledger: what another process had before that, it would not take up at all
    monkeypatch.setattr(sweep, "check_budget", lambda *_: holders.append(hold(second.folder)))
    assert place.sweep("run", "--bundle", "4") == 0
    shown = capsys.readouterr().out
    (process,) = holders
    process.kill()
    process.communicate()
    assert f"[1/1] {second.name} is being trained elsewhere, by process {process.pid} on " in shown
    assert (
        "mine: 3 cells done, 0 failures, 1 elsewhere, in" in shown
        and "looking again at 1 cells" in shown
    )
    assert together["sizes"] == [3]
    assert [(entry.folder / "result.json").exists() for entry in entries_of(place)] == [
        True,
        False,
        True,
        True,
    ]


def test_what_a_bundle_was_refused_is_looked_at_again_when_nobody_has_it_any_more(
    place, together, capsys
):
    """The other process takes it just before the bundle would, and is killed before the bundle has ended."""
    refused = entries_of(place)[2]
    once, prepared = (
        place.folder / "once",
        write_result(place.matrix, refused.cell, place.folder / "prepared"),
    )
    together["onecycle1"] = f"[ -e {once} ] && cp {prepared} {refused.folder} || true"
    together["exit"] = f"[ -e {once} ] || {{ touch {once}; exit {ExitStatus.HELD}; }}"
    assert place.sweep("run", "--bundle", "4") == 0
    shown = capsys.readouterr().out
    assert (
        "[1/1] was being trained elsewhere, and has no result" in shown
        and "looking again at 1 cells" in shown
    )
    assert "mine: 4 cells done, 0 failures, in" in shown and together["sizes"] == [4, 1]


def test_of_a_bundle_that_is_killed_for_its_memory_each_cell_without_a_result_is_tried_once_more_alone(
    place, together, capsys
):
    """The second cell's training takes too much whenever others are with it, and the third's always."""
    second = entries_of(place)[1]
    once, prepared = (
        place.folder / "once",
        write_result(place.matrix, second.cell, place.folder / "prepared"),
    )
    together["slow0"] = (
        f"[ -e {once} ] || {{ touch {once}; kill -9 $$; }}; cp {prepared} {second.folder}"
    )
    together["onecycle1"] = "kill -9 $$"
    assert place.sweep("run", "--bundle", "4") == 1
    shown = capsys.readouterr().out
    assert together["sizes"] == [4, 1, 1, 1] and "looking again at 3 cells" in shown
    assert "mine: 3 cells done, 1 failures" in shown
    found = entries_of(place)
    assert [entry.state for entry in found] == ["done", "done", "failed", "done"]
    assert found[2].cause == "memory"


def test_a_stale_cell_is_done_where_its_bundle_has_given_it_a_new_result_and_another_has_failed(
    place, together, capsys
):
    for entry in entries_of(place)[:2]:
        write_result(place.matrix, entry.cell, place.results, key="older")
    together["slow0"] = "true"  # and so the older result stays
    together["exit"] = "exit 2"
    for entry in entries_of(place)[2:]:
        write_result(place.matrix, entry.cell, place.results)
    assert place.sweep("run", "--stale", "--yes", "--bundle", "4") == 1
    assert "mine: 1 cells done, 1 failures" in capsys.readouterr().out
    assert [entry.state for entry in entries_of(place)] == ["done", "stale", "done", "done"]


def test_the_cells_of_a_bundle_are_preempted_failed_running_and_queued_each_by_itself(place, slurm):
    place.path.write_text(FOUR)
    place.sweep("submit", "--bundle", "4")
    entries = entries_of(place)
    assert {(entry.state, entry.detail) for entry in entries} == {("queued", "job 101")}
    slurm.set_state("101", "RUNNING")
    process = hold(entries[1].folder)
    write_result(place.matrix, entries[0].cell, place.results)
    found = entries_of(place)
    assert [entry.state for entry in found] == ["done", "running", "running", "running"]
    assert found[1].lease and not found[2].lease
    assert {entry.log for entry in found} == {str(entries[0].folder / "train.log")}
    process.kill()
    process.communicate()
    slurm.forget("101", **{"101": "NODE_FAIL"})
    cell = entries[1].cell
    key = run_key(cell.spec, cell.recipe, place.matrix.packs[0].identity)
    for name in ("run.json", "checkpoint/a.json"):
        write_json(entries[1].folder / name, {"key": key})
    found = entries_of(place)
    assert [entry.state for entry in found] == ["done", "preempted", "failed", "failed"]
    assert found[1].detail == "job 101 NODE_FAIL, with a checkpoint to go on from"


def test_of_bundles_what_lacked_time_comes_again_together_and_what_lacked_memory_alone(
    place, slurm, monkeypatch, capsys
):
    place.path.write_text(FOUR.replace("[0, 1]", "[0, 1, 2, 3]"))
    place.sweep("submit", "--bundle", "4", "--at-most", "1")
    assert (
        "#SBATCH --array=0-1%1\n" in slurm.scripts()[0]
        and "#SBATCH --time=240\n" in slurm.scripts()[0]
    )
    entries = entries_of(place)
    token = end_trainings(place, slurm, **{"101_0": "TIMEOUT", "101_1": "OUT_OF_MEMORY"})
    write_result(place.matrix, entries[0].cell, place.results)
    write_result(place.matrix, entries[4].cell, place.results)
    monkeypatch.setenv("SLURM_JOB_ID", "102")
    capsys.readouterr()
    assert place.sweep("reconcile", "--token", token, "--bundle", "4", "--at-most", "1") == 0
    shown = capsys.readouterr().out
    assert shown.count("; minutes 60 -> 120\n") == 3 and shown.count("; memory_gb 8 -> 16\n") == 3
    together, alone = slurm.scripts()[3:]
    assert (
        "#SBATCH --time=360\n" in together
        and "#SBATCH --mem=8192M\n" in together
        and "--array" not in together
    )
    assert (
        "#SBATCH --time=60\n" in alone
        and "#SBATCH --mem=16384M\n" in alone
        and "--array=0-2%1" in alone
    )
    assert "#SBATCH --dependency=afterany:104\n" in alone  # one at a time, over both
    states = [entry.state for entry in entries_of(place)]
    assert states == ["done", "queued", "queued", "queued", "done", "queued", "queued", "queued"]


def test_at_most_so_many_jobs_train_at_once_whatever_the_arrays(place, slurm):
    """6 cells in arrays of 4 (MaxArraySize): an array starts 2 at most, and the second waits for the first."""
    assert place.sweep("submit", "--at-most", "2") == 0
    first, second, again, tables = slurm.scripts()
    assert "#SBATCH --array=0-3%2\n" in first and "--dependency" not in first
    assert "#SBATCH --array=0-1%2\n" in second and "#SBATCH --dependency=afterany:101\n" in second
    assert (
        "#SBATCH --dependency=afterany:101:102\n" in again
        and "#SBATCH --dependency=afterany:103\n" in tables
    )
    with pytest.raises(SystemExit):
        place.sweep("submit", "--at-most", "0")
