"""Ensembles: means, intervals that are calibrated on val, and packs that are missing."""

import math

import numpy as np

from tests.predict.builders import held_out, numbers, stored, table


def test_several_runs_give_their_mean_and_standard_deviation(runs, ask, tmp_path):
    recorded = [stored(run) for run in runs]
    both = np.array([one["prediction"] for one in recorded])
    _, rows, message = ask(*runs, table(tmp_path / "test.csv", recorded[0]["formula"]))
    np.testing.assert_allclose(numbers(rows, "predicted_mixing_enthalpy"), both.mean(0), atol=2e-5)
    np.testing.assert_allclose(
        numbers(rows, "sd_mixing_enthalpy"), both.std(0, ddof=1), rtol=1e-3, atol=2e-5
    )
    assert "mixing_enthalpy (eV/atom), the mean of 2 runs" in message
    assert f"MAE {np.abs(both.mean(0) - recorded[0]['target']).mean():.4g}" in message


def test_the_interval_of_one_run_is_the_conformal_quantile_of_its_val_errors(
    runs, ask, tmp_path, alloys_pack
):
    formulas, value = held_out(alloys_pack, "val")
    _, rows, _ = ask(runs[0], table(tmp_path / "val.csv", formulas), "--interval", "0.8")
    error = np.sort(np.abs(numbers(rows, "predicted_mixing_enthalpy") - value))
    half = error[math.ceil((len(error) + 1) * 0.8) - 1]
    width = numbers(rows, "high_mixing_enthalpy") - numbers(rows, "low_mixing_enthalpy")
    np.testing.assert_allclose(width, 2 * half, atol=1e-5)


def test_intervals_of_several_runs_are_wider_where_they_disagree(runs, ask, tmp_path, alloys_pack):
    formulas, value = held_out(alloys_pack, "val")
    _, rows, message = ask(*runs, table(tmp_path / "val.csv", formulas))
    low, high, sd = (numbers(rows, f"{name}_mixing_enthalpy") for name in ("low", "high", "sd"))
    n_held = int(((value >= low - 1e-6) & (value <= high + 1e-6)).sum())
    assert n_held == math.ceil(
        (len(value) + 1) * 0.9
    )  # exactly, on the rows that it was calibrated on
    assert (np.diff((high - low)[np.argsort(sd)]) >= -1e-6).all()
    assert "calibrated on" in message and "% of the test values" in message


def test_without_its_pack_or_with_another_of_its_name_there_is_no_interval(
    runs, ask, tmp_path, pack_command
):
    formulas = table(tmp_path / "t.csv", ["AlNiTi", "AlNiO3"])
    _, rows, message = ask(runs[0], formulas, "--pack-dir", tmp_path)
    assert (
        "low_mixing_enthalpy" not in rows[0]
        and "no interval" in message
        and "is missing" in message
    )
    assert (
        rows[1]["outside"] == "no training row has O" and not rows[1]["distance"]
    )  # the model knows its elements
    command = "--source alloys --rows 500 --features elements --name alloys-small --workers 1"
    assert pack_command(*command.split(), "--pack-dir", tmp_path).returncode == 0
    _, rows, message = ask(runs[0], formulas, "--pack-dir", tmp_path)
    assert "low_mixing_enthalpy" not in rows[0] and "is not the pack that" in message
