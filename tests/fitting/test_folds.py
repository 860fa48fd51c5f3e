"""With folds each row is judged by models that have not seen it, and their mean predicts."""

import numpy as np
import pandas as pd
import pytest

import irnet_hpc
from irnet_hpc.errors import UserError
from irnet_hpc.runs import collect_runs
from tests.fitting.builders import NETWORK, PROPERTY, QUICK, TARGET, hardnesses

N_FOLDS = 3
NEW = ["Fe3C", "Fe2N", "NaCl"]


@pytest.fixture(scope="module")
def folded():
    """Return a model of few rows in three folds. Do not write to it."""
    return irnet_hpc.fit(hardnesses(150), TARGET, **QUICK | {"folds": N_FOLDS})


@pytest.fixture(scope="module")
def stored(folded) -> dict[str, list]:
    """Return for each model the val MAE, the targets and the predictions of each fold."""
    found: dict[str, list] = {}
    for run in collect_runs(folded.folder / "results")[0]:
        arrays = np.load(run.folder / "test_predictions.npz", allow_pickle=False)
        fold = run.result.pack_identity["split"]["seed"]
        name = run.spec.layers or run.spec.model
        row = (fold, run.result.val_mae, run.result.n_val, run.folder, dict(arrays))
        found.setdefault(name, []).append(row)
    return {name: sorted(rows, key=lambda row: row[0]) for name, rows in found.items()}


def errors(folds) -> np.ndarray:
    return np.concatenate([abs(row[4]["prediction"] - row[4]["target"]) for row in folds])


def test_each_row_is_a_test_row_of_one_fold(folded, stored):
    for folds in stored.values():
        formulas = np.concatenate([row[4]["formula"] for row in folds])
        assert len(folds) == N_FOLDS and len(set(formulas)) == len(formulas) == 149
    frame = folded.comparison
    assert (frame["n_test"].dropna() == 149).all()
    for name, folds in stored.items():
        assert frame.loc[name, "test_mae"] == pytest.approx(errors(folds).mean())
        weights = [len(row[4]["target"]) for row in folds]
        val = np.average([row[1] for row in folds], weights=weights)
        assert frame.loc[name, "val_mae"] == pytest.approx(val)
    assert folded.n_folds == N_FOLDS
    assert folded.name == frame["val_mae"].loc[list(stored)].idxmin()


def test_the_promised_error_is_chosen_within_each_fold(folded, stored):
    by_hand = [min((stored[name][k] for name in stored), key=lambda row: row[1]) for k in range(3)]
    row = folded.comparison.loc["chosen in each fold"]
    assert row["test_mae"] == pytest.approx(errors(by_hand).mean())
    assert folded.test_mae == row["test_mae"]
    low, high = folded.test_interval
    assert low < folded.test_mae < high
    assert f"{folded.test_mae:.4g}" in repr(folded) and f"{folded.test_mae:.4g}" in (
        folded._repr_html_()
    )


def test_the_mean_of_the_folds_models_predicts_with_an_interval(folded, stored):
    frame, name = folded.predict(NEW), f"predicted_{PROPERTY}"
    ones = [
        irnet_hpc.load_model(row[3], pack_dir=folded.folder / "packs").predict(NEW)[name]
        for row in stored[folded.name]
    ]
    np.testing.assert_allclose(frame[name], np.mean(ones, axis=0), rtol=1e-6)
    assert (frame[f"low_{PROPERTY}"] < frame[name]).all()
    assert (frame[name] < frame[f"high_{PROPERTY}"]).all()
    new_element = frame["outside"].str.contains("no training row has")
    assert new_element.tolist() == [False, False, True]


def test_a_saved_model_of_folds_predicts_the_same(folded, tmp_path):
    loaded = irnet_hpc.load(folded.save(tmp_path / "folded"))
    pd.testing.assert_frame_equal(loaded.predict(NEW), folded.predict(NEW))
    pd.testing.assert_frame_equal(loaded.comparison, folded.comparison)


def test_few_rows_are_dealt_to_folds_unless_a_split_is_stated(tmp_path):
    few = QUICK | {"models": "ridge"}
    del few["folds"]
    assert irnet_hpc.fit(hardnesses(150), TARGET, **few).n_folds == 5
    assert irnet_hpc.fit(hardnesses(150), TARGET, **few, split_seed=1).n_folds == 1
    with pytest.raises(UserError):
        irnet_hpc.fit(hardnesses(150), TARGET, **few, folds=5, split="element:N")


def test_a_warning_about_the_table_is_given_once(caplog):
    irnet_hpc.fit(hardnesses(150), TARGET, **QUICK | {"folds": 2, "models": NETWORK})
    assert len([record for record in caplog.records if "~3" in record.getMessage()]) == 1
