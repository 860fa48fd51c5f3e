"""Spoil what runs leave: models, predictions, checkpoints, grids and results."""

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
from pathlib import Path

from irnet_hpc.runs.folder import RunFolder
from tests import builders
from tests.robustness import mutants
from tests.robustness.kinds import PROPERTIES, Kind, keep_sound, spoil_bytes


def make_run(folder: Path) -> None:
    """Train a small network by the command itself."""
    from irnet_hpc.features.sets import FEATURE_SETS
    from irnet_hpc.train import cli as train

    version = {"elements": FEATURE_SETS["elements"].version}
    builders.write_pack(folder, "alloys-elements", PROPERTIES, rows=40, feature_versions=version)
    recipe = "{name: t, base: paper, batch: 8, norm_group: 8, epochs: 2}"
    pack = folder / "alloys-elements.h5"
    command = f"--property band_gap --layers 4BARx2-1 --engine none --pack {pack}"
    with contextlib.redirect_stdout(io.StringIO()):
        assert (
            train.main([*command.split(), "--recipe", recipe, "--results", str(folder / "runs")])
            == 0
        )
    (made,) = (folder / "runs").rglob("result.json")
    for name in ("result.json", "model.safetensors", "test_predictions.npz"):
        (folder / name).write_bytes((made.parent / name).read_bytes())
    keep_sound(folder, "result.json", "model.safetensors", "test_predictions.npz")


def spoil_run(folder: Path, number: int) -> None:
    """Spoil the bytes of the model or the result, or the values of the result."""
    spoil_bytes("model.safetensors", "result.json", "test_predictions.npz")(
        folder, number - number % 3 + (0, 1, 1)[number % 3]
    )
    if number % 3 == 2:
        result = json.loads((folder / "result.json.sound").read_text())
        (folder / "result.json").write_text(json.dumps(mutants.spoil_tree(result, number)))


def read_run(folder: Path) -> object:
    from irnet_hpc.predict.members import read_member
    from irnet_hpc.train.warm_start import read_origin

    origin, member = read_origin(folder), read_member(folder)
    digest = hashlib.sha256(repr([member.feature_labels, origin.feature_labels]).encode())
    for tensors in (origin.tensors, member.network.state_dict()):
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    scaling = [
        member.scaling.feature_mean.tolist(),
        member.scaling.target_scale.tolist(),
        member.units,
    ]
    return [digest.hexdigest(), repr(scaling)]


def read_predictions(folder: Path) -> object:
    from irnet_hpc.runs.collect import FinishedRun
    from irnet_hpc.runs.predictions import read_predictions
    from irnet_hpc.runs.result import read_result
    from irnet_hpc.runs.spec import read_spec

    result = read_result(folder / "result.json.sound")
    found = read_predictions(FinishedRun(folder, read_spec(result.spec), result))
    return hashlib.sha256(b"".join(array.tobytes() for array in found.values())).hexdigest()


def make_checkpoint(folder: Path) -> None:
    import torch

    from irnet_hpc.distributed.engines import Alone
    from irnet_hpc.train import checkpoint

    for step in (8, 16):
        tensors = {"w": torch.full((50,), float(step)), "b": torch.full((2, 3), -float(step))}
        state = checkpoint.State(epoch=step // 8, step=step, history=[[0, 8, 1e-4, 0.5, 0.4, 1.0]])
        checkpoint.save(RunFolder(folder), "0" * 64, tensors, state, Alone())
    for path in list((folder / "checkpoint").iterdir()):
        keep_sound(path.parent, path.name)


def spoil_checkpoint(folder: Path, number: int) -> None:
    names = [f"{slot}{suffix}" for slot in "ab" for suffix in (".json", ".safetensors")]
    spoil_bytes(*names)(folder / "checkpoint", number)
    if number % 3 == 0:
        name = names[number % 4 // 2 * 2]
        whole = json.loads((folder / "checkpoint" / f"{name}.sound").read_text())
        (folder / "checkpoint" / name).write_text(json.dumps(mutants.spoil_tree(whole, number)))


def read_checkpoint(folder: Path) -> object:
    """Resume from one of the two checkpoints, or from the start: nothing else is allowed."""
    import torch

    from irnet_hpc.distributed.engines import Alone
    from irnet_hpc.train import checkpoint

    tensors = {"w": torch.zeros(50), "b": torch.zeros(2, 3)}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        state = checkpoint.resume(RunFolder(folder), "0" * 64, tensors, Alone())
        assert checkpoint.resume_point(RunFolder(folder), "0" * 64, Alone()) == (
            state.epoch,
            state.step,
        )
    values = {float(x) for x in tensors["w"]} | {-float(x) for x in tensors["b"].flatten()}
    assert (
        values == {float(state.step)}
        and state.step in (0, 8, 16)
        and state.epoch == state.step // 8
    )
    assert state == checkpoint.State() or state.history == [[0, 8, 1e-4, 0.5, 0.4, 1.0]]
    return None


SEARCH = {
    "tried": [{"point": {"alpha": 0.1 * n}, "mae": 0.5 - n / 10, "seconds": 1.0} for n in range(3)]
}


def make_grid(folder: Path) -> None:
    """Write how far a grid has come, as a classical model does at each point."""
    from irnet_hpc.train import classical

    found = dataclasses.asdict(classical.Search(**SEARCH))
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/grid.json").write_text(
        json.dumps({"sha256": classical._digest(found), "key": "0" * 64, "search": found}, indent=1)
    )
    keep_sound(folder, "checkpoint/grid.json")


def spoil_grid(folder: Path, number: int) -> None:
    spoil_bytes("checkpoint/grid.json")(folder, number)
    if number % 2:
        whole = json.loads((folder / "checkpoint/grid.json.sound").read_text())
        (folder / "checkpoint/grid.json").write_text(json.dumps(mutants.spoil_tree(whole, number)))


def read_grid(folder: Path) -> object:
    """Read all that was tried, or nothing: nothing else is allowed."""
    from irnet_hpc.train import classical

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = classical._resume(builders.run_of(None, None, folder, "0" * 64))
    assert found in (classical.Search(), classical.Search(**SEARCH)), found
    return None


def make_results(folder: Path) -> None:
    """Write results of two networks and a classical model; the last one will be spoiled."""
    from tests.aggregate.results import write_run

    for seed in (0, 1):
        for model, mae in (("plain-17", 0.3), ("irnet-17", 0.2), ("ridge", 0.25)):
            last = write_run(folder / "results", mae, model, seed=seed)
    (folder / "last").symlink_to(last)
    keep_sound(folder, "last/result.json")


def spoil_result(folder: Path, number: int) -> None:
    if number % 2:
        whole = json.loads((folder / "last/result.json.sound").read_text())
        (folder / "last/result.json").write_text(json.dumps(mutants.spoil_tree(whole, number)))
    else:
        spoil_bytes("last/result.json")(folder, number)


def read_results(folder: Path) -> object:
    """Write the tables, all but the figures."""
    from irnet_hpc.aggregate.report import make_tables

    make_tables(folder / "results").write_tables(folder / "tables")
    return None


FIT = ("result.json", "parameters.safetensors", "estimator.skops")


def make_fit(folder: Path) -> None:
    """Fit a classical model by the command itself."""
    from irnet_hpc.features.sets import FEATURE_SETS
    from irnet_hpc.train import cli as train

    version = {"elements": FEATURE_SETS["elements"].version}
    builders.write_pack(folder, "alloys-elements", PROPERTIES, rows=40, feature_versions=version)
    pack, results = folder / "alloys-elements.h5", str(folder / "runs")
    command = f"--property band_gap --architecture decision_tree --engine none --pack {pack}"
    with contextlib.redirect_stdout(io.StringIO()):
        assert train.main([*command.split(), "--results", results]) == 0
    (made,) = (folder / "runs").rglob("result.json")
    for name in FIT:
        (folder / name).write_bytes((made.parent / name).read_bytes())
    keep_sound(folder, *FIT)


def read_fit(folder: Path) -> object:
    """Predict three rows."""
    import numpy as np
    import torch

    from irnet_hpc.predict.members import make_predictor, read_member

    member = read_member(folder)
    predicted = make_predictor(member, torch.device("cpu"))(np.array([[1], [20], [33]], "float32"))
    return [predicted.tolist(), member.feature_labels, member.units]


def tamper_fit(folder: Path, number: int) -> None:
    """Spoil the types or the arrays in the file of the estimator, and record its new hash."""
    with zipfile.ZipFile(folder / "estimator.skops.sound") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if number % 2:
        schema = json.loads(content["schema.json"])
        content["schema.json"] = json.dumps(mutants.spoil_tree(schema, number)).encode()
    else:
        arrays = sorted(name for name in content if name.endswith(".npy"))
        name = arrays[number // 2 % len(arrays)]
        content[name] = mutants.spoil_bytes(content[name], number)
    with zipfile.ZipFile(folder / "estimator.skops", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    digest = hashlib.sha256((folder / "estimator.skops").read_bytes()).hexdigest()
    result = json.loads((folder / "result.json.sound").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"estimator_sha256": digest}))


KINDS = {
    "checkpoint": Kind(make_checkpoint, spoil_checkpoint, read_checkpoint, False),
    "grid": Kind(make_grid, spoil_grid, read_grid, False),
    "result": Kind(make_results, spoil_result, read_results, False),
    "model": Kind(make_run, spoil_run, read_run, True),
    "estimator": Kind(make_fit, spoil_bytes(*FIT), read_fit, True),
    "tampered estimator": Kind(make_fit, tamper_fit, read_fit, False),
    "predictions": Kind(make_run, spoil_bytes("test_predictions.npz"), read_predictions, True),
}
