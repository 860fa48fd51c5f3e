"""Plant slips in the training step, one at a time, and print how the stand-in sees each.

python -m tests.fake_gpu.slips     # under the stand-in; see stand_in.py
"""

import functools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from irnet_hpc.train.step import WARM_UP, Step
from tests.fake_gpu.steps import begun, replicas, report

LAYERS = "32BARx2-16BARx1-1"


def use(value: object) -> None:
    """Stand for whatever the slip would do with a value."""


def other_thread(work: Callable[[], object]) -> None:
    """Do something in another thread, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def unjoined(step: Step) -> None:
    """Launch a kernel on a stream that waits for this one, but for which this one never waits."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step.y.add_(1)


def allocate_outside() -> None:
    """Ask the driver for memory, as another thread that reads ahead would."""
    torch.cuda.caching_allocator_delete(torch.cuda.caching_allocator_alloc(1 << 30))


# name -> the method of Step that does this too, and what it does
WITHIN: dict[str, tuple[str, Callable[[Step], object]]] = {
    "the loss is looked at": ("_gradients", lambda s: s.stack.flat.riders[0].sum().item()),
    "if the sum is positive": ("_update", lambda s: use(bool(s.error_sum.sum() > 0))),
    "rows by a boolean mask": ("_gradients", lambda s: s.y[s.y > 0].sum()),
    "distinct rows": ("_gradients", lambda s: torch.unique(s.y)),
    "a constant of the CPU": (
        "_gradients",
        lambda s: s.y.add_(torch.tensor([1.0, 2.0]).to(s.y.device)[0]),
    ),
    "the device is waited for": ("_update", lambda s: torch.cuda.synchronize()),
    "a wait for a foreign stream": (
        "_gradients",
        lambda s: torch.cuda.current_stream().wait_stream(torch.cuda.default_stream()),
    ),
    "a stream that is not joined": ("_gradients", unjoined),
    "another thread synchronizes": (
        "_gradients",
        lambda s: other_thread(torch.cuda.synchronize),
    ),
    "each step looks outside the graphs": ("read", lambda s: s.error_sum.sum().item()),
    "each step copies from pageable": (
        "read",
        lambda s: s.y.copy_(torch.zeros(s.y.shape), non_blocking=True),
    ),
    "the batch is another tensor": ("begin", lambda s: setattr(s, "x", s.x.clone())),
}


@contextmanager
def planted(method: str, slip: Callable[[Step], object]) -> Iterator[None]:
    """Let a method of Step do something more."""
    was = getattr(Step, method)

    # The name may not change, since Step keeps weak references to its methods.
    @functools.wraps(was)
    def changed(self: Step, *arguments: object) -> None:
        was(self, *arguments)
        slip(self)

    setattr(Step, method, changed)
    try:
        yield
    finally:
        setattr(Step, method, was)


def seen() -> dict:
    """Train two epochs of a few steps; return what is wrong with them."""
    _stack, step = begun(replicas(LAYERS, 1, 1, {}))
    torch.cuda.synchronize()
    found: dict = {"violations": [], "waits": {}, "copies": {}, "error": None}
    report()
    try:
        for i in range(WARM_UP + 1):
            step(i, False)
        found["violations"] += report()["violations"]
        step.begin([torch.arange(512).numpy()], torch.full((8, 1), 1e-3).numpy())
        report()
        step(0, False)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    last = report()
    found["violations"] += last["violations"]
    found["waits"] = last["waits"]
    found["copies"] = {k: n for k, n in last["copies"].items() if "host" in k}
    found["graphs"] = [step.gradients.graph is not None, step.update.graph is not None]
    found["stream is restored"] = torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.synchronize()
    return found


def allocation_of_another_thread() -> dict:
    """Record in the mode that is torch's default while another thread allocates."""
    with planted("_gradients", lambda s: other_thread(allocate_outside)):
        was = torch.cuda.graph

        def in_global_mode(*arguments: object, **keywords: object) -> torch.cuda.graph:
            return was(*arguments, **keywords | {"capture_error_mode": "global"})

        torch.cuda.graph = in_global_mode
        try:
            return seen()
        finally:
            torch.cuda.graph = was


def collectives() -> dict[str, list[str]]:
    """Sum over one rank by NCCL in an order that is right, and in two that are wrong."""
    store = dist.HashStore()
    dist.init_process_group("nccl", store=store, rank=0, world_size=1)
    x = torch.zeros(4, device="cuda")
    dist.all_reduce(x)
    torch.cuda.synchronize()
    found = {}

    def right() -> None:
        x.add_(1)
        dist.all_reduce(x)
        x.add_(1)

    def too_early() -> None:  # the result is used before the sum is waited for
        work = dist.all_reduce(x, async_op=True)
        x.add_(1)
        work.wait()

    def too_late() -> None:  # what is summed is computed on a stream that the sum does not know
        with torch.cuda.stream(torch.cuda.Stream()):
            x.add_(1)
        dist.all_reduce(x)

    for call in (right, too_early, too_late):
        report()
        call()
        torch.cuda.synchronize()
        found[call.__name__] = report()["violations"]
    dist.destroy_process_group()
    return found


def main() -> None:
    """Print what is seen of each slip, and without one, as JSON."""
    torch.cuda.graph = functools.partial(torch.cuda.graph, check_input_liveness=True)
    found = {"none": seen()}
    for name, (method, slip) in WITHIN.items():
        with planted(method, slip):
            found[name] = seen()
    # In the mode that Step records in, this is allowed.
    with planted("_gradients", lambda s: other_thread(allocate_outside)):
        found["another thread allocates"] = seen()
    found["another thread allocates, mode global"] = allocation_of_another_thread()
    print(json.dumps(found | {"collectives": collectives()}))


if __name__ == "__main__":
    main()
