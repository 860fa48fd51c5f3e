"""Save and load the model of a finished run, to predict with it or to start another run from it.

Files contain a hash of their content, so a flipped bit on a disk causes an error and not a wrong
prediction.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from irnet_hpc.data.formulas import elements_in
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.classical_grids import Grid
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import RunSpec, read_recipe, read_spec
from irnet_hpc.train.dataset import Dataset
from irnet_hpc.train.run import Run


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict | None = None) -> None:
    """Write a safetensors file. The same content gives the same bytes.

    Args:
        path: The file.
        tensors: The tensors by name.
        facts: Facts to store in the header as JSON; a hash of tensors and facts is added.

    Raises:
        UserError: If the file cannot be written, e.g. because the disk is full.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = None
    if facts:
        # One entry, since the order of several entries would change from file to file.
        content = facts | {"sha256": _content_hash(tensors, facts)}
        header = {"irnet_hpc": json.dumps(content, ensure_ascii=False)}
    # save_file of safetensors 0.8 makes a file of mode 0600, whatever the umask says.
    path.touch()
    mode = path.stat().st_mode & 0o777
    try:
        save_file(tensors, path, header)
        path.chmod(mode)
    except SafetensorError as error:
        raise UserError(
            f"cannot write a {path.suffix[1:]} file into {path.parent}: {error}"
        ) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read the tensors and facts of a file that `write_tensors` wrote.

    Raises:
        UserError: If the file is missing or damaged, or is another kind of file.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            facts = json.loads((file.metadata() or {}).get("irnet_hpc", "{}"))
        if not isinstance(facts, dict):
            raise TypeError("its header must be a mapping")
    except FileNotFoundError:
        raise UserError(f"{path}: it is missing") from None
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise UserError(f"{path}: it is damaged: {error}") from None
    recorded = facts.pop("sha256", None)  # older files have no hash
    if recorded and recorded != _content_hash(tensors, facts):
        raise UserError(f"{path}: it is damaged: its content does not match its hash")
    return tensors, facts


def _content_hash(tensors: dict[str, Tensor], facts: dict) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():  # torch 2.13 does not view an empty tensor whose stride is 0 as bytes
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# The facts that the file of each kind of model always has.
FACTS = ("key", "unit", "feature_labels", "clip", "target_mean", "target_scale")


@dataclasses.dataclass(frozen=True)
class KeptRun:
    """A finished run of a network or of a classical model, with the numbers that it keeps."""

    folder: Path
    spec: RunSpec
    result: RunResult
    # feature_mean and feature_scale (n_features,); of a network `network.*`
    tensors: dict[str, Tensor]
    facts: dict  # the facts in the same file; those in FACTS are always there
    who: str  # how messages call the run

    @property
    def model_path(self) -> Path:
        """The file of these numbers."""
        files = RunFolder(self.folder)
        return files.parameters if self.spec.is_classical else files.model

    def damaged(self, why: object) -> UserError:
        """Make the error which says that the model cannot be used, and why."""
        return UserError(
            f"{self.who} must have its model, got {self.model_path}: it is damaged: {why}"
        )


@dataclasses.dataclass(frozen=True)
class Finished(KeptRun):
    """A finished run of a network, with the content of its model file."""

    recipe: Recipe

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights and statistics, by their names in Network.state_dict()."""
        return network_tensors(self.tensors)


def network_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a network among those of a file, by their names in its state_dict()."""
    prefix = "network."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def finished_spec(folder: Path | str, who: str = "a run") -> tuple[Path, RunSpec, RunResult]:
    """Return the folder of a finished run, its specification and its result.

    Args:
        folder: The run folder.
        who: The name of the run in error messages.

    Raises:
        UserError: If there is no run, or it has not finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(
            f"{who} must be the folder of a finished training, got {folder}, which {why}"
        )
    if not (folder / "result.json").exists():
        raise UserError(f"{who} must be finished, got {folder}, which has no result.json")
    result = read_result(folder / "result.json")
    return folder, read_spec(result.spec), result


def read_finished(folder: Path | str, who: str = "a run") -> Finished:
    """Read a finished run of a network by its folder.

    Args:
        folder: The run folder.
        who: The name of the run in error messages.

    Raises:
        UserError: If there is no run, or the run has not finished, has no network, or is damaged.
    """
    folder, spec, result = finished_spec(folder, who)
    if spec.is_classical:
        raise UserError(
            f"{who} must hold a network, got {folder}, which holds a classical model "
            f"({spec.architecture})"
        )
    recipe = read_recipe(spec, result.recipe)
    assert isinstance(recipe, Recipe)  # since the model is a network
    run = read_kept(KeptRun(folder, spec, result, {}, {}, who), recipe)
    if "layers" not in run.facts:
        raise run.damaged(KeyError("layers"))
    return Finished(**vars(run), recipe=recipe)


def read_kept(run: KeptRun, recipe: Recipe | Grid) -> KeptRun:
    """Read the numbers that a run keeps, and check that they are those of its result.

    Args:
        run: The run, without its numbers.
        recipe: The recipe or the grid in its result.

    Raises:
        UserError: If the file is missing or damaged, or belongs to another run.
    """
    try:
        tensors, facts = read_tensors(run.model_path)
        lacking = [name for name in FACTS if name not in facts]
        lacking += [name for name in ("feature_mean", "feature_scale") if name not in tensors]
        if lacking:
            raise KeyError(", ".join(lacking))
        if not isinstance(facts["feature_labels"], list):
            raise TypeError("feature_labels must be a list")
    except UserError as error:
        raise UserError(f"{run.who} must have its model, got {error}") from None
    except (KeyError, TypeError) as error:
        raise run.damaged(error) from None
    # Only the model file holds a hash. So if a property was renamed in result.json, it shows here.
    trained = (
        (read_spec(facts["spec"]), read_recipe(run.spec, facts.get("recipe", run.result.recipe)))
        if "spec" in facts
        else (run.spec, recipe)
    )
    if facts["key"] != run.result.key or trained != (run.spec, recipe):
        raise UserError(
            f"{run.who} must have its model, got {run.model_path}, which belongs to "
            "another run than the result.json beside it"
        )
    return dataclasses.replace(run, tensors=tensors, facts=facts)


def write_model(run: Run, pack: Pack, data: Dataset, network: Network) -> None:
    """Write model.safetensors, which holds everything that is needed to predict."""
    scaling = data.scaling
    tensors: dict[str, Tensor] = {
        f"network.{name}": tensor.detach().cpu().clone()
        for name, tensor in network.state_dict().items()
    }
    tensors["feature_mean"] = torch.from_numpy(scaling.feature_mean)
    tensors["feature_scale"] = torch.from_numpy(scaling.feature_scale)
    facts = {"layers": run.spec.layer_string} | model_facts(run, pack, data)
    with run.folder.replacing(run.folder.model) as temporary:
        write_tensors(temporary, tensors, facts)


def write_compact(run: Finished, path: Path) -> None:
    """Write the model of a finished run with its matrices in bf16, which halves the file.

    Vectors stay in float32: biases, statistics and scaling are few, and a network depends on their
    digits. So does the output layer, whose rounding would be that of the predictions.
    """
    tensors = {
        name: tensor.bfloat16()
        if tensor.ndim > 1 and name.startswith("network.") and ".output." not in f".{name}"
        else tensor
        for name, tensor in run.tensors.items()
    }
    write_tensors(path, tensors, run.facts)


def model_facts(run: Run, pack: Pack, data: Dataset, n_fitted: int | None = None) -> dict:
    """Collect the facts that are needed, besides the tensors, to predict other rows.

    Args:
        run: The run.
        pack: Its pack.
        data: The rows of the training.
        n_fitted: How many training rows, the first ones, the model has seen; None: all.
    """
    spec, scaling = run.spec, data.scaling
    units = [pack.units[name] for name in spec.properties]
    return {
        "key": run.key,
        "spec": dataclasses.asdict(spec),
        "recipe": dataclasses.asdict(run.recipe),
        # For several properties, unit, target_mean and target_scale are lists.
        "unit": units if len(units) > 1 else units[0],
        "feature_labels": pack.feature_labels,
        "clip": scaling.clip,
        "target_mean": np.asarray(scaling.target_mean).tolist(),
        "target_scale": np.asarray(scaling.target_scale).tolist(),
        # None: no prediction is cut.
        "floor": _finite_or_none(scaling.floor),
        "elements_seen": _elements_seen(pack, data.train.row[:n_fitted]),
        "pack_identity": pack.identity,
    }


def _finite_or_none(floor: float | np.ndarray) -> Any:
    """Replace infinities with None, since JSON has no infinity; an array becomes a list."""
    values = [None if np.isinf(value) else value for value in np.ravel(floor).tolist()]
    return values if np.ndim(floor) else values[0]


def _elements_seen(pack: Pack, rows: np.ndarray) -> list[str]:
    """List the elements of the training rows. Predictions for other elements are extrapolations."""
    formulas = pack.formulas(slice(0, pack.n_rows))
    return sorted(elements_in(formulas[row] for row in rows))
