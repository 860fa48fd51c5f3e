"""The exported graph: onnxruntime gives what the run recorded."""

import numpy as np
import pytest
import torch

from irnet_hpc.export import export_model
from irnet_hpc.pack.store import open_pack
from irnet_hpc.predict.members import read_member

onnxruntime = pytest.importorskip("onnxruntime")


def test_the_graph_gives_the_recorded_predictions_from_features_as_packed(exported, gaps_pack):
    run, path = exported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with (
        open_pack(gaps_pack) as pack,
        np.load(run / "test_predictions.npz", allow_pickle=False) as recorded,
    ):
        test_formulas = pack.formulas(pack.rows("test"))
        places = [test_formulas.index(formula) for formula in recorded["formula"]]
        x, expected = pack.x(pack.rows("test"))[places], recorded["prediction"]
    predicted = session.run(None, {"features": x})[0]
    known = ~np.isnan(expected)
    np.testing.assert_allclose(predicted[known], expected[known], atol=1e-4 * np.nanstd(expected))
    assert (predicted[:, 0] >= 0).all() and predicted.dtype == np.float32
    # Any number of rows is allowed, and none depends on the others.
    one = session.run(None, {"features": x[:1]})[0]
    np.testing.assert_allclose(one, predicted[:1], atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["property"] == "size_mismatch,mixing_enthalpy"
    assert metadata["unit"] == "%,eV/atom"


def test_a_graph_takes_float32_whatever_the_callers_default_dtype_is(exported, gaps_pack, tmp_path):
    run, path = exported
    torch.set_default_dtype(torch.float64)
    try:
        export_model(run, tmp_path / "model.onnx", gaps_pack.parent)
    finally:
        torch.set_default_dtype(torch.float32)
    predicted = [
        onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(
            None, {"features": np.ones((3, len(read_member(run).feature_labels)), np.float32)}
        )[0]
        for model in (path, tmp_path / "model.onnx")
    ]
    np.testing.assert_array_equal(*predicted)


def test_a_row_with_a_feature_that_is_no_finite_number_gets_no_number(exported, gaps_pack):
    """onnxruntime on CUDA and TensorRT give a number for Relu and Clip of NaN; so do these two."""
    onnx_reference = pytest.importorskip("onnx.reference")
    op_run = pytest.importorskip("onnx.reference.op_run")

    class Relu(op_run.OpRun):
        def _run(self, x):
            return (np.where(x > 0, x, 0).astype(x.dtype),)  # 0 for NaN

    class Clip(op_run.OpRun):
        def _run(self, x, low, high):
            return (np.fmin(np.fmax(x, low), high).astype(x.dtype),)  # `low` for NaN

    _, path = exported
    with open_pack(gaps_pack) as pack:
        x = np.repeat(pack.x(slice(0, 1)), 7, 0)
    x[1, 0] = x[2, -1] = x[3, :] = np.nan
    x[4, 0], x[5, 1] = np.inf, -np.inf
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    swallowing = onnx_reference.ReferenceEvaluator(str(path), new_ops=[Relu, Clip])
    for evaluator in (session, swallowing):
        (predicted,) = evaluator.run(None, {"features": x})
        assert np.isnan(predicted[1:6]).all()
        assert np.isfinite(predicted[[0, 6]]).all()
        np.testing.assert_array_equal(predicted[0], predicted[6])
