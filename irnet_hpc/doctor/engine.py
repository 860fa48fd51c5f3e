"""Checks of the engine: torch, Horovod, MPI and NCCL are of one mind, and ranks find each other and sum rightly."""

import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence

from irnet_hpc.doctor.checks import (
    Answer,
    Check,
    Settings,
    Verdict,
    ask,
    failure,
    note,
    ok,
    warning,
)

CHILD_S = 120.0  # a cold torch on a network file system takes most of it; here it is seconds
REBUILD = "bash env/setup.sh builds Horovod against this torch and this MPI"
ALONE = "until then: python -m irnet_hpc.sweep run --ranks 1"
# Fewer cores than ranks must not be what a check fails of: Open MPI 4 and 5; others do not look.
CROWDED = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def said(answer: Answer) -> dict:
    """The JSON objects among a child's lines as one; launchers put their own words before and between them."""
    facts: dict = {}
    for line in answer.out.splitlines():
        if (start := line.find('{"')) >= 0:
            try:
                facts |= json.loads(line[start:])
            except ValueError:
                continue
    return facts


def child(
    what: Sequence[object], launcher: Sequence[str] = (), more: Mapping[str, str] | None = None
) -> tuple[dict, str]:
    """What a child of ours found, and what went wrong, with the stage at which it did; ours alone, and part of no job."""
    from irnet_hpc.sweep.jobs import outside_any_job

    with outside_any_job():
        environment = os.environ | (more or {})
    command = [*launcher, sys.executable, "-m", "irnet_hpc.doctor.probes", *what]
    answer = ask(command, CHILD_S, environment)
    facts = said(answer)
    trouble = answer.trouble
    if trouble and facts.get("stage"):
        trouble = f"{facts['stage']}: {trouble}"
    return facts, trouble


@functools.cache
def libraries() -> tuple[dict, str]:
    return child(["libraries"])


def horovod(_: Settings) -> Verdict:
    facts, trouble = libraries()
    if trouble:
        return failure(
            f"cannot be loaded with this torch: {trouble}", f"{REBUILD}; {ALONE}", **facts
        )
    built = facts["built"]
    words = f"Horovod {facts['horovod']} on torch {facts['torch']} with {', '.join(n for n, is_in in built.items() if is_in)}"
    if not built["gloo"]:
        return warning(f"{words}, without Gloo: ranks meet under mpirun only", REBUILD, **facts)
    return ok(words, **facts)


def mpi(_: Settings) -> Verdict | None:
    """One MPI library in the process; without any there is still Gloo."""
    facts, trouble = libraries()
    if trouble:
        return None  # has been said
    if "no_mpi" in facts:
        return note(
            f"none that mpi4py finds: trainings meet over Gloo, packing uses --workers ({facts['no_mpi']})"
        )
    if not facts["built"]["mpi"]:
        return note(f"{facts['mpi']} for packing; Horovod is built without MPI and meets over Gloo")
    if len(facts["libmpi"]) != 1:
        return failure(
            f"mpi4py and Horovod must share one MPI library, however: {', '.join(facts['libmpi']) or 'none is loaded'}",
            f"load the MPI module that is meant, then: {REBUILD.partition(' builds')[0]}",
        )
    return ok(f"{facts['mpi']}, one library for mpi4py and Horovod ({facts['libmpi'][0]})")


def nccl(_: Settings) -> Verdict | None:
    """Where there is a GPU, torch sees it and Horovod sums on it."""
    facts, trouble = libraries()
    if trouble:
        return None
    if not facts["n_gpus"]:
        answer = ask(("nvidia-smi", "-L"))
        if answer.trouble or "GPU" not in answer.out:
            return None  # no GPU
        return warning(
            f"torch {facts['torch']} sees no GPU where nvidia-smi does: trainings would run on the processor",
            "bash env/setup.sh --cuda installs a torch with CUDA; is CUDA_VISIBLE_DEVICES empty? echo $CUDA_VISIBLE_DEVICES",
        )
    if not facts["built"]["nccl"]:
        return warning(
            "Horovod is built without NCCL: gradients on GPUs would be summed through the processor",
            "load the CUDA module of torch's version, so that nvcc is on PATH, then: bash env/setup.sh --cuda",
        )
    if len(facts["libnccl"]) > 1:
        return failure(
            f"torch and Horovod must share one NCCL, however: {', '.join(facts['libnccl'])}",
            "unset HOROVOD_NCCL_HOME, then: bash env/setup.sh --cuda builds Horovod with torch's own",
        )
    return ok(
        f"torch sees {facts['n_gpus']} GPUs, Horovod has NCCL ({', '.join(facts['libnccl']) or 'linked in'})"
    )


def of_sum(facts: dict, size: int, todo: str) -> Verdict:
    """The verdict on an allreduce over `size` ranks."""
    words = f"{facts['size']} ranks, {facts['engine']}, {facts['device']}: {facts['mb_per_s']:,.0f} MB/s"
    words = words if facts["size"] > 1 else "one rank, which sums alone"
    if facts["size"] != size:
        return failure(
            f"{size} ranks were started, however: the engine found {facts['size']}", todo, **facts
        )
    if not facts["right"]:
        return failure(f"{words}, but sums are wrong: nothing may be trained here", todo, **facts)
    return ok(f"{words}, sums are right", **facts)


def _two_ranks(
    launcher: Sequence[str], todo: str, more: Mapping[str, str] | None = None
) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="irnet-doctor-") as folder:
        facts, trouble = child(["ranks", folder], launcher, {"OMP_NUM_THREADS": "1"} | (more or {}))
    if trouble:
        return failure(trouble, todo)
    return of_sum(facts, 2, todo)


def over_gloo(_: Settings) -> Verdict:
    """As `sweep run` starts its cells."""
    from irnet_hpc.sweep.local import horovodrun

    launcher = horovodrun(2)  # says in a sentence where there is none
    return _two_ranks(
        launcher, f"by hand: horovodrun --gloo -np 2 python env/proof.py gloo; {ALONE}"
    )


def over_mpi(_: Settings) -> Verdict | None:
    facts, trouble = libraries()
    if trouble or not facts["built"]["mpi"] or not shutil.which("mpirun"):
        return None
    verdict = _two_ranks(
        ["mpirun", "-np", "2"],
        "by hand: source env/activate.sh; mpirun -np 2 python env/proof.py mpi",
        CROWDED,
    )
    # Nothing that a sweep starts needs it: its ranks meet over TCP unless the site says --mpi.
    return verdict._replace(level="warning") if verdict.level == "failure" else verdict


def allocation(settings: Settings) -> Verdict | None:
    """Inside a job: the tasks of srun are the ranks, all of them, as many as SLURM_NTASKS."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    stated = (
        list(getattr(settings.site, "srun_args", ()))
        or os.environ.get("IRNET_SRUN_ARGS", "").split()
    )
    launcher = ["srun", "--overlap", "--kill-on-bad-exit=1", *stated]
    todo = "see what MPI this srun knows: srun --mpi=list; then IRNET_SRUN_ARGS=--mpi=pmix, or none for TCP"
    folder = settings.trial
    environment = os.environ | {"SRUN_CPUS_PER_TASK": os.environ.get("SLURM_CPUS_PER_TASK", "1")}
    command = [
        *launcher,
        sys.executable,
        "-m",
        "irnet_hpc.doctor.probes",
        "ranks",
        folder,
        "--engine",
        "auto",
    ]
    try:
        answer = ask(command, CHILD_S, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if answer.trouble:
        return failure(answer.trouble, todo)
    facts = said(answer)
    return of_sum(facts, int(os.environ.get("SLURM_NTASKS") or facts["size"]), todo)


CHECKS = (
    Check("Horovod", horovod, CHILD_S + 20, "python -c 'import horovod.torch'"),
    Check("MPI", mpi, CHILD_S + 20, "python -m irnet_hpc.doctor.probes libraries"),
    Check("NCCL", nccl, CHILD_S + 20, "python -m irnet_hpc.doctor.probes libraries"),
    Check("two ranks", over_gloo, CHILD_S + 20, "horovodrun --gloo -np 2 python env/proof.py gloo"),
    Check("under mpirun", over_mpi, CHILD_S + 20, "mpirun -np 2 python env/proof.py mpi"),
    Check("allocation", allocation, CHILD_S + 20, "srun hostname"),
)
