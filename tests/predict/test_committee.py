"""Ensembles: means, intervals that are calibrated on val, and packs that are missing."""

import math

import numpy as np

from irnet_hpc import load_model, pack_table
from irnet_hpc.data.elements import SYMBOLS
from irnet_hpc.predict.held_out import by_row, in_common
from irnet_hpc.runs.result import read_result
from tests.predict.builders import QUICK, held_out, numbers, stored, table, train_one


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


def test_every_row_of_a_material_measured_at_several_temperatures_counts(tmp_path):
    rows = [
        f"id-{symbol}{anion},{symbol}{anion},{kelvin},{place + kelvin / 100}"
        for place, symbol in enumerate(SYMBOLS[2:40])
        for anion in ("Br", "I", "Xe")
        for kelvin in (300, 400, 500)
    ]
    source = tmp_path / "cp.csv"
    source.write_text("\n".join(["material_id,formula,T,cp", *rows]) + "\n", encoding="utf-8")
    with pack_table(
        source, features="elements+columns", units={"cp": "J/K"}, pack_dir=tmp_path, workers=1
    ) as pack:
        n_val, n_test, path = pack.n_val, pack.n_test, pack.path
        assert n_val % 3 == n_test % 3 == 0 and n_val >= 9
    recipe = QUICK.replace("64", "16").replace("group: 32", "group: 16")
    run = train_one(path, tmp_path / "results", property="cp", layers="16x1-1", recipe=recipe)
    (report,) = load_model(run, pack_dir=tmp_path).report(level=0.8)
    result = read_result(run / "result.json")
    assert (report.n_val, report.n_test) == (n_val, n_test)
    assert math.isclose(report.test_mae, result.test_mae, rel_tol=1e-6)


def test_rows_in_common_are_those_with_the_same_id_formula_value_and_rank():
    first = {("a", "O", 1.0, 0): 1.5, ("a", "O", 1.0, 1): 2.0, ("a", "O", 3.0, 0): 3.0}
    second = {("a", "O", 3.0, 0): 5.0, ("a", "O", 1.0, 0): 2.5, ("b", "O", 1.0, 0): 9.0}
    error, sd, of_members, *_ = in_common([first, second])
    # Means 2.0 and 4.0 for the values 1 and 3; the two predictions differ by 1 and 2.
    np.testing.assert_allclose(error, [1.0, 1.0])
    np.testing.assert_allclose(sd, [math.sqrt(0.5), math.sqrt(2)])
    np.testing.assert_allclose(of_members, [[0.5, 0.0], [1.5, 2.0]])


def test_rows_of_one_material_with_equal_values_stay_apart():
    rows = by_row(["m", "m", "m", "n"], ["O"] * 4, [1.0, 1.0, 2.0, 1.0], [5, 6, 7, 8])
    assert list(rows.values()) == [5, 6, 7, 8]
