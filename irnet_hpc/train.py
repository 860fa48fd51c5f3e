"""Train one cell: a RunSpec and a pack -> a run folder with result.json.

    python -m irnet_hpc.train --pack alloys-magpie --property mixing_enthalpy --architecture irnet --depth 17
    horovodrun -np 2 python -m irnet_hpc.train ...      (or mpirun -np 2, or srun, with MPI or without)
    python -m irnet_hpc.train ... --recipe '{name: mine, base: paper, batch: 64}'
    python -m irnet_hpc.train --pack alloys-magpie --property mixing_enthalpy --architecture random_forest
    python -m irnet_hpc.train ... --property mixing_enthalpy,size_mismatch      (one network, an output each)
    python -m irnet_hpc.train --pack mine --property band_gap ... --init RUN     (start from the weights of a finished run)

The experiment does not depend on how many ranks run it: the batch is global, its order a function of (seed, epoch), and
rows are normalised in fixed groups. Exit status: 0 done, 2 a user's mistake, 75 preempted with a checkpoint, 1 otherwise.
"""

import argparse
import contextlib
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

from irnet_hpc import checkpoint, classical, folder
from irnet_hpc.architectures import MODELS, parse
from irnet_hpc.checkpoint import State
from irnet_hpc.comm import ENGINES, Comm, PeerLost, device_of, from_root, leave_at_once, start, together
from irnet_hpc.data import Dataset, epoch_order, load
from irnet_hpc.errors import UserError, choose, exit_status
from irnet_hpc.evaluation import predict, row_errors, select_halves, take_statistics, weights
from irnet_hpc.grids import GRID, GRIDS
from irnet_hpc.joint import equal_shares, loss_weights
from irnet_hpc.model import FlatParameters, Network, autocast, n_before_last, rank_groups
from irnet_hpc.origin import Origin, check_features, describe, in_words, take_over
from irnet_hpc.process import StopSignals, keep_freed_memory
from irnet_hpc.recipes import RECIPES, Recipe
from irnet_hpc.runs import PROTOCOLS, RunSpec, run_folder, run_key
from irnet_hpc.schedules import learning_rate, plateau_factor, weight_decay
from irnet_hpc.specification import specify
from irnet_hpc.store import open_pack

CHECKPOINT_S = 60  # the first epoch end at least so long after the last checkpoint writes one
PREEMPTED = 75  # EX_TEMPFAIL: saved, to be started again
EMA_STEPS = 8  # the average is updated every so many steps, by the decay to that power, and at an epoch's end

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}  # of weights and data
LOSSES = {"mae": torch.abs, "mse": torch.square, "huber": lambda e: torch.where(e.abs() < 1, e * e / 2, e.abs() - 0.5)}
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def train(
    spec: RunSpec,
    recipe: Recipe,
    key: str,
    data: Dataset,
    path: Path,
    comm: Comm,
    device: torch.device,
    origin: Origin | None = None,
) -> tuple[Network, State] | None:
    """Train to the end of the recipe, or to a signal: then a checkpoint is written in folder `path` and None returned.

    With an `origin` all but the output layer starts with its weights, and the recipe may train the last layers only.
    The network returned has the weights and population statistics of the best epoch.
    """
    layers = parse(spec.layer_string)._replace(n_outputs=len(spec.properties))
    network = Network(data.train.x.shape[1], layers).to(DTYPES[recipe.precision])
    network.initialise(spec.seed)
    if origin:
        take_over(origin, network)
    n_frozen = n_before_last(network, recipe.trained_layers) if recipe.trained_layers else 0
    flat = FlatParameters(network.to(device), n_frozen)
    n_steps = len(data.train) // recipe.batch  # an epoch; what remains of its permutation is dropped
    optimizer = OPTIMIZERS[recipe.optimizer](
        [flat.trained], recipe.learning_rate, weight_decay=weight_decay(recipe, n_steps), fused=True
    )
    moments = optimizer.state[flat.trained]  # filled here rather than in the first step, to have them in the checkpoint
    moments["step"] = torch.zeros((), dtype=torch.float32, device=device)
    moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(flat.trained), torch.zeros_like(flat.trained)
    average = flat.values.detach().clone()
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = {"values": flat.values.data, "average": average, **moments, **{f"best.{n}": t for n, t in best.items()}}
    state = checkpoint.resume(path, key, tensors, comm)
    if comm.rank == 0:
        folder.write_history(path, state.history)

    n_local, n_params = recipe.batch // comm.size, flat.values.numel()
    mine = slice(comm.rank * n_local, (comm.rank + 1) * n_local)  # this rank's rows of every batch
    groups = rank_groups(recipe.norm_group, recipe.batch, comm.rank, comm.size, comm.sum_, device)
    selection = data.val if spec.protocol == "honest" else data.test
    several = data.scaling.spread is not None  # properties
    floor = torch.as_tensor((data.scaling.floor - data.scaling.target_mean) / data.scaling.target_scale).to(flat.values)
    weight = torch.from_numpy(loss_weights(data.train.target)).to(flat.values) if several else None
    stop = StopSignals()
    look = 16  # steps between two looks of the host at the device
    clock = saved = said = time.monotonic()

    while state.epoch < recipe.epochs and not state.stopped:
        visited = epoch_order(data.train.row, spec.seed, state.epoch)[: n_steps * recipe.batch]
        order = torch.from_numpy(np.ascontiguousarray(visited.reshape(n_steps, -1)[:, mine])).to(device)
        unit = data.scaling.target_scale  # of a scaled error
        if several:
            share = equal_shares(data.train.target[visited]) * unit / data.scaling.spread
            share = torch.from_numpy(share).to(flat.values)
        error_sum = torch.tensor(state.error_sum, dtype=torch.float64, device=device)
        first = state.step - state.epoch * n_steps  # not 0 where a signal stopped the epoch
        reduced = plateau_factor(recipe, [row[4] for row in state.history])
        for i in range(first, n_steps):
            optimizer.param_groups[0]["lr"] = reduced * learning_rate(recipe, state.step, recipe.epochs * n_steps)
            flat.clear()
            with autocast(recipe.precision, device):
                noise = network.noise(spec.seed, state.step, mine)
                target = data.train.y[order[i]]
                error = network(data.train.x[order[i]], groups, noise).view_as(target) - target
            if recipe.floor == "censored":  # a target at the floor is met by whatever is cut there (Tobin 1958)
                error = error.masked_fill((target <= floor) & (error < 0), 0)
            if several:  # what is not reported is no error
                error = error.masked_fill(target.isnan(), 0)
                loss, absolute = LOSSES[recipe.loss](error) @ weight, error.detach().abs() @ share
            else:
                loss, absolute = LOSSES[recipe.loss](error), error.detach().abs()
            (loss.sum() / recipe.batch).backward()
            flat.reduced[n_params] = absolute.sum()
            flat.reduced[n_params + 1] = float(stop.asked)
            comm.sum_(flat.reduced)  # averages the gradients, since each rank divided by the global batch
            optimizer.step()
            state.step += 1
            error_sum += flat.reduced[n_params]
            if recipe.ema and (i % EMA_STEPS == EMA_STEPS - 1 or i == n_steps - 1):
                decay = min(recipe.ema, (1 + state.step) / (10 + state.step))  # a young average forgets faster
                average[n_frozen:].lerp_(flat.trained.data, 1 - decay ** (i % EMA_STEPS + 1))
            if state.step % look == 0 or i == n_steps - 1:
                state.error_sum = float(error_sum)
                if not math.isfinite(state.error_sum):
                    raise UserError(non_finite(spec, state, optimizer.param_groups[0]["lr"]))
                if flat.reduced[n_params + 1] > 0:
                    state.spend(time.monotonic() - clock, comm.size)
                    state.training_s += time.monotonic() - clock
                    checkpoint.save(path, key, tensors, state, comm)
                    return None
        trained_s = time.monotonic() - clock

        with weights(flat, average if recipe.ema else flat.values.data):
            take_statistics(network, data.train, recipe, comm)
            errors = row_errors(predict(network, selection, data, recipe, comm), selection, data)
            mae = float(errors.mean())
            if not math.isfinite(mae):
                raise UserError(f"the error on the rows that select is not finite after epoch {state.epoch + 1}: {mae}")
            if mae < state.best_mae:
                state.best_mae, state.best_epoch = mae, state.epoch
                for name, tensor in network.state_dict().items():
                    best[name].copy_(tensor)
        if spec.protocol == "paper":
            select_halves(state.halves, errors, spec.seed)
        train_mae = state.error_sum / (n_steps * recipe.batch) * (1.0 if several else unit)
        now = time.monotonic()
        state.spend(now - clock, comm.size)
        state.training_s, clock = state.training_s + trained_s, now
        rate = reduced * learning_rate(recipe, state.step - 1, recipe.epochs * n_steps)  # of the epoch's last step
        state.history.append([state.epoch, state.step, rate, train_mae, mae, state.wall_s])
        state.stopped = bool(recipe.patience) and state.epoch - state.best_epoch >= recipe.patience
        state.epoch, state.error_sum = state.epoch + 1, 0.0
        ends = state.stopped or state.epoch == recipe.epochs
        # One rank's clock decides for all.
        steps_per_s = (n_steps - first) / max(trained_s, 1e-6)
        due, look = comm.gather((now - saved >= CHECKPOINT_S and not ends, max(1, round(steps_per_s))))[0]
        if comm.rank == 0:
            folder.append_history(path, state.history[-1])
            if now - said >= 1 or ends:
                print(progress(spec, recipe, state, steps_per_s * recipe.batch), flush=True)
                said = now
        if due:
            checkpoint.save(path, key, tensors, state, comm)
            saved = now

    network.load_state_dict(best)
    return network, state


def non_finite(spec: RunSpec, state: State, rate: float) -> str:
    return (
        f"the loss is no longer finite by step {state.step} (epoch {state.epoch + 1}) of {spec.model} on {spec.property}, "
        f"learning rate {rate:.2g}; a smaller rate, or recipe fields features: standard and target: standard, may help"
    )


def progress(spec: RunSpec, recipe: Recipe, state: State, rows_per_s: float) -> str:
    epoch, _, _, train_mae, mae, wall_s = state.history[-1]
    left_min = (recipe.epochs - state.epoch) * wall_s / (epoch + 1) / 60
    return (
        f"epoch {epoch + 1}/{recipe.epochs}  {'relative ' * (len(spec.properties) > 1)}MAE train {train_mae:.4g}  {'val' if spec.protocol == 'honest' else 'test'} "
        f"{mae:.4g} (best {state.best_mae:.4g})  {rows_per_s:,.0f} rows/s  at most {left_min:.1f} min left"
    )


def run_cell(arguments: argparse.Namespace, comm: Comm) -> int:
    """The command, on every rank alike; rank 0 alone reads and writes the run folder."""
    began = time.monotonic()
    spec, recipe, pack_file, origin = together(comm, lambda: specify(arguments))
    path = run_folder(arguments.results, spec)
    with together(comm, lambda: open_pack(pack_file)) as pack:
        for name in spec.properties:
            together(comm, lambda name=name: choose(f"property of pack {spec.pack}", name, pack.units))
        key = run_key(spec, recipe, pack.identity, origin and origin.key)
        unit = ", ".join(pack.units[name] for name in spec.properties)
        if from_root(comm, lambda: folder.is_done(path, key, arguments.force)):
            if comm.rank == 0:
                print(f"already done: {path / 'result.json'}")
            return 0
        try:
            if spec.is_classical:
                return 0 if classical.run(spec, recipe, key, pack, path, comm, arguments.results) else PREEMPTED
            device = device_of(comm.local_rank)
            together(comm, lambda: check_features(origin, pack))
            scaling, dtype = origin and origin.scaling, DTYPES[recipe.precision]
            data = together(comm, lambda: load(pack, spec, recipe, device, dtype, scaling))
            if recipe.batch % comm.size:
                raise UserError(
                    f"the batch must divide over the ranks, however: batch {recipe.batch} (recipe {recipe.name}) and "
                    f"{comm.size} ranks"
                )
            start_facts = from_root(comm, lambda: origin and describe(origin, pack, data, arguments.pack_dir))
            attempts = from_root(comm, lambda: folder.begin(path, spec, recipe, key, pack.identity, comm, start_facts))
            if comm.rank == 0:
                print(
                    f"{spec.model} on {spec.property} ({unit}) of {spec.pack}: {len(data.train):,} train, {len(data.val):,} "
                    f"val, {len(data.test):,} test rows; recipe {recipe.name}; ranks: {comm.size}, engine: {comm.name}, "
                    f"device: {device.type}{in_words(start_facts, recipe, spec)}",
                    flush=True,
                )
            trained = train(spec, recipe, key, data, path, comm, device, origin)
            if trained is None:
                if comm.rank == 0:
                    print(
                        f"stopped by a signal and saved in {path / 'checkpoint'}; the same command goes on", flush=True
                    )
                return PREEMPTED
            network, state = trained
            prediction = predict(network, data.test, data, recipe, comm)
            several = len(spec.properties) > 1 and len(data.val)
            of_val = predict(network, data.val, data, recipe, comm) if several else None
            machine = folder.Machine.of(comm, device)
            if comm.rank == 0:
                result = folder.finish(
                    path,
                    spec,
                    recipe,
                    key,
                    pack,
                    data,
                    network,
                    state,
                    prediction,
                    attempts,
                    machine,
                    of_val=of_val,
                    origin=start_facts,
                )
                for name, of in (result.per_property or {}).items():
                    print(f"{name}: test MAE {of['test_mae']:.4g} {of['unit']} (baseline {of['baseline_mae']:.4g})")
                print(
                    f"test MAE {result.test_mae:.4g} {result.unit} (baseline {result.baseline_mae:.4g}), selected on "
                    f"{result.selected_on}, {result.epochs} epochs in {time.monotonic() - began:.0f} s\n"
                    f"wrote {path / 'result.json'}; next: python -m irnet_hpc.aggregate {arguments.results}"
                )
        except (UserError, PeerLost, OSError) as error:
            if comm.rank == 0:
                with contextlib.suppress(OSError):  # the very disk may be full
                    folder.failed(path, str(error))
            raise
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--pack", required=True, help="name of a pack, or a path to one")
    add("--property", required=True, help="name, or several joined by commas for one network with an output each")
    add("--architecture", help=f"{', '.join(MODELS)}; or without a depth {', '.join(GRIDS)}")
    add("--depth", type=int)
    add("--layers", help="a layer string instead, e.g. 256BARx4-64BARx2-1")
    add("--recipe", help=f"{', '.join(RECIPES)}, or an inline one (default: onecycle; of a classical model {GRID})")
    add("--protocol", default="honest", help=f"{' or '.join(PROTOCOLS)} (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--train-rows", type=int, help="train on the first so many rows only")
    add("--init", metavar="RUN", help="folder of a finished run of the same model, whose weights to start from")
    add("--results", default="results", help="default: %(default)s")
    add("--pack-dir", help="default: $IRNET_PACKS, else packs")
    add("--engine", default="auto", help=f"{', '.join(ENGINES)} (default: %(default)s)")
    add("--force", action="store_true", help="replace a stale result")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    keep_freed_memory()
    comm = start(arguments.engine, Path(arguments.results) / ".rendezvous")
    try:
        status = run_cell(arguments, comm)
    except UserError:
        if comm.rank == 0:
            raise
        status = 2  # rank 0 says why
    except PeerLost as error:
        print(f"error: rank {comm.rank}: {error}", file=sys.stderr)
        leave_at_once(1)
    except BaseException:
        if comm.size == 1:
            raise
        sys.excepthook(*sys.exc_info())
        leave_at_once(1)  # the others would wait for this rank
    comm.close()
    return status


if __name__ == "__main__":
    sys.exit(exit_status(main))
