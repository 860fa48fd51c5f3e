"""Collect the provenance of a result: versions, commit, device and memory."""

import contextlib
import functools
import platform
import resource
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from irnet_hpc.distributed.engines import Comm

PACKAGES = ("torch", "horovod", "numpy", "h5py", "safetensors", "scikit-learn", "tabm", "irnet_hpc")


def provenance(comm: "Comm", device: "torch.device") -> dict[str, object]:
    """Collect the fields of RunResult that describe the machine and the software.

    This is a collective operation: call it on every rank; all ranks get the same fields.

    Args:
        comm: The ranks that have trained.
        device: The device of this rank.

    Returns:
        `engine`, `device` (its model), `peak_memory_gb` (the largest of all ranks, on the GPU if
        one is used, else in the process), `versions` and `commit`.
    """
    if device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
        # What is reserved, since the memory of recorded graphs is not counted as allocated.
        peak_gb = torch.cuda.max_memory_reserved(device) / 2**30
    else:
        name, peak_gb = _processor(), _peak_of_process() / 2**20
    return {
        "engine": comm.name,
        "device": name,
        "peak_memory_gb": max(comm.gather(peak_gb)),
        "versions": {"python": platform.python_version()} | package_versions(),
        "commit": source_commit(),
    }


def package_versions() -> dict[str, str]:
    """List the versions of those installed packages that can change a number."""
    return dict(_installed())


@functools.cache
def _installed() -> tuple[tuple[str, str], ...]:
    versions = []
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append((name, metadata.version(name)))
    return tuple(versions)


def source_commit() -> str | None:
    """Return the commit of the source tree that this package was imported from.

    Returns:
        The hash; None if the package is not in a git checkout, or git is not installed. No error is
        raised, since a node without git must not lose a finished training.
    """
    return _commit_of(Path(__file__).parents[2])


@functools.cache
def _commit_of(tree: Path) -> str | None:
    """Ask git once: the code that was imported stays the same, whatever is checked out later."""
    if not (tree / ".git").exists():
        return None
    command = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _peak_of_process() -> int:
    """Return the most memory that this process has held, in KiB.

    VmHWM (proc(5)) counts from when a trainer began with this cell, ru_maxrss (getrusage(2)) from
    the start of the process.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "cpu"
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, "cpu")
