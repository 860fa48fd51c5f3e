"""Checks of SLURM as this machine sees it: it answers, takes the site's options, remembers how jobs ended, and knows MPI."""

import functools
import os
import re
import shutil

from irnet_hpc.doctor.checks import Check, Settings, Verdict, ask, failure, note, ok, warning
from irnet_hpc.errors import UserError

# What a sweep cannot do without; sacct only says how jobs ended.
COMMANDS = ("sbatch", "srun", "scontrol", "squeue")
NO_CLUSTER = (
    "configuration source"  # in the words of a SLURM that is installed and belongs to no cluster
)
ASK_ADMIN = "ask the cluster's administrators, showing what this says"
MPI_TYPES = r"\b(none|openmpi|pmi2|cray_shasta|pmix(?:_v\d+)?)\b"


def is_here() -> bool:
    """Whether this machine has a SLURM that belongs to a cluster, answering or not."""
    return (
        bool(shutil.which("scontrol") or shutil.which("sbatch"))
        and NO_CLUSTER not in configuration()[1]
    )


@functools.cache
def configuration() -> tuple[dict[str, str], str]:
    """SLURM's configuration, key -> value, and what went wrong with asking for it."""
    answer = ask(("scontrol", "show", "config"))
    return dict(
        re.findall(r"^(\w+) *= *(.*?) *$", answer.out, re.MULTILINE)
    ), answer.trouble and answer.trouble + answer.err


def slurm(settings: Settings) -> Verdict:
    here = [command for command in COMMANDS if shutil.which(command)]
    if not here:
        return note("none here: sweeps run as processes of this machine")
    missing = [command for command in COMMANDS if command not in here]
    if missing:
        return failure(
            f"{', '.join(missing)} not on PATH beside {', '.join(here)}",
            "load SLURM's module: module avail slurm; then: command -v sbatch srun scontrol squeue",
        )
    if not is_here():
        return note(
            "installed, but this machine belongs to no cluster: sweeps run as processes of this machine"
        )
    (found, trouble), queue = configuration(), ask(("squeue", "--me", "--noheader"))
    if trouble or queue.trouble:
        first = trouble.splitlines()[0] if trouble else queue.trouble
        return failure(
            first,
            f"{ASK_ADMIN}: scontrol ping; on one machine of your own: sudo bash env/local_slurm.sh up",
        )
    n_jobs = len(queue.out.splitlines())
    name, version = found.get("ClusterName", "?"), found.get("SLURM_VERSION", "?")
    return ok(
        f"{name}, SLURM {version}, answers; {n_jobs} jobs of yours in its queue",
        cluster=name,
        version=version,
    )


def _answers() -> dict[str, str] | None:
    """The configuration of a SLURM that answers, else None: what there is to say of another has been said."""
    return configuration()[0] if is_here() and not configuration()[1] else None


def arrays(_: Settings) -> Verdict | None:
    if (found := _answers()) is None:
        return None
    size = found.get("MaxArraySize", "")
    if not size.isdecimal():
        return failure("it does not say MaxArraySize", f"{ASK_ADMIN}: scontrol show config")
    if int(size) < 1:
        return failure(
            "MaxArraySize is 0: there are no job arrays",
            f"{ASK_ADMIN}: scontrol show config | grep MaxArraySize",
        )
    return ok(
        f"MaxArraySize {size}: a sweep submits arrays of at most {int(size):,} cells",
        max_array_size=int(size),
    )


def requeue(_: Settings) -> Verdict | None:
    if (found := _answers()) is None:
        return None
    preemption = found.get("PreemptMode", "OFF")
    facts = {"JobRequeue": found.get("JobRequeue"), "PreemptMode": preemption}
    if "CANCEL" in preemption.upper():
        again = "python -m irnet_hpc.sweep submit MATRIX takes up what was cancelled, from its checkpoint"
        return note(
            f"PreemptMode is {preemption}: a preempted job is cancelled, not requeued",
            again,
            **facts,
        )
    if found.get("JobRequeue") != "1":
        how = "for slurm/train.sh say so: sbatch --requeue slurm/train.sh ..."
        return note(
            "JobRequeue is 0: only what asks for it goes back into the queue, as sweeps do",
            how,
            **facts,
        )
    return ok("JobRequeue is 1: preempted jobs go back into the queue", **facts)


def accounting(_: Settings) -> Verdict | None:
    if _answers() is None:
        return None
    answer = ask(("sacct", "--allocations", "--noheader", "--parsable2", "--format=JobID,State"))
    if answer.trouble:
        return warning(
            f"{answer.trouble}: of a job that left no result, `sweep status` will only say that it is gone",
            f"{ASK_ADMIN}: scontrol show config | grep AccountingStorageType",
        )
    return ok(f"sacct answers; {len(answer.out.splitlines())} jobs of yours today")


def mpi_types(settings: Settings) -> Verdict | None:
    if _answers() is None:
        return None
    answer = ask(("srun", "--mpi=list"))
    offered = sorted(set(re.findall(MPI_TYPES, answer.out + answer.err)))
    if answer.trouble or not offered:
        return failure(
            answer.trouble or "srun --mpi=list names none", "see what this says: srun --mpi=list"
        )
    stated = [
        *getattr(settings.site, "srun_args", ()),
        *os.environ.get("IRNET_SRUN_ARGS", "").split(),
    ]
    wanted = [argument.partition("=")[2] for argument in stated if argument.startswith("--mpi=")]
    words = f"srun offers {', '.join(offered)}"
    if lacking := [kind for kind in wanted if kind not in offered]:
        return failure(
            f"{words}, however: the site's srun options say --mpi={lacking[0]}",
            f"give srun_args of env/sites/{settings.site_name or 'SITE'}.yaml, and IRNET_SRUN_ARGS, one of: srun --mpi=list",
        )
    return ok(
        f"{words}; ranks meet over {'MPI by --mpi=' + wanted[0] if wanted else 'TCP, which needs none of them'}"
    )


def site_options(site: object) -> list[str]:
    """A site's options of sbatch, as a sweep's own jobs have them."""
    options = {name: getattr(site, name) for name in ("account", "partition", "qos", "constraint")}
    options |= {"gpus-per-node": site.gpus_per_task or None, **site.sbatch}
    options = {
        name.replace("_", "-"): value
        for name, value in options.items()
        if value not in (None, False)
    }
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()
    ]


def trial_of_sbatch(options: list[str]) -> list[str]:
    """The command that asks whether a job would be taken, and submits none."""
    return [
        "sbatch",
        "--test-only",
        "--time=5",
        "--nodes=1",
        "--ntasks=1",
        *options,
        "--wrap",
        "true",
    ]


def submission(settings: Settings) -> Verdict | None:
    """Would a job be taken, with the site's account and partition? It is only asked, and none is submitted."""
    if _answers() is None:
        return None
    from irnet_hpc.sweep.jobs import outside_any_job

    if settings.site is None:
        raise UserError("the site cannot be read: a library is missing, see versions")
    with outside_any_job():  # as a sweep submits, so SBATCH_* do not count
        environment = dict(os.environ)
    answer = ask(trial_of_sbatch(site_options(settings.site)), environment=environment)
    place = f"site {settings.site_name}" if settings.site_name else "no site"
    if answer.trouble:
        return failure(
            f"with {place}, {answer.trouble}",
            "name account and partition in a site's file (env/sites/openmpi_pmix.yaml), from: sinfo -s; sacctmgr show associations "
            "user=$USER; then: python -m irnet_hpc.doctor --site NAME",
        )
    told = re.search(r"to start at (\S+)", answer.err + answer.out)
    return ok(
        f"sbatch would take a job with {place}" + (f", to start at {told[1]}" if told else "")
    )


def state(_: Settings) -> Verdict | None:
    """The folder that carries submitit's jobs to the nodes."""
    if _answers() is None:
        return None
    from irnet_hpc.sweep.submit import state_folder

    folder = state_folder()  # says in a sentence what is wrong
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        return failure(
            f"the state folder {folder} cannot be written",
            "export IRNET_STATE=DIR, one that every node sees",
        )
    return ok(f"{folder} is yours alone; that the nodes see it is proved by --slurm")


CHECKS = (
    Check("SLURM", slurm, 60, "scontrol ping"),
    Check("arrays", arrays, 30, "scontrol show config"),
    Check("requeue", requeue, 30, "scontrol show config"),
    Check("accounting", accounting, 30, "sacct"),
    Check("srun --mpi", mpi_types, 30, "srun --mpi=list"),
    Check("sbatch", submission, 30, "sbatch --test-only --wrap true"),
    Check("state", state, 20, "ls -ld ~/.local/state/irnet_hpc $IRNET_STATE"),
)
