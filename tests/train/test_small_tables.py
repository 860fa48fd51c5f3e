"""A recipe that states no batch is fitted to a small table, alike from the command and Python."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

from irnet_hpc import IRNetRegressor, UserError, train_model
from irnet_hpc.aggregate.groups import is_stale
from irnet_hpc.files import write_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs import recipes
from irnet_hpc.runs.collect import collect_runs
from irnet_hpc.runs.recipes import RECIPES, fitted_to, resolve, states_batch
from irnet_hpc.runs.spec import read_spec, run_key
from irnet_hpc.train import networks
from tests.builders import StopAfter

LAYERS = "16BARx2-1"
SHORT = {"name": "short", "base": "onecycle", "epochs": 2}
STATED = {"batch": 16, "norm_group": 16}


def train(pack, folder, **options):
    known = {"layers": LAYERS, "recipe": SHORT, "results": folder}
    return train_model(pack, "mixing_enthalpy", **known | options)


def test_fewer_rows_than_a_batch_train_as_if_the_fitted_batch_were_stated(alloys_pack, tmp_path):
    """300 rows of 600 train: 300 // 16 = 18, so batches of 16; the key is that of the recipe."""
    fitted = train(alloys_pack, tmp_path / "a", train_rows=300)
    stated = train(alloys_pack, tmp_path / "b", train_rows=300, recipe=SHORT | STATED)
    assert fitted.fitted_recipe == STATED and stated.fitted_recipe is None
    assert fitted.recipe["batch"] == 512 and stated.recipe["batch"] == 16
    assert (fitted.test_mae, fitted.val_mae) == (stated.test_mae, stated.val_mae)
    with open_pack(alloys_pack) as pack:
        key = run_key(read_spec(fitted.spec), resolve(SHORT), pack.identity)
    assert fitted.key == key
    (path,) = (tmp_path / "a").rglob("run.json")
    assert json.loads(path.read_text())["attempts"][-1]["fitted_recipe"] == STATED
    written = path.stat().st_mtime_ns
    assert train(alloys_pack, tmp_path / "a", train_rows=300) == fitted
    assert path.stat().st_mtime_ns == written


def test_rows_that_fill_a_batch_are_trained_by_the_recipe_as_it_is(alloys_pack, tmp_path):
    recipe = {"name": "small", "base": "onecycle", "epochs": 1} | STATED
    result = train(alloys_pack, tmp_path, train_rows=16, recipe=recipe)
    assert result.fitted_recipe is None and result.n_train == 16


def test_a_stated_batch_is_refused_where_rows_do_not_fill_it(alloys_pack, tmp_path):
    for stated in ({"batch": 512, "norm_group": 256}, {"batch": 512}, {"norm_group": 256}):
        with pytest.raises(UserError, match=r"batch .* 300 training rows .* got 512"):
            train(alloys_pack, tmp_path, train_rows=300, recipe=SHORT | stated)
    command = [sys.executable, "-m", "irnet_hpc.train", "--pack", str(alloys_pack)]
    command += ["--property", "mixing_enthalpy", "--layers", LAYERS, "--train-rows", "300"]
    command += ["--results", str(tmp_path), "--recipe", json.dumps(SHORT | {"batch": 512})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("n_rows", "batch"),
    [(2, 2), (3, 2), (7, 4), (8, 8), (36, 8), (127, 8), (255, 8), (256, 16), (511, 16)],
)
def test_a_fitted_batch_has_sixteen_steps_an_epoch_and_eight_rows_or_more(n_rows, batch):
    fitted = fitted_to(RECIPES["onecycle"], n_rows)
    assert (fitted.batch, fitted.norm_group) == (batch, batch)


def test_a_result_fitted_by_an_earlier_rule_is_stale_and_replaced_by_force(alloys_pack, tmp_path):
    first = train(alloys_pack, tmp_path, train_rows=100)
    assert first.fitted_recipe == {"batch": 8, "norm_group": 8} and not first.has_earlier_fit
    (path,) = tmp_path.rglob("result.json")
    content = json.loads(path.read_text())
    write_json(path, content | {"fitted_recipe": {"batch": 4, "norm_group": 4}})
    ((run,), _) = collect_runs(tmp_path)
    assert run.result.key == first.key and is_stale(run)
    with pytest.raises(UserError, match="stale"):
        train(alloys_pack, tmp_path, train_rows=100)
    again = train(alloys_pack, tmp_path, train_rows=100, force=True)
    assert (again.test_mae, again.fitted_recipe) == (first.test_mae, first.fitted_recipe)


def test_a_training_begun_with_an_earlier_fit_starts_anew(alloys_pack, tmp_path, monkeypatch):
    """Steps of 4 rows and steps of 8 rows would be mixed otherwise."""
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "MIN_BATCH", 2)
        patch.setattr(networks, "stop_request", lambda options, comm: StopAfter(30))
        with pytest.raises(FileNotFoundError):  # it was stopped, so there is no result to return
            train(alloys_pack, tmp_path / "a", train_rows=100)
    (checkpoint,) = (tmp_path / "a").rglob("checkpoint")
    assert list(checkpoint.glob("*.safetensors"))
    resumed = train(alloys_pack, tmp_path / "a", train_rows=100)
    undisturbed = train(alloys_pack, tmp_path / "b", train_rows=100)
    assert (resumed.test_mae, resumed.epochs) == (undisturbed.test_mae, undisturbed.epochs)
    assert len(resumed.attempts) == 2


def test_a_network_worse_than_the_median_is_warned_about(alloys_pack, tmp_path, caplog):
    """A rate of 1e-9 leaves the initial weights, which know nothing."""
    slow = SHORT | {"learning_rate": 1e-9, "precision": "fp32"}
    result = train(alloys_pack, tmp_path, train_rows=60, recipe=slow)
    assert result.is_above_baseline and not result.is_far_above_baseline
    assert any("median" in record.getMessage() for record in caplog.records)


def test_a_table_of_fewer_rows_than_fifty_is_refused_unless_a_batch_is_stated(tmp_path):
    from irnet_hpc import pack_table

    rows = ["formula,hardness"] + [f"Al{n}Ni{n + 1},{n / 7}" for n in range(1, 40)]
    (tmp_path / "few.csv").write_text("\n".join(rows))
    pack = pack_table(
        tmp_path / "few.csv", features="elements", units={"hardness": "GPa"}, pack_dir=tmp_path
    )
    known = {"layers": LAYERS, "results": tmp_path / "results"}
    with pytest.raises(UserError, match="at least 50 rows, got 39"):
        train_model(pack, "hardness", **known)
    recipe = {"name": "two", "base": "onecycle", "epochs": 1, "batch": 8, "norm_group": 8}
    assert train_model(pack, "hardness", recipe=recipe, **known).epochs == 1


def test_the_regressor_keeps_a_stated_batch_or_refuses_it():
    x = np.random.default_rng(0).normal(size=(200, 4))
    stated = SHORT | {"precision": "fp32", "batch": 64, "norm_group": 32}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = IRNetRegressor(layers=LAYERS, recipe=stated).fit(x, x[:, 0])
    assert (model.recipe_.batch, model.recipe_.norm_group) == (64, 32)
    with pytest.raises(UserError, match="at most the 54 training rows, got 64"):
        IRNetRegressor(layers=LAYERS, recipe=stated).fit(x[:60], x[:60, 0])
    with pytest.warns(UserWarning, match="batch 8"):
        fitted = IRNetRegressor(layers=LAYERS, recipe=SHORT).fit(x, x[:, 0])
    assert (fitted.recipe_.batch, fitted.recipe_.norm_group) == (8, 8)


def test_only_a_mapping_with_a_batch_or_a_group_states_one():
    given = ["onecycle", None, SHORT, SHORT | {"batch": 8}, SHORT | {"norm_group": 8}]
    assert [states_batch(recipe) for recipe in given] == [False, False, False, True, True]
    assert not states_batch(RECIPES["paper"])
