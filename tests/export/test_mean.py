"""Export of several runs: one graph gives the mean that `predict` gives."""

import re

import numpy as np
import pytest

from irnet_hpc import UserError, load_model
from irnet_hpc.export import cli as export
from irnet_hpc.export import export_model
from irnet_hpc.export.convertible import CONVERTED
from tests.builders import make_grids_small
from tests.export.test_model_card import card_code
from tests.predict.builders import deal_to_folds, stored, train_one

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxscript")

FORMULAS = ["Al", "Ni", "AlNi", "Ti", "Cu", "AlFeNi"]
CLASSICAL = {"layers": None, "recipe": None}
SMALL = "{name: t, base: onecycle, epochs: 2, batch: 64, norm_group: 32, precision: fp32}"


@pytest.fixture(scope="module")
def results(alloys_pack, tmp_path_factory):
    """Return results of two seeds of a network and of a forest, and of boosted trees."""
    folder = tmp_path_factory.mktemp("mean")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_grids_small(monkeypatch)
        for seed in (0, 1):
            train_one(alloys_pack, folder, layers="32BARx2-1", recipe=SMALL, seed=seed)
            train_one(alloys_pack, folder, architecture="random_forest", seed=seed, **CLASSICAL)
        train_one(alloys_pack, folder, architecture="boosted_trees", **CLASSICAL)
    return folder


def model_folder(results, name: str):
    """Return the folder above the seeds of the model whose folder has this text."""
    (folder,) = {one.parent.parent for one in results.rglob("result.json") if name in str(one)}
    return folder


def ask(path, formulas=FORMULAS) -> dict[str, np.ndarray]:
    from irnet_hpc import featurize

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = featurize(formulas, "elements").to_numpy("float32")
    outputs = [one.name for one in session.get_outputs()]
    return dict(zip(outputs, session.run(None, {"features": x}), strict=True))


@pytest.mark.parametrize(
    "names", [("/t/honest",), ("random_forest",), ("/t/honest", "random_forest")]
)
@pytest.mark.parametrize("committee", [False, True])
def test_the_graph_of_seeds_gives_what_predict_gives(
    names, committee, results, alloys_pack, tmp_path
):
    runs = [model_folder(results, name) for name in names]
    packs = alloys_pack.parent
    path, card, exported = export_model(runs, tmp_path / "mean.onnx", packs, committee=committee)
    expected = load_model(runs, pack_dir=packs, committee=committee).predict(FORMULAS)
    outputs = ask(path)
    deviation = stored(next(runs[0].glob("seed*")))["target"].std()
    atol = 1e-4 * deviation
    mean, sd = outputs["prediction"][:, 0], outputs["sd"][:, 0]
    np.testing.assert_allclose(mean, expected["predicted_mixing_enthalpy"], rtol=0, atol=atol)
    np.testing.assert_allclose(sd, expected["sd_mixing_enthalpy"], rtol=0, atol=atol)
    text = card.read_text(encoding="utf-8")
    factor, softening = map(
        float, re.search(r"material is ([\d.e+-]+) × \(`sd` \+ ([\d.e+-]+) ", text).groups()
    )
    half = (expected["high_mixing_enthalpy"] - expected["low_mixing_enthalpy"]) / 2
    np.testing.assert_allclose(factor * (sd + softening), half, rtol=1e-2)
    (report,) = exported.reports
    assert f"{report.test_mae:.4g}" in text and report.n_members == 2 * len(names)
    rows = [line for line in text.splitlines() if "/seed" in line and line.startswith("| ")]
    shares = [float(line.split(" | ")[3]) for line in rows]
    assert len(rows) == 2 * len(names) and sum(shares) == pytest.approx(1, abs=0.002 * len(rows))
    assert exported.size == path.stat().st_size


def test_the_graph_of_folds_is_their_mean_with_out_of_fold_errors(
    alloys_pack, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    packs = tmp_path / "packs"
    packs.mkdir()
    options = {"architecture": "decision_tree", **CLASSICAL}
    folds = deal_to_folds(alloys_pack, packs, 3)
    runs = [train_one(fold, tmp_path / "results", **options) for fold in folds]
    above = str(runs[0].parent).replace("-fold0", "")
    path, card, exported = export_model(above, "folds.onnx", packs)
    expected = load_model(runs, pack_dir=packs).predict(FORMULAS)
    outputs = ask(path)
    assert list(outputs) == ["prediction"]
    np.testing.assert_allclose(
        outputs["prediction"][:, 0], expected["predicted_mixing_enthalpy"], atol=1e-5
    )
    errors = [stored(run)["prediction"] - stored(run)["target"] for run in runs]
    assert exported.reports[0].test_mae == pytest.approx(np.abs(np.concatenate(errors)).mean())
    text = card.read_text(encoding="utf-8")
    half = float(re.search(r"`prediction` ±([\d.e+-]+) eV/atom", text)[1])
    ends = expected["high_mixing_enthalpy"] - expected["low_mixing_enthalpy"]
    np.testing.assert_allclose(half, ends / 2, rtol=1e-3)
    names = {}
    exec(card_code(card), names)
    assert names["prediction"].shape == (2, 1)


def test_a_row_with_a_bad_feature_has_no_prediction(results, alloys_pack, tmp_path):
    runs = [model_folder(results, name) for name in ("/t/honest", "random_forest")]
    path, _, _ = export_model(runs, tmp_path / "mean.onnx", alloys_pack.parent)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.zeros((3, session.get_inputs()[0].shape[1]), np.float32)
    x[:, 0], x[1, 3] = 1, np.nan
    prediction, sd = session.run(None, {"features": x})
    assert (
        np.isnan(prediction[:, 0]).tolist() == np.isnan(sd[:, 0]).tolist() == [False, True, False]
    )


def test_a_refusal_names_a_command_that_exports_the_best_other_model(
    results, alloys_pack, tmp_path, monkeypatch
):
    monkeypatch.setenv("IRNET_PACKS", str(alloys_pack.parent))
    file = tmp_path / "model.onnx"
    with pytest.raises(UserError) as error:
        export_model(model_folder(results, "boosted_trees"), file)
    sentence = str(error.value)
    assert "\n" not in sentence and not list(tmp_path.iterdir())
    command = sentence.partition("irnet_hpc.export ")[2].split()
    names = ("/t/honest", "random_forest")
    from irnet_hpc.runs.result import read_result

    folders = {name: model_folder(results, name) for name in names}
    maes = {
        name: np.mean([read_result(one).val_mae for one in folder.rglob("result.json")])
        for name, folder in folders.items()
    }
    assert min(maes, key=maes.get) in command[0] and f"{min(maes.values()):.4g}" in sentence
    assert "boosted_trees" not in CONVERTED
    assert export.main(command) == 0 and file.exists()


def test_runs_of_different_properties_are_not_joined(results, alloys_pack, tmp_path):
    other = train_one(
        alloys_pack, tmp_path / "other", architecture="ridge", property="size_mismatch", **CLASSICAL
    )
    with pytest.raises(UserError, match="size_mismatch"):
        export_model([model_folder(results, "/t/honest"), other], tmp_path / "model.onnx")
    with pytest.raises(UserError):
        export_model(other, tmp_path / "model.onnx", committee=True)
    assert not (tmp_path / "model.onnx").exists()
