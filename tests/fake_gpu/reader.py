"""Train with features that are read ahead, so that a recording meets the thread that reads.

python -m tests.fake_gpu.reader OPTION ...     # those of irnet_hpc.train

The thread waits for the first recording, and the recording for the thread, which asks for memory.
"""

import json
import sys
import threading

import torch

from irnet_hpc.train import cli, dataset, step, stream
from tests.fake_gpu.steps import report

ROWS = 64  # of a window, so that a small pack has several
# A step may need the window that is being read, so neither waits for ever.
WAIT_S = 10


def main() -> int:
    """Train, and print what the recordings were and what the stand-in saw."""
    for module in (stream, dataset):
        module.SHUFFLED_ROWS, module.WINDOW_PIECES = ROWS, 1
    is_recording, has_read = threading.Event(), threading.Event()
    was_read, was_record = stream._read, step.Graphed._record
    graphs = []

    def read(*arguments: object) -> torch.Tensor:
        meets = is_recording.wait(WAIT_S) if was_read_once.is_set() else False
        was_read_once.set()
        window = was_read(*arguments)
        if meets and not has_read.is_set():
            torch.empty(2**28, device="cuda")  # more than torch's allocator still has
            has_read.set()
        return window

    was_read_once = threading.Event()

    def record(self: step.Graphed) -> None:
        launch = self.launch

        def meet() -> None:
            launch()
            is_recording.set()
            has_read.wait(WAIT_S)

        self.launch = meet  # type: ignore[method-assign]
        was_record(self)
        self.launch = launch  # type: ignore[method-assign]
        graphs.append(self.graph is not None)

    stream._read, step.Graphed._record = read, record
    status = cli.main(sys.argv[1:])
    found = {"graphs": graphs, "met": has_read.is_set(), "violations": report()["violations"]}
    print(json.dumps(found))
    return status


if __name__ == "__main__":
    sys.exit(main())
