"""Collect the provenance of a result: versions, commit, device and memory."""

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
        name, peak_gb = _processor(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "engine": comm.name,
        "device": name,
        "peak_memory_gb": max(comm.gather(peak_gb)),
        "versions": {"python": platform.python_version()} | package_versions(),
        "commit": source_commit(),
    }


def package_versions() -> dict[str, str]:
    """List the versions of those installed packages that can change a number."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_commit() -> str | None:
    """Return the commit of the source tree that this package was imported from.

    Returns:
        The hash; None if the package is not in a git checkout, or git is not installed. No error is
        raised, since a node without git must not lose a finished training.
    """
    tree = Path(__file__).parents[2]
    if not (tree / ".git").exists():
        return None
    command = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "cpu"
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, "cpu")
