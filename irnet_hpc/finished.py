"""The network of a finished run, as its folder keeps it: what starts from it and what predicts with it read it here."""

import dataclasses
from pathlib import Path

from torch import Tensor

from irnet_hpc.checkpoint import read_tensors
from irnet_hpc.errors import UserError
from irnet_hpc.recipes import Recipe
from irnet_hpc.runs import RunResult, RunSpec, read_recipe, read_result, read_spec

FACTS = ("key", "layers", "unit", "feature_labels", "clip", "target_mean", "target_scale")


@dataclasses.dataclass(frozen=True)
class Finished:
    folder: Path
    spec: RunSpec
    recipe: Recipe
    result: RunResult
    tensors: dict[str, Tensor]  # of model.safetensors: `network.*`, feature_mean and feature_scale (n_features,)
    facts: dict  # what the same file says: FACTS at least
    who: str  # what the run is called in a sentence

    @property
    def model_path(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def weights(self) -> dict[str, Tensor]:
        """Weights and statistics by their names in Network.state_dict()."""
        return {n.removeprefix("network."): t for n, t in self.tensors.items() if n.startswith("network.")}

    def damaged(self, why: object) -> UserError:
        return UserError(f"{self.who} must have its model, however: {self.model_path}: it is damaged: {why}")


def read_finished(folder: Path | str, who: str = "a run") -> Finished:
    """A run by its folder. Raises UserError where there is none, it has not finished, keeps no network, or is damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{who} must be the folder of a finished training, however: there is no folder {folder}")
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
