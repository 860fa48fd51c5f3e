"""Measure a GPU in one run of ten minutes at most, and end with a block to paste into an issue.

    python benchmarks/gpu.py                        # on a GPU machine; nothing is sent
    python benchmarks/gpu.py --device cpu --smoke   # the same logic on small networks, for a test
    python benchmarks/gpu.py --device cpu --rows cpu-bundles cpu-bundles-bf16  # on a CPU

Prints a Markdown table. Each row is measured in turns, A B A B ..., and shows medians of at least 5
and their spread. Rows of data are random: what is timed is the step of the package's own loop,
including reading, without evaluation. FLOPs are counted as 6 x weights x rows. Then it checks what
can be checked: that the two ways of a row have equal losses, that memory stays below its estimate,
that a resumed training is that without a stop to the bit, and that sums over all GPUs are right.
"""

import argparse
import contextlib
import gc
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from irnet_hpc.console import exit_status
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.distributed.gpus import device_of, why_none
from irnet_hpc.distributed.processes import keep_freed_memory
from irnet_hpc.errors import UserError
from irnet_hpc.models import normalisation
from irnet_hpc.models.architectures import layer_string, n_weights
from irnet_hpc.runs.folder import RunFolder
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.sweep import bundles
from irnet_hpc.sweep.cell_process import horovodrun
from irnet_hpc.train.dataset import arrange
from irnet_hpc.train.loop import train_all
from irnet_hpc.train.run import Run, TrainOptions
from irnet_hpc.train.stack import Replica, Stack
from irnet_hpc.train.step import WARM_UP, Step
from irnet_hpc.train.stopping import NeverStop

N_FEATURES = 248
SMALL = {
    17: "32BARx4-16BARx2-1",
    48: "32BARx8-16BARx4-1",
}  # depth -> what --smoke trains in its place
# name -> depth, batches, precision, cells
ROWS = {
    "graphs": (17, (32, 256), "bf16", 1),
    "kernels": (17, (256, 8192), "bf16", 1),
    "bundle": (48, (256,), "bf16", 16),
    "product": (48, (8192, 65536), "bf16", 1),
    "cpu-bundles": (None, (32, 256), "fp32", 4),  # both depths
    "cpu-bundles-bf16": (None, (32, 256), "bf16", 4),
}


NO_RUN = Path(tempfile.gettempdir()) / "no-such-run"
# Losses of a few steps that differ by more are not those of the same network; those of bf16 differ
# by rounding, in another order of sums.
ROUNDING = {"fp32": 1e-4, "bf16": 2e-2}
NCCL_S = 120  # seconds for a sum over all GPUs, with the start of its processes


class Check(NamedTuple):
    """Something that is right or wrong, whatever the speed."""

    what: str
    is_right: bool


class Row(NamedTuple):
    """A row of the table, and what was checked on the way."""

    text: str
    checks: list[Check]


def replicas_of(
    depth: int,
    batch: int,
    precision: str,
    n_cells: int,
    device: torch.device,
    smoke: bool,
    folder: Path = NO_RUN,
    epochs: int = 100,
) -> list[Replica]:
    """Cells that differ in the seed, on random rows that they hold in common."""
    recipe = resolve(
        {
            "name": "benchmark",
            "base": "onecycle",
            "batch": batch,
            "norm_group": min(batch, 256),
            "precision": precision,
            "epochs": epochs,
        }
    )
    model = model_of(SMALL[depth] if smoke else layer_string("irnet", depth))
    random, n_rows = np.random.default_rng(0), max(2 * batch, 4096)
    x, y = random.normal(size=(n_rows, N_FEATURES)).astype(np.float32), random.normal(size=n_rows)
    part = (np.arange(n_rows), x, y)
    data = arrange([part] * 3, recipe, device)
    specs = [
        RunSpec("benchmark", "y", recipe="benchmark", seed=seed, **model) for seed in range(n_cells)
    ]
    return [
        Replica(Run(spec, recipe, "", RunFolder(folder / str(spec.seed))), data) for spec in specs
    ]


class Stepping:
    """A step that is called with a number of steps, and returns seconds a step.

    It is warm, its graphs are recorded, and `losses` has the sums of |error| of each cell over its
    first steps.
    """

    def __init__(self, replicas: Sequence[Replica], device: torch.device, graphs: bool) -> None:
        self.device, self.n_steps = device, replicas[0].n_steps
        self.stack = Stack(replicas, Alone(), device)
        self.step = Step(self.stack, Alone(), graphs)
        self._begin(replicas)
        self(WARM_UP + 2)
        self.losses = self.step.error_sum.tolist()

    def _begin(self, replicas: Sequence[Replica]) -> None:
        recipe, n_rows = replicas[0].recipe, self.n_steps * replicas[0].recipe.batch
        visited = [
            np.random.default_rng(r.spec.seed).permutation(len(r.data.train))[:n_rows]
            for r in replicas
        ]
        rates = np.full((self.n_steps, len(replicas)), recipe.learning_rate)
        self.step.begin(visited, rates)

    def __call__(self, n: int) -> float:
        """Train n steps; return seconds a step."""
        settle(self.device)
        began = now(self.device)
        for i in range(n):
            self.step(i % self.n_steps, False)
        settle(self.device)
        return (now(self.device) - began) / n


def now(device: torch.device) -> float:
    """Return seconds; on a CPU processor time of all threads, which other work hardly disturbs."""
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def by_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Map each way to its seconds; ways take turns, so that a slower machine slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return found


def n_steps_for(run: Callable[[int], float], seconds: float) -> int:
    return max(2, min(2000, int(seconds / max(run(2), 1e-6))))


def line(what: str, times: dict[str, list[float]], rows: int) -> str:
    """Return a row of the table: two ways in rows a second, and the spread of their ratio."""
    (one, of_one), (two, of_two) = times.items()
    ratios = [b / a for a, b in zip(of_one, of_two, strict=True)]
    rates = [
        f"{name} {rows / statistics.median(of):,.0f} rows/s"
        for name, of in ((one, of_one), (two, of_two))
    ]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {what} | {' / '.join(rates)} | {ratio} |"


def same_losses(what: str, one: Stepping, other: Stepping, at_most: float) -> Check:
    """Compare the losses of the first cell of two stacks, over their first steps."""
    a, b = one.losses[0], other.losses[0]
    by = 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
    return Check(f"losses {what} differ by {by:.1e}, at most {at_most:g}", by <= at_most)


def graphs_row(
    batch: int, depth: int, precision: str, _: int, device: torch.device, smoke: bool, repeats: int
) -> Row:
    """Compare recorded graphs with launches one by one, which compute the same to the bit."""
    graphed, eager = (
        Stepping(replicas_of(depth, batch, precision, 1, device, smoke), device, graphs)
        for graphs in (True, False)
    )
    n = n_steps_for(eager, 0.02 if smoke else 1.0)
    times = by_turns({"graphed": lambda: graphed(n), "eager": lambda: eager(n)}, repeats)
    what = f"IRNet-{depth}, batch {batch}, {precision}: graphed against eager"
    checks = [same_losses(what, graphed, eager, 0)]
    if device.type == "cuda":
        graphs = (graphed.step.gradients.graph, graphed.step.update.graph)
        checks.append(Check(f"{what}: both graphs are recorded", None not in graphs))
    return Row(line(what, times, batch), checks)


@contextlib.contextmanager
def plain_lines() -> Iterator[None]:
    """Normalise by the lines that ranks need, in place of a kernel for each group."""
    kept = normalisation.one_kernel_a_group
    normalisation.one_kernel_a_group = lambda x, groups: False
    try:
        yield
    finally:
        normalisation.one_kernel_a_group = kept


def kernels_row(
    batch: int, depth: int, precision: str, _: int, device: torch.device, smoke: bool, repeats: int
) -> Row:
    """Compare normalisation by few kernels with that by plain lines."""
    few = Stepping(replicas_of(depth, batch, precision, 1, device, smoke), device, True)
    with plain_lines():
        plain = Stepping(replicas_of(depth, batch, precision, 1, device, smoke), device, True)
        n = n_steps_for(plain, 0.02 if smoke else 1.0)

    def plainly() -> float:
        with plain_lines():
            return plain(n)

    times = by_turns({"few kernels": lambda: few(n), "plain": plainly}, repeats)
    what = f"IRNet-{depth}, batch {batch}, {precision}: normalised by few kernels against plain"
    return Row(line(what, times, batch), [same_losses(what, few, plain, ROUNDING[precision])])


def bundle_row(
    batch: int, depth: int, precision: str, k: int, device: torch.device, smoke: bool, repeats: int
) -> Row:
    """Compare K cells at once with the same cells one after the other."""
    cells = replicas_of(depth, batch, precision, k, device, smoke)
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    together = Stepping(cells, device, True)
    what = f"{k} cells of IRNet-{depth}, batch {batch}, {precision}"
    checks = []
    if device.type == "cuda":
        peak_gb = torch.cuda.max_memory_reserved(device) / 2**30
        per_cell = bundles.replica_gb(cells[0].spec, cells[0].recipe, N_FEATURES)
        at_most = bundles.RESERVED_GB + k * per_cell
        memory = f"{what}: {peak_gb:.1f} GiB reserved, estimated as {at_most:.1f} at most"
        checks.append(Check(memory, peak_gb <= at_most))
    alone = Stepping(cells[:1], device, True)
    checks.append(same_losses(f"{what} and of one alone", together, alone, ROUNDING[precision]))
    n = n_steps_for(together, 0.02 if smoke else 2.0)
    ways = {f"{k} together": lambda: together(n), "one by one": lambda: k * alone(n)}
    return Row(line(what, by_turns(ways, repeats), k * batch), checks)


def product_row(
    batch: int, depth: int, precision: str, _: int, device: torch.device, smoke: bool, repeats: int
) -> Row:
    """Compare the step's FLOP rate with that of the widest layer's matrix product."""
    replicas = replicas_of(depth, batch, precision, 1, device, smoke)
    run = Stepping(replicas, device, True)
    layers = replicas[0].layers
    width, dtype = (
        max(stack.width for stack in layers.stacks),
        torch.bfloat16 if precision == "bf16" else torch.float32,
    )
    a, b = (
        torch.randn(shape, device=device, dtype=dtype) for shape in ((batch, width), (width, width))
    )

    def product(n: int) -> float:
        settle(device)
        began = now(device)
        for _ in range(n):
            a @ b
        settle(device)
        return (now(device) - began) / n

    product(3)
    n, m = n_steps_for(run, 0.02 if smoke else 1.0), n_steps_for(product, 0.02 if smoke else 1.0)
    times = by_turns({"step": lambda: run(n), "product": lambda: product(m)}, repeats)
    step_flops, product_flops = 6 * n_weights(layers, N_FEATURES) * batch, 2 * batch * width * width
    shares = [
        (step_flops / one) / (product_flops / other)
        for one, other in zip(times["step"], times["product"], strict=True)
    ]
    rates = [
        flops / statistics.median(times[name]) / 1e12
        for name, flops in (("step", step_flops), ("product", product_flops))
    ]
    return Row(
        f"| IRNet-{depth}, batch {batch}, {precision}: step against matrix product | "
        f"{rates[0]:.3f} / {rates[1]:.3f} TFLOP/s | "
        f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}) |",
        [],
    )


class StopAfter:
    """A request to stop after some steps."""

    is_late = False

    def __init__(self, n_steps: int) -> None:
        self.left = n_steps

    @property
    def asked(self) -> bool:
        """True after the steps."""
        self.left -= 1
        return self.left < 0


def resumed(device: torch.device, smoke: bool) -> Check:
    """Train three epochs, once without a stop and once with one; compare the networks."""
    networks = []
    with tempfile.TemporaryDirectory() as folder:
        for n_steps in (None, 20):
            stops = [NeverStop()] if n_steps is None else [StopAfter(n_steps), NeverStop()]
            for stop in stops:
                cells = replicas_of(
                    *(17, 256, "bf16", 1, device, smoke), Path(folder, str(n_steps)), epochs=3
                )
                options = TrainOptions(epoch_lines=False)
                ended = list(train_all(cells, Alone(), device, stop, options))
            networks.append(ended[0].network)
    tensors = [network.state_dict() if network else {} for network in networks]
    is_same = tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]
    )
    return Check("a training that was stopped and resumed is the same to the bit", is_same)


def summed(engine: str) -> Check:
    """Sum over all GPUs of this machine by an engine, with the doctor's probe."""
    n, what = torch.cuda.device_count(), f"sums over {torch.cuda.device_count()} GPUs by {engine}"
    with tempfile.TemporaryDirectory() as folder:
        probe = ["-m", "irnet_hpc.doctor.probes", "ranks", folder, "--engine", engine]
        try:
            if engine == "horovod":
                command = [*horovodrun(n), sys.executable, *probe]
            else:
                torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(n)]
                command = [sys.executable, *torchrun, *probe]
            done = subprocess.run(command, capture_output=True, text=True, timeout=NCCL_S)
        except (UserError, OSError, subprocess.TimeoutExpired) as error:
            return Check(f"{what}: {error}", False)
    facts = [text[text.index('{"') :] for text in done.stdout.splitlines() if '{"' in text]
    if done.returncode or not facts:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Check(f"{what}: status {done.returncode}, {reason}", False)
    found = json.loads(facts[-1])
    speed = f"{found['engine']}, {found['device']}, {found['mb_per_s']:,.0f} MB/s"
    is_right = found["right"] and found["device"] == "cuda" and found["size"] == n
    return Check(f"{what}: {speed}", is_right)


MEASURES = {
    "graphs": graphs_row,
    "kernels": kernels_row,
    "bundle": bundle_row,
    "product": product_row,
    "cpu-bundles": bundle_row,
    "cpu-bundles-bf16": bundle_row,
}


def rows(names: Sequence[str], device: torch.device, smoke: bool, repeats: int) -> Iterator[Row]:
    """Measure the rows that are named."""
    for name in names:
        depth, batches, precision, n_cells = ROWS[name]
        for one in (17, 48) if depth is None else (depth,):
            for batch in batches:
                size = (min(batch, 64), min(n_cells, 3)) if smoke else (batch, n_cells)
                yield MEASURES[name](size[0], one, precision, size[1], device, smoke, repeats)


def driver() -> str:
    """Return the version of the driver and the GPUs, as nvidia-smi says."""
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "; ".join(done.stdout.strip().splitlines()) or "nvidia-smi lists no GPU"


def commit() -> str:
    """Return the commit of this repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the block, and return 1 if a check found something wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    wanted = ["graphs", "kernels", "bundle", "product"]
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=wanted)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="small networks and batches: shows that it runs, and no speed",
    )
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        raise UserError(f"--repeats must be at least 1, got {arguments.repeats}")
    if arguments.device == "cuda" and (reason := why_none()):
        raise UserError(
            f"this measures a GPU, and torch finds none here ({reason}); --device cpu --smoke runs "
            "the same code without one"
        )
    device, began = device_of(0, arguments.device), time.monotonic()
    keep_freed_memory()  # as training does
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else platform.processor() or "cpu"
    print("--- copy from here")
    print(
        f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, medians of "
        f"{arguments.repeats}, commit {commit()}"
    )
    if is_cuda:
        print(driver())
    if arguments.smoke or name.startswith("stand-in"):
        print("small networks or no real device: the numbers below mean nothing")
    print("\n| what | rates | ratio (spread) |\n|---|---|---|")
    checks = []
    for row in rows(arguments.rows, device, arguments.smoke, arguments.repeats):
        checks += row.checks
        print(row.text, flush=True)
    checks.append(resumed(device, arguments.smoke))
    if is_cuda and torch.cuda.device_count() > 1:
        checks += [summed("torch"), summed("horovod")]
    print()
    for check in checks:
        print(f"- {'right' if check.is_right else 'WRONG'}: {check.what}")
    print(f"in {time.monotonic() - began:.0f} s\n--- to here; nothing was sent", flush=True)
    return 0 if all(check.is_right for check in checks) else 1


if __name__ == "__main__":
    sys.exit(exit_status(main))
