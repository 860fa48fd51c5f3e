"""Read how much memory a rank may still take, and what control groups allow a process.

The only reader of control groups, versions 1 and 2.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.distributed import launch

# Control groups of version 1 show a number near 2**63 where there is no limit.
UNLIMITED = 2**60


def free_bytes(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Return the bytes that this rank may still take: an equal share of what its host has free.

    Args:
        root: The folder that `proc` and `sys` lie in.
        environment: The variables that describe the launch and the job.
    """
    where = launch.detect(environment)
    n_ranks = where.local_size if where else 1
    free = [_available(root), *_free_in_groups(root)]
    if limit := _slurm_limit(environment):
        free.append(limit - n_ranks * _used(root))
    return max(0, min(free)) // n_ranks


def cgroup_limits(
    membership: str | None = None, root: Path = Path("/sys/fs/cgroup")
) -> tuple[float | None, float | None]:
    """Return the (cores, GB) that the control groups of this process allow; None: no limit.

    Versions 1 and 2 of control groups. Every level from the process's own group to the root counts.
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
    if per_node.isdigit():
        return int(per_node) * 2**20 or None
    if per_cpu.isdigit() and n_cpus.isdigit():
        return int(per_cpu) * int(n_cpus) * 2**20 or None
    return None


def _free_in_groups(root: Path) -> list[int]:
    """Return the free bytes under each memory limit on this process's control groups.

    Pages of files that were read, as a pack's are, count as used, but go where memory is wanted:
    the inactive ones are free. A container may see its own group as the root, whatever its path
    outside.
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
    """Return the number behind a name in a file of names and numbers; 0 where there is none."""
    lines = (line.replace(":", " ").split() for line in _lines(path))
    return next((int(words[1]) for words in lines if words and words[0] == name), 0)


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
