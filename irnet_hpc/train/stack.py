"""A stack: K replicas of one shape, trained as one network with one product a layer. One alone is a stack of one.

A replica's initial weights, order of rows, noise and numbers are those that it has alone, and so are its checkpoints, which lie
in its own run folder: what was begun together may go on alone, and the other way round.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.models.architectures import Layers, parse_layers
from irnet_hpc.models.network import FlatParameters, Network, n_before_last
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.recipes import Recipe
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import checkpoint
from irnet_hpc.train.checkpoint import State
from irnet_hpc.train.dataset import Dataset, Scaling, load
from irnet_hpc.train.schedules import weight_decay
from irnet_hpc.train.warm_start import Origin, take_over

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.float32,
    "fp64": torch.float64,
}  # of weights and data
ROLES = ("train", "val", "test")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclasses.dataclass(frozen=True, eq=False)
class Replica:
    """A cell with all that its training needs."""

    spec: RunSpec
    recipe: Recipe
    key: str
    data: Dataset
    path: Path  # its run folder
    origin: Origin | None = None  # all but the output layer starts with its weights

    @property
    def layers(self) -> Layers:
        return parse_layers(self.spec.layer_string)._replace(n_outputs=len(self.spec.properties))

    @property
    def n_steps(self) -> int:
        """Of an epoch; what remains of its permutation is dropped."""
        return len(self.data.train) // self.recipe.batch

    def initial(self) -> Network:
        """The network as its seed, and its origin, have it."""
        network = Network(self.data.train.n_features, self.layers).to(DTYPES[self.recipe.precision])
        network.initialise(self.spec.seed)
        if self.origin:
            take_over(self.origin, network)
        return network


class Stack:
    """Replicas, their states, and the tensors of all of them: row k of each, or item k of a list, is replica k's."""

    def __init__(self, replicas: Sequence[Replica], comm: Comm, device: torch.device) -> None:
        """As the checkpoints have it that lie in the replicas' folders, of which none or all must be of one step."""
        self.replicas, self.device, recipe = list(replicas), device, replicas[0].recipe
        networks = [replica.initial().to(device) for replica in replicas]
        n_frozen = n_before_last(networks[0], recipe.trained_layers) if recipe.trained_layers else 0
        self.flat, self.network = FlatParameters(networks, n_frozen), networks[0]
        self.average = self.flat.values.clone()  # (K, n_params)
        self.best = {
            name: tensor.clone() for name, tensor in self.network.state_dict().items()
        }  # (K, ...)
        # Filled here rather than in the first step, to have them in the checkpoint.
        moments = [
            {
                "step": torch.zeros((), dtype=torch.float32, device=device),
                "exp_avg": torch.zeros_like(trained),
                "exp_avg_sq": torch.zeros_like(trained),
            }
            for trained in self.flat.trained
        ]
        self._optimise(moments)
        self.states = [
            checkpoint.resume(replica.path, replica.key, self.tensors(k), comm)
            for k, replica in enumerate(replicas)
        ]
        assert len({(state.epoch, state.step) for state in self.states}) == 1

    @property
    def members(self) -> list[tuple[Replica, State]]:
        return list(zip(self.replicas, self.states, strict=True))

    def _optimise(self, moments: list[dict[str, Tensor]]) -> None:
        """One parameter group a replica, with a rate and a decay of its own, and its moments."""
        self.moments, recipe = moments, self.replicas[0].recipe
        # The rates are a tensor, so that a graph may be replayed with others; wide where the kernel takes a wide one.
        of_rates = torch.float32 if self.device.type == "cuda" else torch.float64
        self.rates = torch.zeros(len(self.replicas), dtype=of_rates, device=self.device)
        self.optimizer = OPTIMIZERS[recipe.optimizer](
            [
                {"params": [trained], "weight_decay": weight_decay(replica.recipe, replica.n_steps)}
                for trained, replica in zip(self.flat.trained, self.replicas, strict=True)
            ],
            fused=True,
            capturable=self.device.type == "cuda",
        )
        for k, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rates[k]
            self.optimizer.state[self.flat.trained[k]] = moments[k]

    def tensors(self, k: int) -> dict[str, Tensor]:
        """What a checkpoint of replica k holds, as views."""
        best = {f"best.{name}": tensor[k] for name, tensor in self.best.items()}
        return {
            "values": self.flat.values[k],
            "average": self.average[k],
            **self.moments[k],
            **best,
        }

    def keep(self, places: list[int]) -> None:
        """Go on with these replicas alone, in a smaller stack."""
        self.replicas, self.states = (
            [of[k] for k in places] for of in (self.replicas, self.states)
        )
        self.flat.keep(places)
        self.average = self.average[places]
        self.best = {name: tensor[places] for name, tensor in self.best.items()}
        self._optimise([self.moments[k] for k in places])

    def note_best(self, k: int) -> None:
        """Remember replica k's weights and statistics as they are now."""
        for name, tensor in self.network.state_dict().items():
            self.best[name][k].copy_(tensor[k])

    def alone(self, k: int) -> Network:
        """Replica k as a network of its own, with the weights and population statistics of its best epoch."""
        replica = self.replicas[k]
        network = Network(replica.data.train.n_features, replica.layers).to(
            self.device, self.flat.values.dtype
        )
        network.load_state_dict({name: tensor[k] for name, tensor in self.best.items()})
        return network


# ------------------------------------------------------------------------------------------- which replicas go together


def load_each(
    pack: Pack,
    specs: Sequence[RunSpec],
    recipe: Recipe,
    device: torch.device,
    given: Scaling | None,
    place: str = "resident",
) -> list[Dataset]:
    """The rows of cells of one shape; features that several have in common are there once. `place`: see data.py."""
    found: dict[str, Dataset] = {}
    for spec in specs:
        if spec.property not in found:
            data = load(pack, spec, recipe, device, DTYPES[recipe.precision], given, place)
            same = [earlier for earlier in found.values() if _rows_of(earlier) == _rows_of(data)]
            found[spec.property] = _with_features_of(same[0], data) if same else data
    return [found[spec.property] for spec in specs]


def stacks(replicas: Sequence[Replica], comm: Comm) -> list[list[Replica]]:
    """Replicas of one shape -> those that can go on together: of the same rows, and at one epoch and step."""
    found: dict[tuple, list[Replica]] = {}
    for replica in replicas:
        at = checkpoint.place(replica.path, replica.key, comm)
        found.setdefault((at, _rows_of(replica.data)), []).append(replica)
    return list(found.values())


def _rows_of(data: Dataset) -> tuple[bytes, ...]:
    return tuple(getattr(data, role).row.tobytes() for role in ROLES)


def _with_features_of(earlier: Dataset, data: Dataset) -> Dataset:
    parts = {
        role: dataclasses.replace(getattr(data, role), x=getattr(earlier, role).x) for role in ROLES
    }
    return dataclasses.replace(data, **parts)
