"""Hold the benchmark of matrices to its word: its cells, its share, its comparison."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.matrix import MATRICES, differences, n_threads, share_of_training
from irnet_hpc.errors import UserError
from irnet_hpc.sweep.matrix.matrix import read_matrix

BEGAN = 1_700_000_000


def cell(results: Path, name: str, start: float, seconds: float, threads: int = 1) -> Path:
    """A finished cell that trained for so many seconds from so long after the beginning."""
    folder = results / name
    folder.mkdir(parents=True)
    attempts = [{"threads": threads}]
    (folder / "result.json").write_text(json.dumps({"attempts": attempts}))
    history = folder / "history.csv"
    history.write_text(f"epoch,step,lr,train_mae,val_mae,seconds\n0,1,1,1,1,{seconds}\n")
    os.utime(history, (BEGAN + start + seconds,) * 2)
    np.savez(folder / "test_predictions.npz", prediction=np.float32([start, seconds]))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_matrices_have_the_cells_that_they_promise(tmp_path):
    counts = {}
    for name, text in MATRICES.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text % 8)
        is_classical = [c.spec.is_classical for c in read_matrix(path, tmp_path).cells]
        counts[name] = (len(is_classical) - sum(is_classical), sum(is_classical))
    assert counts == {"networks": (24, 0), "mixed": (20, 60)}


def test_the_share_ends_where_the_last_cell_starts(tmp_path):
    """Two cores: 2 s to start, cells of 8 s, 2 s between them; the last one starts at 22 s."""
    head = {"time": "2023-11-14T22:13:20+00:00"}  # BEGAN
    (tmp_path / ".sweep").mkdir()
    (tmp_path / ".sweep/20231114T221320.0-a.jsonl").write_text(json.dumps(head) + "\n")
    for i, start in enumerate((2, 2, 12, 12, 22)):
        cell(tmp_path, f"cell{i}", start, 8)
    share, seconds, n_cells = share_of_training(tmp_path, n_cores=2)
    assert (share, seconds, n_cells) == (pytest.approx(32 / 44), pytest.approx(22), 5)


def test_a_share_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="--share needs"):
        share_of_training(tmp_path, n_cores=2)


def test_cells_that_differ_in_a_bit_are_named(tmp_path):
    for side in ("one", "other"):
        for name in ("same", "numbers", "weights"):
            cell(tmp_path / side, name, 1, 2)
    np.savez(
        tmp_path / "one/numbers/test_predictions.npz",
        prediction=np.nextafter(np.float32([1, 2]), np.float32(9)),
    )
    (tmp_path / "one/weights/model.safetensors").write_bytes(b"Weights")
    assert differences(tmp_path / "one", tmp_path / "other") == ["numbers", "weights"]


def test_a_cell_states_the_threads_of_its_last_attempt(tmp_path):
    assert n_threads(cell(tmp_path, "a", 0, 1, threads=3)) == 3
    path = tmp_path / "a/result.json"
    path.write_text(json.dumps({"attempts": [{}]}))
    with pytest.raises(UserError, match="does not state its threads"):
        n_threads(path.parent)
