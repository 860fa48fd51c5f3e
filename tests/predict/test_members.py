"""Networks of finished runs: several properties, and runs that cannot predict."""

import csv
import io
import shutil

import numpy as np

from irnet_hpc.files import read_json, write_json
from irnet_hpc.predict import cli as predict
from irnet_hpc.predict.members import read_member
from tests.predict.builders import CENSORED, numbers, stored, table, train_one


def test_a_network_of_several_properties_gives_each_and_cuts_at_the_floor(
    gaps_pack, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("IRNET_PACKS", str(gaps_pack.parent))
    names = "size_mismatch,mixing_enthalpy"
    run = train_one(gaps_pack, tmp_path / "results", property=names, recipe=CENSORED)
    recorded, member = stored(run), read_member(run)
    assert member.scaling.floor.tolist() == [0, -np.inf]
    assert (
        predict.main([str(run), str(table(tmp_path / "t.csv", recorded["formula"])), "-o", "-"])
        == 0
    )
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    for column, name in enumerate(names.split(",")):
        reported = ~np.isnan(recorded["target"][:, column])
        ours, own = (
            numbers(rows, f"predicted_{name}")[reported],
            recorded["prediction"][reported, column],
        )
        np.testing.assert_allclose(ours, own, atol=1e-4 * own.std())
    assert (numbers(rows, "low_size_mismatch") >= 0).all()


def test_a_run_that_cannot_predict_is_one_sentence(runs, alloys_pack, ask, tmp_path):
    formulas = table(tmp_path / "t.csv", ["AlNi"])
    options = {"layers": None, "architecture": "decision_tree", "recipe": None}
    not_kept = train_one(alloys_pack, tmp_path / "results", keep_model="never", **options)
    bare = shutil.copytree(runs[0], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    torn = shutil.copytree(runs[0], tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:5000])
    older = shutil.copytree(runs[0], tmp_path / "older")
    result = read_json(older / "result.json")
    result["pack_identity"]["feature_versions"] = {"elements": 0}
    write_json(older / "result.json", result)
    for run, named in (
        (not_kept, "--keep-model"),
        (bare, "missing"),
        (torn, "damaged"),
        (older, "version 0"),
        (tmp_path / "nothing", "nothing"),
        (tmp_path, "result.json"),
    ):
        status, _, message = ask(run, formulas)
        assert status == 2 and named in message, run
    status, _, message = ask(runs[0], runs[0], formulas)
    assert status == 2 and "are the same run" in message
