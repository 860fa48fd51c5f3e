"""Hold which cells are trained together, and what becomes of each of them."""

import json
import os

import pytest

from irnet_hpc.console import ExitStatus
from irnet_hpc.distributed.processes import process_name
from irnet_hpc.files import write_json
from irnet_hpc.runs.spec import run_key
from irnet_hpc.sweep import bundles, cell_attempt, crew, journal, local
from irnet_hpc.sweep.cell_states import CellStatus, read_ledger
from irnet_hpc.sweep.jobs import train_options
from tests.builders import write_result
from tests.sweep.stand_ins import SEEDS, Place, end_trainings, hold


def test_cells_of_one_shape_that_report_the_same_rows_share_a_device(place, capsys, monkeypatch):
    place.pack_of_two()
    place.path.write_text(SEEDS)
    entries = read_ledger(place.matrix, place.results).cells
    assert len(entries) == 24

    def together(wanted, gpu_gb=None) -> list[int]:
        grouped = bundles.bundles_of(place.matrix, entries, wanted, gpu_gb)
        assert sorted(e.name for bundle in grouped for e in bundle) == sorted(
            e.name for e in entries
        )
        return [len(bundle) for bundle in grouped]

    # A model has 8 cells of recipes that differ in the rate alone (2 properties x 2 seeds x 2), and
    # 4 of the wide batch; of 600 minutes each, 2 are 20 hours, within a day.
    assert together(1) == together("auto") == [1] * 24
    assert sorted(together(16)) == [2] * 12
    monkeypatch.setattr(bundles, "MAX_BUNDLE_MIN", 10**6)
    assert sorted(together(16)) == [4, 4, 8, 8] == sorted(together("auto", 80.0))
    assert sorted(together(3)) == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert max(together("auto", 2.5)) < 4
    assert place.sweep("plan", "--bundle", "16") == 0
    shown = capsys.readouterr().out
    assert shown.count("bundle 1 of 8 cells") == 8 and "onecycle/honest/seed1" in shown
    with pytest.raises(SystemExit):
        place.sweep("plan", "--bundle", "0")


def test_the_cells_of_a_bundle_are_done_and_failed_each_by_itself(place, monkeypatch, capsys):
    place.path.write_text(SEEDS.replace("[mixing_enthalpy, size_mismatch]", "[mixing_enthalpy]"))
    commands = []

    def train_command(entry, n_ranks, results, pack_dir, *others):
        """Finish all cells of a bundle but the second, which leaves its reason meanwhile."""
        commands.append(train_options(entry, results, pack_dir, *others))
        lines = []
        for i, one in enumerate((entry, *others)):
            prepared = write_result(place.matrix, one.cell, place.folder / "prepared")
            reason = '{"error": "it hurts", "time": "2100-01-01T00:00:00+00:00"}'
            error = f"echo '{reason}' >{one.folder}/error.json"
            lines.append(
                f"mkdir -p {one.folder}; " + (error if i == 1 else f"cp {prepared} {one.folder}")
            )
        return ["sh", "-c", "; ".join([*lines, "exit 2" if others else "exit 0"])]

    monkeypatch.setattr(cell_attempt, "train_command", train_command)
    assert place.sweep("run", "--bundle", "2") == 1
    states = [entry.state for entry in read_ledger(place.matrix, place.results).cells]
    assert states.count("done") == 6 and states.count("failed") == 6
    shown = capsys.readouterr().out
    assert shown.count("failed: it hurts") == 6 and "6 cells done, 6 failures" in shown
    cells = [
        cell for options in commands for cell in json.loads(options[options.index("--bundle") + 1])
    ]
    assert len(commands) == 6 and len(cells) == 12
    slow = {"name": "slow", "base": "onecycle", "learning_rate": "1e-4"}  # as YAML reads it
    assert {"property": "mixing_enthalpy", "recipe": slow, "seed": 1} in cells


def test_a_cell_of_a_bundle_that_runs_has_failed_once_it_says_so(place):
    place.path.write_text(SEEDS.replace("[mixing_enthalpy, size_mismatch]", "[mixing_enthalpy]"))
    names = [entry.name for entry in read_ledger(place.matrix, place.results).cells][:3]
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    event = {"process": process_name(os.getpid()), "ended": None, "bundle": 3, "log": "log"}
    journal.note(path, [{"cell": name} | event for name in names])
    write_result(place.matrix, place.matrix.cells[0], place.results)
    write_json(
        place.results / names[1] / "error.json",
        {"error": "it hurts", "time": "2100-01-01T00:00:00+00:00"},
    )
    entries = read_ledger(place.matrix, place.results).cells[:3]
    assert [(entry.state, entry.log) for entry in entries] == [
        ("done", "log"),
        ("failed", "log"),
        ("running", "log"),
    ]


def test_a_job_of_a_bundle_asks_for_the_time_of_all_its_cells(place, slurm, capsys):
    place.path.write_text(SEEDS.replace("[mixing_enthalpy, size_mismatch]", "[mixing_enthalpy]"))
    assert place.sweep("submit", "--bundle", "2") == 0
    first = slurm.scripts()[0]
    assert (
        "#SBATCH --time=1200" in first and "#SBATCH --array=0-3" in first
    )  # of 6 jobs; MaxArraySize is 4
    assert {entry.state for entry in read_ledger(place.matrix, place.results).cells} == {"queued"}
    assert (
        len(
            [
                line
                for line in (slurm.folder / "queue").read_text().splitlines()
                if "irnet:mine" in line
            ]
        )
        == 6
    )


def test_a_site_says_how_much_memory_its_gpus_have(place, slurm, tmp_path):
    place.path.write_text(SEEDS.replace("minutes: 600", "minutes: 10"))
    place.pack_of_two()
    site = tmp_path / "site.yaml"
    site.write_text("gpus_per_task: 1\ngpu_gb: 80\n")
    assert place.sweep("submit", "--site", str(site)) == 0
    times = sorted(
        line for text in slurm.scripts() for line in text.splitlines() if "--time=" in line
    )
    minutes = [30, 30, 40, 80]  # the second try, the tables; 4 and 8 cells
    assert times == [f"#SBATCH --time={n}" for n in minutes]


FOUR = """
packs: [alloys-magpie]
properties: [mixing_enthalpy]
models: [plain-17]
recipes: [onecycle, {name: slow, base: onecycle, learning_rate: 1e-4}]
seeds: [0, 1]
resources: {minutes: 60, memory_gb: 8}
"""  # in this order: onecycle 0, slow 0, onecycle 1, slow 1


def entries_of(place: Place) -> list[CellStatus]:
    return list(read_ledger(place.matrix, place.results).cells)


@pytest.fixture
def together(place, monkeypatch):
    """Replace the trainings of bundles by commands.

    Each cell does what `together[<recipe><seed>]` says to the shell, else it is done; the last line
    is `together["exit"]`. `together["sizes"]` lists the cells of each command.
    """
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

    monkeypatch.setattr(cell_attempt, "train_command", train_command)
    monkeypatch.setattr(crew, "gpu_gb_here", lambda: None)
    return said


def test_a_sweep_leaves_a_held_cell_out_of_its_bundle(place, together, monkeypatch, capsys):
    second, holders = entries_of(place)[1], []
    # The sweep calls it when it reads the ledger: cells held before that are not taken up at all.
    take_up = local.take_up

    def take_up_late(context):
        ledger = take_up(context)
        holders.append(hold(second.folder))
        return ledger

    monkeypatch.setattr(local, "take_up", take_up_late)
    assert place.sweep("run", "--bundle", "4") == 0
    shown = capsys.readouterr().out
    (process,) = holders
    process.kill()
    process.communicate()
    assert f"[1/1] {second.name} is being trained elsewhere, by process {process.pid} on " in shown
    assert (
        "mine: 3 cells done, 0 failures, 1 elsewhere, in" in shown
        and "cells to try again: 1" in shown
    )
    assert together["sizes"] == [3]
    assert [(entry.folder / "result.json").exists() for entry in entries_of(place)] == [
        True,
        False,
        True,
        True,
    ]


def test_a_held_bundle_is_tried_again_when_it_is_free(place, together, capsys):
    """Another process takes it just before the bundle would, and is killed meanwhile."""
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
        and "cells to try again: 1" in shown
    )
    assert "mine: 4 cells done, 0 failures, in" in shown and together["sizes"] == [4, 1]


def test_the_cells_of_a_bundle_killed_for_its_memory_are_tried_alone(place, together, capsys):
    """The second cell takes too much memory beside others, and the third always."""
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
    assert together["sizes"] == [4, 1, 1, 1] and "cells to try again: 3" in shown
    assert "mine: 3 cells done, 1 failures" in shown
    found = entries_of(place)
    assert [entry.state for entry in found] == ["done", "done", "failed", "done"]
    assert found[2].cause == "memory"


def test_a_stale_cell_is_done_once_its_bundle_gave_it_a_new_result(place, together, capsys):
    for entry in entries_of(place)[:2]:
        write_result(place.matrix, entry.cell, place.results, key="older")
    together["slow0"] = "true"  # and so the older result stays
    together["exit"] = "exit 2"
    for entry in entries_of(place)[2:]:
        write_result(place.matrix, entry.cell, place.results)
    assert place.sweep("run", "--stale", "--yes", "--bundle", "4") == 1
    assert "mine: 1 cells done, 1 failures" in capsys.readouterr().out
    assert [entry.state for entry in entries_of(place)] == ["done", "stale", "done", "done"]


def test_each_cell_of_a_bundle_has_its_own_state(place, slurm):
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
    assert found[1].detail == "job 101 NODE_FAIL; it can continue from its checkpoint"


def test_cells_that_lacked_time_come_again_together_memory_alone(place, slurm, monkeypatch, capsys):
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


def test_the_limit_of_jobs_holds_over_all_arrays(place, slurm):
    """6 cells in arrays of 4 (MaxArraySize): 2 start at most, and the second array waits."""
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
