"""The notebook of the documentation runs, and shows what its stored outputs show."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
NotebookClient = pytest.importorskip("nbclient").NotebookClient

PATH = Path(__file__).parents[2] / "docs" / "fit.ipynb"


def kinds(notebook) -> list[list[list[str]]]:
    """List the kinds of the results of each cell, such as text/html; printed text is left out."""
    return [
        [sorted(output["data"]) for output in cell.outputs if "data" in output]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_the_notebook_runs_in_an_empty_folder(tmp_path, monkeypatch):
    for name in ("IRNET_DATA", "IRNET_PACKS"):
        monkeypatch.delenv(name, raising=False)
    stored = nbformat.read(PATH, as_version=4)
    notebook = nbformat.read(PATH, as_version=4)
    client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises CellExecutionError, with the traceback
    assert kinds(notebook) == kinds(stored)
    shown = [
        output["data"]["text/html"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]
    assert "Extra trees" in shown[1] and "Baseline" in shown[1]
    assert "~20" in shown[2] and "Ti3W2C5-x" in shown[2]
    assert (tmp_path / "hardness-model" / "fit.json").is_file()
    # Stored outputs name no folder of the machine that made them.
    outputs = [str(cell.get("outputs", "")) for cell in stored.cells]
    assert [text for text in outputs if re.search(r"(?<![\w<])/\w+/\w+", text)] == []
