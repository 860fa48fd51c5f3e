"""The choice of the run with the lowest val MAE."""

from irnet_hpc.files import read_json
from tests.predict.builders import table


def test_the_best_run_is_that_of_the_lowest_val_mae(results, runs, ask, tmp_path):
    best = min(runs, key=lambda run: read_json(run / "result.json")["val_mae"])
    formulas = table(tmp_path / "t.csv", ["AlNi", "CuZn"])
    _, rows, message = ask("--best", "mixing_enthalpy", "--results", results, formulas)
    assert str(best) in message and rows == ask(best, formulas)[1]
    status, _, message = ask("--best", "band_gap", "--results", results, formulas)
    assert status == 2 and "predicted there: mixing_enthalpy" in message
