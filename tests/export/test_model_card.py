"""The model card: numbers and limits of the run, and code that runs as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irnet_hpc import pack_table
from irnet_hpc.export.model import export_model
from irnet_hpc.files import read_json
from irnet_hpc.predict import cli as predict
from irnet_hpc.train import cli as train

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def card_code(card: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_card_has_the_numbers_of_the_result_and_the_limits(exported):
    run, path = exported
    result = read_json(run / "result.json")
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    for name, values in result["per_property"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert f"{values['test_mae']:.4g}" in row
        assert f"{values['baseline_mae']:.4g}" in row
        assert f"{values['n_train']:,}" in row
    unseen = re.search(r"Elements that no training row has: (.*)\.", text)[1].split(", ")
    assert "O" in unseen and "Al" not in unseen
    for fact in ("Takeuchi", "BSD", "Predictions of size_mismatch", result["key"]):
        assert fact in text, fact


def test_the_code_of_a_card_for_formulas_runs_as_printed(exported, monkeypatch):
    _, path = exported
    monkeypatch.chdir(path.parent)
    names = {}
    exec(card_code(path.with_suffix(".md")), names)
    assert names["prediction"].shape == (len(names["formulas"]), 2)
    assert np.isfinite(names["prediction"]).all()


def test_the_code_of_a_card_for_packs_runs_as_printed_and_gives_the_runs_predictions(
    tmp_path, monkeypatch
):
    """For a network of the user's own columns, whose features are read from a pack."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    u, v = random.normal(size=(2, 200))
    rows = [f"Al{n}Ni,{a},{b},{a + b}" for n, (a, b) in enumerate(zip(u, v, strict=True), start=1)]
    Path("mine.csv").write_text("\n".join(["formula,u,v,score", *rows]) + "\n")
    pack_table("mine.csv", features="columns", units={"score": "1"}, workers=1).close()
    recipe = "{name: few, base: onecycle, epochs: 2, batch: 32, norm_group: 32, precision: fp32}"
    command = ["--pack", "mine-columns", "--property", "score", "--layers", "16BARx1-1"]
    assert train.main([*command, "--recipe", recipe]) == 0
    (result,) = Path("results").rglob("result.json")
    _, card, _ = export_model(result.parent, "model.onnx")
    names = {}
    exec(card_code(card), names)
    with np.load(result.parent / "test_predictions.npz", allow_pickle=False) as recorded:
        expected = recorded["prediction"]
    # Test rows are the last of a pack.
    predicted = names["prediction"][-len(expected) :, 0]
    np.testing.assert_allclose(predicted, expected, atol=1e-4 * expected.std())


def test_the_code_of_a_card_for_structures_runs_on_a_folder_of_new_files(tmp_path, monkeypatch):
    """The new structures have no property, and the graph gives what `predict` gives for them."""
    from pymatgen.core import Lattice, Structure

    from irnet_hpc import train_model

    monkeypatch.chdir(tmp_path)
    elements = ("Al", "Ni", "Fe", "Co", "Ti", "Cu", "Zn", "Mg", "Si", "Na", "K", "Ca")
    pairs = [(a, b) for place, a in enumerate(elements) for b in elements[place + 1 :]]
    crystals = [
        Structure(Lattice.cubic(3 + number / 100), pair, [[0] * 3, [0.5] * 3])
        for number, pair in enumerate(pairs)
    ]
    frame = pd.DataFrame({"structure": crystals, "score": np.arange(len(pairs)) % 7})
    packed = {"features": "magpie+structure", "units": {"score": "1"}, "name": "mine"}
    pack_table(frame, **packed, workers=1).close()
    train_model("mine", "score", architecture="ridge")
    (result,) = Path("results").rglob("result.json")
    _, card, _ = export_model(result.parent, "model.onnx")
    new = Path("new_cifs")
    new.mkdir()
    for name, crystal in (("a", crystals[3]), ("b", crystals[40])):
        crystal.to(filename=str(new / f"{name}.cif"))
    # As a user's script, which has no guard of its main part.
    Path("new.py").write_text(card_code(card) + "\nprint(*frame.index, *prediction[:, 0])\n")
    done = subprocess.run([sys.executable, "new.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *index, first, second = done.stdout.split()
    assert index == ["a", "b"]
    assert predict.main([str(result.parent), "new_cifs", "-o", "new.csv"]) == 0
    expected = pd.read_csv("new.csv")["predicted_score"]
    np.testing.assert_allclose([float(first), float(second)], expected, rtol=1e-4, atol=1e-4)
