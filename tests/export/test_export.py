"""An exported run, asked by onnxruntime, beside what the run recorded; and what its card says."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.export import cli as export
from irnet_hpc.files import read_json
from irnet_hpc.pack import store
from irnet_hpc.train import cli as train

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LAYERS = "48BARx2-32BAx2R-16L0.1x1+1-1"
RECIPE = "{name: cut, base: onecycle, epochs: 3, batch: 64, norm_group: 32, precision: fp32, floor: censored}"


@pytest.fixture(scope="module")
def exported(gaps_pack, tmp_path_factory) -> tuple[Path, Path]:
    """A run of two properties, one of them with a floor, and its ONNX file."""
    folder = tmp_path_factory.mktemp("export")
    command = f"--pack {gaps_pack} --property size_mismatch,mixing_enthalpy --layers {LAYERS} --results {folder}"
    with contextlib.redirect_stdout(io.StringIO()):
        assert exit_status(lambda: train.main([*command.split(), "--recipe", RECIPE])) == 0
    (result,) = folder.rglob("result.json")
    assert (
        export.main(
            [str(result.parent), str(folder / "model.onnx"), "--pack-dir", str(gaps_pack.parent)]
        )
        == 0
    )
    return result.parent, folder / "model.onnx"


def test_the_graph_gives_the_recorded_predictions_from_features_as_packed(exported, gaps_pack):
    run, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with (
        store.open_pack(gaps_pack) as pack,
        np.load(run / "test_predictions.npz", allow_pickle=False) as recorded,
    ):
        places = [
            pack.formulas(pack.rows("test")).index(formula) for formula in recorded["formula"]
        ]
        x, expected = pack.x(pack.rows("test"))[places], recorded["prediction"]
    found = session.run(None, {"features": x})[0]
    known = ~np.isnan(expected)
    np.testing.assert_allclose(found[known], expected[known], atol=1e-4 * np.nanstd(expected))
    assert (found[:, 0] >= 0).all() and found.dtype == np.float32
    # as few or many rows as one likes, and none depends on the others
    np.testing.assert_allclose(session.run(None, {"features": x[:1]})[0], found[:1], atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["property"] == "size_mismatch,mixing_enthalpy" and facts["unit"] == "%,eV/atom"


def test_the_card_has_the_results_numbers_and_the_limits(exported):
    run, path = exported
    result, text = (
        read_json(run / "result.json"),
        path.with_suffix(".md").read_text(encoding="utf-8"),
    )
    for name, of in result["per_property"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert (
            f"{of['test_mae']:.4g}" in row
            and f"{of['baseline_mae']:.4g}" in row
            and f"{of['n_train']:,}" in row
        )
    unseen = re.search(r"Elements that no training row has: (.*)\.", text)[1].split(", ")
    assert "O" in unseen and "Al" not in unseen
    for said in (
        "Takeuchi",
        "BSD",
        "selected on val",
        "cut at 0",
        "Predictions of size_mismatch",
        result["key"],
    ):
        assert said in text, said
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace("model.onnx", str(path))
    names = {"formulas": ["AlNi", "CuZn"]}
    exec(code, names)  # the card's own example
    assert names["prediction"].shape == (2, 2) and np.isfinite(names["prediction"]).all()


def test_another_ending_and_another_run_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.onnx"):
        export.main(["nothing", str(tmp_path / "model.pt")])
    with pytest.raises(UserError, match="there is no folder"):
        export.main([str(tmp_path / "nothing"), str(tmp_path / "model.onnx")])
    assert not list(tmp_path.iterdir())
