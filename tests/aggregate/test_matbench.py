"""Matbench's official result files: recorded and scored by its own package, equal to ours."""

import gzip
import json
import os
import subprocess
import sys
from statistics import fmean

import pytest

from irnet_hpc.aggregate.matbench import record
from irnet_hpc.aggregate.matbench.environment import matbench_python
from irnet_hpc.aggregate.matbench.files import (
    _check_targets,
    _compared,
    plan_matbench,
    write_matbench,
)
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.data.benchmarks import MATBENCH_TASKS
from irnet_hpc.data.download import wheels
from irnet_hpc.data.download.wheel_tables import task_rows
from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import collect_runs
from tests.aggregate.results import aggregate, write_by_hand, write_run
from tests.conftest import ROOT

STEELS = {"property": "yield_strength", "unit": "MPa"}


def write_fold(folder, fold, mae=100.0, model="ridge"):
    return write_run(
        folder / f"{model}{fold}",
        mae,
        model,
        **STEELS,
        pack=f"matbench-steels-elements-fold{fold}",
        identity={
            "source": "matbench:steels",
            "features": "elements",
            "split": {"by": "fold", "seed": fold},
        },
    )


def plan_of(folder):
    return plan_matbench(make_tables(folder).findings.tasks)


def test_a_model_that_lacks_a_fold_is_named_with_it(tmp_path):
    for fold in range(5):
        write_fold(tmp_path, fold)
    for fold in (0, 2, 3):
        write_fold(tmp_path, fold, model="extra_trees")
    plan = plan_of(tmp_path)
    assert [one.model for one in plan.folds] == ["ridge"]
    (runs,) = plan.folds.values()
    assert sorted(runs["steels"]) == [0, 1, 2, 3, 4]
    (sentence,) = plan.lacking
    assert "Extra trees" in sentence and "folds 1, 4" in sentence


def test_without_all_folds_of_any_model_the_command_says_which(tmp_path):
    for fold in (0, 1, 2, 4):
        write_fold(tmp_path / "results", fold)
    done = aggregate(tmp_path / "results", "--matbench", tmp_path / "official")
    assert done.returncode == 2 and "fold 3" in done.stderr and "\n" not in done.stderr.strip()
    assert not (tmp_path / "official").exists() and not (tmp_path / "results" / "tables").exists()


def test_results_without_a_task_of_matbench_are_refused(tmp_path):
    write_by_hand(tmp_path)
    with pytest.raises(UserError, match="expt_gap"):
        plan_of(tmp_path)


def test_an_mae_that_is_not_ours_is_refused(tmp_path):
    for fold in range(5):
        write_fold(tmp_path, fold, mae=100.0 + fold)
    (tasks,) = plan_of(tmp_path).folds.values()
    folds = [100.0, 101.0, 102.0, 103.0, 104.0]
    answer = {"matbench_steels": {"mae": 102.0, "sd": 1.4, "folds": folds}}
    (score,) = _compared(tasks, answer)
    assert (score.task, score.unit, score.mae) == ("steels", "MPa", 102.0)
    folds[3] = 103.01
    with pytest.raises(UserError, match=r"ridge3.*103\.01"):
        _compared(tasks, answer)


@pytest.mark.parametrize(
    ("ids", "targets"),
    [
        (["mb-steels-001", "mb-steels-002"], [2411.5, 1.0]),
        (["mb-steels-001", "mb-steels-001"], [2411.5, 2411.5]),
        (["mb-steels-001", "mb-steels-003"], [2411.5, 1123.1]),
        (["mb-steels-001", "mb-glass-002"], [2411.5, 1123.1]),
    ],
)
def test_rows_that_are_not_the_official_ones_are_refused(tmp_path, ids, targets):
    run = collect_runs(write_fold(tmp_path, 0))[0][0]
    rows = [("Fe", "2411.5"), ("Fe", "1123.1")]
    _check_targets("steels", run, ["mb-steels-002", "mb-steels-001"], [1123.1, 2411.5], rows)
    with pytest.raises(UserError, match="official"):
        _check_targets("steels", run, ids, targets, rows)


MATRIX = """
packs:
  - {name: steels, source: "matbench:steels", features: elements, properties: [yield_strength]}
folds: [0, 1, 2, 3, 4]
models: [ridge]
"""


@pytest.fixture(scope="module")
def python():
    """Return the Python of Matbench's environment; skip where pip cannot install it."""
    try:
        return matbench_python()
    except UserError as error:
        pytest.skip(f"needs {wheels.MATBENCH.requirement}: {error}")


@pytest.mark.slow
def test_matbench_itself_records_and_scores_our_predictions_as_we_do(python, tmp_path):
    (tmp_path / "m.yaml").write_text(MATRIX)
    variables = {"IRNET_DATA": str(tmp_path), "IRNET_PACKS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "irnet_hpc.sweep", "run", "m.yaml", "--results", "r"],
        cwd=tmp_path,
        env={**os.environ, **variables, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    official = tmp_path / "official"
    done = aggregate(tmp_path / "r", "--matbench", official, "--json")
    assert done.returncode == 0, done.stderr
    (file,) = json.loads(done.stdout)["matbench"]
    (score,) = file["scores"]
    ours = {run.split: run for run in collect_runs(tmp_path / "r")[0]}
    expected = fmean(run.result.test_mae for run in ours.values())
    assert score["mae"] == pytest.approx(expected, rel=1e-6)
    assert score["task"] == "steels" and not score["by_composition"]

    (path,) = official.glob("*/results.json")
    assert str(path) == file["file"]
    body = path.read_bytes()
    assert gzip.decompress((path.parent / "results.json.gz").read_bytes()) == body
    results = json.loads(body)["tasks"]["matbench_steels"]["results"]
    ids = [own for fold in range(5) for own in results[f"fold_{fold}"]["data"]]
    assert sorted(ids) == [f"mb-steels-{number:03d}" for number in range(1, 313)]
    assert results["fold_2"]["parameters"]["key"] == ours[2].result.key

    # Its own loader refuses the file of a prediction that was changed afterwards.
    results["fold_2"]["data"][ids[150]] = 1.0
    changed = json.loads(body)
    changed["tasks"]["matbench_steels"]["results"] = results
    path.write_text(json.dumps(changed))
    program = (
        "import sys; from matbench.bench import MatbenchBenchmark as M; M.from_file(sys.argv[1])"
    )
    refused = subprocess.run(
        [str(python), "-I", "-c", program, str(path)], capture_output=True, text=True, timeout=600
    )
    assert refused.returncode == 1 and "Hash" in refused.stderr


@pytest.mark.slow
def test_our_tables_are_the_official_ones_and_another_order_is_not(python, tmp_path):
    wheel = wheels.obtain_wheels([wheels.CRABNET])[wheels.CRABNET]
    tables = {
        f"matbench_{task}": [[formula, float(value)] for formula, value in task_rows(task, wheel)]
        for task in MATBENCH_TASKS
    }
    # The last one to be checked, so the others have passed when it is refused.
    table = tables["matbench_steels"] = tables.pop("matbench_steels")
    table[3], table[200] = table[200], table[3]
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps({"tables": tables, "files": []}))
    done = subprocess.run(
        [str(python), "-I", record.__file__, str(request), str(answer)],
        env={**os.environ, "MATMINER_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1 and "matbench_steels is not the official one" in done.stderr
    assert not answer.exists()


def test_without_the_package_there_is_one_sentence_and_nothing_is_left(monkeypatch, tmp_path):
    for fold in range(5):
        write_fold(tmp_path / "results", fold)
    wheel = tmp_path / "cache" / "irnet_hpc" / "wheels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IRNET_OFFLINE", "1")
    with pytest.raises(UserError, match="IRNET_OFFLINE"):
        write_matbench(plan_of(tmp_path / "results"), tmp_path / "official")
    assert not list(wheel.glob("*")) and not (tmp_path / "official").exists()
