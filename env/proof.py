"""Prove that Horovod works here: an allreduce over the ranks that a launcher started.

horovodrun -np 2 python env/proof.py gloo
mpirun -np 2 python env/proof.py mpi     # also checks that Horovod and mpi4py load one MPI library
"""

import os
import re
import sys
from pathlib import Path

expected_controller = sys.argv[1]
if expected_controller == "mpi":
    from mpi4py import MPI  # starts MPI, so that Horovod joins the very library that mpi4py uses

import horovod.torch as hvd  # noqa: E402
import torch  # noqa: E402

hvd.init()
rank, size = hvd.rank(), hvd.size()
assert size == 2, f"2 ranks were started, got Horovod runs as rank {rank} of {size}"
assert hvd.mpi_enabled() == (expected_controller == "mpi"), (
    f"Horovod does not run over {expected_controller}"
)

# NCCL refuses two ranks on one GPU, so it is tried only where each has its own.
on_gpu = hvd.nccl_built() and torch.cuda.is_available() and torch.cuda.device_count() >= size
device = torch.device("cuda", hvd.local_rank()) if on_gpu else torch.device("cpu")
total = hvd.allreduce(torch.full((1000,), float(rank + 1), device=device), op=hvd.Sum)
assert torch.equal(total.cpu(), torch.full((1000,), 3.0)), f"1 + 2 must be 3, got {total[0].item()}"

detail = f"2 ranks, {'GPUs over NCCL' if on_gpu else 'CPU'}"
if expected_controller == "mpi":
    assert MPI.COMM_WORLD.Get_size() == size, (
        f"mpi4py sees {MPI.COMM_WORLD.Get_size()} ranks and Horovod {size}"
    )
    loaded = re.findall(r"(/\S*/libmpi(?:ch)?\.so\S*)", Path("/proc/self/maps").read_text())
    libraries = {os.path.realpath(path) for path in loaded}
    assert len(libraries) == 1, (
        f"mpi4py and Horovod must share one MPI library, got {', '.join(sorted(libraries))}"
    )
    detail += f", {MPI.Get_library_version().split(',')[0].strip()} shared with mpi4py"
hvd.shutdown()
if rank == 0:
    print(f"allreduce over {expected_controller}: {detail}")
