"""The exported graph: onnxruntime gives what the run recorded."""

import numpy as np
import pytest

from irnet_hpc.pack.store import open_pack

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
