"""Read the models of finished runs from their folders, to predict other materials.

A run records the features that its model takes, their scaling, and the properties that it predicts
with their units. A classical model predicts one property, a network one or several. Several models
that predict one property are an ensemble (screening.py).
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.data.materials import parse_materials
from irnet_hpc.data.properties import floor_of
from irnet_hpc.data.raw_table import formula_table
from irnet_hpc.errors import UserError
from irnet_hpc.features.sets import FEATURE_SETS, parse_feature_sets
from irnet_hpc.models.architectures import n_weights, parse_layers
from irnet_hpc.models.network import Layer, Network, autocast
from irnet_hpc.models.normalisation import EPSILON, Normalise
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.result import RunResult
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train.classical_file import read_classical
from irnet_hpc.train.model_file import KeptRun, finished_spec, read_finished
from irnet_hpc.train.scaling import Scaling

# Features as packed (n_rows, n_features) -> predictions (n_rows, n_properties) in their units.
Predictor = Callable[[np.ndarray], np.ndarray]

NO_ROWS = parse_materials(formula_table([]))[0]
# Rows of one forward pass, so few that their activations stay in a processor's cache.
FORWARD_ROWS = 1024
# The same for classical models, of which each call takes time whatever the rows.
ESTIMATED_ROWS = 8192
CPU = torch.device("cpu")
# A unit whose mean is this many standard deviations loses what differs between rows to the rounding
# of folded bf16 weights, which have 8 bits.
MANY_DEVIATIONS = 30


@dataclasses.dataclass(frozen=True)
class Member:
    """A trained model, and everything that is needed to predict with it."""

    folder: Path
    spec: RunSpec
    result: RunResult
    units: dict[str, str]  # property -> unit, in the order of the outputs
    feature_sets: tuple[str, ...]
    feature_labels: list[str]  # (n_features,)
    scaling: Scaling
    elements: frozenset[str] | None  # symbols in the training rows; None: older file, not recorded

    @property
    def fitted_spec(self) -> RunSpec:
        """Return the specification with as many training rows as the model was fitted on."""
        n_rows = self.result.fitted_rows
        if n_rows is None or n_rows == self.result.n_train:
            return self.spec
        return dataclasses.replace(self.spec, train_rows=n_rows)

    @property
    def columns(self) -> list[str]:
        """Return the labels of the features that are columns of the user's own table."""
        if "columns" not in self.feature_sets:
            return []
        widths = {name: set_width(name) for name in self.feature_sets if name != "columns"}
        place = self.feature_sets.index("columns")
        start = sum(widths[name] for name in self.feature_sets[:place])
        return self.feature_labels[start : start + len(self.feature_labels) - sum(widths.values())]


@dataclasses.dataclass(frozen=True)
class NetworkMember(Member):
    """A trained network."""

    recipe: Recipe
    network: Network  # as trained, with its population statistics, float32


@dataclasses.dataclass(frozen=True)
class ClassicalMember(Member):
    """A fitted classical model."""

    # Has predict(x): scaled features (n_rows, n_features) float64 -> scaled outputs (n_rows,).
    estimator: Any


def set_width(feature_set: str) -> int:
    """Return the number of features of a feature set, which must not be `columns`."""
    return len(FEATURE_SETS[feature_set].labels(NO_ROWS))


def read_member(folder: Path | str, device: torch.device = CPU) -> Member:
    """Read the model of a finished run.

    Args:
        folder: The run's folder.
        device: The device on which TabM will compute.

    Returns:
        A NetworkMember or a ClassicalMember.

    Raises:
        UserError: If the run has not finished, has stored no model, is damaged, or was trained on a
            version of its features that this program does not compute.
    """
    _, spec, _ = finished_spec(folder)
    if spec.is_classical:
        fitted = read_classical(folder, device)
        return ClassicalMember(**_facts_of(fitted), estimator=fitted.estimator)
    run = read_finished(folder)
    layers = parse_layers(spec.layer_string)._replace(n_outputs=len(spec.properties))
    n_features = len(run.facts["feature_labels"])
    # Checked before the network is built, since a wrong layer string may need more than the memory.
    n_stored = sum(tensor.numel() for tensor in run.tensors.values())
    if run.facts["layers"] != spec.layer_string or n_weights(layers, n_features) > n_stored:
        raise run.damaged(f"its tensors do not match the layers {spec.layer_string}")
    network = Network(n_features, layers)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in run.weights.items()})
    except RuntimeError as error:
        raise run.damaged(" ".join(str(error).split())[:200]) from None
    return NetworkMember(**_facts_of(run), recipe=run.recipe, network=network.eval())


def _facts_of(run: KeptRun) -> dict[str, Any]:
    """Return the fields of Member that a run of either kind records."""
    spec, facts = run.spec, run.facts
    units = facts["unit"] if isinstance(facts["unit"], list) else [facts["unit"]]
    if len(units) != len(spec.properties):
        raise run.damaged(f"it has {len(units)} units for {spec.property}")
    elements = facts.get("elements_seen")
    return {
        "folder": run.folder,
        "spec": spec,
        "result": run.result,
        "units": dict(zip(spec.properties, units, strict=True)),
        "feature_sets": _feature_sets(run.folder, run.result.pack_identity),
        "feature_labels": facts["feature_labels"],
        "scaling": _scaling(run.tensors, facts, spec),
        "elements": frozenset(elements) if elements else None,
    }


def _scaling(tensors: dict[str, Tensor], facts: dict[str, Any], spec: RunSpec) -> Scaling:
    mean, scale = (tensors[f"feature_{name}"].double().numpy() for name in ("mean", "scale"))
    # Not the floor in the file: older ones have it for some recipes only.
    floor = np.array([floor_of(name) for name in spec.properties])
    target_mean, target_scale = (
        np.atleast_1d(np.asarray(facts[f"target_{name}"])) for name in ("mean", "scale")
    )
    return Scaling(mean, scale, facts["clip"], target_mean, target_scale, floor=floor)


def _feature_sets(folder: Path, identity: dict) -> tuple[str, ...]:
    text, versions = identity.get("features"), identity.get("feature_versions")
    if not isinstance(text, str) or not isinstance(versions, dict):
        raise UserError(
            f"{folder / 'result.json'} must name the feature sets of the run "
            f"and their versions, got {text!r:.50} and {versions!r:.50}"
        )
    names = parse_feature_sets(text)
    for name in names:
        trained, current = versions.get(name), FEATURE_SETS[name].version
        if trained != current:
            raise UserError(
                f"{folder} was trained on version {trained} of feature set {name}; "
                f"this program computes version {current}"
            )
    return names


def make_predictor(member: Member, device: torch.device) -> Predictor:
    """Return a function that predicts with a member's model, as its run did.

    Args:
        member: The member.
        device: The device of a network.

    Returns:
        A function from features as packed (n_rows, n_features) to predictions
        (n_rows, n_properties), float64, in the properties' units.
    """
    if isinstance(member, ClassicalMember):
        return _classical_predictor(member)
    assert isinstance(member, NetworkMember)
    return _network_predictor(member, device)


def _classical_predictor(member: ClassicalMember) -> Predictor:
    def predict(x: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), 1))
        for begin in range(0, len(x), ESTIMATED_ROWS):
            rows = slice(begin, begin + ESTIMATED_ROWS)
            scaled = member.scaling.features(x[rows]).astype(np.float64)
            out[rows, 0] = member.estimator.predict(scaled)
        return member.scaling.in_unit(out)

    return predict


def _network_predictor(member: NetworkMember, device: torch.device) -> Predictor:
    """Return the function of a network.

    The function computes in the recipe's precision, as the run did when it evaluated its network.
    Each normalisation by population statistics is folded into the weights of the layer before it.
    That does not change the function and saves a third of the time. It is not done in bf16 if rows
    differ little compared with a unit's mean: the rounding of folded weights would then count as a
    difference between rows, and each further layer would multiply it.
    """
    precision, dtype = member.recipe.precision, torch.float32
    if precision == "bf16" and _differ_little(member.network):
        network = copy.deepcopy(member.network).to(device)
    else:
        network = fold_normalisation(member.network).to(device)
        if precision == "bf16":
            precision, dtype = "fp32", torch.bfloat16
        # The output layer stays float32: the 8 bits of bf16 would round the prediction itself.
        network.body.to(dtype)
    scaling = member.scaling
    mean, rest = (torch.from_numpy(part) for part in scaling.feature_means())
    scale = torch.from_numpy(scaling.feature_scale).float()

    @torch.inference_mode()
    def predict(x: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), len(member.units)))
        for begin in range(0, len(x), FORWARD_ROWS):
            rows = slice(begin, begin + FORWARD_ROWS)
            # The same as Scaling.features, but in float32.
            scaled = (torch.from_numpy(x[rows]) - mean).sub_(rest).div_(scale)
            if scaling.clip:
                scaled = scaled.clamp_(-scaling.clip, scaling.clip)
            with autocast(precision, device):
                out[rows] = network(scaled.to(device, dtype)).double().cpu().numpy()
        return scaling.in_unit(out)

    return predict


def _differ_little(network: Network) -> bool:
    """Return True if some unit's mean over the training rows is many standard deviations."""
    norms = [module for module in network.modules() if isinstance(module, Normalise)]
    return any(
        bool((norm.mean.abs() > MANY_DEVIATIONS * (norm.var + EPSILON).sqrt()).any())
        for norm in norms
    )


def fold_normalisation(network: Network) -> Network:
    """Return a copy of a network in which each normalisation is folded into the layer before it.

    The layer then computes y = s (Wx + b - mean) + shift.
    """
    network = copy.deepcopy(network)
    with torch.no_grad():
        for layer in network.modules():
            if not isinstance(layer, Layer) or layer.norm is None:
                continue
            norm, linear = layer.norm, layer.linear
            mean, var = cast(Tensor, norm.mean), cast(Tensor, norm.var)
            scale = norm.weight.double() / (var.double() + EPSILON).sqrt()
            linear.weight.copy_(linear.weight.double() * scale[:, None])
            linear.bias.copy_((linear.bias.double() - mean) * scale + norm.bias)
            layer.norm = None
    return network
