"""One call of Python gives what the commands give: the same runs, chosen on val, nothing lost."""

import numpy as np
import pandas as pd
import pytest

import irnet_hpc
from irnet_hpc.errors import UserError
from irnet_hpc.pack import load_pack
from irnet_hpc.runs import collect_runs
from tests.fitting.builders import NETWORK, PROPERTY, QUICK, TARGET, TINY, hardnesses


def runs_of(model) -> dict:
    """Map the name of each model to its finished run."""
    runs = collect_runs(model.folder / "results")[0]
    return {run.spec.layers or run.spec.model: run for run in runs}


def test_the_model_is_the_one_with_the_lowest_val_mae(fitted):
    frame = fitted.comparison
    assert set(frame.index) == {NETWORK, "ridge", "baseline"}
    assert frame.index[-1] == "baseline" and frame["chosen"].sum() == 1
    assert fitted.failed == {} and (fitted.property, fitted.unit) == (PROPERTY, "GPa")
    assert fitted.name == frame["val_mae"].drop("baseline").idxmin()
    assert fitted.test_mae == frame.loc[fitted.name, "test_mae"]


def test_every_number_is_that_of_the_run_and_of_numpy(fitted):
    frame = fitted.comparison
    with load_pack("table-elements", fitted.folder / "packs") as pack:
        train, val, test = (pack.y(PROPERTY, pack.rows(role)) for role in ("train", "val", "test"))
    for name, run in runs_of(fitted).items():
        stored = np.load(run.folder / "test_predictions.npz", allow_pickle=False)
        errors = np.abs(stored["prediction"] - stored["target"])
        row = frame.loc[name]
        assert row["test_mae"] == pytest.approx(errors.mean())
        assert row["test_rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
        # Each formula has one row, so the interval is that of a mean of independent rows.
        half = 1.96 * errors.std() / np.sqrt(len(errors))
        assert row["low"] == pytest.approx(errors.mean() - half, abs=0.5 * half)
        assert row["high"] == pytest.approx(errors.mean() + half, abs=0.5 * half)
        assert (row["n_train"], row["n_val"], row["n_test"]) == (len(train), len(val), len(test))
    baseline = frame.loc["baseline"]
    assert baseline["test_mae"] == pytest.approx(np.abs(test - np.median(train)).mean())
    assert baseline["val_mae"] == pytest.approx(np.abs(val - np.median(train)).mean())


def test_a_run_is_the_run_of_pack_table_and_train_model(fitted, tmp_path):
    with irnet_hpc.pack_table(
        hardnesses(),
        name="table-elements",
        features="elements",
        properties=TARGET,
        pack_dir=tmp_path,
    ) as pack:
        result = irnet_hpc.train_model(
            pack, PROPERTY, layers=NETWORK, recipe=TINY, results=tmp_path / "results"
        )
    assert runs_of(fitted)[NETWORK].result.key == result.key
    assert fitted.comparison.loc[NETWORK, "test_mae"] == result.test_mae


def test_no_row_is_dropped_in_silence(fitted):
    table, counts = hardnesses(), fitted.counts
    assert counts.pop("read") == len(table)
    assert counts.pop("packed") == len(table) - 1
    assert sum(counts.values()) == len(fitted.rejected) == 1
    row = fitted.rejected.iloc[0]
    assert (row["line"], row["material_id"], row["formula"]) == (2, "S0000", "Fe1C1")
    assert (row["column"], row["text"]) == (TARGET, "~3") and row["reason"] in counts
    assert len(fitted.left_out) == 0


def test_measurements_of_one_formula_are_listed(tmp_path):
    table = hardnesses(120)
    table = pd.concat([table, table.iloc[[5]].assign(**{TARGET: "99"})], ignore_index=True)
    model = irnet_hpc.fit(table, TARGET, folder=tmp_path, **QUICK | {"models": NETWORK})
    assert set(model.left_out["formula"]) == {table["Composition"][5]}
    assert "99.0" in model.left_out["value"].tolist()
    assert model.counts["read"] == 121 and model.counts["packed"] == 119


def test_a_folder_keeps_what_was_trained(tmp_path):
    table = hardnesses(160)
    options = QUICK | {"folder": tmp_path / "hard"}
    one = irnet_hpc.fit(table, TARGET, **options | {"models": NETWORK})
    assert one.name == NETWORK
    (result,) = (path for path in (tmp_path / "hard").rglob("result.json"))
    before = result.stat().st_mtime_ns
    both = irnet_hpc.fit(table, TARGET, **options)
    assert result.stat().st_mtime_ns == before
    assert set(both.comparison.index) == {NETWORK, "ridge", "baseline"}
    with pytest.raises(UserError):  # another table, in the folder of the first
        irnet_hpc.fit(hardnesses(170), TARGET, **options)


def test_a_model_that_cannot_be_trained_leaves_the_others(tmp_path):
    # No epoch can fill this batch, so the network is refused.
    broken = TINY | {"name": "broken", "batch": 4096, "norm_group": 4096}
    options = {"features": "elements", "recipe": broken, "folder": tmp_path, "folds": 1}
    names = [NETWORK, "ridge", "extra_trees"]
    model = irnet_hpc.fit(hardnesses(), TARGET, models=names, **options)
    assert list(model.failed) == [NETWORK] and model.failed[NETWORK]
    assert model.name in ("ridge", "extra_trees")
    with pytest.raises(UserError):
        irnet_hpc.fit(hardnesses(), TARGET, models=NETWORK, **options)


def without_values(table: pd.DataFrame) -> pd.DataFrame:
    dates = pd.date_range("2024-01-01", periods=len(table)).strftime("%Y-%m-%d")
    return table.assign(**{TARGET: dates})


@pytest.mark.parametrize(
    ("table", "target", "options"),
    [
        (hardnesses(), "hardness", {}),
        (hardnesses(), ["Hv (GPa)"], {}),
        (hardnesses().iloc[:10], TARGET, {}),
        (hardnesses().assign(**{TARGET: 7.5}), TARGET, {}),
        (without_values(hardnesses()), TARGET, {}),
        (hardnesses().drop(columns="Composition"), TARGET, {}),
        (hardnesses().rename(columns={TARGET: "Hv"}), "Hv", {}),
        (hardnesses().rename(columns={TARGET: "Hv"}), "Hv", {"unit": 3}),
        (hardnesses(), TARGET, {"models": "random_forrest"}),
        (hardnesses(), TARGET, {"models": ["ridge", "ridge"]}),
        (hardnesses(), TARGET, {"models": []}),
        (hardnesses(), TARGET, {"folds": 0}),
        (hardnesses(), TARGET, {"folds": 2.5}),
        (hardnesses(), TARGET, {"folds": 5, "split_seed": 1}),
        (hardnesses(), TARGET, {"features": "structure"}),  # a table of formulas
        (hardnesses(), TARGET, {"features": "magpi"}),
        (hardnesses(), TARGET, {"device": "gpu"}),
        (hardnesses(), TARGET, {"models": 5}),
        (hardnesses(), TARGET, {"sheet": "Data"}),
        (hardnesses(), TARGET, {"formula": "Composition"}),
        ("nowhere.csv", TARGET, {}),
    ],
    ids=[
        *("no target", "several targets", "10 rows", "all equal", "dates", "no formulas"),
        *("no unit", "unit", "unknown model", "model twice", "no model"),
        *("no fold", "half a fold", "two splits", "structures"),
        *("features", "device", "models", "sheet", "argument", "no file"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(table, target, options, tmp_path):
    with pytest.raises(UserError) as caught:
        irnet_hpc.fit(table, target, **QUICK | {"folder": tmp_path, "models": NETWORK} | options)
    message = str(caught.value)
    assert "\n" not in message and 20 < len(message) < 600
    assert not list(tmp_path.rglob("result.json"))


def test_the_refusals_name_what_they_got(tmp_path):
    with pytest.raises(UserError, match=r"\b50\b.*\b9 of 10\b"):
        irnet_hpc.fit(hardnesses().iloc[:10], TARGET, folder=tmp_path / "few", **QUICK)
    equal = hardnesses().assign(**{TARGET: 7.5})
    with pytest.raises(UserError, match=r"7\.5 GPa"):
        irnet_hpc.fit(equal, TARGET, folder=tmp_path / "equal", **QUICK)
    table = without_values(hardnesses())
    with pytest.raises(UserError, match="dates, such as 2024-01-01"):
        irnet_hpc.fit(table, TARGET, folder=tmp_path / "dates", **QUICK)
