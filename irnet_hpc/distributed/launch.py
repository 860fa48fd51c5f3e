"""Find out what started this process, its rank, the number of ranks, and its share of the cores."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError

# The choices of --device and --engine; here, since parsers of options must not wait for torch.
DEVICES = ("auto", "cpu", "cuda")
ENGINES = ("auto", "horovod", "torch", "none")


class Launch(NamedTuple):
    """The place of one rank in a launch of several ranks."""

    launcher: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    n_nodes: int
    # Identifies this launch, the same on every rank and never used twice: it names the address
    # file.
    name: str
    # The ranks on each node; empty: as many on each as on this one.
    tasks: tuple[int, ...] = ()


# launcher, then the variables of rank, size, local rank, local size, node, number of nodes, and
# those that name the launch. The first whose rank is set wins: the innermost launcher, since `srun`
# may start `mpirun`, never the other way round.
LAUNCHERS = (
    (
        *("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
        *("HOROVOD_CROSS_RANK", "HOROVOD_CROSS_SIZE"),
        ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
    ),
    (
        *("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        *("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "", ""),
        ("PMIX_NAMESPACE", "OMPI_MCA_orte_hnp_uri"),
    ),
    (
        *("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "", ""),
        ("SLURM_JOB_ID", "SLURM_STEP_ID"),
    ),
    (
        *("torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        *("GROUP_RANK", "GROUP_WORLD_SIZE"),
        ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"),
    ),
    (
        *("submitit", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS"),
        *("SUBMITIT_LOCAL_LOCALID", "SUBMITIT_LOCAL_NTASKS", "", ""),
        ("SUBMITIT_LOCAL_JOB_ID",),
    ),
    (
        *("srun", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", ""),
        *("SLURM_NODEID", "SLURM_NNODES"),
        ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
    ),
)
# The variables that say how many tasks a SLURM step or job has.
STEP_SIZES, JOB_SIZES = ("SLURM_STEP_NUM_TASKS",), ("SLURM_NTASKS", "SLURM_NPROCS")
# The ranks and sizes of launchers that are not known here, or whose other variables did not arrive
# (in a container, say).
FOREIGN = (
    ("PMIX_RANK", ""),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("PALS_RANKID", ""),
    ("ALPS_APP_PE", ""),
)


def detect(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launch that this process belongs to; None if no launcher started it.

    Args:
        environment: The environment variables of the process.

    Raises:
        UserError: If a launcher's variables are incomplete, not numbers, or contradict each other.
    """
    for launcher, rank, size, local_rank, local_size, node, n_nodes, names in LAUNCHERS:
        if launcher == "srun":
            return _slurm_step(environment)
        if rank not in environment and size not in environment:
            continue
        # MPICH's mpiexec; srun, too, may set PMI_RANK.
        if launcher == "mpiexec" and local_rank not in environment:
            continue
        if missing := [name for name in (rank, size) if name not in environment]:
            present = size if missing == [rank] else rank
            raise UserError(
                f"{missing[0]} must be set where {present} is, got none; start the ranks with "
                f"{launcher}, or unset {present}"
            )
        n_ranks, n_local = _number(environment, size, 1), _number(environment, local_size, 1)
        launch = Launch(
            launcher,
            rank=_number(environment, rank, 0),
            size=n_ranks,
            local_rank=_number(environment, local_rank, 0),
            local_size=n_local,
            node=_number(environment, node, 0),
            n_nodes=_number(environment, n_nodes, -(-n_ranks // max(1, n_local))),
            name=_name_of(environment, names),
        )
        if not (launch.rank < n_ranks and launch.local_rank < n_local):
            raise UserError(
                f"{rank} must be less than {size} and {local_rank} less than {local_size}, got "
                f"{launch.rank} of {n_ranks} and {launch.local_rank} of {n_local}"
            )
        return launch
    raise AssertionError("srun is the last of LAUNCHERS")


def _slurm_step(environment: Mapping[str, str]) -> Launch | None:
    """Return the launch of a task of a SLURM step; None in a batch script and outside of jobs.

    SLURM 22.05 sets SLURM_PROCID=0 in a batch script, and does not set it in a shell of salloc.
    """
    place = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    rank, local_rank, node = (_number(environment, name, 0) for name in place)
    in_step = any(name in environment for name in ("SLURM_STEP_ID", "SLURM_STEPID", *STEP_SIZES))
    if "SLURM_PROCID" not in environment or not (in_step or rank):
        return None
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    stated_by = next((name for name in names if environment.get(name)), "")
    text, tasks = environment.get(stated_by), numbers_per_node(environment, stated_by)
    stated = [_number(environment, name, 0) for name in STEP_SIZES + JOB_SIZES]
    size = next(filter(None, stated), sum(tasks))
    if not tasks and (size == 1 or _number(environment, "SLURM_NNODES", 0) == 1):
        tasks = [size]
    is_possible = sum(tasks) == size and rank < size
    # The components of a heterogeneous job number their nodes and tasks separately unless one srun
    # starts them all.
    if not (is_possible and node < len(tasks) and local_rank < tasks[node]):
        which = "component of a heterogeneous job" if "SLURM_HET_SIZE" in environment else "step"
        raise UserError(
            f"the variables of a SLURM {which} must agree, got task {rank} of {size}, which is "
            f"task {local_rank} of node {node}, and {text or 'no number of'} tasks per node; start "
            "all ranks with one srun, which must pass on all SLURM variables"
        )
    return Launch(
        "srun",
        # Ranks in node order whatever the distribution, so that they agree with the plan of the
        # rendezvous.
        rank=sum(tasks[:node]) + local_rank,
        size=size,
        local_rank=local_rank,
        local_size=tasks[node],
        node=node,
        n_nodes=len(tasks),
        name=_name_of(environment, LAUNCHERS[-1][-1]),
        tasks=tuple(tasks),
    )


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    """Return the whole number in a variable, or the default if the variable is not set."""
    text = environment.get(variable) if variable else None
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UserError(
            f"{variable} must be a whole number, got {text!r}; start the ranks with a launcher "
            "that passes on its variables, or unset it"
        )
    return int(text)


def _name_of(environment: Mapping[str, str], names: Sequence[str]) -> str:
    return "-".join(re.sub(r"\W+", "_", environment.get(name, "0")) for name in names)


def check_alone(where: Launch | None, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError if this is the only process of a job that asks for several.

    Otherwise N copies of one training, or one process instead of N, would train.

    Args:
        where: The result of detect().
        environment: The environment variables of the process.

    Raises:
        UserError: If the SLURM job asks for several tasks and no launcher started this process, or
            if a launcher started several whose variables this package does not know.
    """
    if where and (where.launcher != "srun" or where.size > 1):
        return
    variable, n_tasks = _asked_tasks(environment)
    if n_tasks > 1:
        raise UserError(
            f"size must equal {variable}, got 1 and {n_tasks}; start the ranks with srun, mpirun "
            "or horovodrun, or train alone with --engine none"
        )
    check_launcher(where, environment)


def check_launcher(where: Launch | None, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError if a launcher that this package does not know started several processes.

    Args:
        where: The result of detect().
        environment: The environment variables of the process.
    """
    for rank, size in FOREIGN:
        if where is None and rank in environment and environment.get(size) != "1":
            how_many = environment.get(size) or "an unknown number of"
            raise UserError(
                f"{rank} says that this process is one of {how_many} processes, whose launcher is "
                f"not known here; start the ranks with srun, mpirun or horovodrun, or unset {rank} "
                "if there is only this one"
            )


def _asked_tasks(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return the number of tasks that a SLURM job requests, and the variable that states it.

    SLURM 22.05 sets SLURM_NTASKS and SLURM_NPROCS where --ntasks or --ntasks-per-node was given.
    Otherwise srun starts one task on each node, and SLURM_TASKS_PER_NODE says how many would fit:
    on a node that was requested as a whole (--exclusive), as many as it has processors. In the
    shell of an interactive step (LaunchParameters=use_interactive_step) these variables describe
    the job, while SLURM_STEP_NUM_TASKS is 1.
    """
    sizes = STEP_SIZES + JOB_SIZES
    counts = {name: _number(environment, name, 0) for name in sizes if name in environment}
    if not counts.keys() & set(JOB_SIZES):
        names = ("SLURM_NNODES", "SLURM_JOB_NUM_NODES")
        nodes = next((name for name in names if name in environment), names[0])
        counts[nodes] = n_nodes = _number(environment, nodes, 1)
        if per_node := _number(environment, "SLURM_NTASKS_PER_NODE", 0):
            counts["SLURM_NTASKS_PER_NODE"] = per_node * n_nodes
        if tasks := numbers_per_node(environment, "SLURM_TASKS_PER_NODE"):
            per_task = max(1, _number(environment, "SLURM_CPUS_PER_TASK", 1))
            cpus = numbers_per_node(environment, "SLURM_JOB_CPUS_PER_NODE")
            fitting = [n // per_task for n in cpus]
            counts["SLURM_TASKS_PER_NODE"] = len(tasks) if tasks == fitting else sum(tasks)
    return max(counts.items(), key=lambda item: item[1])


def check_size(size: int, where: Launch | None) -> None:
    """Raise UserError unless the engine found as many ranks as were started.

    Otherwise N processes would train N copies of one training.
    """
    if where and where.size != size:
        raise UserError(
            f"the engine must find as many ranks as {where.launcher} started, got {size} and "
            f"{where.size}; this Horovod may be built for another launcher (see srun --mpi=list), "
            "so use --engine torch"
        )


def numbers_per_node(environment: Mapping[str, str], variable: str) -> list[int]:
    """Expand SLURM's shorthand, e.g. "2(x2),1" to [2, 2, 1]; empty if the variable is not set."""
    numbers: list[int] = []
    if not (text := environment.get(variable)):
        return numbers
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,6})\))?", part)
        if not match:
            raise UserError(f"{variable} must be like 2(x2),1, got {text!r}")
        numbers += [int(match[1])] * int(match[2] or 1)
    return numbers


def n_threads(where: Launch | None, environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of threads for this process.

    This is the user's number if there is one; else the number of cores that the launcher has bound
    this rank to; else the scheduler's number, but no more than the cores that this process may use;
    else this rank's share of the node's cores.

    Args:
        where: The launch, or None.
        environment: The environment variables of the process.
    """
    stated = stated_threads(environment)
    if stated is not None and not _is_of_torchrun(where, stated):
        return stated
    cores = os.sched_getaffinity(0)
    n_local = where.local_size if where else 1
    if where and _is_bound(where, cores, environment):
        return len(cores)
    per_task = environment.get("SLURM_CPUS_PER_TASK", "")
    if where and where.launcher == "srun" and per_task.isdecimal() and int(per_task):
        return min(int(per_task), len(cores))
    # Not every SLURM binds tasks to the processors that it has given to them.
    given = environment.get("SLURM_CPUS_ON_NODE", "") if "SLURM_JOB_ID" in environment else ""
    n_cores = min(len(cores), int(given)) if given.isdecimal() and int(given) else len(cores)
    return max(1, n_cores // n_local)


def stated_threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the number of threads in OMP_NUM_THREADS; None if it states none."""
    # A list gives a number per level of nested parallelism; ours is the outermost.
    text = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(text) if text.isdecimal() and int(text) else None


def _is_of_torchrun(where: Launch | None, stated: int) -> bool:
    """Return True if torchrun, not the user, set OMP_NUM_THREADS.

    torchrun (torch 2.13) sets it to 1 for several processes on a node if it is not set already.
    """
    if not where or where.launcher != "torchrun" or stated != 1:
        return False
    try:
        began_with = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in began_with)


def _is_bound(where: Launch, cores: set[int], environment: Mapping[str, str]) -> bool:
    """Return True if the launcher has bound this rank to its own share of the cores.

    mpirun binds ranks unless told otherwise; Open MPI 4.1 says so in OMPI_MCA_orte_bound_at_launch.
    Other launchers set no such variable; then the rank is bound if its parent process may use more
    cores than the rank.
    """
    if where.launcher == "mpirun" and environment.get("OMPI_MCA_orte_bound_at_launch") == "1":
        return True
    try:
        return cores < os.sched_getaffinity(os.getppid())
    except OSError:
        return False
