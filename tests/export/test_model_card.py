"""The model card: numbers and limits of the run, and code that runs as it is printed."""

import re
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc import pack_table
from irnet_hpc.export.model import export_model
from irnet_hpc.files import read_json
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
