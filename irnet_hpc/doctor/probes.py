"""Run those parts of checks that may crash or hang, each in a process of its own.

    python -m irnet_hpc.doctor.probes libraries
    horovodrun -np 2 python -m irnet_hpc.doctor.probes ranks FOLDER   FOLDER is visible to all ranks
    python -m irnet_hpc.doctor.probes pack FOLDER

Each probe prints JSON objects, one per line, as it proceeds. After a crash, the last `stage` shows
how far the probe came. If there are several ranks, only rank 0 prints.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    from irnet_hpc.distributed.engines import Comm


N_SUMMED = 5_554_529  # float32 numbers: the gradient of IRNet-17 with 145 features
N_SUMS = 5


def print_facts(**facts: object) -> None:
    """Print facts as a JSON object on one line."""
    print(json.dumps(facts), flush=True)


def libraries() -> None:
    """Load MPI, then torch, then Horovod.

    MPI comes first, so that Horovod uses the same MPI library.
    """
    print_facts(stage="mpi4py")
    try:
        import mpi4py

        # MPI is only loaded, not initialised, which may take long without a launcher.
        mpi4py.rc.initialize = False
        from mpi4py import MPI

        version = MPI.Get_library_version().split(",")[0].strip("\0 \n")
        print_facts(mpi=version, loaded=_loaded_files("mpi"))
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
        print_facts(no_mpi=f"{type(error).__name__}: {error}")
    print_facts(stage="torch")
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print_facts(torch=torch.__version__, cuda=torch.version.cuda, n_gpus=n_gpus)
    if torch.version.cuda and not n_gpus:
        from irnet_hpc.distributed.gpus import why_none

        print_facts(why_no_gpu=why_none())
    print_facts(stage="horovod.torch")
    try:
        import horovod
    except ModuleNotFoundError as error:
        if error.name != "horovod":  # it is installed, and lacks a module
            raise
        print_facts(horovod=None, libmpi=_loaded_files("mpi"), libnccl=[], stage="")
        return
    import horovod.torch as hvd

    built = {"gloo": hvd.gloo_built(), "mpi": hvd.mpi_built(), "nccl": bool(hvd.nccl_built())}
    print_facts(
        horovod=horovod.__version__,
        built=built,
        libmpi=_loaded_files("mpi"),
        libnccl=_loaded_files("nccl"),
        stage="",
    )


def _loaded_files(library: str) -> list[str]:
    """List the files from which this process has loaded a shared library."""
    maps = Path("/proc/self/maps").read_text()
    paths = re.findall(rf"(/\S*/lib{library}(?:ch)?\.so\S*)", maps)
    return sorted({os.path.realpath(path) for path in paths})


def allreduce(comm: "Comm") -> dict:
    """Sum a vector of N_SUMMED numbers, as long as a gradient, over all ranks, N_SUMS times.

    Args:
        comm: The ranks.

    Returns:
        The engine's name (`engine`), the number of ranks (`size`), the device (`device`), True if
        every number was right on every rank (`right`), and the best speed in MB/s (`mb_per_s`).
    """
    import torch

    from irnet_hpc.distributed.gpus import device_of, have_own_gpus

    device = device_of(comm.local_rank)
    # NCCL refuses two ranks on one GPU. A rank that sees one GPU may still have it to itself.
    if not have_own_gpus(comm, device):
        device = torch.device("cpu")
    # Whole numbers below 1000, whose sums are exact in float32.
    pattern = torch.arange(N_SUMMED, device=device).remainder_(1000).float()
    expected = pattern * (comm.size * (comm.size + 1) // 2)
    is_right, seconds = True, []
    for _ in range(N_SUMS):
        x = pattern * (comm.rank + 1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        comm.sum_(torch.zeros(1))  # a barrier
        began = time.perf_counter()
        comm.sum_(x)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        is_right &= bool(torch.equal(x, expected))
    return {
        "engine": comm.name,
        "size": comm.size,
        "device": device.type,
        "right": all(comm.gather(is_right)),
        "mb_per_s": 4e-6 * N_SUMMED / min(seconds),
    }


def ranks(folder: Path, engine: str) -> None:
    """Start the engine, sum over all ranks, and print the result on rank 0."""
    from irnet_hpc.distributed.engines import start

    comm = start(engine, folder)
    facts = allreduce(comm)
    if comm.rank == 0:
        print_facts(**facts)
    comm.close()


def pack(folder: Path) -> None:
    """Write a pack, open it twice at once, as the ranks of a training do, and lock a file."""
    import numpy as np

    from irnet_hpc import files
    from irnet_hpc.pack import store
    from irnet_hpc.pack.writer import create_pack

    path, n_rows = folder / "doctor.h5", 4096
    x = np.arange(n_rows * 32, dtype=np.float32).reshape(n_rows, 32)  # (n_rows, n_features)
    set_by_writer = {"format", "content_sha256"}
    identity: dict = {
        name: "doctor" if name in store.TEXT else []
        for name in store.IDENTITY
        if name not in set_by_writer
    }
    identity |= {
        "properties": {"density": "g/cm³"},
        "feature_versions": {},
        "split": {},
        "n_source_rows": n_rows,
    }
    counts = {"train": n_rows - 2, "val": 1, "test": 1}
    names = [str(row) for row in range(n_rows)]
    began = time.perf_counter()
    print_facts(stage="write a pack")
    with create_pack(path, [f"x{column}" for column in range(32)], n_rows) as writer:
        writer.append(x)
        writer.finish(names, names, {"density": np.zeros(n_rows)}, counts, identity, {})
    print_facts(stage="read a pack twice at once")
    with store.open_pack(path) as first, store.open_pack(path) as second:
        is_same = bool(
            np.array_equal(first.x(slice(0, n_rows)), x)
            and np.array_equal(second.x(slice(5, 9)), x[5:9])
        )
    seconds = time.perf_counter() - began
    print_facts(same=is_same, seconds=seconds, stage="lock a pack by HDF5's own locks")
    print_facts(hdf5_locks=store.can_be_locked(path), stage="lock a file")
    with (folder / "lock").open("a") as holder, (folder / "lock").open("a") as rival:
        print_facts(locks=files.lock(holder) and not files.lock(rival), stage="")


def main() -> None:
    """Run the probe that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.doctor.probes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("probe", choices=("libraries", "ranks", "pack"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--engine", default="horovod")
    arguments = parser.parse_args()
    if arguments.probe == "libraries":
        libraries()
        return
    if arguments.folder is None:
        raise UserError(f"the probe {arguments.probe} needs a folder, which is not given")
    if arguments.probe == "ranks":
        ranks(arguments.folder, arguments.engine)
    else:
        pack(arguments.folder)


if __name__ == "__main__":
    sys.exit(exit_status(main))
