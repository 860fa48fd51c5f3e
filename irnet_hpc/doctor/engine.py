"""Check that torch, Horovod, MPI and NCCL fit together, and that sums over ranks are right."""

import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence

from irnet_hpc.doctor.checks import Check, Level, Settings, Verdict, failure, note, ok, warning
from irnet_hpc.doctor.commands import Answer, ask

# Most of this time is for the import of torch from a network file system that has not cached it.
# From a local disk the import takes seconds.
PROBE_S = 120.0
CHECK_S = PROBE_S + 20
SETUP = "bash env/setup.sh"
REBUILD = f"{SETUP} builds Horovod against this torch and this MPI"
ONE_RANK = "until then: python -m irnet_hpc.sweep run --ranks 1"
# Variables that let mpirun start more ranks than there are cores: first for Open MPI 4, then for
# Open MPI 5. MPICH always allows it.
OVERSUBSCRIBE = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def printed_facts(answer: Answer) -> dict:
    """Merge the JSON objects that a probe printed.

    Other lines, such as a launcher's, are ignored.
    """
    facts: dict = {}
    for line in answer.out.splitlines():
        if (start := line.find('{"')) >= 0:
            try:
                facts |= json.loads(line[start:])
            except ValueError:
                continue
    return facts


def run_probe(
    arguments: Sequence[object],
    launcher: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> tuple[dict, str]:
    """Run a probe in separate processes, without the SLURM variables of any job.

    Args:
        arguments: The arguments of `python -m irnet_hpc.doctor.probes`.
        launcher: The command that starts the ranks of the probe, such as horovodrun.
        variables: Environment variables to set.

    Returns:
        The facts that the probe printed; and the reason if it failed, which begins with the stage
        that failed (empty if the probe succeeded).
    """
    from irnet_hpc.sweep.jobs import outside_any_job

    with outside_any_job():
        environment = os.environ | (variables or {})
    command = [*launcher, sys.executable, "-m", "irnet_hpc.doctor.probes", *arguments]
    answer = ask(command, PROBE_S, environment)
    facts, trouble = printed_facts(answer), answer.trouble
    if trouble and facts.get("stage"):
        trouble = f"{facts['stage']}: {trouble}"
    return facts, trouble


@functools.cache
def probe_libraries() -> tuple[dict, str]:
    """Load MPI, torch and Horovod in a separate process, once for all checks."""
    return run_probe(["libraries"])


def is_absent(facts: Mapping[str, object]) -> bool:
    """Return True if Horovod is not installed. Trainings on one rank do not need it."""
    return facts.get("horovod", "") is None


def check_horovod(_: Settings) -> Verdict:
    """Check that Horovod loads with this torch, and that its ranks can meet over Gloo.

    If it is not installed, this is a warning that says what would run.
    """
    facts, trouble = probe_libraries()
    if trouble:
        todo = f"{REBUILD}; {ONE_RANK}"
        return failure(f"cannot be loaded with this torch: {trouble}", todo, **facts)
    if is_absent(facts):
        return warning(
            "not installed: every cell runs on one rank, networks and classical models alike; "
            "several ranks need Horovod or torchrun",
            f"for several ranks: {SETUP} builds and installs it; on one rank nothing is missing: "
            "python -m irnet_hpc.sweep run --ranks 1",
            **facts,
        )
    built = ", ".join(name for name, is_built in facts["built"].items() if is_built)
    found = f"Horovod {facts['horovod']} on torch {facts['torch']} with {built}"
    if not facts["built"]["gloo"]:
        return warning(f"{found}, without Gloo: ranks can meet only under mpirun", REBUILD, **facts)
    return ok(found, **facts)


def check_mpi(_: Settings) -> Verdict | None:
    """Check that mpi4py and Horovod load the same MPI library.

    Without MPI, ranks meet over Gloo, so a missing MPI is only a note.
    """
    facts, trouble = probe_libraries()
    if trouble:
        return None  # reported by check_horovod
    if "no_mpi" in facts:
        return note(
            "mpi4py finds no MPI library: the ranks of a training meet over Gloo, and packing uses "
            f"--workers ({facts['no_mpi']})"
        )
    if is_absent(facts):
        return note(f"{facts['mpi']}, for packing only: Horovod is not installed")
    if not facts["built"]["mpi"]:
        return note(
            f"{facts['mpi']}, for packing only: Horovod is built without MPI, so its ranks meet "
            "over Gloo"
        )
    if len(facts["libmpi"]) != 1:
        return failure(
            "mpi4py and Horovod must share one MPI library, got "
            f"{', '.join(facts['libmpi']) or 'none'}",
            f"load the right MPI module, then: {SETUP}",
        )
    return ok(f"{facts['mpi']}, one library for mpi4py and Horovod ({facts['libmpi'][0]})")


def check_nccl(_: Settings) -> Verdict | None:
    """Check that torch sees the GPUs and that Horovod sums on them. Without a GPU, return None."""
    facts, trouble = probe_libraries()
    if trouble:
        return None
    if not facts["n_gpus"]:
        answer = ask(("nvidia-smi", "-L"))
        if answer.trouble or "GPU" not in answer.out:
            return None
        why = facts.get("why_no_gpu") or "it is built without CUDA"
        return warning(
            f"nvidia-smi lists a GPU, but torch {facts['torch']} sees none ({why}): trainings "
            "would run on the processor, and cells that ask for a GPU would fail",
            f"{SETUP} --cuda installs a torch with CUDA; a driver that is too old must be made "
            "newer; also check that CUDA_VISIBLE_DEVICES is not set to an empty text: "
            "echo $CUDA_VISIBLE_DEVICES",
        )
    if is_absent(facts):
        return ok(f"torch sees {facts['n_gpus']} GPUs, one for each cell of one rank")
    if not facts["built"]["nccl"]:
        return warning(
            "Horovod is built without NCCL: gradients on GPUs would be summed by the processor",
            f"{SETUP} --cuda, with nvcc on PATH (a CUDA module of torch's CUDA) or a network from "
            "which pip gets nvcc; or --engine torch, which has NCCL",
        )
    if len(facts["libnccl"]) > 1:
        return failure(
            f"torch and Horovod must share one NCCL library, got {', '.join(facts['libnccl'])}",
            f"unset HOROVOD_NCCL_HOME, then: {SETUP} --cuda builds Horovod with torch's own",
        )
    library = ", ".join(facts["libnccl"]) or "linked statically"
    return ok(f"torch sees {facts['n_gpus']} GPUs, Horovod has NCCL ({library})")


def judge_sum(facts: dict, size: int, todo: str) -> Verdict:
    """Make a verdict from the facts that `probes.allreduce` measured on `size` ranks."""
    speed = f"{facts['engine']}, {facts['device']}: {facts['mb_per_s']:,.0f} MB/s"
    found = (
        f"{facts['size']} ranks, {speed}"
        if facts["size"] > 1
        else "one rank, so there is nothing to sum"
    )
    if facts["size"] != size:
        return failure(f"started {size} ranks, but the engine sees {facts['size']}", todo, **facts)
    if not facts["right"]:
        return failure(f"{found}, but sums are wrong: do not train here", todo, **facts)
    return ok(f"{found}, sums are right", **facts)


def _check_two_ranks(
    launcher: Sequence[str], todo: str, variables: Mapping[str, str] | None = None
) -> Verdict:
    variables = {"OMP_NUM_THREADS": "1"} | dict(variables or {})
    with tempfile.TemporaryDirectory(prefix="irnet-doctor-") as folder:
        facts, trouble = run_probe(["ranks", folder], launcher, variables)
    return failure(trouble, todo) if trouble else judge_sum(facts, 2, todo)


def check_gloo(_: Settings) -> Verdict | None:
    """Check a sum over two ranks, started in the same way as the cells of `sweep run`."""
    if is_absent(probe_libraries()[0]):
        return None
    from irnet_hpc.sweep.cell_process import horovodrun

    launcher = horovodrun(2)  # raises UserError if horovodrun is not installed
    proof = "horovodrun --gloo -np 2 python env/proof.py gloo"
    return _check_two_ranks(launcher, f"by hand: {proof}; {ONE_RANK}")


def check_mpirun(_: Settings) -> Verdict | None:
    """Check a sum over two ranks that mpirun starts, if Horovod is built with MPI.

    A failure counts only as a warning: sweeps use MPI only if the site's srun options say --mpi.
    """
    facts, trouble = probe_libraries()
    if trouble or is_absent(facts) or not facts["built"]["mpi"] or not shutil.which("mpirun"):
        return None
    todo = "by hand: source env/activate.sh; mpirun -np 2 python env/proof.py mpi"
    verdict = _check_two_ranks(["mpirun", "-np", "2"], todo, OVERSUBSCRIBE)
    return verdict._replace(level=Level.WARNING) if verdict.level == Level.FAILURE else verdict


def check_allocation(settings: Settings) -> Verdict | None:
    """Check, if called in a SLURM job, that each of its SLURM_NTASKS tasks becomes a rank."""
    if "SLURM_JOB_ID" not in os.environ or is_absent(probe_libraries()[0]):
        return None
    site_options = settings.site.srun_args if settings.site else ()
    options = list(site_options) or os.environ.get("IRNET_SRUN_ARGS", "").split()
    todo = (
        "see which MPI types this srun knows: srun --mpi=list; then set IRNET_SRUN_ARGS, such as "
        "--mpi=pmix, or leave it unset for TCP"
    )
    folder = settings.trial_folder
    environment = os.environ | {"SRUN_CPUS_PER_TASK": os.environ.get("SLURM_CPUS_PER_TASK", "1")}
    launcher = ["srun", "--overlap", "--kill-on-bad-exit=1", "--export=ALL", *options]
    probe = [sys.executable, "-m", "irnet_hpc.doctor.probes", "ranks", folder, "--engine", "auto"]
    try:
        answer = ask([*launcher, *probe], PROBE_S, environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if answer.trouble:
        return failure(answer.trouble, todo)
    facts = printed_facts(answer)
    return judge_sum(facts, int(os.environ.get("SLURM_NTASKS") or facts["size"]), todo)


CHECKS = (
    Check("Horovod", check_horovod, CHECK_S, "python -c 'import horovod.torch'"),
    Check("MPI", check_mpi, CHECK_S, "python -m irnet_hpc.doctor.probes libraries"),
    Check("NCCL", check_nccl, CHECK_S, "python -m irnet_hpc.doctor.probes libraries"),
    Check("two ranks", check_gloo, CHECK_S, "horovodrun --gloo -np 2 python env/proof.py gloo"),
    Check("under mpirun", check_mpirun, CHECK_S, "mpirun -np 2 python env/proof.py mpi"),
    Check("allocation", check_allocation, CHECK_S, "srun hostname"),
)
