"""The network of a finished run, as its folder keeps it: what starts from it and what predicts with it read it here."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from irnet_hpc.data.formulas import elements_in
from irnet_hpc.errors import UserError
from irnet_hpc.models.network import Network
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.grids import Grid
from irnet_hpc.runs.lease import replacing
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import RunSpec, read_recipe, read_spec
from irnet_hpc.train.dataset import Dataset


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict | None = None) -> None:
    """A safetensors file; with facts, which stand in it as JSON, it holds a hash of both. The same content is the same bytes.
    Raises UserError where it cannot be written, e.g. on a full disk."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        # One text: several would stand in an order that changes from file to file.
        said = facts and json.dumps(
            facts | {"sha256": _content_hash(tensors, facts)}, ensure_ascii=False
        )
        save_file(tensors, path, said and {"irnet_hpc": said})
    except SafetensorError as error:
        raise UserError(f"{path.parent} cannot take {path.suffix[1:]} files: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and facts of a file of `write_tensors`. Raises UserError where it is missing, damaged or not one."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            facts = json.loads((file.metadata() or {}).get("irnet_hpc", "{}"))
        if not isinstance(facts, dict):
            raise TypeError("what it says of itself is no mapping")
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
    recorded = facts.pop("sha256", None)  # absent from files older than it
    if recorded and recorded != _content_hash(tensors, facts):
        raise UserError(
            f"{path}: it is damaged: its content is not that of the hash it was written with"
        )
    return tensors, facts


def _content_hash(tensors: dict[str, Tensor], facts: dict) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


FACTS = ("key", "layers", "unit", "feature_labels", "clip", "target_mean", "target_scale")


@dataclasses.dataclass(frozen=True)
class Finished:
    folder: Path
    spec: RunSpec
    recipe: Recipe
    result: RunResult
    tensors: dict[
        str, Tensor
    ]  # of model.safetensors: `network.*`, feature_mean and feature_scale (n_features,)
    facts: dict  # what the same file says: FACTS at least
    who: str  # what the run is called in a sentence

    @property
    def model_path(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights and statistics by their names in Network.state_dict()."""
        return {
            n.removeprefix("network."): t
            for n, t in self.tensors.items()
            if n.startswith("network.")
        }

    def damaged(self, why: object) -> UserError:
        return UserError(
            f"{self.who} must have its model, however: {self.model_path}: it is damaged: {why}"
        )


def read_finished(folder: Path | str, who: str = "a run") -> Finished:
    """A run by its folder. Raises UserError where there is none, it has not finished, keeps no network, or is damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{who} must be the folder of a finished training, however: there is no folder {folder}"
        )
    if not (folder / "result.json").exists():
        raise UserError(f"{who} must be finished, however: {folder} has no result.json")
    result = read_result(folder / "result.json")
    spec = read_spec(result.spec)
    if spec.is_classical:
        raise UserError(
            f"{who} must be of a network, however: {folder} is of {spec.architecture}, and of classical models only errors and "
            "test predictions are kept"
        )
    recipe = read_recipe(spec, result.recipe)
    found = Finished(folder, spec, recipe, result, {}, {}, who)
    try:
        tensors, facts = read_tensors(found.model_path)
        lacking = [name for name in FACTS if name not in facts]
        lacking += [name for name in ("feature_mean", "feature_scale") if name not in tensors]
        if lacking:
            raise KeyError(", ".join(lacking))
        if not isinstance(facts["feature_labels"], list):
            raise TypeError("feature_labels must be a list")
    except UserError as error:
        raise UserError(f"{who} must have its model, however: {error}") from None
    except (KeyError, TypeError) as error:
        raise found.damaged(error) from None
    # Only the model carries a hash: a property's name that is another in result.json would be predicted under it.
    trained = (
        (read_spec(facts["spec"]), read_recipe(spec, facts.get("recipe", result.recipe)))
        if "spec" in facts
        else (spec, recipe)
    )
    if facts["key"] != result.key or trained != (spec, recipe):
        raise UserError(
            f"{who} must have its model, however: {found.model_path} is of another run than result.json beside it"
        )
    return dataclasses.replace(found, tensors=tensors, facts=facts)


def write_model(
    path: Path, spec: RunSpec, recipe: Recipe, key: str, pack: Pack, data: Dataset, network: Network
) -> None:
    """The weights, population statistics and scaling, with what is needed to use them on other rows."""
    scaling = data.scaling
    tensors: dict[str, Tensor] = {
        f"network.{n}": t.detach().cpu().clone() for n, t in network.state_dict().items()
    }
    tensors["feature_mean"] = torch.from_numpy(scaling.feature_mean)
    tensors["feature_scale"] = torch.from_numpy(scaling.feature_scale)
    kept = {"layers": spec.layer_string} | facts(spec, recipe, key, pack, data)
    with replacing(path) as temporary:
        write_tensors(temporary, tensors, kept)


def facts(spec: RunSpec, recipe: Recipe | Grid, key: str, pack: Pack, data: Dataset) -> dict:
    """What stands beside parameters, for them to be used on other rows."""
    scaling, units = data.scaling, [pack.units[name] for name in spec.properties]
    return {
        "key": key,
        "spec": dataclasses.asdict(spec),
        "recipe": dataclasses.asdict(recipe),
        "unit": units if len(units) > 1 else units[0],  # of several properties all three are lists
        "feature_labels": pack.feature_labels,
        "clip": scaling.clip,
        "target_mean": np.asarray(scaling.target_mean).tolist(),
        "target_scale": np.asarray(scaling.target_scale).tolist(),
        "floor": np.where(
            np.isinf(scaling.floor), None, scaling.floor
        ).tolist(),  # None: no prediction is cut
        "elements_seen": _elements_seen(pack, data),
        "pack_identity": pack.identity,
    }


def _elements_seen(pack: Pack, data: Dataset) -> list[str]:
    """The elements of the training rows: what a model says nothing about can be told without its pack."""
    formulas = pack.formulas(slice(0, pack.n_rows))
    return sorted(elements_in(formulas[row] for row in data.train.row))
