"""Hold which cells are trained together, and what becomes of each of them."""

import json
import os

import pytest

from irnet_hpc.distributed.processes import process_name
from irnet_hpc.files import write_json
from irnet_hpc.sweep import bundles, journal, local
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.ledger import read_ledger
from tests.builders import write_result
from tests.sweep.stand_ins import SEEDS


def test_cells_of_one_shape_that_report_the_same_rows_share_a_device(place, capsys, monkeypatch):
    place.pack_of_two()
    place.path.write_text(SEEDS)
    entries = read_ledger(place.matrix, place.results).entries
    assert len(entries) == 24

    def together(wanted, gpu_gb=None) -> list[int]:
        bundles = bundles.bundles_of(place.matrix, entries, wanted, gpu_gb)
        assert sorted(e.name for bundle in bundles for e in bundle) == sorted(
            e.name for e in entries
        )
        return [len(bundle) for bundle in bundles]

    # A model has 8 cells of recipes that differ in the rate alone (2 properties x 2 seeds x 2), and 4 of the wide batch; of 600
    # minutes each, 2 are 20 hours, within a day.
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
        """Of the cells of a bundle all but the second are done; it leaves its reason while the others go on."""
        commands.append(train_options(entry, results, pack_dir, *others))
        lines = []
        for i, one in enumerate((entry, *others)):
            prepared = write_result(place.matrix, one.cell, place.folder / "prepared")
            error = f'echo \'{{"error": "it hurts", "time": "2100-01-01T00:00:00+00:00"}}\' >{one.folder}/error.json'
            lines.append(
                f"mkdir -p {one.folder}; " + (error if i == 1 else f"cp {prepared} {one.folder}")
            )
        return ["sh", "-c", "; ".join([*lines, "exit 2" if others else "exit 0"])]

    monkeypatch.setattr(local, "train_command", train_command)
    assert place.sweep("run", "--bundle", "2") == 1
    states = [entry.state for entry in read_ledger(place.matrix, place.results).entries]
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
    names = [entry.name for entry in read_ledger(place.matrix, place.results).entries][:3]
    path = journal.begin(place.results, "mine", "local", process_name(os.getpid()))
    event = {"process": process_name(os.getpid()), "ended": None, "bundle": 3, "log": "log"}
    journal.note(path, [{"cell": name} | event for name in names])
    write_result(place.matrix, place.matrix.cells[0], place.results)
    write_json(
        place.results / names[1] / "error.json",
        {"error": "it hurts", "time": "2100-01-01T00:00:00+00:00"},
    )
    entries = read_ledger(place.matrix, place.results).entries[:3]
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
    assert {entry.state for entry in read_ledger(place.matrix, place.results).entries} == {"queued"}
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
