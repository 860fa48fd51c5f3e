"""Members: the networks of finished runs, read from their folders to predict other rows.

A run says itself which features it takes, how they are scaled, what it predicts and in which unit. One network predicts
one property or several; several networks of one property are an ensemble (screening.py).
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import FEATURE_SETS, parse_feature_sets
from irnet_hpc.models.architectures import n_weights, parse_layers
from irnet_hpc.models.network import Layer, Network
from irnet_hpc.models.normalisation import EPSILON
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train.dataset import Scaling
from irnet_hpc.train.model_file import read_finished

NO_ROWS = parse_materials(formula_table([]))[0]
PREDICTED_ROWS = 1024  # a forward pass; its activations stay in a processor's cache


@dataclasses.dataclass(frozen=True)
class Member:
    """A trained network and what is needed to use it."""

    folder: Path
    spec: RunSpec
    recipe: Recipe
    result: RunResult
    units: dict[str, str]  # property -> unit, in the order of the outputs
    feature_sets: tuple[str, ...]
    feature_labels: list[str]
    scaling: Scaling
    network: Network  # as it was trained: weights, population statistics, wide
    elements: (
        frozenset[str] | None
    )  # symbols in its training rows; None: a model older than this record

    @property
    def columns(self) -> list[str]:
        """The labels of its features that are columns of the user's table."""
        if "columns" not in self.feature_sets:
            return []
        widths = {
            name: len(FEATURE_SETS[name].labels(NO_ROWS))
            for name in self.feature_sets
            if name != "columns"
        }
        before = sum(
            widths[name] for name in self.feature_sets[: self.feature_sets.index("columns")]
        )
        return self.feature_labels[
            before : before + len(self.feature_labels) - sum(widths.values())
        ]


def read_member(folder: Path | str) -> Member:
    """A run by its folder. Raises UserError where it has not finished, keeps no network, is damaged, or is of features
    that are no longer computed as they were."""
    run = read_finished(folder)
    folder, spec, tensors, said = run.folder, run.spec, run.tensors, run.facts
    layers = parse_layers(spec.layer_string)._replace(n_outputs=len(spec.properties))
    n_features = len(said["feature_labels"])
    if said["layers"] != spec.layer_string or n_weights(layers, n_features) > sum(
        t.numel() for t in tensors.values()
    ):
        # Before it is built: a network may be larger than the memory.
        raise run.damaged(f"its tensors are not those of {spec.layer_string}")
    network = Network(n_features, layers)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in run.weights.items()})
    except RuntimeError as error:
        raise run.damaged(" ".join(str(error).split())[:200]) from None
    units = said["unit"] if isinstance(said["unit"], list) else [said["unit"]]
    if len(units) != len(spec.properties):
        raise run.damaged(f"it has {len(units)} units for {spec.property}")
    return Member(
        folder,
        spec,
        run.recipe,
        run.result,
        dict(zip(spec.properties, units, strict=True)),
        _feature_sets(folder, run.result.pack_identity),
        said["feature_labels"],
        _scaling(tensors, said),
        network.eval(),
        frozenset(said["elements_seen"]) if said.get("elements_seen") else None,
    )


def _scaling(tensors: dict[str, torch.Tensor], said: dict) -> Scaling:
    mean, scale = (tensors[f"feature_{name}"].double().numpy() for name in ("mean", "scale"))
    floors = np.atleast_1d(
        np.array(said.get("floor"), float)
    )  # None, and absent from older models: no cut
    floor = np.where(np.isnan(floors), -np.inf, floors)
    target_mean, target_scale = (
        np.atleast_1d(np.asarray(said[f"target_{name}"])) for name in ("mean", "scale")
    )
    return Scaling(mean, scale, said["clip"], target_mean, target_scale, floor=floor)


def _feature_sets(folder: Path, identity: dict) -> tuple[str, ...]:
    text, versions = identity.get("features"), identity.get("feature_versions")
    if not isinstance(text, str) or not isinstance(versions, dict):
        raise UserError(
            f"{folder / 'result.json'} must say the features that it was trained on, and their versions"
        )
    names = parse_feature_sets(text)
    for name in names:
        trained, ours = versions.get(name), FEATURE_SETS[name].version
        if trained != ours:
            raise UserError(
                f"{folder} was trained on version {trained} of feature set {name}; this program computes {ours}"
            )
    return names


def predictor(member: Member, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """A function from features as packed (n_rows, n_features) to predictions (n_rows, n_properties), float64, in the units.

    It computes in the recipe's precision, as the evaluation of the run did. Normalisation by population statistics is
    multiplied into the weights before it, which is the same function and saves a third of the time.
    """
    dtype = torch.bfloat16 if member.recipe.precision == "bf16" else torch.float32
    network = folded(member.network).to(device)
    network.body.to(dtype)  # the output layer stays wide: 8 bits would round the prediction itself
    scaling = member.scaling
    mean, scale = (
        torch.from_numpy(a).float() for a in (scaling.feature_mean, scaling.feature_scale)
    )

    @torch.inference_mode()
    def predict(x: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), len(member.units)))
        for begin in range(0, len(x), PREDICTED_ROWS):
            rows = (torch.from_numpy(x[begin : begin + PREDICTED_ROWS]) - mean).div_(
                scale
            )  # as Scaling.features, narrow
            rows = rows.clamp_(-scaling.clip, scaling.clip) if scaling.clip else rows
            out[begin : begin + PREDICTED_ROWS] = (
                network(rows.to(device, dtype)).double().cpu().numpy()
            )
        return np.maximum(out * scaling.target_scale + scaling.target_mean, scaling.floor)

    return predict


def folded(network: Network) -> Network:
    """A copy of the network whose normalisations are part of the layers before them: y = s (Wx + b - mean) + shift."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for layer in (
            module
            for module in network.modules()
            if isinstance(module, Layer) and module.norm is not None
        ):
            norm, linear = layer.norm, layer.linear
            scale = norm.weight.double() / (norm.var.double() + EPSILON).sqrt()
            linear.weight.copy_(linear.weight.double() * scale[:, None])
            linear.bias.copy_((linear.bias.double() - norm.mean) * scale + norm.bias)
            layer.norm = None
    return network
