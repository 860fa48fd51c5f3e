"""Choose the GPU of a rank, tell GPUs apart, and say why torch can use none."""

import socket
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from irnet_hpc.distributed import launch
from irnet_hpc.errors import UserError, check_choice

if TYPE_CHECKING:
    from irnet_hpc.distributed.engines import Comm

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # differs between hosts of the same name
# Where NVIDIA's driver shows that it is loaded, whatever torch can do with it.
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl")


def device_of(local_rank: int, wanted: str = "auto") -> torch.device:
    """Return the device that this rank computes on. If it is a GPU, torch uses it from now on.

    Args:
        local_rank: The number of this rank among the ranks of this host, which decides its GPU.
        wanted: `auto`, `cpu` or `cuda`; `auto` is the CPU if there is no GPU.

    Raises:
        UserError: If `cuda` is wanted and torch cannot use any GPU.
    """
    check_choice("device", wanted, launch.DEVICES)
    if wanted == "cuda" and (reason := why_none()):
        raise UserError(
            f"device cuda must be a GPU that torch can use, got none: {reason}; known here: "
            "auto, cpu"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    # Else cuBLAS may add up the parts of a split product in bf16, by shapes and so by bundles.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    return device


class Gpu(NamedTuple):
    """A GPU as all ranks can compare it."""

    name: str
    uuid: str  # of the GPU, or of the instance if the GPU is divided (MIG)
    # The host and the PCI address, which all instances of a GPU share.
    place: tuple[str, ...]


def gpu_of(device: torch.device) -> Gpu | None:
    """Return the GPU of a device; None for the CPU."""
    if device.type != "cuda":
        return None
    facts: Any = torch.cuda.get_device_properties(device)
    boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
    address = (facts.pci_domain_id, facts.pci_bus_id, facts.pci_device_id)
    place = (socket.gethostname(), boot, *map(str, address))
    return Gpu(facts.name, str(facts.uuid), place)


def ranks_by_gpu(gpus: Sequence[Gpu | None]) -> list[list[int]]:
    """Group the ranks that compute on one GPU, as NCCL sees it.

    NCCL 2.29 compares hosts and PCI addresses (src/init.cc, "Duplicate GPU detected"), so the
    instances of a divided GPU are one GPU to it.

    Args:
        gpus: The GPU of each rank, or None for the CPU.

    Returns:
        The ranks of each GPU.
    """
    groups = defaultdict(list)
    for rank, gpu in enumerate(gpus):
        if gpu is not None:
            groups[gpu.place].append(rank)
    return list(groups.values())


def have_own_gpus(comm: "Comm", device: torch.device) -> bool:
    """Return True on every rank if each rank has a GPU that no other rank computes on."""
    gpus = comm.gather(gpu_of(device))
    return None not in gpus and len(ranks_by_gpu(gpus)) == len(gpus)


def check_own_gpus(comm: "Comm", device: torch.device) -> None:
    """Raise UserError on every rank if NCCL would have to connect ranks that share a GPU.

    Call this before the first sum on GPUs: NCCL refuses such ranks, by an error that does not
    tell it from a lost peer. Also, either all ranks or none must have a GPU.
    """
    if not comm.uses_nccl:
        return
    gpus = comm.gather(gpu_of(device))
    without = [rank for rank, gpu in enumerate(gpus) if gpu is None]
    if 0 < len(without) < len(gpus):
        raise UserError(
            f"either all ranks or none must have a GPU, got none on rank {without[0]} of "
            f"{len(gpus)}; see nvidia-smi on its node, or use --device cpu"
        )
    for ranks in ranks_by_gpu(gpus):
        if len(ranks) > 1:
            first, second = (gpus[rank] for rank in ranks[:2])
            assert first is not None and second is not None
            divided = " (two of its MIG instances)" if first.uuid != second.uuid else ""
            raise UserError(
                "each rank needs a GPU of its own, since NCCL connects GPUs, got ranks "
                f"{' and '.join(map(str, ranks))} on one {first.name}{divided}; start as many "
                "ranks on a node as it has GPUs, or train on one rank, or use --device cpu"
            )


def why_none() -> str:
    """Return the reason why torch can use no GPU; empty if it can use one."""
    if torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is in the error too
            torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        # torch's text goes on with advice about where drivers are to be had.
        reason = " ".join(str(error).split()).partition(". Please")[0][:200]
        return f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, says: {reason}"
    return "torch counts no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"


def has_driver() -> bool:
    """Return True if this machine has NVIDIA's driver, so that there should be a GPU."""
    return any(Path(path).exists() for path in DRIVER_FILES)
