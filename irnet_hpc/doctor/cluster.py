"""Check from this machine that SLURM answers, accepts the site's options and can start MPI."""

import functools
import os
import re
import shutil
from typing import TYPE_CHECKING

from irnet_hpc.distributed.slurm_commands import NO_CLUSTER
from irnet_hpc.doctor.checks import Check, Settings, Verdict, failure, note, ok, warning
from irnet_hpc.doctor.commands import ask
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    from irnet_hpc.sweep.matrix.sites import Site

# The commands that a sweep needs. sacct is optional: it only tells how jobs ended.
COMMANDS = ("sbatch", "srun", "scontrol", "squeue")
ASK_ADMIN = "ask the cluster's administrators, and show them what this prints"
MPI_TYPES = r"\b(none|openmpi|pmi2|cray_shasta|pmix(?:_v\d+)?)\b"


def belongs_to_cluster() -> bool:
    """Return True if this machine belongs to a SLURM cluster, even if SLURM does not answer."""
    is_installed = bool(shutil.which("scontrol") or shutil.which("sbatch"))
    return is_installed and NO_CLUSTER not in read_configuration()[1]


@functools.cache
def read_configuration() -> tuple[dict[str, str], str]:
    """Read SLURM's configuration.

    Returns:
        The configuration, and the reason why it cannot be read (empty if it can be).
    """
    answer = ask(("scontrol", "show", "config"))
    values = dict(re.findall(r"^(\w+) *= *(.*?) *$", answer.out, re.MULTILINE))
    return values, answer.trouble and answer.trouble + answer.err


def configuration_if_up() -> dict[str, str] | None:
    """Return SLURM's configuration; None if SLURM is missing or does not answer.

    If it returns None, check_slurm gives the reason.
    """
    if not belongs_to_cluster():
        return None
    configuration, trouble = read_configuration()
    return None if trouble else configuration


def check_slurm(_: Settings) -> Verdict:
    """Check that SLURM's commands are complete and SLURM answers.

    Without SLURM this is only a note.
    """
    present = [command for command in COMMANDS if shutil.which(command)]
    if not present:
        return note("none here: sweeps run as processes on this machine")
    if missing := [command for command in COMMANDS if command not in present]:
        return failure(
            f"{', '.join(missing)} not found, although {', '.join(present)} is on PATH",
            "load SLURM's module: module avail slurm; then: command -v sbatch srun scontrol squeue",
        )
    if not belongs_to_cluster():
        return note(
            "installed, but this machine belongs to no cluster: sweeps run as processes on this "
            "machine"
        )
    (configuration, trouble), queue = read_configuration(), ask(("squeue", "--me", "--noheader"))
    if trouble or queue.trouble:
        return failure(
            trouble.splitlines()[0] if trouble else queue.trouble,
            f"{ASK_ADMIN}: scontrol ping; on a machine of your own: "
            "sudo bash env/local_slurm.sh up",
        )
    name, version = (configuration.get(key, "?") for key in ("ClusterName", "SLURM_VERSION"))
    n_jobs = len(queue.out.splitlines())
    return ok(
        f"cluster {name}, SLURM {version}, answers; {n_jobs} of your jobs in its queue",
        cluster=name,
        version=version,
    )


def check_arrays(_: Settings) -> Verdict | None:
    """Check that job arrays are allowed, and how large they may be."""
    if (configuration := configuration_if_up()) is None:
        return None
    size = configuration.get("MaxArraySize", "")
    if not size.isdecimal():
        return failure("MaxArraySize is not set", f"{ASK_ADMIN}: scontrol show config")
    if int(size) < 1:
        return failure(
            "MaxArraySize is 0: there are no job arrays",
            f"{ASK_ADMIN}: scontrol show config | grep MaxArraySize",
        )
    return ok(
        f"MaxArraySize {size}: a sweep submits arrays of at most {int(size):,} cells",
        max_array_size=int(size),
    )


def check_requeue(_: Settings) -> Verdict | None:
    """Check whether preempted jobs return to the queue."""
    if (configuration := configuration_if_up()) is None:
        return None
    preemption = configuration.get("PreemptMode", "OFF")
    facts = {"JobRequeue": configuration.get("JobRequeue"), "PreemptMode": preemption}
    if "CANCEL" in preemption.upper():
        return note(
            f"PreemptMode is {preemption}: a preempted job is cancelled, not requeued",
            "python -m irnet_hpc.sweep submit MATRIX submits cancelled cells again; they go on "
            "from their checkpoints",
            **facts,
        )
    if facts["JobRequeue"] != "1":
        return note(
            "JobRequeue is 0: only jobs that ask for requeueing are requeued; a sweep's jobs ask",
            "when you submit slurm/train.sh, ask for it too: sbatch --requeue slurm/train.sh ...",
            **facts,
        )
    return ok("JobRequeue is 1: preempted jobs return to the queue", **facts)


def check_accounting(_: Settings) -> Verdict | None:
    """Check that sacct answers. A sweep asks it how a job without a result has ended."""
    if configuration_if_up() is None:
        return None
    answer = ask(("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State"))
    if answer.trouble:
        return warning(
            f"{answer.trouble}: `sweep status` cannot tell how a job without a result ended",
            f"{ASK_ADMIN}: scontrol show config | grep AccountingStorageType",
        )
    return ok(f"sacct answers; {len(answer.out.splitlines())} of your jobs today")


def check_mpi_types(settings: Settings) -> Verdict | None:
    """Check that srun supports the MPI type in the site's srun options, if they name one."""
    if configuration_if_up() is None:
        return None
    answer = ask(("srun", "--mpi=list"))
    offered = sorted(set(re.findall(MPI_TYPES, answer.out + answer.err)))
    if answer.trouble or not offered:
        found = answer.trouble or "srun --mpi=list names none"
        return failure(found, "see what this prints: srun --mpi=list")
    options = list(settings.site.srun_args) if settings.site else []
    options += os.environ.get("IRNET_SRUN_ARGS", "").split()
    wanted = [option.partition("=")[2] for option in options if option.startswith("--mpi=")]
    if missing := [mpi_type for mpi_type in wanted if mpi_type not in offered]:
        return failure(
            f"--mpi of the site's srun options must be one of {', '.join(offered)}, "
            f"got {missing[0]}",
            "choose a type that this prints: srun --mpi=list; set it in srun_args of "
            f"env/sites/{settings.site_name or 'SITE'}.yaml, or in IRNET_SRUN_ARGS",
        )
    way = f"MPI with --mpi={wanted[0]}" if wanted else "TCP, which needs no --mpi"
    return ok(f"srun offers {', '.join(offered)}; ranks meet over {way}")


def sbatch_options(site: "Site") -> list[str]:
    """List the sbatch options that a sweep's jobs get from a site."""
    options = {name: getattr(site, name) for name in ("account", "partition", "qos", "constraint")}
    options["gpus-per-node"] = site.gpus_per_task or None
    options = {name: value for name, value in options.items() if value} | site.sbatch_options()
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
    ]


def sbatch_test_command(options: list[str]) -> list[str]:
    """Return a command that asks whether sbatch would accept a job, without submitting it."""
    job = ["--time=5", "--nodes=1", "--ntasks=1", *options, "--wrap", "true"]
    return ["sbatch", "--test-only", *job]


def check_sbatch(settings: Settings) -> Verdict | None:
    """Check that sbatch would accept a job with the site's options, without submitting one."""
    if configuration_if_up() is None:
        return None
    from irnet_hpc.sweep.jobs import outside_any_job

    if settings.site is None:
        raise UserError(
            "the site cannot be read, because a library is missing; see the check `versions`"
        )
    # A sweep submits its jobs without the SLURM variables of any job, so SBATCH_* do not count.
    with outside_any_job():
        environment = dict(os.environ)
    answer = ask(sbatch_test_command(sbatch_options(settings.site)), environment=environment)
    site = f"site {settings.site_name}" if settings.site_name else "no site"
    if answer.trouble:
        return failure(
            f"with {site}, {answer.trouble}",
            "put account and partition into a site's file (such as env/sites/openmpi_pmix.yaml); "
            "these commands list them: sinfo -s; sacctmgr show associations user=$USER; then: "
            "python -m irnet_hpc.doctor --site NAME",
        )
    start = re.search(r"to start at (\S+)", answer.err + answer.out)
    remark = f", to start at {start[1]}" if start else ""
    return ok(f"sbatch would accept a job with {site}{remark}")


def check_state(_: Settings) -> Verdict | None:
    """Check that the state folder can be written. submitit passes jobs to the nodes through it."""
    if configuration_if_up() is None:
        return None
    from irnet_hpc.sweep.sbatch import state_folder

    folder = state_folder()  # raises UserError if other users may write to it
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        return failure(
            f"the state folder {folder} cannot be written",
            "export IRNET_STATE=DIR, where DIR is a folder that every node sees",
        )
    return ok(f"{folder} is writable by you alone; --slurm checks that the nodes see it")


CHECKS = (
    Check("SLURM", check_slurm, 60, "scontrol ping"),
    Check("arrays", check_arrays, 30, "scontrol show config"),
    Check("requeue", check_requeue, 30, "scontrol show config"),
    Check("accounting", check_accounting, 30, "sacct"),
    Check("srun --mpi", check_mpi_types, 30, "srun --mpi=list"),
    Check("sbatch", check_sbatch, 30, "sbatch --test-only --wrap true"),
    Check("state", check_state, 20, "ls -ld ~/.local/state/irnet_hpc $IRNET_STATE"),
)
