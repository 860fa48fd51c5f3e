"""Read how much memory a rank may still use, and which limits its control groups set.

No other module reads control groups (versions 1 and 2).
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.distributed import launch
from irnet_hpc.errors import UserError

# Control groups of version 1 show a number near 2**63 where there is no limit.
UNLIMITED = 2**60


def free_bytes(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Return the bytes that this rank may still use: an equal share of the host's free memory.

    The memory is also limited by the control groups and by the SLURM job. A sweep says in
    $IRNET_WORKERS how many of its workers share it.

    Args:
        root: The folder that contains `proc` and `sys`.
        environment: The environment variables that describe the launch and the job.
    """
    where = None
    # The library may run in a notebook, where half a launcher's variables are no reason to stop.
    with contextlib.suppress(UserError):
        where = launch.detect(environment)
    workers = environment.get("IRNET_WORKERS", "")
    n_workers = int(workers) if workers.isdecimal() and int(workers) else 1
    n_ranks = (where.local_size if where else 1) * n_workers
    free = [_available(root), *_free_in_groups(root)]
    if limit := _slurm_limit(environment):
        free.append(limit - n_ranks * _used(root))
    return max(0, min(free)) // n_ranks


def cgroup_limits(
    membership: str | None = None, root: Path = Path("/sys/fs/cgroup")
) -> tuple[float | None, float | None]:
    """Return the limits (cores, GB) that control groups set for this process; None means no limit.

    Reads control groups of versions 1 and 2, on every level from the process's own group to the
    root.
    """
    cores, memory_gb = [], []
    text = Path("/proc/self/cgroup").read_text() if membership is None else membership
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / controllers if controllers else root
        # In a container the path is often the host's and not visible: then the root applies.
        levels = [Path(path.strip("/")), *Path(path.strip("/")).parents]
        for level in (base / level for level in dict.fromkeys(levels)):
            quota, period = _words(level / "cpu.max") or ["", ""]
            if controllers:
                quota, period = (
                    " ".join(_words(level / f"cpu.cfs_{name}_us")) for name in ("quota", "period")
                )
            if quota.isdecimal() and period.isdecimal() and int(period):
                cores.append(int(quota) / int(period))
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            (limit,) = _words(level / name) or [""]
            if limit.isdecimal() and int(limit) < UNLIMITED:
                memory_gb.append(int(limit) / 1e9)
    return min(cores, default=None), min(memory_gb, default=None)


def _available(root: Path) -> int:
    # Without Linux nothing is known.
    return _number_after(root / "proc/meminfo", "MemAvailable") * 1024 or UNLIMITED


def _used(root: Path) -> int:
    """Return the bytes that this process uses."""
    return _number_after(root / "proc/self/status", "VmRSS") * 1024


def _slurm_limit(environment: Mapping[str, str]) -> int | None:
    """Return the job's memory on this node, in bytes; None outside SLURM or without a limit (0).

    SLURM counts in MiB.
    """
    per_node = environment.get("SLURM_MEM_PER_NODE", "")
    per_cpu = environment.get("SLURM_MEM_PER_CPU", "")
    n_cpus = environment.get("SLURM_CPUS_ON_NODE", "")
    if per_node.isdecimal():
        return int(per_node) * 2**20 or None
    if per_cpu.isdecimal() and n_cpus.isdecimal():
        return int(per_cpu) * int(n_cpus) * 2**20 or None
    return None


def _free_in_groups(root: Path) -> list[int]:
    """Return the free bytes below each memory limit in this process's control groups.

    The kernel counts cached file pages, such as those of a pack, as used memory. The inactive ones
    count as free here, because the kernel drops them when memory is needed. In a container, the
    group's path may be that of the host while the root folder already shows the group itself.
    """
    free = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        if controllers:
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            inactive = "total_inactive_file"
        else:
            top = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current")
            inactive = "inactive_file"
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            limit, used = (_words(group / name) for name in names)
            if limit and used and limit[0].isdigit() and int(limit[0]) < UNLIMITED:
                reclaimable = _number_after(group / "memory.stat", inactive)
                free.append(int(limit[0]) - int(used[0]) + reclaimable)
            if group == top:
                break
    return free


def _number_after(path: Path, name: str) -> int:
    """Return the number that follows a name in a file of names and numbers; 0 if there is none."""
    lines = (line.replace(":", " ").split() for line in _lines(path))
    return next((int(words[1]) for words in lines if words and words[0] == name), 0)


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
