"""Runs of one model on the folds of a table: judged on rows that each was not trained on."""

import math

import numpy as np
import pytest
import torch

from irnet_hpc import UserError, load_model
from irnet_hpc.files import read_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.predict.committee import load_ensemble
from irnet_hpc.predict.run_folders import runs_in
from irnet_hpc.predict.weights import cross_fitted, fit_weights
from tests.predict.builders import deal_to_folds, stored, table, train_one

N_FOLDS = 3
MODELS = ("ridge", "decision_tree")


@pytest.fixture(scope="module")
def packs(alloys_pack, tmp_path_factory):
    """Return a pack of the alloys for each of three folds. Do not write to them."""
    return deal_to_folds(alloys_pack, tmp_path_factory.mktemp("folds"), N_FOLDS)


@pytest.fixture(scope="module")
def fits(packs, tmp_path_factory):
    """Return the runs of each of MODELS on the folds. Do not write to them."""
    results = tmp_path_factory.mktemp("fold-results")
    options = {"layers": None, "recipe": None}
    return {
        name: [train_one(pack, results, architecture=name, **options) for pack in packs]
        for name in MODELS
    }


def errors_of(runs) -> dict[str, float]:
    """Return the out-of-fold error of each material of the runs of one model."""
    errors = {}
    for run in runs:
        recorded = stored(run)
        errors |= dict(
            zip(
                recorded["material_id"].tolist(),
                recorded["prediction"] - recorded["target"],
                strict=True,
            )
        )
    return errors


def test_the_folds_of_a_model_are_one_mean_with_an_interval_from_every_row(fits, packs):
    runs, packed = fits["ridge"], packs[0].parent
    errors = np.array(list(errors_of(runs).values()))
    with open_pack(packs[0]) as pack:
        assert len(errors) == pack.n_rows
    model = load_model(runs, pack_dir=packed)
    (report,) = model.report(0.8)
    assert (report.n_val, report.n_test, report.n_folds) == (len(errors), len(errors), N_FOLDS)
    assert report.test_mae == pytest.approx(np.abs(errors).mean())
    half = np.sort(np.abs(errors))[math.ceil((len(errors) + 1) * 0.8) - 1]
    assert report.half_width == pytest.approx(half)
    formulas = stored(runs[0])["formula"].tolist()
    predicted = model.predict(formulas, 0.8)
    alone = [
        load_model(run, pack_dir=packed).predict(formulas)["predicted_mixing_enthalpy"]
        for run in runs
    ]
    np.testing.assert_allclose(predicted["predicted_mixing_enthalpy"], np.mean(alone, 0))
    width = predicted["high_mixing_enthalpy"] - predicted["predicted_mixing_enthalpy"]
    np.testing.assert_allclose(width, half)
    assert "sd_mixing_enthalpy" not in predicted.columns


def test_the_coverage_of_a_fold_is_that_of_the_interval_of_the_other_folds(fits, packs):
    (report,) = load_model(fits["ridge"], pack_dir=packs[0].parent).report(0.9)
    parts = [np.abs(list(errors_of([run]).values())) for run in fits["ridge"]]
    n_held = 0
    for number, part in enumerate(parts):
        rest = np.sort(np.concatenate(parts[:number] + parts[number + 1 :]))
        n_held += (part <= rest[math.ceil((len(rest) + 1) * 0.9) - 1]).sum()
    assert report.coverage == pytest.approx(n_held / sum(map(len, parts)))


def test_a_committee_of_two_models_is_weighed_out_of_fold(fits, packs):
    runs = [run for name in MODELS for run in fits[name]]
    by_model = [errors_of(fits[name]) for name in MODELS]
    ids = list(by_model[0])
    errors = np.array([[of[key] for key in ids] for of in by_model])
    fold = np.concatenate(
        [[number] * len(errors_of([run])) for number, run in enumerate(fits[MODELS[0]])]
    )
    weights = fit_weights(errors)
    model = load_model(runs, pack_dir=packs[0].parent, committee=True)
    (report,) = model.report()
    of_runs = [report.weights[str(run)] for run in runs]
    np.testing.assert_allclose(of_runs, np.repeat(weights / N_FOLDS, N_FOLDS), atol=1e-6)
    # Rows that decide the weights cannot judge them: each fold has the weights of the others.
    expected = np.abs(cross_fitted(errors, fold).error).mean()
    assert report.test_mae == pytest.approx(expected)
    formulas = stored(runs[0])["formula"].tolist()
    means = [load_model(fits[name], pack_dir=packs[0].parent).predict(formulas) for name in MODELS]
    np.testing.assert_allclose(
        model.predict(formulas)["predicted_mixing_enthalpy"],
        weights @ np.array([one["predicted_mixing_enthalpy"] for one in means]),
        atol=1e-6,
    )


def test_the_name_of_all_folds_stands_for_their_runs(fits, packs):
    """Also the folder above the seeds of all folds; no folder of that name need be there."""
    runs = fits["ridge"]
    name = runs[0].relative_to(runs[0].parents[5]).as_posix().replace("-fold0", "")
    above = runs[0].parents[5] / name
    assert not above.exists()
    assert runs_in(above) == runs_in(above.parent) == runs
    assert runs_in(runs[1]) == [runs[1]]
    (report,) = load_model(above, pack_dir=packs[0].parent).report()
    assert report.n_folds == N_FOLDS
    with pytest.raises(UserError):
        load_model(above.with_name("seed7"), pack_dir=packs[0].parent)


def test_the_best_model_by_val_over_the_folds_predicts_with_all_of_them(fits, packs, ask, tmp_path):
    results, formulas = fits["ridge"][0].parents[5], table(tmp_path / "t.csv", ["AlNi", "CuZn"])
    maes = {
        name: np.mean([read_json(run / "result.json")["val_mae"] for run in fits[name]])
        for name in MODELS
    }
    best = min(MODELS, key=lambda name: maes[name])
    packed = ("--pack-dir", packs[0].parent)
    arguments = ("--best", "mixing_enthalpy", "--results", results, formulas, *packed)
    status, rows, message = ask(*arguments)
    assert status == 0 and str(fits[best][0]) in message
    assert rows == ask(*fits[best], formulas, *packed)[1]
    name = "alloys-folds3"
    assert ask(*arguments, "--pack", name)[1] == rows
    # A single fold has its own best.
    status, rows, _ = ask(*arguments, "--pack", f"{name}-fold1")
    alone = {m: read_json(fits[m][1] / "result.json")["val_mae"] for m in MODELS}
    run = fits[min(MODELS, key=lambda model: alone[model])][1]
    assert status == 0 and rows == ask(run, formulas, *packed)[1]


def test_folds_that_are_lacking_are_named(fits, packs, caplog):
    with caplog.at_level("WARNING"):
        (report,) = load_model(fits["ridge"][1:], pack_dir=packs[0].parent).report()
    assert "fold 0" in caplog.text and report.n_folds == 2
    assert report.n_test == sum(len(stored(run)["target"]) for run in fits["ridge"][1:])


def test_a_run_on_one_fold_is_judged_by_its_own_val_and_test_rows(fits, packs):
    (report,) = load_model(fits["ridge"][0], pack_dir=packs[0].parent).report(0.8)
    assert (report.n_val, report.n_folds) == (40, None)
    assert report.n_test == len(stored(fits["ridge"][0])["target"])


def test_a_row_is_outside_if_it_is_far_from_the_rows_of_all_folds(fits, packs):
    """A row of the table is a training row of two of three runs."""
    cpu = torch.device("cpu")
    ensemble, _ = load_ensemble(fits["ridge"], packs[0].parent, cpu)
    assert ensemble.groups == ((0, 1, 2),)
    model = load_model(fits["ridge"], pack_dir=packs[0].parent)
    formulas = stored(fits["ridge"][0])["formula"].tolist()
    distance = model.predict(formulas)["distance"]
    alone = load_model(fits["ridge"][0], pack_dir=packs[0].parent).predict(formulas)["distance"]
    # Half of the neighbours that are found may be twice as far away as the nearest.
    assert distance.median() < 1e-3 < alone.median()


def test_runs_on_folds_of_different_tables_or_seeds_are_not_one_model(fits, packs, alloys_pack):
    cpu = torch.device("cpu")
    runs = [fits["ridge"][0], fits["decision_tree"][1], fits["ridge"][2]]
    ensemble, _ = load_ensemble(runs, packs[0].parent, cpu)
    assert ensemble.groups == ((0, 2), (1,))
