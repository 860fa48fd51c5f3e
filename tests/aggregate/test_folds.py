"""The folds of a table are one run with a prediction for every row, and the choice is honest."""

import csv
import json
import shutil

import numpy as np
import pytest

from irnet_hpc.aggregate.model_table import CHOSEN, lines_of, model_latex
from irnet_hpc.aggregate.page.summary import sentences
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.aggregate.screen import screen
from irnet_hpc.aggregate.statistics import mean_interval, paired_interval
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.folds import chosen_on_val, join_folds, write_out_of_fold
from irnet_hpc.runs.predictions import FILE, read_predictions
from tests.aggregate.results import write_predictions, write_run
from tests.aggregate.test_all_models import compiled

N_ROWS = 40
FORMULAS = np.array([f"Al{n // 2}Ni" for n in range(2, N_ROWS + 2)])  # two rows of each formula


def write_folds(results, errors, model="irnet-17", n_folds=2, repeat=0, vals=(0.1, 0.1), **changes):
    """Write a run for each fold of a table whose rows have these errors."""
    errors, rows = np.asarray(errors, float), np.arange(N_ROWS)
    fold_of = (rows // 2 + repeat * (rows // 4)) % n_folds  # rows of a formula stay together
    for fold in range(n_folds):
        own, seed = rows[fold_of == fold], repeat * n_folds + fold
        identity = {
            "split": {"by": "folds", "n_folds": n_folds, "seed": seed},
            "content_sha256": f"{seed}" * 64,
            "source": "mine",
            "features": "magpie",
        }
        folder = write_run(
            results,
            float(np.abs(errors[own]).mean()),
            model,
            pack=f"mine-magpie-folds{n_folds}-fold{seed}",
            identity=identity,
            n_test=len(own),
            test_rmse=float(np.sqrt((errors[own] ** 2).mean())),
            val_mae=vals[fold % len(vals)],
            **changes,
        )
        np.savez(
            folder / FILE,
            material_id=np.array([f"m{row:03}" for row in own]),
            formula=FORMULAS[own],
            target=own.astype(float),
            prediction=own + errors[own],
        )


def joined(results):
    return [run for run in join_folds(collect_runs(results)[0]).runs if run.folds]


def errors_of(seed):
    return np.random.default_rng(seed).normal(size=N_ROWS)


def test_the_folds_are_one_run_with_a_prediction_for_every_row(tmp_path):
    errors = errors_of(0)
    write_folds(tmp_path, errors)
    (run,) = joined(tmp_path)
    arrays = read_predictions(run)
    row = np.array([int(name[1:]) for name in arrays["material_id"]])
    assert sorted(row) == list(range(N_ROWS))
    np.testing.assert_allclose(arrays["prediction"] - arrays["target"], errors[row])
    assert run.result.n_test == N_ROWS and run.spec.pack == "mine-magpie-folds2"
    assert run.result.test_mae == pytest.approx(np.abs(errors).mean())
    assert run.result.test_rmse == pytest.approx(np.sqrt((errors**2).mean()))
    rest, total = (errors**2).sum(), N_ROWS * np.arange(N_ROWS).var()
    assert run.result.test_r2 == pytest.approx(1 - rest / total)
    assert (run.result.wall_time_s, run.n_trainings) == (7200.0, 2)
    (path,) = write_out_of_fold([run])
    assert path.parts[-7] == "mine-magpie-folds2"
    lines = list(csv.DictReader(path.open()))
    assert len(lines) == N_ROWS and {line["fold"] for line in lines} == {"0", "1"}
    assert float(lines[3]["prediction"]) == arrays["prediction"][3]


def test_a_set_that_lacks_a_fold_is_left_out_and_named(tmp_path):
    write_folds(tmp_path, errors_of(0))
    write_folds(tmp_path, errors_of(1), "plain-17")
    (missing,) = tmp_path.glob("mine-magpie-folds2-fold1/*/plain-17/*/*/seed0/result.json")
    missing.unlink()
    report = make_tables(tmp_path)
    ((model, score),) = ((model, score) for _, model, score in report.tables[0].scored())
    assert str(model) == "irnet-17" and score.n_trainings == 2
    (note,) = (note for note in report.notes if "others of their set" in note.heading)
    assert "plain-17" in note.lines[0] and note.lines[0].endswith("fold 1")


def test_one_mae_with_the_interval_of_all_rows_by_formula(tmp_path):
    """Repeats are runs on the same rows: their errors are averaged row by row."""
    errors = [0.1 * errors_of(seed) for seed in range(4)]
    for repeat in range(2):
        write_folds(tmp_path, errors[repeat], repeat=repeat)
        write_folds(tmp_path, 1.3 * errors[2 + repeat], "plain-17", repeat=repeat)
    report = make_tables(tmp_path)
    (table,) = report.tables
    assert table.pack == "mine-magpie-folds2"
    scores = {str(model): score for _, model, score in table.scored()}
    irnet = np.abs(errors[:2])
    assert scores["irnet-17"].mae == pytest.approx(irnet.mean())
    order = np.lexsort((np.arange(N_ROWS), FORMULAS))
    group = np.unique(FORMULAS[order], return_inverse=True)[1]
    expected = mean_interval([irnet[:, order].mean(axis=0, keepdims=True)], [group])
    assert scores["irnet-17"].interval == pytest.approx((expected.low, expected.high))
    assert scores["plain-17"].p_against_best is not None
    assert all(row.n_test == N_ROWS for row in table.rows)


def test_nested_selection_chooses_by_val_in_each_fold(tmp_path):
    """irnet-17 has the lower val MAE in fold 0 only, though its test errors are lower in fold 1."""
    fold = np.arange(N_ROWS) // 2 % 2
    irnet, plain = np.where(fold == 0, 0.5, 0.1), np.where(fold == 0, 0.2, 0.4)
    write_folds(tmp_path, irnet, vals=(0.1, 0.3))
    write_folds(tmp_path, plain, "plain-17", vals=(0.2, 0.2))
    (run,) = chosen_on_val(joined(tmp_path))
    assert [one.spec.model for one in run.folds] == ["irnet-17", "plain-17"]
    assert run.result.test_mae == pytest.approx((0.5 + 0.4) / 2)
    report = make_tables(tmp_path)
    (section,) = (section for section in report.sections if section.name == "folds")
    choice, *others = section.records
    assert choice["mae"] == pytest.approx(0.45) and choice["difference"] is None
    assert choice["recipe"] == "irnet-17 onecycle 1, plain-17 onecycle 1"
    assert [line["mae"] for line in others] == pytest.approx([0.3, 0.3])
    assert [line["difference"] for line in others] == pytest.approx([-0.15, -0.15])
    assert chosen_on_val(joined(tmp_path)[:1]) == []
    (models,) = report.findings.all_models
    (known,) = models.properties
    assert known.chosen and known.chosen.mae == pytest.approx(0.45)
    lines = [[cell.text for cell in line] for line in lines_of(models)]
    (line,) = (line for line in lines if CHOSEN in line)
    assert "IRNet-17 onecycle ×1, Plain-17 onecycle ×1" in line
    assert report.write_tables(tmp_path / "tables") and screen(report, 80)
    (best,) = (one.text for one in sentences(report.findings) if one.about.startswith("mine"))
    assert "0.45" in best and "each fold" in best


def test_the_difference_from_the_choice_is_paired_by_row(tmp_path):
    good, bad = errors_of(0), errors_of(1)
    write_folds(tmp_path, good, n_folds=4, vals=(0.1,))
    write_folds(tmp_path, bad, "plain-17", n_folds=4, vals=(0.2,))
    report = make_tables(tmp_path)
    (section,) = (section for section in report.sections if section.name == "folds")
    (plain,) = (line for line in section.records if line["model"] == "plain-17")
    order = np.lexsort((np.arange(N_ROWS), FORMULAS))
    group = np.unique(FORMULAS[order], return_inverse=True)[1]
    expected = paired_interval([np.abs(bad[order])[None]], [np.abs(good[order])[None]], [group])
    found = plain["difference"], plain["difference_low"], plain["difference_high"]
    assert found == pytest.approx(expected)


def test_one_table_has_the_prediction_of_each_model_for_each_row(tmp_path):
    write_folds(tmp_path / "r", errors_of(0))
    write_folds(tmp_path / "r", errors_of(1), "random_forest")
    report = make_tables(tmp_path / "r")
    report.write_tables(tmp_path / "t")
    lines = list(csv.DictReader((tmp_path / "t/out_of_fold.csv").open()))
    assert len(lines) == 2 * N_ROWS
    assert {line["model"] for line in lines} == {"irnet-17", "random_forest"}
    assert {line["pack"] for line in lines} == {"mine-magpie-folds2"}
    tables = json.loads((tmp_path / "t/mae.json").read_text())
    assert tables["sections"]["folds"][0]["model"] == "chosen on val in each fold"


def test_folds_of_a_benchmark_stay_splits_of_their_own(tmp_path):
    for fold in range(3):
        identity = {"split": {"by": "fold", "seed": fold}, "content_sha256": f"{fold}" * 64}
        pack = f"steels-magpie-fold{fold}"
        write_predictions(
            write_run, tmp_path, [0.1 * fold, 0.3], pack=pack, identity=identity, rows=fold
        )
    report = make_tables(tmp_path)
    ((score),) = (score for _, _, score in report.tables[0].scored())
    assert score.n == 3 and not any(run.folds for run in score.runs)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_of_folds_fits_between_the_margins_and_says_what_brackets_are(tmp_path):
    for number, model in enumerate(("irnet-17", "random_forest", "boosted_trees")):
        vals = (0.1 + 0.01 * number, 0.2 - 0.02 * number)
        write_folds(tmp_path / "results", 0.1 * errors_of(number), model, n_folds=5, vals=vals)
    (table,) = make_tables(tmp_path / "results").findings.all_models
    body = model_latex(table)
    assert "Overfull" not in compiled(tmp_path, body)
    caption, _, rest = body.partition(r"\label")
    assert "95" in caption and f"{CHOSEN}$^1$ &" in rest and "$^1$ IRNet-17" in rest
    lines = [line for line in rest.splitlines() if " to " in line]
    assert len(lines) == 4  # the models, and what val chooses, with two digits of their intervals
