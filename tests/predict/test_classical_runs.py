"""Prediction with classical models: the numbers of scikit-learn, and what a run has kept."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc import UserError, load_model
from irnet_hpc.files import read_json, write_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.predict.domain import domain_of
from irnet_hpc.predict.members import read_member
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.train import classical_file
from irnet_hpc.train.model_file import read_tensors, write_tensors
from tests.builders import make_grids_small
from tests.predict.builders import held_out, numbers, stored, table, train_one

MODELS = ("ridge", "svr", "adaboost", "bagging", "random_forest", "boosted_trees", "tabm")


def fit(pack: Path, results: Path, architecture: str, **changes) -> Path:
    """Fit a classical model by the command; return the folder of the run."""
    return train_one(pack, results, architecture=architecture, layers=None, recipe=None, **changes)


@pytest.fixture(scope="module")
def fits(alloys_pack, tmp_path_factory) -> dict[str, Path]:
    """Return the folder of a run of each of MODELS. Do not write to them."""
    results = tmp_path_factory.mktemp("classical")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_grids_small(monkeypatch)
        return {name: fit(alloys_pack, results, name) for name in MODELS}


@pytest.fixture
def forest(fits, tmp_path) -> Path:
    """Return a copy of the run of the forest."""
    return Path(shutil.copytree(fits["random_forest"], tmp_path / "run"))


@pytest.mark.parametrize("architecture", MODELS)
def test_a_kept_model_predicts_what_its_run_recorded(architecture, fits, ask, tmp_path):
    run = fits[architecture]
    recorded = stored(run)
    status, rows, _ = ask(run, table(tmp_path / "test.csv", recorded["formula"]))
    assert status == 0
    predicted = numbers(rows, "predicted_mixing_enthalpy")
    np.testing.assert_allclose(predicted, recorded["prediction"], rtol=2e-5, atol=1e-6)
    assert predicted.std() > 0 and all(row["outside"] == "" or row["distance"] for row in rows)


def test_predictions_are_those_of_a_forest_of_scikit_learn_on_the_same_rows(
    fits, alloys_pack, ask, tmp_path
):
    from sklearn.ensemble import RandomForestRegressor

    with open_pack(alloys_pack) as pack:
        train = pack.rows("train")
        x, y = pack.x(train), pack.y("mixing_enthalpy", train)
        val_x = pack.x(pack.rows("val"))
    formulas, value = held_out(alloys_pack, "val")
    maes = {}
    for features in (0.33, 1.0):
        by_hand = RandomForestRegressor(10, max_features=features, random_state=0).fit(x, y)
        predicted = by_hand.predict(val_x)
        maes[float(np.abs(predicted - value).mean())] = predicted
    expected = maes[min(maes)]
    _, rows, _ = ask(fits["random_forest"], table(tmp_path / "val.csv", formulas))
    np.testing.assert_allclose(
        numbers(rows, "predicted_mixing_enthalpy"), expected, rtol=1e-5, atol=1e-9
    )
    error = np.sort(np.abs(expected - value))
    half = error[math.ceil((len(error) + 1) * 0.9) - 1]
    width = numbers(rows, "high_mixing_enthalpy") - numbers(rows, "low_mixing_enthalpy")
    np.testing.assert_allclose(width, 2 * half, rtol=1e-4)


def test_elements_that_no_training_row_has_are_marked(fits, ask, tmp_path):
    formulas = table(tmp_path / "t.csv", ["AlNiTi", "AlNiO3"])
    for packs in ((), ("--pack-dir", tmp_path)):
        _, rows, _ = ask(fits["random_forest"], formulas, *packs)
        assert "no training row has" not in rows[0]["outside"]
        assert "no training row has O" in rows[1]["outside"]


def test_the_floor_of_a_property_holds_for_classical_models(alloys_pack, tmp_path):
    """No mismatch is below 0; that of the last model would be for half of the formulas."""
    run = fit(alloys_pack, tmp_path, "linear", property="size_mismatch")
    formulas = ["Al", "Ni", "AlNi", "Ti", "Cu", "Zn"]
    plain = load_model(run, pack_dir=alloys_pack.parent).predict(formulas)
    shift = plain["predicted_size_mismatch"].median()
    path = run / "parameters.safetensors"
    tensors, facts = read_tensors(path)
    write_tensors(path, tensors, facts | {"target_mean": facts["target_mean"] - shift})
    predicted = load_model(run, pack_dir=tmp_path).predict(formulas)["predicted_size_mismatch"]
    expected = np.maximum(plain["predicted_size_mismatch"] - shift, 0)
    np.testing.assert_allclose(predicted, expected, atol=1e-9)
    assert (predicted == 0).sum() == 3


def test_seeds_of_a_forest_are_averaged(alloys_pack, fits, ask, tmp_path, monkeypatch):
    make_grids_small(monkeypatch)
    other = fit(alloys_pack, tmp_path, "random_forest", seed=1)
    runs = [fits["random_forest"], other]
    both = np.array([stored(run)["prediction"] for run in runs])
    formulas = table(tmp_path / "t.csv", stored(other)["formula"])
    _, rows, _ = ask(*runs, formulas)
    np.testing.assert_allclose(
        numbers(rows, "predicted_mixing_enthalpy"), both.mean(0), rtol=1e-5, atol=1e-9
    )
    np.testing.assert_allclose(
        numbers(rows, "sd_mixing_enthalpy"), both.std(0, ddof=1), rtol=1e-3, atol=1e-9
    )


def test_the_folder_of_all_seeds_stands_for_them(results, runs, ask, tmp_path):
    above = runs[0].parent
    assert sorted(above.iterdir()) == runs
    formulas = table(tmp_path / "t.csv", ["AlNi"])
    expected = ask(*runs, formulas)[1]
    assert ask(above, formulas)[1] == expected
    copy = Path(shutil.copytree(above, tmp_path / "seeds"))
    (copy / "seed1/result.json").unlink()
    status, rows, message = ask(copy, formulas)
    assert status == 0 and rows == ask(runs[0], formulas)[1]
    assert "1 of the 2 runs" in message
    status, _, message = ask(results, formulas)
    assert status == 2 and "result.json" in message


def test_a_network_and_a_forest_are_averaged(runs, fits, ask, tmp_path):
    chosen = [runs[0], fits["random_forest"]]
    recorded = [stored(run) for run in chosen]
    assert recorded[0]["formula"].tolist() == recorded[1]["formula"].tolist()
    mean = np.mean([one["prediction"] for one in recorded], 0)
    _, rows, message = ask(*chosen, table(tmp_path / "t.csv", recorded[0]["formula"]))
    np.testing.assert_allclose(numbers(rows, "predicted_mixing_enthalpy"), mean, atol=2e-5)
    assert f"MAE {np.abs(mean - recorded[0]['target']).mean():.4g}" in message


def test_best_takes_whichever_kind_won_on_val(runs, fits, ask, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(runs[0], results / "network")
    shutil.copytree(fits["random_forest"], results / "forest")
    formulas = table(tmp_path / "t.csv", ["AlNi"])
    for winner, loser in (("network", "forest"), ("forest", "network")):
        for name, mae in ((winner, 0.001), (loser, 0.002)):
            path = results / name / "result.json"
            write_json(path, read_json(path) | {"val_mae": mae})
        arguments = ("--best", "mixing_enthalpy", "--results", results, formulas)
        status, rows, message = ask(*arguments)
        assert status == 0 and str(results / winner) in message
        assert rows == ask(results / winner, formulas)[1]
    # A model that is not kept cannot win.
    (results / "forest/estimator.skops").unlink()
    status, rows, message = ask(*arguments)
    assert status == 0 and rows == ask(results / "network", formulas)[1]
    assert str(results / "forest") in message


@pytest.mark.parametrize("keep_model", ["never", "auto", "always"])
def test_a_large_model_is_kept_only_if_it_is_asked_for(
    keep_model, alloys_pack, tmp_path, monkeypatch
):
    monkeypatch.setattr(classical_file, "KEPT_BYTES", 1000)
    run = fit(alloys_pack, tmp_path, "decision_tree", keep_model=keep_model)
    is_kept = keep_model == "always"
    assert (run / "estimator.skops").exists() == is_kept
    result = read_json(run / "result.json")
    assert (result["estimator_sha256"] is not None) == is_kept
    if is_kept:
        assert load_model(run, pack_dir=alloys_pack.parent).predict(["AlNi"]).notna().all(None)
    else:
        with pytest.raises(UserError, match="has kept none"):
            load_model(run)


def test_a_run_from_before_models_were_kept_says_so(forest):
    path = forest / "result.json"
    older = {k: v for k, v in read_json(path).items() if k != "estimator_sha256"}
    write_json(path, older)
    (forest / "estimator.skops").unlink()
    (forest / "parameters.safetensors").unlink()
    with pytest.raises(UserError, match="has kept none"):
        load_model(forest)


def test_a_linear_model_from_before_predicts_since_its_numbers_were_kept(fits, tmp_path):
    run = Path(shutil.copytree(fits["ridge"], tmp_path / "run"))
    path = run / "result.json"
    older = {k: v for k, v in read_json(path).items() if k != "estimator_sha256"}
    write_json(path, older)
    recorded = stored(run)
    predicted = load_model(run, pack_dir=tmp_path).predict(list(recorded["formula"]))
    np.testing.assert_allclose(
        predicted["predicted_mixing_enthalpy"], recorded["prediction"], rtol=1e-9, atol=1e-12
    )


def test_a_file_of_another_run_or_one_that_was_changed_is_refused(forest, fits):
    other = fits["bagging"]
    for name in ("estimator.skops", "parameters.safetensors"):
        own = (forest / name).read_bytes()
        shutil.copy(other / name, forest / name)
        with pytest.raises(UserError) as error:
            load_model(forest)
        assert name in str(error.value) and "\n" not in str(error.value)
        (forest / name).write_bytes(own)
    assert load_model(forest).properties == ("mixing_enthalpy",)


def test_another_version_of_scikit_learn_warns_if_it_predicts_the_same(forest, ask, tmp_path):
    path = forest / "result.json"
    result = read_json(path)
    result["versions"]["scikit-learn"] = "1.2.3"
    write_json(path, result)
    status, rows, message = ask(forest, table(tmp_path / "t.csv", ["AlNi"]))
    assert status == 0 and rows[0]["predicted_mixing_enthalpy"]
    assert "1.2.3" in message


def test_a_model_that_predicts_other_numbers_than_it_did_is_refused(forest):
    """As one that another version of scikit-learn reads in another way."""
    path = forest / "parameters.safetensors"
    tensors, facts = read_tensors(path)
    tensors["checked_output"] = tensors["checked_output"] * 1.001
    write_tensors(path, tensors, facts)
    with pytest.raises(UserError, match="got other numbers"):
        load_model(forest)


def test_outside_means_outside_the_rows_that_the_model_was_fitted_on(
    alloys_pack, tmp_path, monkeypatch
):
    grid = dataclasses.replace(GRIDS["decision_tree"], max_rows=20, grid={})
    monkeypatch.setitem(GRIDS, "decision_tree", grid)
    run = fit(alloys_pack, tmp_path, "decision_tree")
    member = read_member(run)
    with open_pack(alloys_pack) as pack:
        formulas = pack.formulas(slice(0, 20))
        fitted = domain_of(pack, dataclasses.replace(member.spec, train_rows=20))
        whole = domain_of(pack, member.spec)
    assert member.elements == fitted.elements < whole.elements
    missing = sorted(whole.elements - fitted.elements)[0]
    assert not any(missing in formula for formula in formulas)
    model = load_model(run, pack_dir=alloys_pack.parent)
    assert missing in model.predict([f"{missing}2"])["outside"][0]


def test_keeping_is_auto_always_or_never_and_networks_are_always_kept(alloys_pack, tmp_path):
    from irnet_hpc import train_model

    options = {"results": tmp_path, "device": "cpu"}
    with pytest.raises(UserError, match="auto"):
        train_model(
            alloys_pack, "mixing_enthalpy", architecture="ridge", keep_model="yes", **options
        )
    with pytest.raises(UserError, match="never"):
        train_model(alloys_pack, "mixing_enthalpy", keep_model="never", **options)
    assert not list(tmp_path.rglob("result.json"))
