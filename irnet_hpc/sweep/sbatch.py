"""Submit jobs to SLURM through submitit: the jobs' parameters and the folder of their state."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.sweep.jobs import outside_any_job, signal_lead_s
from irnet_hpc.sweep.matrix.resources import Resources, gpus_per_rank
from irnet_hpc.sweep.matrix.sites import Site
from irnet_hpc.sweep.whole_nodes import NodePlan


def state_folder() -> Path:
    """Return the folder of submitit's pickles: $IRNET_STATE or the user's state folder.

    All nodes must see the folder. Loading a pickle can run any code, so the folder must belong to
    the user, and other users get no access.

    Raises:
        UserError: The folder belongs to somebody else.
    """
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "irnet_hpc"
    if stated := os.environ.get("IRNET_STATE"):
        base = Path(stated)
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.stat().st_uid != os.getuid():
        raise UserError(
            f"the state folder {base} belongs to another user; set $IRNET_STATE to one of yours"
        )
    if stat.S_IMODE(base.stat().st_mode) & 0o077:
        base.chmod(0o700)
    return base.resolve() / "submitit"


def slurm_parameters(
    site: Site, resources: Resources, *, name: str, token: str, after: str | None, is_training: bool
) -> dict:
    """Return the parameters of submitit's SlurmExecutor for jobs of one shape.

    Args:
        site: The options of the cluster.
        resources: The resources that each job requests.
        name: The name of the job.
        token: The token of the submission, which becomes part of the job's comment.
        after: The jobs to wait for, in the form of `sbatch --dependency`.
        is_training: Whether srun starts the job once in every rank.

    Returns:
        Keyword arguments of `SlurmExecutor.update_parameters`.
    """
    parameters = _site_parameters(site, name=name, token=token, after=after) | {
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "cpus_per_task": resources.cpus_per_rank,
        "mem": f"{round(resources.memory_gb * 1024)}M",
        "use_srun": is_training,
    }
    return parameters | (_srun_parameters(site, resources) if is_training else {})


def node_parameters(
    site: Site, plan: NodePlan, *, name: str, token: str, after: str | None
) -> dict:
    """Return the parameters of submitit's SlurmExecutor for jobs of workers on whole nodes.

    Args:
        site: The options of the cluster.
        plan: The nodes of each job, and its time limit.
        name: The name of the job.
        token: The token of the submission, which becomes part of the job's comment.
        after: The jobs to wait for, in the form of `sbatch --dependency`.

    Returns:
        Keyword arguments of `SlurmExecutor.update_parameters`.
    """
    parameters = _site_parameters(site, name=name, token=token, after=after)
    # All processors and (0) all memory of the nodes.
    whole = {"exclusive": True} | parameters["additional_parameters"] | {"mem": 0}
    return parameters | {
        "time": plan.minutes,
        "nodes": plan.n_nodes,
        # submitit has one job of this many tasks a node; the job starts its own, one a node.
        "ntasks_per_node": 1,
        "gpus_per_node": plan.node.gpus or None,
        "signal_delay_s": signal_lead_s(Resources(minutes=plan.minutes)),
        "use_srun": False,
        "additional_parameters": whole,
    }


def _site_parameters(site: Site, *, name: str, token: str, after: str | None) -> dict:
    """Return the parameters that all jobs of a site have, whatever they need."""
    sbatch_options = site.sbatch_options()
    # The token in the comment identifies the job, even if the cluster counts jobs from 1 again.
    comment = f"{sbatch_options.pop('comment', '')} {token}".strip()
    setup = ["command -v module >/dev/null || . /etc/profile"] if site.modules else []
    setup += [f"module load {module}" for module in site.modules]
    return {
        "job_name": name,
        "account": site.account,
        "partition": site.partition,
        "qos": site.qos,
        "constraint": site.constraint,
        "dependency": after,
        "comment": comment,
        "wckey": None,
        "setup": [*setup, *site.setup],
        "additional_parameters": sbatch_options,
    }


def _srun_parameters(site: Site, resources: Resources) -> dict:
    """Return the parameters of jobs that srun starts once in every rank."""
    gpus = gpus_per_rank(resources, site.gpus_per_task) * resources.ranks_per_node
    # Since 22.05, srun does not inherit --cpus-per-task from sbatch. If a rank dies, srun must end
    # the others.
    srun_args = ["--kill-on-bad-exit=1", f"--cpus-per-task={resources.cpus_per_rank}"]
    # A job of `sbatch --export=NONE` has SLURM_EXPORT_ENV=NONE, which srun would follow (22.05):
    # its ranks would have neither PATH nor what submitit exports. ALL is srun's own default.
    srun_args += ["--export=ALL"]
    return {
        "srun_args": [*srun_args, *site.srun_args],
        "signal_delay_s": signal_lead_s(resources),
        "gpus_per_node": gpus or None,
    }


def submit_jobs(folder: Path, parameters: dict, jobs: Sequence) -> list:
    """Submit jobs to SLURM as one array, even from within another job.

    Args:
        folder: The folder of submitit's pickles for this submission.
        parameters: The result of slurm_parameters().
        jobs: Callables that submitit can pickle.

    Returns:
        submitit's jobs.

    Raises:
        UserError: SLURM refuses the jobs; the message quotes SLURM.
    """
    import submitit
    from submitit.core.utils import FailedSubmissionError, UncompletedJobError

    executor = submitit.SlurmExecutor(folder)
    try:
        executor.update_parameters(**parameters)
        with outside_any_job():
            return executor.submit_array(jobs)
    except (UncompletedJobError, FailedSubmissionError, OSError) as error:
        lines = [line for line in str(error).splitlines() if "error" in line.lower()]
        reason = "; ".join(lines) or str(error).strip()
        raise UserError(f"SLURM refused {parameters['job_name']}: {reason}") from None


def afterany(jobs: Sequence[str]) -> str:
    """Return the dependency that waits until jobs, or their arrays, have ended in any way."""
    return f"afterany:{':'.join(dict.fromkeys(job.partition('_')[0] for job in jobs))}"
