"""One command trains on all folds of a table, and leaves a prediction for every row."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from irnet_hpc.console import exit_status
from irnet_hpc.pack import cli as pack_cli
from irnet_hpc.pack.store import open_pack
from irnet_hpc.train import cli

RECIPE = '{"name": "quick", "base": "onecycle", "epochs": 2, "precision": "fp32"}'
N_ROWS = 90


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    """Pack a table of 90 formulas in three folds, twice."""
    folder, random = tmp_path_factory.mktemp("folds"), np.random.default_rng(0)
    lines = [f"Al{n}Ni{n + 1},{n / 9 + random.normal():.3f}" for n in range(1, N_ROWS + 1)]
    (folder / "mine.csv").write_text("\n".join(["formula,hardness", *lines]))
    command = ["--source", str(folder / "mine.csv"), "--features", "elements", "--unit"]
    command += ["hardness=GPa", "--workers", "1", "--pack-dir", str(folder), "--folds", "3"]
    assert exit_status(lambda: pack_cli.main([*command, "--repeats", "2"])) == 0
    return folder


def train(packs, results, *options, pack="mine-elements-folds3") -> int:
    known = ["--pack", pack, "--pack-dir", str(packs), "--property", "hardness"]
    return exit_status(lambda: cli.main([*known, "--results", str(results), *options]))


def test_the_packs_of_all_folds_test_each_row_once_in_each_repeat(packs):
    tested = []
    for number in range(6):
        with open_pack(packs / f"mine-elements-folds3-fold{number}.h5") as pack:
            assert pack.identity["split"] == {"by": "folds", "n_folds": 3, "seed": number}
            assert pack.n_train > pack.n_val > 0
            tested += pack.formulas(pack.rows("test"))
    assert len(tested) == 2 * N_ROWS
    assert sorted(tested) == sorted([*set(tested), *set(tested)])


def test_one_command_trains_all_folds_and_predicts_every_row(packs, tmp_path, capsys):
    network = ["--layers", "16BARx2-1", "--recipe", RECIPE, "--seed", "0,1", "--json"]
    assert train(packs, tmp_path, *network) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "done" and len(told["runs"]) == 12
    assert {run["trained_now"] for run in told["runs"]} == {True}
    files = sorted(tmp_path.rglob("out_of_fold.csv"))
    assert [path.parent.name for path in files] == ["seed0", "seed1"]
    lines = list(csv.DictReader(files[0].open()))
    assert len(lines) == 2 * N_ROWS
    assert {(line["fold"], line["repeat"]) for line in lines} == {
        (str(fold), str(repeat)) for fold in range(3) for repeat in range(2)
    }
    errors = [
        abs(float(line["prediction"]) - float(line["target"]))
        for line in lines
        if (line["fold"], line["repeat"]) == ("1", "1")
    ]
    (run,) = (run for run in told["runs"] if run["pack"].endswith("fold4") and run["seed"] == 0)
    assert run["test_mae"] == pytest.approx(np.mean(errors), rel=1e-4)
    files[0].unlink()
    assert train(packs, tmp_path, *network) == 0
    again = json.loads(capsys.readouterr().out)
    assert {run["trained_now"] for run in again["runs"]} == {False} and files[0].exists()


def test_a_classical_model_is_fitted_on_every_fold(packs, tmp_path):
    assert train(packs, tmp_path, "--architecture", "ridge") == 0
    (path,) = tmp_path.rglob("out_of_fold.csv")
    assert len(path.read_text().splitlines()) == 1 + 2 * N_ROWS
    assert path.parts[-7] == "mine-elements-folds3"


def test_a_set_without_the_pack_of_a_fold_is_refused(packs, tmp_path, capsys):
    for path in packs.glob("*.h5"):
        if not path.stem.endswith("fold4"):
            (tmp_path / path.name).symlink_to(path)
    assert train(tmp_path, tmp_path / "results", "--architecture", "ridge") == 2
    assert "fold 4" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert train(packs, tmp_path, "--architecture", "ridge", pack="mine-elements-folds4") == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--folds", "1"],
        ["--folds", "95"],
        ["--folds", "3", "--split-seed", "1"],
        ["--folds", "3", "--fold", "0"],
        ["--folds", "3", "--repeats", "0"],
        ["--repeats", "2"],
    ],
)
def test_folds_that_cannot_be_made_are_one_sentence(packs, tmp_path, options, capsys):
    command = ["--source", str(packs / "mine.csv"), "--features", "elements", "--unit"]
    command += ["hardness=GPa", "--pack-dir", str(tmp_path), *options]
    assert exit_status(lambda: pack_cli.main(command)) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert line.startswith("error: ") and not list(tmp_path.glob("*.h5"))
