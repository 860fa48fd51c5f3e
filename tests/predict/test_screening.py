"""Members of different features, and elements that were not trained on."""

import shutil

import numpy as np

from irnet_hpc.predict.members import read_member
from tests.predict.builders import numbers, stored, table, train_one


def test_runs_of_different_features_are_averaged_each_on_its_own(
    runs, alloys_pack, tmp_path, ask, pack_command
):
    name = "alloys-small-ordered"
    command = f"--source alloys --rows 600 --features ordered --name {name} --workers 1"
    assert pack_command(*command.split(), "--pack-dir", tmp_path).returncode == 0
    other = train_one(tmp_path / f"{name}.h5", tmp_path / "results")
    shutil.copy(alloys_pack, tmp_path)
    first, second = stored(runs[0]), stored(other)
    common = sorted(set(first["formula"]) & set(second["formula"]))
    _, rows, message = ask(
        runs[0], other, table(tmp_path / "t.csv", common), "--pack-dir", tmp_path
    )
    of = [dict(zip(one["formula"], one["prediction"], strict=True)) for one in (first, second)]
    expected = [np.mean([one[formula] for one in of]) for formula in common]
    np.testing.assert_allclose(numbers(rows, "predicted_mixing_enthalpy"), expected, atol=2e-5)
    assert "calibrated on" in message  # val of both packs are the same formulas


def test_elements_that_no_training_row_has_are_named(runs, ask, tmp_path):
    member = read_member(runs[0])
    assert "Al" in member.elements and "O" not in member.elements
    _, rows, _ = ask(runs[0], table(tmp_path / "t.csv", ["AlNiTi", "AlNiO3"]))
    assert "O" not in rows[0]["outside"]
    assert rows[1]["outside"].startswith("no training row has O")
