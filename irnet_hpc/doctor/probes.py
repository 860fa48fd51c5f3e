"""What a check looks at in a process of its own, so that a crash or a hang of a library is a verdict and no more.

    python -m irnet_hpc.doctor.probes libraries
    horovodrun -np 2 python -m irnet_hpc.doctor.probes ranks FOLDER      rank 0 prints; FOLDER is seen by all ranks
    python -m irnet_hpc.doctor.probes pack FOLDER

Each prints JSON objects, a line each, as it goes: the last that stands there says how far it came.
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


N_SUMMED = 5_554_529  # float32 numbers in an allreduce: the gradient of IRNet-17 with 145 features
N_TIMES = 5


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def libraries() -> None:
    """Load MPI, torch and Horovod one by one. The order is that of env/proof.py: MPI first, which Horovod must then share."""
    say(stage="mpi4py")
    try:
        import mpi4py

        mpi4py.rc.initialize = (
            False  # to load it is enough, and without a launcher to start it may take long
        )
        from mpi4py import MPI

        say(mpi=MPI.Get_library_version().split(",")[0].strip("\0 \n"), loaded=_loaded("mpi"))
    except (
        ImportError,
        RuntimeError,
    ) as error:  # its wheels look for the MPI library when they are imported
        say(no_mpi=f"{type(error).__name__}: {error}")
    say(stage="torch")
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    say(torch=torch.__version__, cuda=torch.version.cuda, n_gpus=n_gpus)
    say(stage="horovod.torch")
    import horovod
    import horovod.torch as hvd

    built = {"gloo": hvd.gloo_built(), "mpi": hvd.mpi_built(), "nccl": bool(hvd.nccl_built())}
    say(
        horovod=horovod.__version__,
        built=built,
        libmpi=_loaded("mpi"),
        libnccl=_loaded("nccl"),
        stage="",
    )


def _loaded(library: str) -> list[str]:
    """The files of a library that are in this process."""
    maps = Path("/proc/self/maps").read_text()
    return sorted(
        {os.path.realpath(path) for path in re.findall(rf"(/\S*/lib{library}(?:ch)?\.so\S*)", maps)}
    )


def allreduce(comm: "Comm") -> dict:
    """Sum a gradient's worth of numbers over all ranks: whether each is right on each rank, and how fast the best of five was."""
    import torch

    from irnet_hpc.distributed.engines import device_of
    from irnet_hpc.distributed.launch import detect

    where = detect()
    # NCCL refuses two ranks on one GPU.
    each_has_one = torch.cuda.is_available() and torch.cuda.device_count() >= (
        where.local_size if where else 1
    )
    device = device_of(comm.local_rank) if each_has_one else torch.device("cpu")
    pattern = (
        torch.arange(N_SUMMED, device=device).remainder_(1000).float()
    )  # sums stay exact in float32
    right, seconds = True, []
    for _ in range(N_TIMES):
        x = pattern * (comm.rank + 1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        comm.sum_(torch.zeros(1))  # all begin at once
        began = time.perf_counter()
        comm.sum_(x)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        right &= bool(torch.equal(x, pattern * (comm.size * (comm.size + 1) // 2)))
    everyone = comm.gather(right)
    mb_per_s = 4e-6 * N_SUMMED / min(seconds)
    return {
        "engine": comm.name,
        "size": comm.size,
        "device": device.type,
        "right": all(everyone),
        "mb_per_s": mb_per_s,
    }


def ranks(folder: Path, engine: str) -> None:
    from irnet_hpc.distributed.engines import start

    comm = start(engine, folder)
    facts = allreduce(comm)
    if comm.rank == 0:
        say(**facts)
    comm.close()


def pack(folder: Path) -> None:
    """Write a pack as `pack` does, and read it twice at once, as the ranks of a training do; lock a file as a sweep does."""
    import numpy as np

    from irnet_hpc import files
    from irnet_hpc.pack import store

    path, n_rows = folder / "doctor.h5", 4096
    x = np.arange(n_rows * 32, dtype=np.float32).reshape(n_rows, 32)  # (n_rows, n_features)
    decided_later = {"format", "content_sha256"}
    identity = {
        name: "doctor" if name in store.TEXT else []
        for name in store.IDENTITY
        if name not in decided_later
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
    say(stage="write a pack")
    with store.create(path, [f"x{column}" for column in range(32)], n_rows) as writer:
        writer.append(x)
        writer.finish(names, names, {"density": np.zeros(n_rows)}, counts, identity, {})
    say(stage="read a pack twice at once")
    with store.open_pack(path) as one, store.open_pack(path) as two:
        same = bool(
            np.array_equal(one.x(slice(0, n_rows)), x)
            and np.array_equal(two.x(slice(5, 9)), x[5:9])
        )
    say(same=same, seconds=time.perf_counter() - began, stage="lock a pack by HDF5's own locks")
    say(hdf5_locks=store.can_be_locked(path), stage="lock a file")
    with (folder / "lock").open("a") as held, (folder / "lock").open("a") as refused:
        say(locks=files.lock(held) and not files.lock(refused), stage="")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.doctor.probes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("libraries", "ranks", "pack"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--engine", default="horovod")
    arguments = parser.parse_args()
    if arguments.what == "libraries":
        libraries()
        return
    if arguments.folder is None:
        raise UserError(f"{arguments.what} needs a folder")
    if arguments.what == "ranks":
        ranks(arguments.folder, arguments.engine)
    else:
        pack(arguments.folder)


if __name__ == "__main__":
    sys.exit(exit_status(main))
