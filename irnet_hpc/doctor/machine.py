"""Checks of this machine: Python, versions, cores, memory, threads, what computes in bf16."""

import configparser
import importlib.metadata
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.doctor.checks import Check, Settings, Verdict, ask, failure, note, ok, warning

REPOSITORY = Path(__file__).parents[2]
PYTHONS = ((3, 11), (3, 13))  # first and last that are tested
LEAST_GB, GOOD_GB = (
    1.0,
    4.0,
)  # of memory: what one rank takes with torch in it, and with a large pack
# Flags of /proc/cpuinfo -> what they mean for bf16.
BF16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "BF16 of ARM"}
FP32 = (
    "fp32 is faster here: python -m irnet_hpc.train --recipe '{name: fp32, base: onecycle, precision: fp32}' ..., or the "
    "same among the recipes of a matrix"
)


def python(_: Settings) -> Verdict:
    version, found = sys.version_info[:2], f"{sys.version.split()[0]}, {sys.executable}"
    if not PYTHONS[0] <= version <= PYTHONS[1]:
        first, last = (".".join(map(str, one)) for one in PYTHONS)
        return failure(
            f"Python must be {first} to {last}, however: {found}",
            f"IRNET_PYTHON=python{last} bash env/setup.sh makes an environment of another one",
        )
    return ok(found)


def required() -> dict[str, str]:
    """Library -> the least version with which the package works, from setup.cfg or from what was installed of it."""
    configuration = configparser.ConfigParser()
    if (
        configuration.read(REPOSITORY / "setup.cfg")
        and configuration.get("metadata", "name") == "irnet_hpc"
    ):
        lines = configuration.get("options", "install_requires").splitlines()
    else:
        lines = [
            line
            for line in importlib.metadata.requires("irnet_hpc") or []
            if "extra ==" not in line
        ]
    matches = [re.match(r"([\w.-]+) *>=? *([\d.]+)", line) for line in lines]
    return {match[1]: match[2] for match in matches if match}


def pinned() -> dict[str, str]:
    """Library -> the version that env/setup.sh installs; none where the repository is not at hand."""
    path = REPOSITORY / "env" / "requirements-cpu.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """2.13.0+cpu -> (2, 13, 0)"""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def versions(_: Settings) -> Verdict:
    """Every library is there and new enough; other versions than the tested ones are named, and torch may be the machine's."""
    least, pins = required(), pinned()
    found = {name: installed(name) for name in least | pins}
    bad = [f"{name} is missing" for name in least if found[name] is None]
    bad += [
        f"{name} must be at least {version}, however: {found[name]}"
        for name, version in least.items()
        if found[name] is not None and numbers(found[name]) < numbers(version)
    ]
    setup = "bash env/setup.sh installs the tested versions"
    if bad:
        return failure("; ".join(bad), setup, versions=found)
    others = {
        name: found[name]
        for name in least
        if name in pins and numbers(found[name]) != numbers(pins[name])
    }
    torch = others.pop("torch", None)
    own = (
        f"; torch {torch} is this machine's own ({pins['torch']} is tested), which is fine"
        if torch
        else ""
    )
    if others:
        names = ", ".join(f"{name} {version} ({pins[name]})" for name, version in others.items())
        return warning(f"not as tested: {names}{own}", setup, versions=found)
    tested = "as tested" if pins else "new enough"
    return ok(f"{len(least)} libraries {tested}, torch {found['torch']}{own}", versions=found)


# ------------------------------------------------------------------------------------------------- what the kernel allows


def cgroup_limits(
    membership: str | None = None, root: Path = Path("/sys/fs/cgroup")
) -> tuple[float | None, float | None]:
    """(cores, GB) that the control groups of this process allow; None where they do not limit it. Versions 1 and 2."""
    cores, memory_gb = [], []
    text = Path("/proc/self/cgroup").read_text() if membership is None else membership
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / controllers if controllers else root
        # In a container the path is often the host's and not to be seen: then the root is what holds.
        levels = [Path(path.strip("/")), *Path(path.strip("/")).parents]
        for level in (base / level for level in dict.fromkeys(levels)):
            quota, period = _words(level / "cpu.max") or ["", ""]
            if controllers:
                quota, period = (
                    " ".join(_words(level / f"cpu.cfs_{name}_us")) for name in ("quota", "period")
                )
            if quota.isdecimal() and period.isdecimal() and int(period):
                cores.append(int(quota) / int(period))
            (limit,) = _words(
                level / ("memory.limit_in_bytes" if controllers else "memory.max")
            ) or [""]
            if (
                limit.isdecimal() and int(limit) < 1 << 60
            ):  # version 1 says "none" with a number near 2**63
                memory_gb.append(int(limit) / 1e9)
    return min(cores, default=None), min(memory_gb, default=None)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def n_cores() -> tuple[float, str]:
    """The cores that this process really has, and in words by what."""
    affinity, (quota, _) = len(os.sched_getaffinity(0)), cgroup_limits()
    if quota is not None and quota < affinity:
        return quota, f"{quota:g} by the cgroup's quota, of {affinity} it may run on"
    return affinity, f"{affinity} of the machine's {os.cpu_count()}"


def cores(_: Settings) -> Verdict:
    usable, words = n_cores()
    if usable < len(os.sched_getaffinity(0)) and "OMP_NUM_THREADS" not in os.environ:
        whole = max(1, int(usable))
        return warning(
            f"{words}: a process would start more threads than it has cores",
            f"export OMP_NUM_THREADS={whole}",
            n=usable,
        )
    return ok(words, n=usable)


def memory(_: Settings) -> Verdict:
    text = Path("/proc/meminfo").read_text()
    total, available = (
        int(re.search(rf"^{key}: *(\d+)", text, re.M)[1]) * 1024e-9
        for key in ("MemTotal", "MemAvailable")
    )
    _, limit = cgroup_limits()
    usable = available if limit is None else min(available, limit)
    found = f"{usable:.1f} GB free of {total:.1f} GB" + (
        f", the cgroup allows {limit:.1f} GB" if limit else ""
    )
    if usable < LEAST_GB:
        return failure(
            f"{found}, less than one rank takes",
            "see who has it: ps aux --sort=-rss | head",
            gb=usable,
        )
    if usable < GOOD_GB:
        return warning(
            f"{found}: enough for small packs",
            "see who has it: ps aux --sort=-rss | head",
            gb=usable,
        )
    return ok(found, gb=usable)


def threads(_: Settings, environment: Mapping[str, str] = os.environ) -> Verdict:
    usable, _ = n_cores()
    stated = environment.get("OMP_NUM_THREADS")
    if stated is None:
        return ok("OMP_NUM_THREADS is not set: each rank takes its share of the cores")
    outer = stated.partition(",")[0].strip()  # a list is for nested teams
    if not outer.isdecimal() or not int(outer):
        return warning(
            f"OMP_NUM_THREADS must be a whole number from 1, however: {stated!r}",
            "unset OMP_NUM_THREADS",
        )
    if int(outer) > usable:
        return warning(
            f"OMP_NUM_THREADS is {outer}, and there are {usable:g} cores: threads would wait for each other",
            "unset OMP_NUM_THREADS, and each rank takes its share",
        )
    return ok(f"OMP_NUM_THREADS={stated}, for each rank")


def processor(_: Settings, cpuinfo: str | None = None) -> Verdict:
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M)[1].split())
    model = re.search(r"^model name\s*: *(.*)$", text, re.M)
    name = model[1].strip() if model else "this processor"
    if known := [words for flag, words in BF16_FLAGS.items() if flag in flags]:
        return ok(f"{name} computes in bf16 ({', '.join(known)})")
    return note(f"{name} does not compute in bf16, the default recipe's precision", FP32)


def gpu(_: Settings) -> Verdict:
    """What nvidia-smi says; whether torch sees the same is a check of the engine."""
    query = (
        "nvidia-smi",
        "--query-gpu=name,compute_cap,memory.total",
        "--format=csv,noheader,nounits",
    )
    answer = ask(query)
    lines = [line.split(", ") for line in answer.out.splitlines() if line.count(", ") == 2]
    if answer.trouble.startswith("there is no") or "No devices" in answer.out + answer.err:
        return note("none here: trainings run on the processor")
    if answer.trouble or not lines:
        return warning(
            answer.trouble or "nvidia-smi lists none", "see what this says: nvidia-smi", gpus=[]
        )
    found = ", ".join(
        f"{name} (capability {capability}, {float(mib) / 1024:.0f} GiB)"
        for name, capability, mib in lines
    )
    if any(numbers(capability) < (8, 0) for _, capability, _ in lines):
        return warning(f"{found}: bf16 needs capability 8.0", FP32, gpus=lines)
    return ok(f"{found}, with bf16", gpus=lines)


CHECKS = (
    Check("python", python, 5, "python3 --version"),
    Check("versions", versions, 20, "python -m pip list"),
    Check("cores", cores, 5, "nproc"),
    Check("memory", memory, 5, "free -g"),
    Check("threads", threads, 5, "echo $OMP_NUM_THREADS"),
    Check("processor", processor, 5, "lscpu"),
    Check("GPU", gpu, 30, "nvidia-smi"),
)
