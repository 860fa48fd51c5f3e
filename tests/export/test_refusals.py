"""What an export promises is measured, and a graph that breaks the promise is not written."""

import re
import shutil

import numpy as np
import pytest

from irnet_hpc import UserError, load_model, train_model
from irnet_hpc.export import export_model
from irnet_hpc.pack.store import open_pack
from irnet_hpc.train.model_file import read_tensors, write_tensors

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("offset", [1e7, -3e6, 1e9])
def test_a_network_whose_float32_numbers_cancel_is_refused_in_one_sentence(
    offset, exported, gaps_pack, tmp_path
):
    """The last normalised layer computes its rows around `offset`: exact when folded, else not."""
    run = tmp_path / "run"
    shutil.copytree(exported[0], run)
    path = run / "model.safetensors"
    tensors, facts = read_tensors(path)
    *_, mean = (name for name in tensors if name.endswith("norm.mean"))
    bias = mean.replace("norm.mean", "linear.bias")
    tensors[mean] += offset
    tensors[bias] += offset
    write_tensors(path, tensors, facts)
    with pytest.raises(UserError) as error:
        export_model(run, tmp_path / "model.onnx", gaps_pack.parent)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert float(re.search(r"difference of ([\d.e+]+)", sentence)[1]) > 1e-4, sentence
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("precision", ["bf16", "fp32", "fp64"])
def test_the_card_states_the_differences_on_the_test_rows(precision, alloys_pack, tmp_path):
    """They are worked out from the predictions that the run has stored."""
    recipe = {"name": "t", "base": "onecycle", "epochs": 2, "batch": 64, "norm_group": 32}
    recipe |= {"precision": precision}
    options = {"layers": "32BARx2-1", "recipe": recipe, "results": tmp_path}
    result = train_model(alloys_pack, "mixing_enthalpy", **options)
    run = next(tmp_path.rglob("result.json")).parent
    path, card, exported = export_model(run, tmp_path / "model.onnx", alloys_pack.parent)
    with open_pack(alloys_pack) as pack:
        x, formulas = pack.x(pack.rows("test")), pack.formulas(pack.rows("test"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    predicted = session.run(None, {"features": x})[0][:, 0]
    by_predict = load_model(run, pack_dir=alloys_pack.parent).predict(formulas)[
        "predicted_mixing_enthalpy"
    ]
    difference = np.abs(predicted - by_predict)
    assert exported.verified in card.read_text(encoding="utf-8")
    numbers = re.findall(r"([\d.e+-]+) eV/atom", exported.verified)
    to_torch, most, mean = map(float, numbers)
    assert f" {len(x):,} test rows" in exported.verified and f" {precision}," in exported.verified
    assert most == pytest.approx(difference.max(), rel=0.06, abs=1e-7)
    assert mean == pytest.approx(difference.mean(), rel=0.06, abs=1e-7)
    assert to_torch < 1e-3 * result.baseline_mae
    assert (most > 10 * to_torch) == (precision == "bf16")
