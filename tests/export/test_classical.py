"""Export of classical models: onnxruntime gives what scikit-learn and the run gave."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc import UserError, load_model
from irnet_hpc.export import export_model
from irnet_hpc.export.convertible import CONVERTED
from irnet_hpc.pack.store import open_pack
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.runs.result import read_result
from irnet_hpc.train.model_file import read_tensors, write_tensors
from tests.builders import make_grids_small
from tests.export.test_model_card import card_code
from tests.predict.builders import stored, train_one

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("skl2onnx")

MODELS = ("elastic_net", "svr", "adaboost", "bagging", "extra_trees", "random_forest", "tabm")


def fit(pack: Path, results: Path, architecture: str, **changes) -> Path:
    options = {"architecture": architecture, "layers": None, "recipe": None} | changes
    return train_one(pack, results, **options)


@pytest.fixture(scope="module")
def fits(alloys_pack, tmp_path_factory) -> dict[str, Path]:
    """Return the folder of a run of each of MODELS and of boosted trees. Do not write to them."""
    results = tmp_path_factory.mktemp("classical-export")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_grids_small(monkeypatch)
        return {name: fit(alloys_pack, results, name) for name in (*MODELS, "boosted_trees")}


def ask(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"features": x})[0]


@pytest.mark.parametrize("architecture", [name for name in MODELS if name in CONVERTED])
def test_the_graph_gives_what_the_run_recorded(architecture, fits, alloys_pack, tmp_path):
    run = fits[architecture]
    path, card, exported = export_model(run, tmp_path / "model.onnx", alloys_pack.parent)
    recorded = stored(run)
    with open_pack(alloys_pack) as pack:
        x = pack.x(pack.rows("test"))
    predicted = ask(path, x)
    assert predicted.dtype == np.float32 and predicted.shape == (len(x), 1)
    deviation = recorded["prediction"].std()
    np.testing.assert_allclose(predicted[:, 0], recorded["prediction"], atol=1e-4 * deviation)
    x[0, 0], x[1, -1] = np.nan, np.inf
    spoilt = ask(path, x)
    assert np.isnan(spoilt[:2]).all()
    np.testing.assert_array_equal(spoilt[2:], predicted[2:])
    graph = onnx.load(path).graph
    # onnxruntime would warn of others.
    assert {one.name for one in graph.initializer} <= {n for node in graph.node for n in node.input}
    text = card.read_text(encoding="utf-8")
    result = read_result(run / "result.json")
    for fact in (exported.verified, f"{result.test_mae:.4g}", result.key, "Takeuchi"):
        assert fact in text, fact
    assert str(next(iter(result.chosen["point"].values()))) in text and "epoch" not in text


def test_a_model_that_is_not_converted_is_one_sentence_with_those_that_are(fits, tmp_path):
    for architecture in ("boosted_trees", "tabm"):
        with pytest.raises(UserError) as error:
            export_model(fits[architecture], tmp_path / "model.onnx")
        assert "\n" not in str(error.value) and architecture in str(error.value)
        assert all(name in str(error.value) for name in CONVERTED)
    assert not list(tmp_path.iterdir())
    assert set(CONVERTED) == set(GRIDS) - {"boosted_trees", "tabm"}


def test_the_floor_is_in_the_graph(alloys_pack, tmp_path):
    run = fit(alloys_pack, tmp_path, "linear", property="size_mismatch")
    kept = run / "parameters.safetensors"
    tensors, facts = read_tensors(kept)
    write_tensors(kept, tensors, facts | {"target_mean": facts["target_mean"] - 8})
    path, card, _ = export_model(run, tmp_path / "model.onnx", alloys_pack.parent)
    formulas = ["Al", "Ni", "AlNi", "Ti", "Cu", "Zn"]
    from irnet_hpc import featurize

    graph = ask(path, featurize(formulas, "elements").to_numpy("float32"))[:, 0]
    model = load_model(run, pack_dir=alloys_pack.parent)
    expected = model.predict(formulas)["predicted_size_mismatch"]
    np.testing.assert_allclose(graph, expected, rtol=1e-4, atol=1e-4)
    assert graph.min() == 0 and "never below 0" in card.read_text(encoding="utf-8")


def test_the_code_of_a_card_runs_as_printed(fits, alloys_pack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, card, _ = export_model(fits["random_forest"], "model.onnx", alloys_pack.parent)
    names = {}
    exec(card_code(card), names)
    assert names["prediction"].shape == (2, 1) and np.isfinite(names["prediction"][:1]).all()


def test_a_graph_that_differs_from_its_model_is_not_written(
    fits, alloys_pack, tmp_path, monkeypatch
):
    run = Path(shutil.copytree(fits["random_forest"], tmp_path / "run"))
    from irnet_hpc.export import model

    evaluate = model.evaluate_graph

    def off(path, x):
        predicted, evaluator = evaluate(path, x)
        return predicted * 1.01, evaluator

    monkeypatch.setattr(model, "evaluate_graph", off)
    with pytest.raises(UserError, match="no graph is written"):
        export_model(run, tmp_path / "model.onnx", alloys_pack.parent)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
