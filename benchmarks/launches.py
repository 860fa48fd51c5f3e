"""Count the kernels of a training step, and price them by a model of an H200; no GPU is used.

python benchmarks/launches.py                       # every row of the table; needs no GPU
python benchmarks/launches.py IRNet-17-256          # some rows
IRNET_FUSED=no python benchmarks/launches.py        # by torch's operations alone

The step runs on the stand-in for GPUs of tests/fake_gpu (docs/testing_gpus.md), with the Python
$IRNET_CUDA_PYTHON, whose torch has CUDA 13. Counts are those of the two graphs that a step records,
and of what is launched beside them. Times are a model and no measurement: each kernel takes the
longest of a floor from its start to the next kernel's, of its bytes, and of its products' FLOPs.
Every launch that the stand-in sees belongs to an operation of torch, whose bytes are those of its
tensors, or to a kernel of Triton, whose bytes are declared in DECLARED; another one is an error.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.fake_gpu, which builds the stand-in

# The model of an H200. These constants are frozen, so that its times can be compared over time.
BYTES_PER_S = 4.0e12  # of large kernels that only move numbers (a copy reaches 4.3e12)
CACHED_BYTES_PER_S, CACHE_BYTES = 10e12, 30e6  # where everything lies in the L2 cache
FLOP_PER_S = {torch.bfloat16: 650e12, torch.float32: 45e12, torch.float64: 40e12}
FLOOR_US = {"product": 5.0, "reduction": 4.0, "other": 2.0}  # within a graph
N_FEATURES = 145

# name -> depth of an IRNet or layers, batch, replicas, and fields of the recipe. Groups have 256
# rows at most.
CASES: dict[str, tuple[int | str, int, int, dict]] = {
    "IRNet-17-32": (17, 32, 1, {}),
    "IRNet-17-256": (17, 256, 1, {}),
    "IRNet-17-256-fp32": (17, 256, 1, {"precision": "fp32"}),
    "IRNet-17-8192": (17, 8192, 1, {}),
    "IRNet-48-256": (48, 256, 1, {}),
    "IRNet-48-8192": (48, 8192, 1, {}),
    "16 cells-256": (17, 256, 16, {}),
    "16 cells, dropout-256": ("1024x4D0.2-512x3D0.1-256x3D0.3-128x3D0.2-64x2-32x1-1", 256, 16, {}),
}


def size(tensor: Tensor) -> int:
    """Return the bytes of a tensor, of which an expanded one has fewer than numbers."""
    n = min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size())
    return n * tensor.element_size()


def declared_forward(z: Tensor, shortcut: Tensor | None, *rest: Any) -> int:
    """Rows in and out once: a program's rows are in the L1 cache when it reads them again."""
    return 2 * size(z) + (size(shortcut) if shortcut is not None else 0) + 2 * size(rest[4])


def declared_backward(grad: Tensor, z: Tensor, *rest: Any) -> int:
    """Gradients in and out, rows in, and the sums of groups out."""
    return 2 * size(grad) + size(z) + 4 * size(rest[2])


def declared_sums(sums: Tensor, places: Tensor, *_rest: Any) -> int:
    """Sums in, their places in, gradients out."""
    return size(sums) + sums.shape[1] * (size(places) + 4 * places.numel())


def declared_update(values: Tensor, _gradients: Tensor, _average: Tensor, *rest: Any) -> int:
    """Weights and moments in and out, gradients in; the average in and out every 8th step."""
    moments, narrow = rest[0], rest[2]
    copy = 0 if narrow is None else moments.numel() * narrow.element_size()
    return 7 * size(moments) + copy + 2 * size(moments) // 8


# kernel -> its kind, and the bytes that it moves, from its arguments
DECLARED: dict[str, tuple[str, Callable[..., int]]] = {
    "normalise_forward": ("reduction", declared_forward),
    "normalise_backward": ("reduction", declared_backward),
    "add_groups": ("reduction", declared_sums),
    "update": ("other", declared_update),
}


class Undeclared(Exception):
    """A kernel was launched whose bytes nobody has declared."""


class Priced(TorchDispatchMode):
    """Prices what is launched within: `us` by kind, and the number of launches."""

    def __init__(self) -> None:
        super().__init__()
        self.us: Counter[str] = Counter()
        self.n_launches, self.expected = 0, Counter[str]()

    def add(self, kind: str, n_launches: int, n_bytes: float, flop_s: float = 0.0) -> None:
        """Add launches that move bytes, and whose products take so many seconds."""
        speed = CACHED_BYTES_PER_S if n_bytes < CACHE_BYTES else BYTES_PER_S
        self.us[kind] += max(FLOOR_US[kind] * n_launches, 1e6 * n_bytes / speed, 1e6 * flop_s)
        self.n_launches += n_launches

    def triton(self, kernel: Any, _grid: object, *arguments: Any, **_constants: Any) -> None:
        """Price the launch of a kernel of Triton."""
        name = kernel.__name__
        if name not in DECLARED:
            raise Undeclared(name)
        kind, n_bytes = DECLARED[name]
        self.add(kind, 1, n_bytes(*arguments))
        self.expected[name] += 1

    def settle(self) -> None:
        """Check that what was launched beside torch's operations was declared."""
        from tests.fake_gpu.steps import report

        seen = Counter(report()["launches"])
        if seen != self.expected:
            raise Undeclared(f"{dict(seen)}; declared {dict(self.expected)}")
        self.expected.clear()

    def __torch_dispatch__(
        self, function: Any, _types: object, arguments: tuple = (), keywords: dict | None = None
    ) -> Any:
        """Run an operation, and price what it launches."""
        from tests.fake_gpu.steps import report

        self.settle()
        out = function(*arguments, **(keywords or {}))
        n_launches = sum(report()["launches"].values())
        if n_launches:
            schema = function._schema
            given = dict(zip([a.name for a in schema.arguments], arguments, strict=False))
            given |= keywords or {}
            written = {
                argument.name: argument.is_out
                for argument in schema.arguments
                if argument.alias_info is not None and argument.alias_info.is_write
            }
            # What is changed in place is read and written; `out` is only written.
            moved: dict[tuple, float] = {}
            for name, value in given.items():
                for tensor in tensors(value):
                    times = 2 if written.get(name) is False else 1
                    moved[place(tensor)] = max(moved.get(place(tensor), 0), times * size(tensor))
            for tensor in tensors(out):
                moved.setdefault(place(tensor), size(tensor))
            name = schema.name.removeprefix("aten::")
            kind, flop_s = "other", 0.0
            if name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"):
                inner = next(t for t in tensors(list(arguments[-2:])) if t.dim() > 1)
                flops = 2 * tensors(out)[0].numel() * inner.shape[-1]
                kind, flop_s = "product", flops / FLOP_PER_S[inner.dtype]
            elif name.startswith(("sum", "mean", "native_batch_norm")):
                kind = "reduction"
            self.add(kind, n_launches, sum(moved.values()), flop_s)
        return out


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors on the device in a value, or in a list of values."""
    if isinstance(value, Tensor):
        return [value] if value.is_cuda else []
    return [t for own in value for t in tensors(own)] if isinstance(value, (list, tuple)) else []


def place(tensor: Tensor) -> tuple:
    """Return what tells a tensor's memory from that of others."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape)


def counted(case: str) -> dict[str, float]:
    """Return the counts and the modelled time of a step, on the stand-in."""
    from irnet_hpc.models.architectures import layer_string
    from irnet_hpc.train.step import WARM_UP
    from tests.fake_gpu.steps import DEVICE, begun, replicas, report

    layers, batch, k, fields = CASES[case]
    if isinstance(layers, int):
        layers = layer_string("irnet", layers)
    recipe = {"precision": "bf16", "batch": batch, "norm_group": min(batch, 256)} | fields
    members = replicas(layers, k, 1, recipe, DEVICE, N_FEATURES)
    _, step = begun(members)
    for _ in range(WARM_UP + 1):
        report()
        step(0, False)
    n_nodes = sum(report()["nodes"].values())
    step(0, False)
    n_launches = sum(report()["launches"].values())
    step.gradients.graph = step.update.graph = None
    priced = Priced()
    with watched(priced), torch.autograd.set_multithreading_enabled(False), priced:
        step._gradients()
        step._update()
        priced.settle()
    found = {f"{kind}_us": round(us, 1) for kind, us in priced.us.items()}
    return {"nodes": n_nodes, "launches": n_launches, "priced": priced.n_launches} | found


@contextlib.contextmanager
def watched(priced: Priced) -> Iterator[None]:
    """Let each launch of Triton within be priced."""
    if os.environ.get("IRNET_FUSED") == "no":
        yield
        return
    from irnet_hpc.models import kernels

    was = kernels.launch

    def launch(*arguments: Any, **constants: Any) -> None:
        priced.settle()
        priced.triton(*arguments, **constants)
        was(*arguments, **constants)

    kernels.launch = launch
    try:
        yield
    finally:
        kernels.launch = was


def main() -> None:
    """Build the stand-in, run the cases on it, and print the table."""
    from tests.fake_gpu.stand_in import build

    names, fused = sys.argv[1:] or list(CASES), os.environ.get("IRNET_FUSED", "unchecked")
    with tempfile.TemporaryDirectory() as folder:
        stand_in = build(Path(folder))
        found = stand_in.json(__file__, "--on-the-stand-in", *names, IRNET_FUSED=fused)
    print(
        "| case | kernels in graphs | launches beside them | modelled ms | products, reductions |"
    )
    print("|---|---:|---:|---:|---|")
    for name, row in found.items():
        us = {kind: row.get(f"{kind}_us", 0) for kind in FLOOR_US}
        total = sum(us.values())
        shares = ", ".join(f"{us[kind] / total:.0%}" for kind in ("product", "reduction"))
        print(f"| {name} | {row['nodes']} | {row['launches']} | {total / 1e3:.2f} | {shares} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--on-the-stand-in"]:
        print(json.dumps({name: counted(name) for name in sys.argv[2:]}))
    else:
        main()
