"""Fixtures of export: a run of two properties, exported."""

import contextlib
import io
from pathlib import Path

import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.train import cli as train

LAYERS = "48BARx2-32BAx2R-16L0.1x1+1-1"
RECIPE = (
    "{name: cut, base: onecycle, epochs: 3, batch: 64, norm_group: 32, precision: fp32, "
    "floor: censored}"
)


@pytest.fixture(scope="session")
def exported(gaps_pack, tmp_path_factory) -> tuple[Path, Path]:
    """Return the folder of a run of two properties, one with a floor, and its ONNX file."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from irnet_hpc.export import cli as export

    folder = tmp_path_factory.mktemp("export")
    command = f"--pack {gaps_pack} --property size_mismatch,mixing_enthalpy --layers {LAYERS}"
    options = [*command.split(), "--results", str(folder), "--recipe", RECIPE]
    with contextlib.redirect_stdout(io.StringIO()):
        assert exit_status(lambda: train.main(options)) == 0
    (result,) = folder.rglob("result.json")
    model = folder / "model.onnx"
    packs = str(gaps_pack.parent)
    assert export.main([str(result.parent), str(model), "--pack-dir", packs]) == 0
    return result.parent, model
