"""Classical models as cells: from the command line to the result, against scikit-learn called
directly.
"""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from irnet_hpc.console import ExitStatus, exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.classical_grids import AS_NUMBERS, GRIDS, Grid
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import GRID_VERSION, RunSpec, model_of, run_folder, run_key
from irnet_hpc.sweep.cell_states import read_ledger
from irnet_hpc.sweep.context import SweepContext, SweepOptions
from irnet_hpc.sweep.jobs import train_options
from irnet_hpc.sweep.matrix import packs
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.plan import plan
from irnet_hpc.train import classical
from irnet_hpc.train import cli as train
from irnet_hpc.train.dataset import Dataset, Part, Scaling
from irnet_hpc.train.estimator_file import CLASSES
from irnet_hpc.train.options import read_request
from irnet_hpc.train.request import specify
from irnet_hpc.train.run import TrainOptions
from tests.builders import make_grids_small, run_of, states, write_pack, write_result

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads cost more than they bring on a table of 600 rows."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(monkeypatch):
    make_grids_small(monkeypatch)


def arguments(pack: Path, results: Path, architecture: str, **changes) -> list[str]:
    options = {
        "pack": pack,
        "property": "mixing_enthalpy",
        "architecture": architecture,
        "results": results,
    } | changes
    return [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


def run(*args, **changes):
    """One cell in this process; its result and its folder."""
    assert exit_status(lambda: train.main(arguments(*args, **changes))) == 0
    path = run_folder(args[1], spec_of(args[2], **changes))
    return read_result(path / "result.json"), path


def spec_of(architecture: str, **changes) -> RunSpec:
    return RunSpec("alloys-small", "mixing_enthalpy", architecture, recipe="grid", **changes)


def rows(alloys_pack: Path, *splits: str) -> tuple[np.ndarray, np.ndarray]:
    with open_pack(alloys_pack) as pack:
        x, y = zip(
            *((pack.x(pack.rows(s)), pack.y("mixing_enthalpy", pack.rows(s))) for s in splits),
            strict=True,
        )
    return np.concatenate(x), np.concatenate(y)


def test_every_row_of_the_table_can_be_made_and_nothing_else():
    assert set(classical.makers(0, 1)) == set(GRIDS)
    assert all(grid.architecture == name and grid.name == "grid" for name, grid in GRIDS.items())
    assert {*AS_NUMBERS, *CLASSES} == set(GRIDS) and not {*AS_NUMBERS} & {*CLASSES}
    assert len(GRIDS) == 12 and GRIDS["svr"].max_rows == 20_000


def test_the_points_of_a_grid_are_its_product_in_order():
    grid = Grid("x", grid={"a": [1, 2], "b": ["u", "v"]})
    assert grid.points == [
        {"a": 1, "b": "u"},
        {"a": 1, "b": "v"},
        {"a": 2, "b": "u"},
        {"a": 2, "b": "v"},
    ]
    assert Grid("x").points == [{}]


@pytest.mark.parametrize("architecture", GRIDS)
@pytest.mark.parametrize("protocol", ["honest", "paper"])
def test_each_model_leaves_a_result_like_any_cell(
    architecture, protocol, alloys_pack, tmp_path, small, capsys
):
    result, path = run(alloys_pack, tmp_path, architecture, protocol=protocol)
    printed = capsys.readouterr().out
    honest, grid = protocol == "honest", GRIDS[architecture]
    assert path.relative_to(tmp_path).parts == (
        *("alloys-small", "mixing_enthalpy", architecture, "grid", protocol, "seed0"),
    )
    are_numbers = architecture in AS_NUMBERS
    assert sorted(p.name for p in path.iterdir()) == [
        *([] if are_numbers else ["estimator.skops"]),
        *("parameters.safetensors", "result.json", "run.json", "test_predictions.npz"),
    ]
    assert (result.estimator_sha256 is None) == are_numbers
    with np.load(path / "test_predictions.npz", allow_pickle=False) as file:
        error = np.abs(file["prediction"] - file["target"])
    assert result.test_mae == pytest.approx(error.mean(), rel=1e-12)
    n_rows = {split: len(rows(alloys_pack, split)[1]) for split in ("train", "val", "test")}
    n_train = n_rows["train"] + (0 if honest else n_rows["val"])
    assert (result.n_train, result.n_val, result.n_test) == (
        n_train,
        n_rows["val"] if honest else 0,
        n_rows["test"],
    )
    assert result.fitted_rows == n_train
    assert [one["point"] for one in result.chosen["tried"]] == grid.points
    chosen = min(result.chosen["tried"], key=lambda one: one["mae"])
    assert result.chosen["point"] == chosen["point"]
    # what selects is val, or under `paper` the very rows that are reported
    assert (result.val_mae if honest else result.test_mae) == pytest.approx(
        chosen["mae"], rel=1e-12
    )
    assert (result.selected_on, result.val_mae is None, result.optimism is None) == (
        ("val", False, True) if honest else ("test", True, False)
    )
    assert (result.best_epoch, result.epochs, result.samples_per_s, result.spec["depth"]) == (
        None,
    ) * 4
    assert (result.n_parameters is not None) == are_numbers
    assert result.recipe == dataclasses.asdict(grid)
    assert ("scikit-learn" in result.versions) and ("selected on " + result.selected_on) in printed
    assert (
        architecture == "tabm" or result.test_mae < result.baseline_mae
    )  # two epochs are too few for it


def test_a_forest_is_the_one_of_scikit_learn_on_the_same_rows(alloys_pack, tmp_path, small):
    from sklearn.ensemble import RandomForestRegressor

    result, path = run(alloys_pack, tmp_path, "random_forest", seed=3)
    x, y = rows(alloys_pack, "train")
    maes = {}
    for features in (0.33, 1.0):
        forest = RandomForestRegressor(10, max_features=features, random_state=3).fit(x, y)
        val_x, val_y = rows(alloys_pack, "val")
        maes[features] = (
            np.abs(forest.predict(val_x) - val_y).mean(),
            forest.predict(rows(alloys_pack, "test")[0]),
        )
    assert [one["mae"] for one in result.chosen["tried"]] == pytest.approx(
        [maes[0.33][0], maes[1.0][0]], rel=1e-9
    )
    best = min(maes, key=lambda features: maes[features][0])
    assert result.chosen["point"] == {"max_features": best}
    with np.load(path / "test_predictions.npz") as file:
        np.testing.assert_allclose(file["prediction"], maes[best][1], rtol=1e-9)


def test_a_ridge_is_scikit_learns_pipeline_and_its_coefficients_are_kept_as_numbers(
    alloys_pack, tmp_path
):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    result, path = run(alloys_pack, tmp_path, "ridge")
    (x, y), (test_x, _) = rows(alloys_pack, "train"), rows(alloys_pack, "test")
    scaler = StandardScaler().fit(x.astype(np.float64))
    scaled, test_scaled = (
        np.clip(scaler.transform(part), -6, 6) for part in (x.astype(np.float64), test_x)
    )
    ridge = Ridge(alpha=result.chosen["point"]["alpha"]).fit(scaled, (y - y.mean()) / y.std())
    expected = ridge.predict(test_scaled) * y.std() + y.mean()
    with np.load(path / "test_predictions.npz") as file:
        np.testing.assert_allclose(file["prediction"], expected, rtol=1e-4, atol=1e-5)
    kept = safetensors.torch.load_file(path / "parameters.safetensors")
    with safetensors.safe_open(path / "parameters.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["irnet_hpc"])
    by_hand = np.clip(
        (test_x - kept["feature_mean"].numpy()) / kept["feature_scale"].numpy(),
        -facts["clip"],
        facts["clip"],
    )
    by_hand = (by_hand @ kept["coef"].numpy() + kept["intercept"].numpy()) * facts[
        "target_scale"
    ] + facts["target_mean"]
    np.testing.assert_allclose(by_hand, expected, rtol=1e-4, atol=1e-5)
    assert result.n_parameters == x.shape[1] + 1 and facts["point"] == result.chosen["point"]


def part(x: list[float], y: list[float]) -> Part:
    x, y = np.array(x, np.float64)[:, None], np.array(y, np.float64)
    return Part(np.arange(len(x)), y, torch.from_numpy(x), torch.from_numpy(y))


def contrary() -> Dataset:
    """One feature, one rise. Train: 0 at 0 and 1, 8 at 8 and 9, so that a tree of depth 1 says 0,
    then 8. Val lies on it. Test lies on 4 everywhere, as a tree of a single leaf says.
    """
    rows = part([0, 1, 8, 9], [0, 0, 8, 8])
    return Dataset(
        rows,
        part([0.5, 8.5], [0, 8]),
        part([0.5, 8.5], [4, 4]),
        Scaling(np.zeros(1), np.ones(1), 0, 0.0, 1.0),
    )


@pytest.mark.parametrize(
    ("protocol", "leaf", "val", "test"), [("honest", 1, 0.0, 4.0), ("paper", 4, 4.0, 0.0)]
)
def test_honest_chooses_by_val_and_not_by_test_and_paper_the_other_way_round(
    protocol, leaf, val, test, tmp_path
):
    grid = dataclasses.replace(GRIDS["decision_tree"], grid={"min_samples_leaf": [1, 4]})
    data = contrary()
    tree, found = classical.search(
        run_of(spec_of("decision_tree", protocol=protocol), grid, tmp_path), data
    )
    assert found.best["point"] == {"min_samples_leaf": leaf}
    errors = {
        name: np.abs(tree.predict(p.x.numpy()) - p.target).mean()
        for name, p in vars(data).items()
        if name != "scaling"
    }
    assert (errors["val"], errors["test"]) == (val, test)
    assert [one["mae"] for one in found.tried] == (
        [0.0, 4.0] if protocol == "honest" else [4.0, 0.0]
    )


def test_the_optimism_of_a_grid_is_that_of_the_half_that_did_not_choose(
    tmp_path,
):
    """Test rows 0 and 8 in a half, 4 and 4 in the other, whichever the seed makes of them: each
    half chooses its own tree, errs by 0 on itself, and by 4 on the other.
    """
    first = np.random.Generator(np.random.Philox(key=[0, 2**32])).permutation(4) < 2
    x, y = np.zeros(4), np.full(4, 4.0)
    x[first], y[first] = [0.5, 8.5], [0, 8]
    x[~first] = [0.5, 8.5]
    data = dataclasses.replace(contrary(), test=part(list(x), list(y)))
    grid = dataclasses.replace(GRIDS["decision_tree"], grid={"min_samples_leaf": [1, 4]})
    _, found = classical.search(
        run_of(spec_of("decision_tree", protocol="paper"), grid, tmp_path), data
    )
    assert found.halves == [[0.0, 4.0], [0.0, 4.0]]


def test_of_two_points_alike_the_first_is_kept_and_one_that_is_not_finite_never(
    tmp_path, monkeypatch
):
    class Says:
        def __init__(self, value):
            self.value = float(value)

        def fit(self, x, y):
            return self

        def predict(self, x):
            return np.full(len(x), self.value)

    monkeypatch.setattr(classical, "makers", lambda *_: {"sgd": Says})
    grid = Grid("sgd", grid={"value": ["nan", "4", "4.0", "inf"]})
    estimator, found = classical.search(run_of(spec_of("sgd"), grid, tmp_path), contrary())
    assert [one["mae"] for one in found.tried] == [None, 4.0, 4.0, None]
    assert found.best is found.tried[1] and estimator.value == 4.0
    with pytest.raises(UserError, match="not finite at any point of its grid"):
        classical.search(
            run_of(spec_of("sgd"), Grid("sgd", grid={"value": ["nan"]}), tmp_path, "other"),
            contrary(),
        )


def test_a_model_that_cannot_take_the_rows_is_fitted_on_the_first_and_says_so(
    alloys_pack, tmp_path, monkeypatch, capsys
):
    from sklearn.tree import DecisionTreeRegressor

    grid = dataclasses.replace(GRIDS["decision_tree"], max_rows=100, grid={"min_samples_leaf": [4]})
    monkeypatch.setitem(GRIDS, "decision_tree", grid)
    result, path = run(alloys_pack, tmp_path, "decision_tree")
    x, y = rows(alloys_pack, "train")
    assert (result.n_train, result.fitted_rows) == (len(y), 100)
    assert f"{len(y)} train, fitted on the first 100" in capsys.readouterr().out
    tree = DecisionTreeRegressor(min_samples_leaf=4, random_state=0).fit(x[:100], y[:100])
    with np.load(path / "test_predictions.npz") as file:
        np.testing.assert_allclose(file["prediction"], tree.predict(rows(alloys_pack, "test")[0]))


def test_fewer_training_rows_are_the_first_ones(alloys_pack, tmp_path):
    result, path = run(alloys_pack, tmp_path, "linear", train_rows=50)
    assert (result.n_train, result.fitted_rows, path.parent.name) == (50, 50, "honest-n50")


def test_a_finished_cell_is_not_fitted_again_and_is_stale_when_its_grid_changes(
    alloys_pack, tmp_path, monkeypatch, capsys
):
    _, path = run(alloys_pack, tmp_path, "ridge")
    before = (path / "result.json").stat().st_mtime_ns
    run(alloys_pack, tmp_path, "ridge")
    assert "already done" in capsys.readouterr().out
    assert (path / "result.json").stat().st_mtime_ns == before
    monkeypatch.setitem(GRIDS, "ridge", dataclasses.replace(GRIDS["ridge"], grid={"alpha": [5.0]}))
    assert exit_status(lambda: train.main(arguments(alloys_pack, tmp_path, "ridge"))) == 2
    assert "stale" in capsys.readouterr().err
    assert (
        exit_status(lambda: train.main([*arguments(alloys_pack, tmp_path, "ridge"), "--force"]))
        == 0
    )
    assert read_result(path / "result.json").chosen["point"] == {"alpha": 5.0}


def test_the_key_is_of_the_grid_and_of_no_network(monkeypatch):
    spec, identity = spec_of("ridge"), {"source_sha256": "1", "content_sha256": "x"}
    key = run_key(spec, GRIDS["ridge"], identity)
    assert key != run_key(
        spec, dataclasses.replace(GRIDS["ridge"], grid={"alpha": [1.0]}), identity
    )
    assert key != run_key(spec, GRIDS["ridge"], identity | {"source_sha256": "2"})
    monkeypatch.setattr(
        "irnet_hpc.runs.spec.TRAINING_VERSION", 99
    )  # a change to the networks' training
    assert key == run_key(spec, GRIDS["ridge"], identity)
    monkeypatch.setattr("irnet_hpc.runs.spec.GRID_VERSION", GRID_VERSION + 1)
    assert key != run_key(spec, GRIDS["ridge"], identity)


def test_a_point_of_an_earlier_attempt_is_fitted_again_only_if_it_is_the_best(
    tmp_path, monkeypatch
):
    grid = dataclasses.replace(GRIDS["decision_tree"], grid={"min_samples_leaf": [1, 2, 4]})
    whole, found = classical.search(
        run_of(spec_of("decision_tree"), grid, tmp_path / "whole"), contrary()
    )
    fits, fitted = [], classical.fitted
    monkeypatch.setattr(
        classical,
        "fitted",
        lambda s, g, point, *rest: fits.append(point) or fitted(s, g, point, *rest),
    )
    notes, half = (
        tmp_path / "checkpoint" / "grid.json",
        dataclasses.asdict(classical.Search(tried=found.tried[:2])),
    )
    noted = {"sha256": classical._digest(half), "key": "key", "search": half}
    write_json(notes, noted)
    tree, again = classical.search(run_of(spec_of("decision_tree"), grid, tmp_path), contrary())
    assert fits == [
        {"min_samples_leaf": 4},
        {"min_samples_leaf": 1},
    ]  # the one that was left, and the best
    assert [one["mae"] for one in again.tried] == [one["mae"] for one in found.tried]
    x = contrary().val.x.numpy()
    assert np.array_equal(tree.predict(x), whole.predict(x))
    fits.clear()
    classical.search(
        run_of(spec_of("decision_tree"), grid, tmp_path, "of another grid"), contrary()
    )
    assert fits == grid.points
    fits.clear()
    half["tried"][0]["mae"] += 1  # a digit: another point would be the best
    write_json(notes, noted)
    _, again = classical.search(run_of(spec_of("decision_tree"), grid, tmp_path), contrary())
    assert fits == grid.points and [one["mae"] for one in again.tried] == [
        one["mae"] for one in found.tried
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])  # SIGINT is Ctrl-C
def test_a_fit_that_a_signal_ends_goes_on_with_the_same_command(number, alloys_pack, tmp_path):
    command = [
        sys.executable,
        "-u",
        "-m",
        "irnet_hpc.train",
        *arguments(alloys_pack, tmp_path, "boosted_trees"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:
        if line.startswith("1/4"):
            process.send_signal(number)
            break
    rest, _ = process.communicate(timeout=600)
    assert process.returncode == ExitStatus.PREEMPTED and "stopped by a signal" in rest
    (next_step,) = [line for line in rest.splitlines() if line.startswith("next: ")]
    assert shlex.split(next_step)[2:] == command[2:]  # python -m irnet_hpc.train ...
    assert not list(tmp_path.rglob("result.json"))
    tried = read_json(next(tmp_path.rglob("grid.json")))["search"]["tried"]
    assert 1 <= len(tried) < 4
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"resuming after {len(tried)} points" in done.stdout and "1/4" not in done.stdout
    result = read_result(next(tmp_path.rglob("result.json")))
    assert result.chosen["tried"][: len(tried)] == tried and len(result.attempts) == 2
    assert not list(tmp_path.rglob("checkpoint"))


BAD = {
    "a depth": (("random_forest", {"depth": 17}), "17"),
    "a recipe": (
        ("random_forest", {"recipe": "paper"}),
        "a classical model must have recipe grid",
    ),
    "an inline recipe": (
        ("ridge", {"recipe": "{name: grid, base: paper}"}),
        "must be letters, digits",
    ),
    "a network's grid": (
        ("irnet", {"depth": 17, "recipe": "grid"}),
        "recipe grid is only for a classical model (",
    ),
    "too many rows asked": (
        ("svr", {"train_rows": 300_000}),
        "300,000",
    ),
    "more rows than there are": (
        ("ridge", {"train_rows": 10_000}),
        "train_rows must be at most the",
    ),
    "a slip of the pen": (("random_forrest", {"depth": 17}), "did you mean 'random_forest'"),
    "an engine": (("ridge", {"engine": "mpi"}), "known: auto, horovod, none, torch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2(case, alloys_pack, tmp_path, capsys):
    (architecture, changes), sentence = BAD[case]
    assert (
        exit_status(lambda: train.main(arguments(alloys_pack, tmp_path, architecture, **changes)))
        == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and sentence in error
    assert not list(tmp_path.rglob("result.json"))


def test_more_than_one_rank_is_one_sentence(alloys_pack, tmp_path):
    class Two(Alone):
        size = 2

    with (
        open_pack(alloys_pack) as pack,
        pytest.raises(UserError, match="ridge is fitted by one rank, got 2"),
    ):
        classical.fit_run(
            run_of(spec_of("ridge"), GRIDS["ridge"], tmp_path / "run"), pack, TrainOptions(), Two()
        )
    assert not (tmp_path / "run").exists()


def test_without_its_package_tabm_is_one_sentence_and_the_others_run(
    alloys_pack, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tabm", None)
    assert exit_status(lambda: train.main(arguments(alloys_pack, tmp_path, "tabm"))) == 2
    assert "tabm needs the package tabm" in capsys.readouterr().err
    assert "pip install tabm" in read_json(next(tmp_path.rglob("error.json")))["error"]


def test_tabm_is_the_mean_of_its_members_and_the_same_for_the_same_seed():
    from irnet_hpc.train.tabm import TabM

    x = np.random.default_rng(0).normal(size=(64, 3))
    made = {"epochs": 2, "batch": 32, "learning_rate": 1e-3, "weight_decay": 0.0}
    before = torch.random.get_rng_state()
    one, two, other = (
        TabM(seed, torch.device("cpu"), **made).fit(x, x[:, 0]) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.array_equal(one.predict(x), two.predict(x)) and not np.array_equal(
        one.predict(x), other.predict(x)
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        members = one.network(torch.from_numpy(x).float())
    assert members.shape == (64, 32, 1)
    np.testing.assert_allclose(
        one.predict(x), members[:, :, 0].double().mean(1).numpy(), rtol=1e-2, atol=1e-2
    )


def test_tabm_is_fitted_in_float32_whatever_the_callers_default_dtype_is():
    from irnet_hpc.train.tabm import TabM

    x = np.random.default_rng(0).normal(size=(64, 3))
    made = {"epochs": 1, "batch": 32, "learning_rate": 1e-3, "weight_decay": 0.0}
    expected = TabM(0, torch.device("cpu"), **made).fit(x, x[:, 0]).predict(x)
    torch.set_default_dtype(torch.float64)
    try:
        found = TabM(0, torch.device("cpu"), **made).fit(x, x[:, 0]).predict(x)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(found, expected)


# Matrices and sweeps


@pytest.fixture
def matrix_of(tmp_path):
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom"})

    def read(text: str):
        path = tmp_path / "mine.yaml"
        path.write_text(f"packs: [alloys-magpie]\nproperties: [mixing_enthalpy]\n{text}\n")
        return read_matrix(path, tmp_path / "packs")

    return read


def test_a_model_is_named_by_its_architecture_alone():
    assert model_of("random_forest") == {"architecture": "random_forest", "depth": None}
    assert spec_of("random_forest").model == "random_forest"
    with pytest.raises(UserError, match="did you mean 'random_forest'"):
        model_of("random_forrest")


@pytest.mark.parametrize("recipes", ["[onecycle, grid]", "[onecycle]"])
def test_classical_models_have_recipe_grid_whether_or_not_it_is_listed(matrix_of, recipes):
    matrix = matrix_of(f"""
models: [irnet-17, random_forest, {{architectures: [svr, linear]}},
         {{architectures: [plain, ridge], depths: [10]}}]
recipes: {recipes}
protocols: [honest, paper]
seeds: [0, 1]
""")
    found = {(cell.spec.model, cell.spec.recipe) for cell in matrix.cells}
    classical_cells = {(name, "grid") for name in ("random_forest", "svr", "linear", "ridge")}
    assert found == classical_cells | {("irnet-17", "onecycle"), ("plain-10", "onecycle")}
    assert len(matrix.cells) == len(set(matrix.cells)) == 3 * 2 * 2 + 3 * 2  # ridge: one seed
    assert all(
        cell.recipe == GRIDS[cell.spec.architecture]
        for cell in matrix.cells
        if cell.spec.is_classical
    )
    assert not matrix.dropped


@pytest.mark.parametrize(
    ("models", "recipes", "n_cells", "idle"),
    [
        ("[irnet-17, plain-10]", "[onecycle, grid]", 2, "grid"),
        ("[ridge, svr]", "[onecycle, paper]", 2, "onecycle, paper"),
        ("[irnet-17]", "[grid]", 0, "grid"),
        ("[irnet-17, ridge]", "[onecycle, grid]", 2, None),
    ],
)
def test_a_recipe_that_no_model_can_have_is_noted(matrix_of, models, recipes, n_cells, idle):
    matrix = matrix_of(f"models: {models}\nrecipes: {recipes}\n")
    assert (len(matrix.cells), matrix.dropped) == (n_cells, ())
    assert [idle in note for note in matrix.notes] == ([True] if idle else [])


def seeds_of(matrix):
    """Architecture -> the seeds of its cells, in their order."""
    seeds = {}
    for cell in matrix.cells:
        seeds.setdefault(cell.spec.architecture, []).append(cell.spec.seed)
    return seeds


def test_a_model_without_a_seed_has_cells_of_the_first_seed_and_the_plan_says_so(
    matrix_of, tmp_path
):
    matrix = matrix_of("models: [irnet-17, ridge, boosted_trees, random_forest]\nseeds: [5, 0, 2]")
    assert seeds_of(matrix) == {
        "irnet": [5, 0, 2],
        "ridge": [5],
        "boosted_trees": [5],  # the pack has 6 training rows
        "random_forest": [5, 0, 2],
    }
    (note,) = matrix.notes
    assert {"ridge,", "boosted_trees:", "5", "4"} <= set(note.split()) and "\n" not in note
    context = SweepContext(matrix, tmp_path / "results", tmp_path / "packs", SweepOptions())
    assert sum(note in line for line in plan(context).lines()) == 1
    assert not matrix_of("models: [ridge]\nseeds: [7]").notes


def test_the_rows_of_a_cell_decide_if_boosted_trees_use_their_seed(tmp_path):
    """One pack has 6 training rows; the other is not built, so its rows are not known."""
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom"})
    table = {
        "packs": ["alloys-magpie", "alloys-elements"],
        "properties": ["mixing_enthalpy"],
        "models": ["boosted_trees", "ridge"],
        "protocols": ["honest", "paper"],
        "seeds": [0, 1],
        "train_rows": [200_000, None],
    }
    found = {}
    for cell in read_matrix(table, tmp_path / "packs").cells:
        spec = cell.spec
        key = (spec.pack, spec.architecture, spec.train_rows, spec.protocol)
        found[key] = found.get(key, 0) + 1
    for (pack, architecture, rows, _), n in found.items():
        unknown = (architecture, pack, rows) == ("boosted_trees", "alloys-elements", None)
        assert n == (2 if unknown else 1)
    assert len(found) == 16


@pytest.mark.parametrize(
    ("train", "val", "protocol", "n"),
    [
        (199_990, 10, "honest", 1),
        (199_990, 10, "paper", 1),
        (199_991, 10, "honest", 1),
        (199_991, 10, "paper", 2),
        (200_001, 10, "honest", 2),
    ],
)
def test_protocol_paper_counts_val_among_the_rows_of_a_fit(
    train, val, protocol, n, tmp_path, monkeypatch
):
    write_pack(tmp_path / "packs", "alloys-magpie", {"mixing_enthalpy": "eV/atom"})
    built = packs._built_pack

    def larger(*arguments):
        counts = {"train": train, "val": val, "test": 10}
        reported = {"mixing_enthalpy": counts}
        return dataclasses.replace(built(*arguments), n_rows=counts, reported=reported)

    monkeypatch.setattr(packs, "_built_pack", larger)
    table = {"packs": ["alloys-magpie"], "properties": ["mixing_enthalpy"], "seeds": [0, 1]}
    table |= {"models": ["boosted_trees"], "protocols": [protocol]}
    assert len(read_matrix(table, tmp_path / "packs").cells) == n


def test_without_recipes_each_kind_of_model_has_its_own(matrix_of):
    matrix = matrix_of("models: [irnet-17, ridge]")
    assert [(cell.spec.model, cell.spec.recipe) for cell in matrix.cells] == [
        ("irnet-17", "onecycle"),
        ("ridge", "grid"),
    ]
    assert not matrix.dropped


def test_rows_that_a_model_cannot_take_are_dropped_and_all_rows_are_not(matrix_of):
    matrix = matrix_of("models: [svr, ridge]\ntrain_rows: [1000, 30000, null]")
    found = [(cell.spec.model, cell.spec.train_rows) for cell in matrix.cells]
    assert sorted(found, key=str) == sorted(
        [("svr", 1000), ("svr", None), ("ridge", 1000), ("ridge", 30000), ("ridge", None)], key=str
    )
    assert [(d.product, d.reason, d.n_cells) for d in matrix.dropped] == [
        ("svr × 30,000 rows", "svr takes at most 20,000", 1)
    ]


def test_classical_cells_ask_for_cores_and_no_gpu_and_networks_for_what_they_did(matrix_of):
    matrix = matrix_of(
        "models: [irnet-17, ridge, tabm]\nresources: {gpus_per_rank: 1, cpus_per_rank: 4}"
    )
    found = {
        c.spec.model: (c.resources.gpus_per_rank, c.resources.cpu_only, c.resources.cpus_per_rank)
        for c in matrix.cells
    }
    assert found == {"irnet-17": (1, False, 4), "ridge": (0, True, 4), "tabm": (1, False, 4)}


def test_a_site_gives_no_gpu_to_a_cell_that_asks_for_none(matrix_of):
    from irnet_hpc.sweep.matrix.sites import Site
    from irnet_hpc.sweep.sbatch import slurm_parameters

    site = dataclasses.replace(Site(), gpus_per_task=1)
    asked = {
        cell.spec.model: slurm_parameters(
            site, cell.resources, name="n", token="t", after=None, is_training=True
        )
        for cell in matrix_of("models: [irnet-17, ridge]").cells
    }
    assert (asked["irnet-17"]["gpus_per_node"], asked["ridge"]["gpus_per_node"]) == (1, None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "models: [ridge]\nresources: {ranks_per_node: 2}",
            "ridge must be fitted by one rank, got 2",
        ),
        ("models: [ridge]\nresources: {cpu_only: 1}", "1"),
        (
            "models: [irnet-17]\nresources: {cpu_only: true, gpus_per_rank: 1}",
            "gpus_per_rank must be 0 where cpu_only",
        ),
        ("models: [{architectures: [ridge, irnet]}]", "depths must be a list"),
        ("models: [ridge]\nrecipes: [{name: grid, base: paper}]", "must be letters, digits"),
    ],
)
def test_a_matrix_that_cannot_be_is_one_sentence(matrix_of, text, sentence):
    with pytest.raises(UserError) as error:
        matrix_of(text)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_sweep_starts_a_classical_cell_as_it_is_typed_and_knows_it_done_or_stale(
    matrix_of, tmp_path, monkeypatch
):
    matrix, results = matrix_of("models: [ridge]"), tmp_path / "results"
    (entry,) = read_ledger(matrix, results).cells
    options = train_options(entry, results, None)
    assert "--depth" not in options and options[options.index("--recipe") + 1] == "grid"
    request = read_request(train.parser().parse_args(options))
    cell = matrix.cells[0]
    assert specify(request, cell.spec.pack, None) == [(cell.spec, cell.recipe)]
    write_result(matrix, matrix.cells[0], results)
    assert states(matrix, results) == {"ridge": "done"}
    monkeypatch.setitem(GRIDS, "ridge", dataclasses.replace(GRIDS["ridge"], grid={"alpha": [5.0]}))
    (entry,) = read_ledger(matrix_of("models: [ridge]"), results).cells
    assert (entry.state, entry.detail) == ("stale", "trained with another recipe: grid")


def test_more_ranks_for_a_sweep_are_for_its_networks(matrix_of, tmp_path, monkeypatch):
    from irnet_hpc.sweep import cell_attempt, local
    from irnet_hpc.sweep.context import SweepContext, SweepOptions

    n_ranks = []

    def train_command(status, n, *_):
        n_ranks.append(n)
        write_result(matrix, status.cell, tmp_path / "results")
        return ["true"]

    matrix = matrix_of("models: [irnet-17, ridge]")
    monkeypatch.setattr(cell_attempt, "train_command", train_command)
    local.run(SweepContext(matrix, tmp_path / "results", None, SweepOptions(n_ranks=2, workers=1)))
    assert n_ranks == [2, 1]


def test_the_matrix_of_classical_models_has_every_one_of_them(tmp_path):
    matrix = read_matrix(ROOT / "jobs" / "classical.yaml", tmp_path)
    assert {cell.spec.architecture for cell in matrix.cells} == set(GRIDS)
    assert not matrix.dropped and all(cell.resources.n_ranks == 1 for cell in matrix.cells)
    assert {c.spec.architecture for c in matrix.cells if not c.resources.cpu_only} == {"tabm"}


@pytest.mark.parametrize("architecture", list(GRIDS))
def test_a_model_that_uses_no_seed_is_the_same_for_each(architecture):
    """Asks scikit-learn itself, on few rows, with few trees."""
    grid = GRIDS[architecture]
    if architecture == "tabm":
        pytest.skip("it needs its own library, and draws its weights")
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4))
    y = x @ [1.0, 2.0, 0.5, -1.0] + random.normal(size=60)
    few = {name: min(number, 5) for name, number in grid.fixed.items() if name in FEW}
    fitted = [
        classical.makers(seed, 1)[architecture](**grid.fixed | few, **grid.points[0]).fit(x, y)
        for seed in (0, 1, 2)
    ]
    first, *others = (model.predict(x + 0.1) for model in fitted)
    same = all(np.array_equal(first, other) for other in others)
    assert same != grid.uses_seed(60)


FEW = ("n_estimators", "max_iter")


def test_boosted_trees_draw_rows_to_bin_from_more_than_200_000_on():
    assert not GRIDS["boosted_trees"].uses_seed(200_000)
    assert GRIDS["boosted_trees"].uses_seed(200_001)
