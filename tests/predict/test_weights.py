"""Weights of a committee: by hand, by another solver, and what they are never computed from."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from irnet_hpc import UserError, load_model
from irnet_hpc.files import read_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.predict.held_out import Evidence, in_common
from irnet_hpc.predict.screening import spread_of
from irnet_hpc.predict.weights import cross_fitted, fit_weights
from tests.builders import make_grids_small
from tests.predict.builders import held_out, numbers, stored, table, train_one

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def forest(alloys_pack, tmp_path_factory):
    """Return the folder of a run of a forest on the rows of the networks. Do not write to it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_grids_small(monkeypatch)
        results = tmp_path_factory.mktemp("forest")
        options = {"architecture": "random_forest", "layers": None, "recipe": None}
        return train_one(alloys_pack, results, **options)


def test_weights_by_hand():
    # Errors that never meet: variances 1 and 4 give weights 4/5 and 1/5.
    errors = np.array([[1.0, -1, 0, 0], [0, 0, 2, -2]])
    np.testing.assert_allclose(fit_weights(errors), [0.8, 0.2])
    # A member that errs in the same way and more has none of the weight.
    np.testing.assert_allclose(fit_weights(np.array([[1.0, 2, -1], [2, 4, -2]])), [1, 0])
    np.testing.assert_allclose(fit_weights(np.zeros((2, 3))).sum(), 1)


def test_weights_are_those_of_another_solver_on_the_same_errors():
    random = np.random.default_rng(0)
    for n_members in (2, 3, 6):
        mixed = random.normal(size=(n_members, n_members))
        errors = mixed @ random.normal(size=(n_members, 200)) + random.normal(size=(n_members, 1))
        found = fit_weights(errors)
        by_slsqp = minimize(
            lambda w, errors=errors: ((w @ errors) ** 2).mean(),
            np.full(n_members, 1 / n_members),
            method="SLSQP",
            bounds=[(0, 1)] * n_members,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(found, by_slsqp.x, atol=1e-5)
        assert found.min() >= 0 and abs(found.sum() - 1) < 1e-12


def test_the_scale_of_errors_does_not_change_their_weights():
    errors = np.random.default_rng(0).normal(size=(3, 50))
    for scale in (1e-9, 1e9):
        np.testing.assert_allclose(fit_weights(errors * scale), fit_weights(errors), rtol=1e-6)


def test_equal_weights_give_the_mean_and_standard_deviation_of_no_weights():
    predictions = np.random.default_rng(0).normal(size=(4, 20))
    plain, weighted = spread_of(predictions), spread_of(predictions, np.full(4, 0.25))
    np.testing.assert_allclose(weighted.mean, plain.mean)
    np.testing.assert_allclose(weighted.sd, plain.sd)
    alone = spread_of(predictions, np.array([0.0, 1, 0, 0]))
    np.testing.assert_array_equal(alone.mean, predictions[1])
    assert (alone.sd == 0).all()


def test_each_part_of_the_rows_is_judged_by_the_weights_of_the_others():
    errors = np.random.default_rng(1).normal(size=(2, 23)) * [[1], [2]]
    found = cross_fitted(errors)
    for part in range(5):
        own = np.arange(23) % 5 == part
        weights = fit_weights(errors[:, ~own])
        np.testing.assert_allclose(found.error[own], weights @ errors[:, own])
    alone = cross_fitted(errors[:1])
    np.testing.assert_array_equal(alone.error, errors[0])


def test_a_network_and_a_forest_are_weighed_by_their_val_errors(
    runs, forest, ask, tmp_path, alloys_pack
):
    members = [runs[0], forest]
    formulas, value = held_out(alloys_pack, "val")
    on_val = table(tmp_path / "val.csv", formulas)
    errors = [
        numbers(ask(member, on_val)[1], "predicted_mixing_enthalpy") - value for member in members
    ]
    weights = fit_weights(np.array(errors))
    recorded = [stored(member) for member in members]
    expected = weights @ np.array([one["prediction"] for one in recorded])
    on_test = table(tmp_path / "test.csv", recorded[0]["formula"])
    status, rows, message = ask(*members, on_test, "--committee")
    assert status == 0
    predicted = numbers(rows, "predicted_mixing_enthalpy")
    np.testing.assert_allclose(predicted, expected, atol=5e-5)
    assert f"MAE {np.abs(expected - recorded[0]['target']).mean():.3g}"[:-1] in message
    model = load_model(members, pack_dir=alloys_pack.parent, committee=True, device="cpu")
    (report,) = model.report()
    np.testing.assert_allclose(list(report.weights.values()), weights, atol=1e-3)
    assert list(report.weights) == [str(member) for member in members]
    assert report.n_val == len(value) and report.coverage is not None
    from_python = model.predict(list(recorded[0]["formula"]))
    np.testing.assert_allclose(from_python["predicted_mixing_enthalpy"], predicted, rtol=1e-5)


def test_weights_are_recorded_beside_the_list(runs, forest, ask, tmp_path):
    from irnet_hpc.predict import cli

    output = tmp_path / "o.csv"
    names = [str(runs[0]), str(forest), str(table(tmp_path / "t.csv", ["AlNi"]))]
    ask(*names)  # the packs of the command
    assert cli.main([*names, "-o", str(output), "--committee"]) == 0
    (report,) = read_json(f"{output}.about.json")["properties"]
    assert abs(sum(report["weights"].values()) - 1) < 1e-9
    assert min(report["weights"].values()) >= 0


def test_a_test_row_decides_no_weight(runs, forest, alloys_pack, tmp_path):
    """Whatever the test predictions are, the weights stay."""
    from irnet_hpc.predict import committee, weights

    with open_pack(alloys_pack) as pack:
        assert pack.n_test > 0
    ensemble, evidence = committee.load_ensemble([runs[0], forest], alloys_pack.parent, CPU)
    (name,) = evidence
    plain, _ = weights.weigh(ensemble, evidence)
    val, test = evidence[name]
    spoilt = {name: Evidence(val, test._replace(of_members=test.of_members * [[1], [0]]))}
    np.testing.assert_array_equal(
        weights.weigh(ensemble, spoilt)[0].weights[name], plain.weights[name]
    )


def test_without_val_rows_or_with_few_a_committee_is_one_sentence(runs, forest, ask, tmp_path):
    from irnet_hpc.predict import committee, weights

    formulas = table(tmp_path / "t.csv", ["AlNi"])
    status, rows, message = ask(*runs, formulas, "--committee", "--pack-dir", tmp_path)
    assert status == 2 and rows == [] and "val rows" in message.splitlines()[-1]
    status, _, message = ask(runs[0], formulas, "--committee")
    assert status == 2 and "several runs" in message
    ensemble, _ = committee.load_ensemble([runs[0], forest], tmp_path, CPU)
    few = in_common([{("m", "O", 1.0, n): 2.0 for n in range(19)}] * 2)
    with pytest.raises(UserError, match="at least 20 val rows to be weighed, got 19"):
        weights.weigh(ensemble, {"mixing_enthalpy": Evidence(few, few)})
