"""Notes below the tables."""

import json

from irnet_hpc.aggregate.document import document
from irnet_hpc.aggregate.notes import Note, gap_notes, legend
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.files import write_json
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.recipes import RECIPES
from irnet_hpc.runs.spec import RunSpec, run_id
from tests.aggregate.results import findings_of, write_run


def test_a_run_whose_origin_has_since_been_trained_otherwise_is_named_in_the_notes(tmp_path):
    origin = RunSpec("oqmd-magpie", "formation_energy", "irnet", 17)
    write_run(tmp_path, 0.05)
    (trained,) = collect_runs(tmp_path)[0]
    stated = {
        "pack": "oqmd-magpie",
        "property": "formation_energy",
        "model": "irnet-17",
        "n_shared_test": 0,
    }
    start = {"pack": "jarvis-magpie", "start_from": run_id(origin, RECIPES["onecycle"])}
    write_run(tmp_path, 0.04, **start, origin=stated | {"key": trained.result.key})
    folder = write_run(
        tmp_path, 0.04, seed=1, **start, origin=stated | {"key": "of another recipe of this name"}
    )
    (note,) = legend(findings_of(tmp_path))
    assert note == Note(
        "started from a run that has since been trained differently", (str(folder),)
    )


def test_the_footer_says_what_is_missing_and_why(tmp_path):
    write_run(tmp_path, 0.1, seed=0)
    running, failed, cut, short, absurd = (
        write_run(tmp_path, 0.1, seed=seed) for seed in range(1, 6)
    )
    for folder in (running, failed):
        (folder / "result.json").unlink()
    write_json(
        failed / "error.json", {"error": "the loss is not finite at epoch 3,\nstep 17\x1b[31m"}
    )
    (cut / "result.json").write_text((cut / "result.json").read_text()[:100])
    for folder, change in (
        (short, lambda value: value.pop("unit")),
        (absurd, lambda value: value.update(test_mae=-1)),
    ):
        value = json.loads((folder / "result.json").read_text())
        change(value)
        (folder / "result.json").write_text(json.dumps(value))
    hidden = write_run(tmp_path, 0.9, seed=9, folder=tmp_path / ".trash" / "run")
    runs, gaps = collect_runs(tmp_path)
    notes = gap_notes(gaps)
    assert [run.spec.seed for run in runs] == [0]
    failures, unfinished, unreadable = notes
    assert failures == Note(
        "failed", (f"{failed}: the loss is not finite at epoch 3, step 17 [31m",)
    )
    assert unfinished == Note("running, or interrupted", (str(running),))
    assert "is not JSON" in unreadable.lines[0]
    assert "keys missing or unknown: unit" in unreadable.lines[1]
    assert "test_mae must be a number that is not negative, got -1" in unreadable.lines[2]
    text = document(tabulate(runs), [], notes)
    assert "failed (1):" in text
    assert "running, or interrupted (1):" in text
    assert "unreadable, and left out (3):" in text
    assert str(hidden) not in text
    assert "- and 2 more, all in mae.md" in document(tabulate(runs), [], notes, max_lines=1)


def test_a_classical_model_fitted_on_fewer_rows_is_named_below_the_tables(tmp_path):
    write_run(tmp_path, 0.1, "svr", fitted_rows=20, n_parameters=None)
    write_run(tmp_path, 0.1, "ridge", fitted_rows=80)
    findings = findings_of(tmp_path)
    assert not findings.gaps
    (note,) = legend(findings)
    assert note.heading.startswith("fitted on fewer rows")
    assert note.lines == ("svr on oqmd-magpie, formation_energy: the first 20 of 80 training rows",)
