"""The choice of the run with the lowest val MAE."""

from irnet_hpc.files import read_json
from irnet_hpc.predict.best_run import best_run
from tests.predict.builders import table


def test_the_best_model_predicts_with_the_mean_of_its_seeds(results, runs, ask, tmp_path):
    formulas = table(tmp_path / "t.csv", ["AlNi", "CuZn"])
    _, rows, message = ask("--best", "mixing_enthalpy", "--results", results, formulas)
    assert str(runs[0].parent) in message and len(runs) == 2
    assert rows == ask(*runs, formulas)[1] != ask(runs[0], formulas)[1]
    best = min(runs, key=lambda run: read_json(run / "result.json")["val_mae"])
    assert best_run(results, "mixing_enthalpy") == best
    status, _, message = ask("--best", "band_gap", "--results", results, formulas)
    assert status == 2 and "predicted there: mixing_enthalpy" in message
