"""How much memory a rank may still take: what the host has, what its control groups and SLURM allow."""

import os
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.distributed import launch

UNLIMITED = 2**60  # control groups of version 1 have such a number where there is no limit


def free_bytes(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Of this host, for this rank: an equal share of what is free for all ranks here."""
    where = launch.detect(environment)
    n_ranks = where.local_size if where else 1
    free = [_available(root), *_groups(root)]
    if limit := _slurm_limit(environment):
        free.append(limit - n_ranks * _used(root))
    return max(0, min(free)) // n_ranks


def _available(root: Path) -> int:
    return (
        _of_lines(root / "proc/meminfo", "MemAvailable") * 1024 or UNLIMITED
    )  # no Linux: nothing is known


def _used(root: Path) -> int:
    """By this process."""
    return _of_lines(root / "proc/self/status", "VmRSS") * 1024


def _slurm_limit(environment: Mapping[str, str]) -> int | None:
    """Bytes of the job on this node; None outside SLURM, and where it gives all there is (0). SLURM counts in MiB."""
    of_node = environment.get("SLURM_MEM_PER_NODE", "")
    of_cpu, n_cpus = (
        environment.get("SLURM_MEM_PER_CPU", ""),
        environment.get("SLURM_CPUS_ON_NODE", ""),
    )
    if of_node.isdigit():
        return int(of_node) * 2**20 or None
    return (
        int(of_cpu) * int(n_cpus) * 2**20 or None if of_cpu.isdigit() and n_cpus.isdigit() else None
    )


def _groups(root: Path) -> list[int]:
    """What is free of each limit on the control groups of this process, version 1 or 2, and on those around them.

    Pages of files that were read, as a pack's are, count as used, but go where memory is wanted: what is inactive of them is
    free. A container may see its own group as the root, whatever its path outside.
    """
    free = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        top, limit, used, inactive = (
            (root / "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
            if not controllers
            else (
                root / "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        )
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            most, now = (_lines(group / name) for name in (limit, used))
            if most and now and most[0].isdigit() and int(most[0]) < UNLIMITED:
                free.append(int(most[0]) - int(now[0]) + _of_lines(group / "memory.stat", inactive))
            if group == top:
                break
    return free


def _of_lines(path: Path, name: str) -> int:
    """The number behind a name in a file of names and numbers; 0 where there is none."""
    found = (line.replace(":", " ").split() for line in _lines(path))
    return next((int(words[1]) for words in found if words and words[0] == name), 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
