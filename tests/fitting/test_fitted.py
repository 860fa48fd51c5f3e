"""A fitted model predicts as the command does, from memory, from its folder and from a copy."""

import csv
import io
import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

import irnet_hpc
from irnet_hpc.aggregate import model_words
from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.predict import cli as predict
from tests.fitting.builders import NETWORK, PROPERTY, QUICK, TARGET, hardnesses

NEW = ["Fe3C", "Fe2N", "NaCl", "Xx"]


@pytest.fixture
def saved(fitted, tmp_path):
    return fitted.save(tmp_path / "hard")


def test_predictions_have_intervals_and_flags_and_keep_their_rows(fitted):
    frame = fitted.predict(NEW)
    assert frame["formula"].tolist() == NEW
    inside = frame.iloc[:2]
    assert (inside[f"low_{PROPERTY}"] < inside[f"predicted_{PROPERTY}"]).all()
    assert (inside[f"predicted_{PROPERTY}"] < inside[f"high_{PROPERTY}"]).all()
    assert not inside["outside"].str.contains("no training row has").any()
    assert "Na" in frame["outside"][2] and "Cl" in frame["outside"][2]
    assert frame["problem"][3] and np.isnan(frame[f"predicted_{PROPERTY}"][3])
    narrow = fitted.predict(NEW[:1], level=0.5)
    assert narrow[f"high_{PROPERTY}"][0] < frame[f"high_{PROPERTY}"][0]
    assert frame.attrs["units"] == {PROPERTY: "GPa"}


def test_a_dataframe_keeps_its_columns_and_its_index(fitted):
    table = pd.DataFrame({"Composition": NEW[:2], "remark": ["a", "b"]}, index=[7, 3])
    frame = fitted.predict(table)
    assert frame.index.tolist() == [7, 3] and frame["remark"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(
        frame[f"predicted_{PROPERTY}"], fitted.predict(NEW[:2])[f"predicted_{PROPERTY}"]
    )


IRON = Structure(Lattice.cubic(2.9), ["Fe", "C"], [[0, 0, 0], [0.5, 0.5, 0.5]])


@pytest.mark.parametrize(
    "materials", ["Fe3C", pd.DataFrame({"remark": ["a"]})], ids=["text", "table"]
)
def test_what_is_no_column_of_formulas_is_refused(fitted, materials):
    with pytest.raises(UserError):
        fitted.predict(materials)


def test_compositions_and_structures_are_predicted_by_their_formulas(fitted):
    name = f"predicted_{PROPERTY}"
    expected = fitted.predict(["FeC"])[name][0]
    assert fitted.predict([IRON.composition])[name][0] == expected
    assert fitted.predict([IRON])[name][0] == expected


def test_a_saved_model_predicts_the_same_from_python(fitted, saved):
    loaded = irnet_hpc.load(str(saved))
    pd.testing.assert_frame_equal(loaded.predict(NEW), fitted.predict(NEW))
    pd.testing.assert_frame_equal(loaded.comparison, fitted.comparison)
    pd.testing.assert_frame_equal(loaded.rejected, fitted.rejected)
    assert loaded.name == fitted.name and loaded.counts == fitted.counts
    by_runs = irnet_hpc.load_model(saved)
    pd.testing.assert_frame_equal(by_runs.predict(NEW), fitted.predict(NEW))


def test_a_saved_model_predicts_the_same_by_the_command(fitted, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # far from the packs of others
    table = tmp_path / "new.csv"
    table.write_text("formula\n" + "\n".join(NEW) + "\n", encoding="utf-8")
    status = exit_status(lambda: predict.main([str(saved), str(table), "-o", "out.csv"]))
    assert status == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    frame = fitted.predict(NEW)
    for name in (f"predicted_{PROPERTY}", f"low_{PROPERTY}", f"high_{PROPERTY}"):
        numbers = [float(row[name]) for row in rows[:3]]
        assert numbers == pytest.approx(frame[name][:3].tolist(), rel=1e-5)
    assert [row["outside"] for row in rows] == frame["outside"].tolist()


def test_saving_loses_no_other_folder(fitted, saved, tmp_path):
    with pytest.raises(UserError):
        fitted.save(saved)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years")
    with pytest.raises(UserError):
        fitted.save(other, overwrite=True)
    assert (other / "thesis.txt").read_text() == "years"
    (saved / "results" / "stale").mkdir()
    fitted.save(saved, overwrite=True)
    assert not (saved / "results" / "stale").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hard", "other"]
    assert irnet_hpc.load(saved).name == fitted.name


def test_a_temporary_folder_goes_with_the_model():
    model = irnet_hpc.fit(hardnesses(120), TARGET, **QUICK | {"models": NETWORK})
    folder = model.folder
    assert folder.is_dir()
    del model
    assert not folder.exists()


def test_pickling_says_how_to_save(fitted):
    with pytest.raises(UserError, match="save"):
        pickle.dumps(fitted)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "irnet-fit/9"},
        {"runs": []},
        {"runs": ["../elsewhere"]},
        {"runs": ["/etc"]},
        {"table": "../../pack"},
        {"packs": []},
        {"packs": ["../elsewhere"]},
        {"runs": ["results/nothing"]},
        {"property": None},
        {"failed": [1]},
    ],
    ids=str,
)
def test_a_damaged_fit_is_refused(saved, changes):
    path = saved / "fit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError):
        irnet_hpc.load(saved).predict(NEW)


def test_a_folder_that_is_no_fit_is_refused(saved, tmp_path, fitted):
    with pytest.raises(UserError):
        irnet_hpc.load(tmp_path)
    (saved / "packs" / "table-elements.h5").write_bytes(b"no pack")
    with pytest.raises(UserError):
        irnet_hpc.load(saved)
    copy = fitted.save(tmp_path / "copy")
    with pytest.raises(UserError):  # two models are not averaged
        irnet_hpc.load_model([copy, copy])
    shutil.rmtree(copy / "results")
    with pytest.raises(UserError):
        irnet_hpc.load(copy).comparison  # noqa: B018


def test_a_notebook_shows_a_table_whose_texts_are_escaped(saved):
    path = saved / "fit.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"failed": {"<script>A</script>": "since 1 < 2"}}))
    html = irnet_hpc.load(saved)._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and "1 &lt; 2" in html
    assert html.count("<table") == 1
    for text in (NETWORK, model_words("ridge"), "Baseline", "GPa"):
        assert text in html


def test_the_report_is_that_of_aggregate(fitted):
    frame = fitted.report().frame()
    assert set(frame["unit"]) == {"GPa"}
    assert {NETWORK, "ridge"} <= set(fitted.comparison.index)
    models = fitted.comparison.drop("baseline")
    assert models["test_mae"].min() == pytest.approx(frame["test_mae_mean"].min())
