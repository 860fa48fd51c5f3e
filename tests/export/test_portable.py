"""Portable models: what a folder without a pack still knows, and what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from irnet_hpc import load_model, load_pack
from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.export import cli as export
from irnet_hpc.export.portable import export_portable
from irnet_hpc.files import read_json
from irnet_hpc.runs.portable import EVIDENCE
from irnet_hpc.train import cli as train
from irnet_hpc.train.model_file import read_tensors, write_tensors

LAYERS = "48BARx2-32BAx2R-16L0.1x1+1-1"
RECIPE = "{name: cut, base: onecycle, epochs: 3, batch: 64, norm_group: 32, floor: censored}"
FORMULAS = ["AlNi", "FeCoNi", "Fe0.4Cr0.3Ni0.3", "UTh", "TiZrNbHf"]


def trained(pack, folder, *options):
    """Train one network; return its folder, or None if the command refuses."""
    command = f"--pack {pack} --property size_mismatch,mixing_enthalpy --layers {LAYERS}"
    command = [*command.split(), "--results", str(folder), "--recipe", RECIPE, *map(str, options)]
    if exit_status(lambda: train.main(command)):
        return None
    (result,) = folder.rglob("result.json")
    return result.parent


@pytest.fixture(scope="module")
def run(gaps_pack, tmp_path_factory):
    return trained(gaps_pack, tmp_path_factory.mktemp("portable-run"))


@pytest.fixture(scope="module")
def portable(run, gaps_pack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("portable") / "alloys"
    export_portable(run, folder, gaps_pack.parent)
    return folder


@pytest.fixture
def broken(portable, tmp_path):
    """A copy of the model, to be damaged."""
    return shutil.copytree(portable, tmp_path / "copy")


def test_a_portable_model_predicts_as_its_run_does_with_its_pack(run, portable, gaps_pack):
    whole = load_model(run, pack_dir=gaps_pack.parent).predict(FORMULAS)
    alone = load_model(portable, pack_dir="/nowhere").predict(FORMULAS)
    assert [name for name in alone if name not in whole] == ["seen_as"]
    for name, scale in (("size_mismatch", 9.0), ("mixing_enthalpy", 0.26)):  # the baselines
        column = f"predicted_{name}"
        difference = (alone[column] - whole[column]).abs().max()
        assert difference < 0.02 * scale
    assert np.allclose(alone["distance"], whole["distance"], rtol=0.02, atol=0.01)
    assert alone["outside"].tolist() == whole["outside"].tolist()
    assert (alone["outside"] != "").any() and (alone["outside"] == "").any()


def test_its_errors_are_those_of_its_rounded_weights_on_the_rows_of_the_pack(portable, gaps_pack):
    (mismatch, enthalpy) = load_model(portable).report()
    with load_pack(gaps_pack) as pack:
        test = pack.rows("test")
        value, formulas = pack.y("mixing_enthalpy", test), pack.formulas(test)
    predicted = load_model(portable).predict(formulas)["predicted_mixing_enthalpy"]
    error = (predicted - value)[~np.isnan(value)].abs()
    assert enthalpy.n_test == len(error) and enthalpy.calibrated_on == "val"
    assert enthalpy.test_mae == pytest.approx(error.mean(), rel=1e-4)
    assert enthalpy.coverage == pytest.approx((error <= enthalpy.half_width).mean(), abs=0.03)
    assert mismatch.unit == "%" and enthalpy.unit == "eV/atom"


def test_formulas_that_trained_it_are_marked_in_any_spelling(portable, gaps_pack):
    with load_pack(gaps_pack) as pack:
        reported = ~np.isnan(pack.y("mixing_enthalpy", slice(0, pack.n_rows)))
        reported |= ~np.isnan(pack.y("size_mismatch", slice(0, pack.n_rows)))
        formulas = pack.formulas(slice(0, pack.n_rows))
        role = ["train"] * pack.n_train + ["val"] * pack.n_val + [""] * pack.n_test
    expected = [one if is_there else "" for one, is_there in zip(role, reported, strict=True)]
    assert load_model(portable).predict(formulas)["seen_as"].tolist() == expected
    first = expected.index("train")
    twice = re.sub("[A-Z][a-z]?[0-9.]*", lambda match: f"({match[0]})2", formulas[first])
    assert load_model(portable).predict([twice])["seen_as"].tolist() == ["train"]


def test_its_matrices_are_bf16_and_nothing_else_is(portable, run):
    tensors, _ = read_tensors(portable / "model.safetensors")
    before, _ = read_tensors(run / "model.safetensors")
    assert tensors.keys() == before.keys()
    for name, tensor in tensors.items():
        is_matrix = name.startswith("network.") and tensor.ndim == 2 and "output" not in name
        assert tensor.dtype == (torch.bfloat16 if is_matrix else before[name].dtype), name
    assert (portable / "model.safetensors").stat().st_size < 1e6


def test_the_card_states_data_errors_commands_and_the_identity_of_the_pack(portable, run):
    card, result = (portable / "card.md").read_text(), read_json(run / "result.json")
    assert result["key"] in card and "--portable" in card
    for values in result["per_property"].values():
        assert f"{values['test_mae']:.4g}" in card
    identity = json.loads(card.split("```json\n")[1].split("```")[0])
    assert identity == result["pack_identity"]
    stated = re.search(r"--recipe '(.*)'", card)[1]
    fields = json.loads(stated)
    assert fields["base"] == "onecycle" and fields["epochs"] == 3 and "ema" not in fields
    assert read_json(portable / "result.json")["attempts"][0].keys() <= {
        *("size", "engine", "data", "threads")
    }


def test_a_network_starts_from_it_and_counts_what_it_has_seen_of_val(portable, gaps_pack, tmp_path):
    started = trained(gaps_pack, tmp_path, "--init", portable)
    origin = read_json(started / "result.json")["origin"]
    assert origin["key"] == read_json(portable / "result.json")["key"]
    assert origin["n_shared_test"] == 0 and origin["n_shared_val"] > 10


def test_a_start_is_refused_where_it_has_seen_a_formula_that_is_tested(
    portable, tmp_path, pack_command, capsys
):
    options = "--source alloys --rows 600 --features elements --workers 1 --split-seed 1 --pack-dir"
    done = pack_command(*options.split(), tmp_path)
    assert done.returncode == 0, done.stderr
    (pack,) = tmp_path.glob("*.h5")
    assert trained(pack, tmp_path / "results", "--init", portable) is None
    said = capsys.readouterr().err
    assert re.search(r"[0-9]+ of the [0-9]+ formulas", said) and "split seed 0" in said
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("file", [EVIDENCE, "model.safetensors"])
def test_a_flipped_bit_is_an_error_and_no_prediction(broken, file):
    content = bytearray((broken / file).read_bytes())
    content[-100] ^= 1
    (broken / file).write_bytes(content)
    with pytest.raises(UserError):
        load_model(broken)


def test_the_evidence_of_another_model_is_refused(broken):
    tensors, facts = read_tensors(broken / EVIDENCE)
    write_tensors(broken / EVIDENCE, tensors, facts | {"key": "0" * 64})
    with pytest.raises(UserError):
        load_model(broken)


def test_evidence_that_lacks_an_array_is_refused(broken):
    tensors, facts = read_tensors(broken / EVIDENCE)
    del tensors["error.val.size_mismatch"]
    write_tensors(broken / EVIDENCE, tensors, facts)
    with pytest.raises(UserError):
        load_model(broken)


def test_a_portable_model_must_be_given_alone(portable, run, gaps_pack):
    with pytest.raises(UserError):
        load_model([portable, run], pack_dir=gaps_pack.parent)


def test_the_command_writes_it_and_keeps_a_folder_of_something_else(run, gaps_pack, tmp_path):
    packs = ["--portable", "--pack-dir", str(gaps_pack.parent)]
    assert export.main([str(run), str(tmp_path / "model"), *packs]) == 0
    assert export.main([str(run), str(tmp_path / "model"), *packs]) == 0  # replaces its own
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError):
        export.main([str(run), str(tmp_path / "other"), *packs])
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]


def test_a_run_without_its_pack_or_that_selected_on_test_is_refused(run, gaps_pack, tmp_path):
    with pytest.raises(UserError):
        export_portable(run, tmp_path / "a", tmp_path)
    paper = trained(gaps_pack, tmp_path / "paper", "--protocol", "paper")
    with pytest.raises(UserError):
        export_portable(paper, tmp_path / "b", gaps_pack.parent)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
