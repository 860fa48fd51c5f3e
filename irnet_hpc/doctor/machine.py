"""Check this machine: Python, library versions, cores, memory, threads, bf16 and GPUs."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from irnet_hpc.doctor.checks import Check, Settings, Verdict, failure, note, ok, warning
from irnet_hpc.doctor.commands import ask

REPOSITORY = Path(__file__).parents[2]
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)  # the tested range
# Memory that one rank takes: with torch loaded, and with a large pack as well.
MIN_FREE_GB, GOOD_FREE_GB = 1.0, 4.0
# Flag in /proc/cpuinfo -> the unit of the processor that computes in bf16.
BF16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "bf16": "BF16 of ARM"}
BF16_CAPABILITY = (8, 0)  # lowest CUDA compute capability of GPUs that compute in bf16
USE_FP32 = (
    "use fp32, which is faster here: python -m irnet_hpc.train --recipe "
    "'{name: fp32, base: onecycle, precision: fp32}' ..., or the same recipe in a matrix"
)
SHOW_MEMORY_USERS = "see which processes use memory: ps aux --sort=-rss | head"


def check_python(_: Settings) -> Verdict:
    """Check that this Python is one of the tested versions."""
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        oldest, newest = (".".join(map(str, v)) for v in (OLDEST_PYTHON, NEWEST_PYTHON))
        return failure(
            f"Python must be {oldest} to {newest}, got {found}",
            "make an environment with another Python: "
            f"IRNET_PYTHON=python{newest} bash env/setup.sh",
        )
    return ok(found)


def required_versions() -> dict[str, str]:
    """Return the lowest version of each required library that is allowed.

    The versions come from setup.cfg in a clone, otherwise from the metadata of the installed
    package.
    """
    # Imported here and below, so that --help does not wait for it.
    import configparser
    import importlib.metadata

    configuration = configparser.ConfigParser()
    is_repository = configuration.read(REPOSITORY / "setup.cfg") and (
        configuration.get("metadata", "name") == "irnet_hpc"
    )
    if is_repository:
        lines = configuration.get("options", "install_requires").splitlines()
    else:
        requirements = importlib.metadata.requires("irnet_hpc") or []
        lines = [line for line in requirements if "extra ==" not in line]
    matches = [re.match(r"([\w.-]+) *>=? *([\d.]+)", line) for line in lines]
    return {canonical_name(match[1]): match[2] for match in matches if match}


def pinned_versions() -> dict[str, str]:
    """Return the version of each library that env/setup.sh installs; empty outside a clone."""
    path = REPOSITORY / "env" / "requirements-cpu.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pins = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return {canonical_name(name): version for name, version in pins}


def canonical_name(name: str) -> str:
    """Return a library's name in the form in which names are compared (PEP 503), such as jinja2."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_version(name: str) -> str | None:
    """Return the installed version of a library, or None if it is missing."""
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def version_numbers(version: str) -> tuple[int, ...]:
    """Convert a version to numbers, without its local part: 2.13.0+cpu becomes (2, 13, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def check_versions(_: Settings) -> Verdict:
    """Check that every required library is installed and new enough. List untested versions."""
    required, pinned = required_versions(), pinned_versions()
    installed = {name: installed_version(name) for name in required | pinned}
    problems, untested = [], {}
    for name, lowest in required.items():
        version = installed[name]
        if version is None:
            problems.append(f"{name} is missing")
        elif version_numbers(version) < version_numbers(lowest):
            problems.append(f"{name} must be at least {lowest}, got {version}")
        elif name in pinned and version_numbers(version) != version_numbers(pinned[name]):
            untested[name] = version
    todo = "bash env/setup.sh installs the tested versions"
    if problems:
        return failure("; ".join(problems), todo, versions=installed)
    remark = ""
    if torch := untested.pop("torch", None):  # env/setup.sh keeps a torch that fits the driver
        remark = f"; torch {torch} is the machine's own (tested: {pinned['torch']}), which is fine"
    if untested:
        names = ", ".join(
            f"{name} {version} ({pinned[name]})" for name, version in untested.items()
        )
        return warning(
            f"versions other than the tested ones (in brackets): {names}{remark}",
            todo,
            versions=installed,
        )
    state = "as tested" if pinned else "new enough"
    found = f"{len(required)} libraries {state}, torch {installed['torch']}{remark}"
    return ok(found, versions=installed)


# ---------------------------------------------------------------------- what the kernel allows


def usable_cores() -> tuple[float, str]:
    """Return the number of cores that this process may use, and a phrase that explains it."""
    from irnet_hpc.distributed.memory import cgroup_limits

    affinity, (quota, _) = len(os.sched_getaffinity(0)), cgroup_limits()
    if quota is not None and quota < affinity:
        return quota, f"{quota:g}, the control group's quota, of {affinity} in the affinity mask"
    return affinity, f"{affinity} of the machine's {os.cpu_count()}"


def check_cores(_: Settings) -> Verdict:
    """Check that a process would not start more threads than it has cores."""
    n_cores, explanation = usable_cores()
    if n_cores < len(os.sched_getaffinity(0)) and "OMP_NUM_THREADS" not in os.environ:
        return warning(
            f"{explanation}: a process would start more threads than it has cores",
            f"export OMP_NUM_THREADS={max(1, int(n_cores))}",
            n=n_cores,
        )
    return ok(explanation, n=n_cores)


def check_memory(_: Settings) -> Verdict:
    """Check that the free memory, within the control group's limit, is enough for a rank."""
    from irnet_hpc.distributed.memory import cgroup_limits

    lines = Path("/proc/meminfo").read_text().splitlines()
    gb = {line.partition(":")[0]: int(line.split()[1]) * 1024e-9 for line in lines}
    limit_gb = cgroup_limits()[1]
    free_gb = min(gb["MemAvailable"], limit_gb or float("inf"))
    found = f"{free_gb:.1f} GB free of {gb['MemTotal']:.1f} GB"
    if limit_gb:
        found += f", the control group allows {limit_gb:.1f} GB"
    if free_gb < MIN_FREE_GB:
        return failure(f"{found}, less than one rank needs", SHOW_MEMORY_USERS, gb=free_gb)
    if free_gb < GOOD_FREE_GB:
        return warning(f"{found}: enough only for small packs", SHOW_MEMORY_USERS, gb=free_gb)
    return ok(found, gb=free_gb)


def check_threads(_: Settings, environment: Mapping[str, str] = os.environ) -> Verdict:
    """Check that OMP_NUM_THREADS, if it is set, is not more than the number of cores."""
    n_cores = usable_cores()[0]
    value = environment.get("OMP_NUM_THREADS")
    if value is None:
        return ok("OMP_NUM_THREADS is not set: each rank takes its share of the cores")
    outermost = value.partition(",")[0].strip()  # a list has a number for each level of nesting
    if not outermost.isdecimal() or not int(outermost):
        return warning(
            f"OMP_NUM_THREADS must be a positive whole number, got {value!r}",
            "unset OMP_NUM_THREADS",
        )
    if int(outermost) > n_cores:
        return warning(
            f"OMP_NUM_THREADS is {outermost}, more than the {n_cores:g} cores: threads would wait "
            "for each other",
            "unset OMP_NUM_THREADS; each rank then takes its share of the cores",
        )
    return ok(f"OMP_NUM_THREADS={value}, for each rank")


def check_processor(_: Settings, cpuinfo: str | None = None) -> Verdict:
    """Check that the processor computes in bf16, the precision of the default recipe."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M)
    model = re.search(r"^model name\s*: *(.*)$", text, re.M)
    name = model[1].strip() if model else "this processor"
    known = set(flags[1].split()) if flags else set()
    if units := [unit for flag, unit in BF16_UNITS.items() if flag in known]:
        return ok(f"{name} computes in bf16 ({', '.join(units)})")
    return note(f"{name} does not compute in bf16, the default recipe's precision", USE_FP32)


def check_gpu(_: Settings) -> Verdict:
    """Check the GPUs that nvidia-smi lists.

    The checks of the engine test whether torch sees them.
    """
    query = "--query-gpu=name,compute_cap,memory.total"
    answer = ask(("nvidia-smi", query, "--format=csv,noheader,nounits"))
    gpus = [line.split(", ") for line in answer.out.splitlines() if line.count(", ") == 2]
    if answer.is_missing or "No devices" in answer.out + answer.err:
        return note("none here: trainings run on the processor")
    if answer.trouble or not gpus:
        found = answer.trouble or "nvidia-smi lists no GPU"
        return warning(found, "see what this prints: nvidia-smi", gpus=[])
    found = ", ".join(
        f"{name} (capability {capability}, {float(mib) / 1024:.0f} GiB)"
        for name, capability, mib in gpus
    )
    if "MIG " in ask(("nvidia-smi", "-L")).out:
        # NCCL 2.29 takes the instances of a GPU for one GPU, and refuses.
        found += "; divided into MIG instances, of which a training of several ranks cannot use two"
    if any(version_numbers(capability) < BF16_CAPABILITY for _, capability, _ in gpus):
        return warning(f"{found}: bf16 needs capability 8.0", USE_FP32, gpus=gpus)
    return ok(f"{found}, with bf16", gpus=gpus)


CHECKS = (
    Check("python", check_python, 5, "python3 --version"),
    Check("versions", check_versions, 20, "python -m pip list"),
    Check("cores", check_cores, 5, "nproc"),
    Check("memory", check_memory, 5, "free -g"),
    Check("threads", check_threads, 5, "echo $OMP_NUM_THREADS"),
    Check("processor", check_processor, 5, "lscpu"),
    Check("GPU", check_gpu, 30, "nvidia-smi"),
)
