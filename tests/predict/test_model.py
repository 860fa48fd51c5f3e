"""Prediction from Python: the numbers of the command, from formulas and DataFrames."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch
from pymatgen.core import Composition

from irnet_hpc import UserError, load_model, pack_table, train_model
from irnet_hpc.export import export_model
from tests.predict.builders import QUICK, stored, train_one

FORMULAS = ["AlNi", "NaN", "CuZn", "Foo", "", "HeO", "AlNiO3", "AlNiTi"]


def as_text(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Write numbers as the command does: 6 significant digits, 4 of sd_, 3 of distance."""
    digits = {"predicted": 6, "low": 6, "high": 6, "sd": 4, "distance": 3}
    text = frame.copy()
    for name in frame.columns:
        if (n := digits.get(name.partition("_")[0])) is not None:
            text[name] = ["" if value != value else f"%.{n}g" % value for value in frame[name]]
    return text.to_dict("records")


@pytest.mark.parametrize("level", [0.9, 0.8])
def test_formulas_get_the_numbers_of_the_command(level, runs, ask, tmp_path, alloys_pack):
    """One run and several; from a list and from a DataFrame, whose columns and index stay."""
    table = tmp_path / "t.csv"
    table.write_text("formula,note\n" + "".join(f"{f},{n}\n" for n, f in enumerate(FORMULAS)))
    index = [f"row {n}" for n in range(len(FORMULAS))]
    frame = pd.DataFrame({"formula": FORMULAS, "note": range(len(FORMULAS))}, index=index)
    frame["note"] = frame["note"].astype(str)
    for chosen in (runs[:1], runs):
        status, rows, _ = ask(*chosen, table, "--interval", level)
        assert status == 0
        folders = str(chosen[0]) if len(chosen) == 1 else chosen
        model = load_model(folders, pack_dir=alloys_pack.parent, device="cpu")
        assert model.units == {"mixing_enthalpy": "eV/atom"}
        predicted = model.predict(frame, level)
        assert predicted.index.tolist() == index
        assert list(predicted.columns) == list(rows[0])
        assert predicted.attrs["units"] == model.units
        assert as_text(predicted) == rows
        pd.testing.assert_frame_equal(
            model.predict(FORMULAS, level), predicted.drop(columns="note").reset_index(drop=True)
        )
        assert frame.columns.tolist() == ["formula", "note"]


def test_a_report_has_the_numbers_beside_the_commands_list(runs, tmp_path, alloys_pack):
    from irnet_hpc.files import read_json
    from irnet_hpc.predict import cli

    (tmp_path / "t.csv").write_text("formula\nAlNi\n")
    packs = str(alloys_pack.parent)
    command = [*map(str, runs), str(tmp_path / "t.csv"), "-o", str(tmp_path / "o.csv")]
    assert cli.main([*command, "--pack-dir", packs]) == 0
    (expected,) = read_json(tmp_path / "o.csv.about.json")["properties"]
    (report,) = load_model(runs, pack_dir=packs, device="cpu").report()
    assert vars(report) == expected
    assert report.coverage is not None


def test_feature_columns_come_from_the_frame(tmp_path, ask):
    random = np.random.default_rng(0)
    u, v = random.normal(size=(2, 200))
    columns = {"formula": [f"Al{n}Ni" for n in range(1, 201)], "u": u, "v": v, "score": u + v}
    frame = pd.DataFrame(columns)
    options = {"name": "own", "features": "columns", "units": {"score": "1"}}
    pack = pack_table(frame, pack_dir=tmp_path, workers=1, **options)
    recipe = QUICK.replace("batch: 64", "batch: 32")
    run = train_one(pack.path, tmp_path / "results", property="score", recipe=recipe)
    model = load_model(run, pack_dir=tmp_path)
    assert sorted(model.columns) == ["u", "v"]
    with np.load(run / "test_predictions.npz", allow_pickle=False) as stored:
        formulas, expected = stored["formula"].tolist(), stored["prediction"]
    predicted = model.predict(frame[["v", "formula", "u"]]).set_index("formula")
    np.testing.assert_allclose(
        predicted.loc[formulas, "predicted_score"], expected, atol=1e-4 * expected.std()
    )
    new = pd.DataFrame({"v": [0.5, None, "x"], "u": [0.25, 1, 1]})
    problems = model.predict(new)["problem"].tolist()
    assert problems[0] == "" and "v" in problems[1] and "'x'" in problems[2]
    for materials in (["AlNi"], frame[["formula", "u"]]):
        with pytest.raises(UserError):
            model.predict(materials)
    # The command reads the same columns from text.
    frame[["u", "v"]].to_csv(tmp_path / "new.csv", index=False)
    _, rows, _ = ask(run, tmp_path / "new.csv", "--pack-dir", tmp_path)
    predicted = as_text(model.predict(frame[["u", "v"]]))
    assert [row["predicted_score"] for row in predicted] == [row["predicted_score"] for row in rows]


def test_no_rows_give_no_predictions_and_a_mistake_is_a_user_error(runs, tmp_path, alloys_pack):
    model = load_model(runs[0], pack_dir=alloys_pack.parent)
    empty = model.predict([])
    assert len(empty) == 0 and "predicted_mixing_enthalpy" in empty.columns
    # "composition" is one of the headings that are read as the formula.
    assert len(model.predict(pd.DataFrame({"composition": ["AlNi"]}))) == 1
    for materials in ("AlNi", pd.DataFrame({"alloy": ["AlNi"]})):
        with pytest.raises(UserError):
            model.predict(materials)
    with pytest.raises(UserError):
        model.predict(["AlNi"], level=90)
    with pytest.raises(UserError):
        model.predict(pd.DataFrame({"formula": ["AlNi"], "problem": [""]}))
    for runs_given in ([], tmp_path / "nothing", [runs[0], runs[0]]):
        with pytest.raises(UserError):
            load_model(runs_given)
    with pytest.raises(UserError, match="is not a folder"):
        load_model(runs[0] / "result.json")
    assert "mixing_enthalpy" in repr(model)


def test_without_its_pack_a_model_has_no_intervals_and_nothing_is_printed(
    runs, tmp_path, capfd, monkeypatch
):
    # Commands that ran in this process have attached one that prints.
    monkeypatch.setattr(logging.getLogger("irnet_hpc"), "handlers", [])
    predicted = load_model(runs[0], pack_dir=tmp_path).predict(["AlNiTi", "AlNiO3"])
    assert "low_mixing_enthalpy" not in predicted.columns
    assert predicted["outside"].tolist() == ["", "no training row has O"]
    assert capfd.readouterr().out == ""


def test_a_series_keeps_its_index_so_that_assignment_does_not_shuffle(runs, alloys_pack):
    model = load_model(runs[0], pack_dir=alloys_pack.parent, device="cpu")
    frame = pd.DataFrame({"formula": ["AlNi", "CuZn", "AlNiTi"]}, index=[2, 0, 1])
    alone = [model.predict([formula])["predicted_mixing_enthalpy"][0] for formula in frame.formula]
    assert len(set(alone)) == 3
    frame["enthalpy"] = model.predict(frame["formula"])["predicted_mixing_enthalpy"]
    np.testing.assert_allclose(frame["enthalpy"], alone, rtol=1e-5)


@pytest.mark.parametrize("index", [[7, 7, 3], [("a", 1), ("a", 2), ("b", 1)], [None, "x", "y"]])
def test_repeated_tuple_and_missing_labels_of_rows_stay(index, runs, alloys_pack):
    model = load_model(runs[0], pack_dir=alloys_pack.parent, device="cpu")
    formulas = pd.Series(["AlNi", "CuZn", "AlNiTi"], pd.Index(index, tupleize_cols=False))
    predicted = model.predict(formulas)
    assert predicted.index.equals(formulas.index)
    assert predicted["formula"].tolist() == formulas.tolist()


def test_compositions_and_missing_formulas_are_read_as_in_a_frame(runs, alloys_pack):
    model = load_model(runs[0], pack_dir=alloys_pack.parent, device="cpu")
    given = [Composition("Al2Ni"), "Al2Ni", None, float("nan"), pd.NA]
    predicted = model.predict(given)
    assert predicted["problem"].tolist() == ["", "", *["formula is empty"] * 3]
    first, second = predicted["predicted_mixing_enthalpy"][:2]
    assert first == pytest.approx(second)
    from_frame = model.predict(pd.DataFrame({"formula": given}))
    pd.testing.assert_frame_equal(
        predicted.drop(columns="formula"), from_frame.drop(columns="formula")
    )


@pytest.mark.parametrize(
    ("mean", "sd"),
    [
        (1.7e9, 2000),  # a time in seconds since 1970; a float32 there is a multiple of 128
        (-1.7e9, 3000),
        (101_325, 0.05),  # a pressure in Pa; a multiple of 1/128
        (2e7, 20),  # a multiple of 2
    ],
)
def test_features_far_from_zero_are_predicted_from_as_in_the_test(mean, sd, tmp_path):
    """The mean had been rounded to float32, so that predictions were of shifted features."""
    rng = np.random.default_rng(0)
    x = rng.normal(mean, sd, (400, 3))
    frame = pd.DataFrame(x, columns=["u", "v", "w"])
    frame.insert(0, "formula", [f"Al{n}Ni" for n in range(1, 401)])
    frame["score"] = ((x - mean) / sd) @ [1, 2, 3]
    options = {"features": "columns", "units": {"score": "1"}, "pack_dir": tmp_path, "workers": 1}
    pack = pack_table(frame, name="far", **options)
    recipe = {"name": "q", "base": "onecycle", "precision": "fp32", "batch": 32, "norm_group": 32}
    result = train_model(
        pack, "score", layers="16BARx2-1", recipe=recipe, results=tmp_path, device="cpu"
    )
    pack.close()
    model = load_model(result, results=tmp_path, pack_dir=tmp_path, device="cpu")
    predicted = model.predict(frame).set_index("formula")["predicted_score"]
    (path,) = tmp_path.rglob("result.json")
    recorded = stored(path.parent)
    ours = predicted[recorded["formula"].astype(str)].to_numpy()
    np.testing.assert_allclose(ours, recorded["prediction"], atol=1e-5 * frame["score"].std())
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    export_model(path.parent, tmp_path / "far.onnx", pack_dir=tmp_path)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "far.onnx"), providers=["CPUExecutionProvider"]
    )
    (graph,) = session.run(None, {"features": x.astype(np.float32)})
    np.testing.assert_allclose(graph[:, 0], predicted, atol=1e-5 * frame["score"].std())


def test_formulas_may_be_a_level_of_the_index(runs, alloys_pack):
    model = load_model(runs[0], pack_dir=alloys_pack.parent, device="cpu")
    frame = pd.DataFrame({"formula": ["CuZn", "AlNi"], "note": ["x", "y"]}, index=[5, 5])
    expected = model.predict(frame)["predicted_mixing_enthalpy"].tolist()
    predicted = model.predict(frame.set_index("formula"))
    assert predicted["predicted_mixing_enthalpy"].tolist() == expected
    assert predicted.index.tolist() == ["CuZn", "AlNi"] and "formula" not in predicted


def test_the_result_of_a_run_elsewhere_is_not_taken_for_the_run_of_its_name(tmp_path, monkeypatch):
    """In the default folder was a run of the same name, whose hardnesses are lower by 1000."""
    monkeypatch.chdir(tmp_path)
    recipe = {"name": "q", "base": "onecycle", "batch": 8, "norm_group": 8, "epochs": 1}

    def train(shift, folder):
        frame = pd.DataFrame({"formula": [f"Ti{n}C" for n in range(1, 121)]})
        frame["hardness"] = np.linspace(10, 30, 120) + shift
        units = {"hardness": "GPa"}
        options = {"features": "elements", "pack_dir": f"{folder}-packs", "units": units}
        with pack_table(frame, name="t", workers=1, **options) as pack:
            results = {"results": folder, "device": "cpu"}
            return train_model(pack, "hardness", layers="16BARx2-1", recipe=recipe, **results)

    train(0, "results")
    shifted = train(1000, "other")
    with pytest.raises(UserError, match="another result of that name"):
        load_model(shifted)
    with pytest.raises(UserError, match="does not exist"):
        load_model(shifted, results="nowhere")
    state = torch.get_rng_state()
    model = load_model(shifted, results="other", pack_dir="other-packs", device="cpu")
    assert 950 < model.predict(["Ti2C"])["predicted_hardness"][0] < 1050
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("level", ["0.9", 0, 1.0, float("nan"), None])
def test_a_level_is_a_number_between_0_and_1(runs, level):
    with pytest.raises(UserError):
        load_model(str(runs[0])).report(level)


@pytest.mark.parametrize("runs", [None, 3, [], ()])
def test_what_is_no_run_is_a_users_mistake(runs):
    with pytest.raises(UserError):
        load_model(runs)
