"""Train K replicas of one shape as one network (a stack), with one matrix product per layer.

The initial weights, order of rows, noise and results of a replica are the same as if it were
trained alone. So are its checkpoints, which are in its own run folder. Therefore replicas that
began together may continue alone, and the other way round. A single replica is a stack of one.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from irnet_hpc.distributed.engines import Comm
from irnet_hpc.models.architectures import Layers, parse_layers
from irnet_hpc.models.flat import FlatParameters
from irnet_hpc.models.fused import fused_adam
from irnet_hpc.models.network import Network, n_before_last
from irnet_hpc.pack.store import Pack
from irnet_hpc.runs.recipes import Recipe, fitted_fields
from irnet_hpc.runs.spec import RunSpec
from irnet_hpc.train import checkpoint
from irnet_hpc.train.checkpoint import State
from irnet_hpc.train.dataset import Dataset, dtype_of, load
from irnet_hpc.train.run import Run
from irnet_hpc.train.scaling import Scaling
from irnet_hpc.train.schedules import weight_decay
from irnet_hpc.train.warm_start import take_over

ROLES = ("train", "val", "test")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclasses.dataclass(frozen=True, eq=False)
class Replica:
    """A run of a network, with its rows."""

    run: Run
    data: Dataset
    fitted: Recipe | None = None  # the run's recipe, fitted to its rows; None: it is used as it is

    @property
    def spec(self) -> RunSpec:
        """The specification of the run."""
        return self.run.spec

    @property
    def recipe(self) -> Recipe:
        """The recipe by which the network is trained."""
        if self.fitted is not None:
            return self.fitted
        assert isinstance(self.run.recipe, Recipe)
        return self.run.recipe

    @property
    def fitted_fields(self) -> dict[str, int] | None:
        """The fields of the run's recipe that were fitted; None: it is used as it is."""
        if self.fitted is None:
            return None
        assert isinstance(self.run.recipe, Recipe)
        return fitted_fields(self.run.recipe, self.fitted)

    @property
    def layers(self) -> Layers:
        """The layers of the network, with an output for each property."""
        return parse_layers(self.spec.layer_string)._replace(n_outputs=len(self.spec.properties))

    @property
    def n_steps(self) -> int:
        """The number of steps per epoch. The last rows, which do not fill a batch, are dropped."""
        return len(self.data.train) // self.recipe.batch

    def initial(self) -> Network:
        """Make the network with its initial weights, which depend on the seed and the origin."""
        network = Network(self.data.train.n_features, self.layers).to(dtype_of(self.recipe))
        network.initialise(self.spec.seed)
        if self.run.origin:
            take_over(self.run.origin, network)
        return network


class Stack:
    """Replicas, their states and their tensors. Row k of a tensor belongs to replica k.

    Args:
        replicas: Replicas of one shape. If they have checkpoints, all checkpoints are of the same
            step.
        comm: The ranks that train; checkpoints are read on rank 0.
        device: The device of the tensors.
    """

    def __init__(self, replicas: Sequence[Replica], comm: Comm, device: torch.device) -> None:
        self.replicas, self.device, recipe = list(replicas), device, replicas[0].recipe
        networks = [replica.initial().to(device) for replica in replicas]
        n_frozen = n_before_last(networks[0], recipe.trained_layers) if recipe.trained_layers else 0
        self.flat, self.network = FlatParameters(networks, n_frozen), networks[0]
        self.average = self.flat.values.clone()  # (K, n_params)
        # The weights and statistics of the best epochs so far, (K, ...) each.
        self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        # The optimiser's moments, (K, n_trained), and its steps, (K,). They are made here, not in
        # the first step, so that they can be filled from a checkpoint.
        zeros = torch.stack([torch.zeros_like(trained) for trained in self.flat.trained]).detach()
        moments = {
            "step": torch.zeros(len(replicas), dtype=torch.float32, device=device),
            "exp_avg": zeros,
            "exp_avg_sq": torch.zeros_like(zeros),
        }
        self._optimise(moments)
        self.states = [
            checkpoint.resume(replica.run.folder, replica.run.key, self.tensors(k), comm)
            for k, replica in enumerate(replicas)
        ]
        assert len({(state.epoch, state.step) for state in self.states}) == 1

    @property
    def members(self) -> list[tuple[Replica, State]]:
        """The replicas with their states."""
        return list(zip(self.replicas, self.states, strict=True))

    def _optimise(self, moments: dict[str, Tensor]) -> None:
        """Make the optimiser.

        Each replica is a parameter group with its own rate and weight decay.
        """
        self.all_moments, recipe = moments, self.replicas[0].recipe
        self.moments = [
            {name: tensor[k] for name, tensor in moments.items()} for k in range(len(self.replicas))
        ]
        # The rates are a tensor, so that a CUDA graph can be replayed with other rates. On a CPU it
        # is float64.
        dtype = torch.float32 if self.device.type == "cuda" else torch.float64
        # In the same tensor, for the same copy, is the share of the new weights in the average, for
        # updates that are fused.
        self.of_step = torch.zeros(2, len(self.replicas), dtype=dtype, device=self.device)
        self.rates, self.average_weights = self.of_step
        decays = [weight_decay(replica.recipe, replica.n_steps) for replica in self.replicas]
        self.decays = torch.tensor(decays, dtype=torch.float32, device=self.device)
        self.optimizer = OPTIMIZERS[recipe.optimizer](
            [
                {"params": [trained], "weight_decay": decay}
                for trained, decay in zip(self.flat.trained, decays, strict=True)
            ],
            fused=True,
            capturable=self.device.type == "cuda",
        )
        for k, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rates[k]
            self.optimizer.state[self.flat.trained[k]] = self.moments[k]

    def fused_update(self) -> None:
        """Update the weights, their narrow copy and their average in one kernel."""
        steps, *moments = self.all_moments.values()
        steps += 1
        fused_adam(
            (self.flat.values, self.flat.gradients, self.average),
            (moments[0], moments[1]),
            self.flat.narrow,
            (steps, self.rates, self.decays, self.average_weights),
            self.replicas[0].recipe.optimizer == "adamw",
        )

    def tensors(self, k: int) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint of replica k holds, as views."""
        best = {f"best.{name}": tensor[k] for name, tensor in self.best.items()}
        return {
            "values": self.flat.values[k],
            "average": self.average[k],
            **self.moments[k],
            **best,
        }

    def keep(self, places: list[int]) -> None:
        """Keep only the replicas at `places`, and drop all others."""
        self.replicas = [self.replicas[k] for k in places]
        self.states = [self.states[k] for k in places]
        self.flat.keep(places)
        self.average = self.average[places]
        self.best = {name: tensor[places] for name, tensor in self.best.items()}
        self._optimise({name: tensor[places] for name, tensor in self.all_moments.items()})

    def note_best(self, k: int) -> None:
        """Save the current weights and statistics of replica k as its best."""
        for name, tensor in self.network.state_dict().items():
            self.best[name][k].copy_(tensor[k])

    def best_network(self, k: int) -> Network:
        """Make a network with the weights and population statistics of replica k's best epoch."""
        replica = self.replicas[k]
        network = Network(replica.data.train.n_features, replica.layers).to(
            self.device, self.flat.values.dtype
        )
        network.load_state_dict({name: tensor[k] for name, tensor in self.best.items()})
        return network


# ----------------------------------------------------------------------- which replicas go together


def load_each(
    pack: Pack,
    specs: Sequence[RunSpec],
    recipe: Recipe,
    device: torch.device,
    given: Scaling | None,
    place: str = "resident",
) -> list[Dataset]:
    """Load the rows of cells of one shape; cells with the same rows share their features.

    Args:
        pack: The pack of all cells.
        specs: The cells, which differ only in property and seed.
        recipe: The recipe of any of the cells, since all scale features in the same way.
        device: The device of the rows.
        given: A scaling of features to use in place of that of the training rows.
        place: One of PLACES.

    Returns:
        A Dataset for each of `specs`.
    """
    loaded: dict[str, Dataset] = {}
    for spec in specs:
        if spec.property not in loaded:
            data = load(pack, spec, recipe, device, given, place)
            same = [earlier for earlier in loaded.values() if _rows_of(earlier) == _rows_of(data)]
            loaded[spec.property] = _with_features_of(same[0], data) if same else data
    return [loaded[spec.property] for spec in specs]


def stacks(replicas: Sequence[Replica], comm: Comm) -> list[list[Replica]]:
    """Group replicas of one shape into stacks with the same rows, epoch and step."""
    groups: dict[tuple, list[Replica]] = {}
    for replica in replicas:
        point = checkpoint.resume_point(replica.run.folder, replica.run.key, comm)
        groups.setdefault((point, _rows_of(replica.data)), []).append(replica)
    return list(groups.values())


def _rows_of(data: Dataset) -> tuple[bytes, ...]:
    return tuple(getattr(data, role).row.tobytes() for role in ROLES)


def _with_features_of(earlier: Dataset, data: Dataset) -> Dataset:
    parts = {
        role: dataclasses.replace(getattr(data, role), x=getattr(earlier, role).x) for role in ROLES
    }
    return dataclasses.replace(data, **parts)
