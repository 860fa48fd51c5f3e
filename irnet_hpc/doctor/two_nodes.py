"""Submit a job of two nodes in the same way as a sweep, and check what both nodes see.

The job goes through the same steps as a training: submitit, sbatch, srun, connecting the ranks, and
a sum over all ranks. It writes a report file, which says what each node sees of the results folder,
the clock and SLURM.
"""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from irnet_hpc.doctor import cluster, machine, probes
from irnet_hpc.doctor.checks import Check, Level, Settings, Verdict, failure, ok, warning
from irnet_hpc.doctor.commands import ask, is_launcher_line, telling_line
from irnet_hpc.doctor.engine import judge_sum
from irnet_hpc.doctor.filesystem import MAX_CLOCK_SKEW_S
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

N_NODES, MINUTES, MEMORY_GB = 2, 5, 2.0
JOB_NAME = "irnet:doctor"
POLL_S = 0.5
# How long a report may take to become visible here after the job has left the queue.
VISIBILITY_S = 10.0
CLEANUP_S = 120.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
SHOW_NODES = "srun -N2 --ntasks-per-node=1 hostname"


class NodeProbe:
    """The function that each rank of the job calls. submitit pickles it."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        """Store the probe's parameters.

        Args:
            folder: A folder on the file system of the results.
            options: The sbatch options of the site.
        """
        self.folder = folder
        self.options = options

    def __call__(self) -> None:
        """Sum over all ranks and collect what each node sees.

        Rank 0 writes all of it to report.json.
        """
        from irnet_hpc.distributed.engines import start
        from irnet_hpc.distributed.memory import cgroup_limits

        own_file = self.folder / f"rank{os.environ['SLURM_PROCID']}"
        try:
            own_file.write_bytes(b"")
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()} cannot write to {self.folder.parent} ({error.strerror}), "
                "as every node must be able to; name another folder with --results"
            ) from None
        skew_s = own_file.stat().st_mtime - time.time()
        comm = start("auto", self.folder / "rendezvous")
        measured = probes.allreduce(comm)
        has_won = False
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.folder / "taken", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            has_won = True
        node = {
            "host": socket.gethostname(),
            "skew_s": skew_s,
            "won": has_won,
            "cores": machine.usable_cores()[0],
            "memory_gb": cgroup_limits()[1],
            "trouble": "" if comm.rank else self.slurm_trouble(),
        }
        nodes = comm.gather(node)
        if comm.rank == 0:
            write_json(self.folder / "report.json", {"sum": measured, "nodes": nodes})
        comm.close()

    def slurm_trouble(self) -> str:
        """Return why this job cannot requeue itself or submit a job; empty if it can do both."""
        from irnet_hpc.sweep.jobs import outside_any_job

        job = os.environ["SLURM_JOB_ID"]
        with outside_any_job():
            environment = dict(os.environ)
        commands = (
            ("scontrol", "show", "job", job),
            cluster.sbatch_test_command(self.options),
        )
        answers = (ask(command, environment=environment) for command in commands)
        return "; ".join(answer.trouble for answer in answers if answer.trouble)

    def checkpoint(self) -> None:
        """Return None, which tells submitit not to requeue the job when it is preempted."""


def check_two_nodes(settings: Settings) -> Verdict:
    """Submit the job, wait for its report, and make a verdict from the report.

    If the job failed, the folder with its log is kept; all other files are removed.
    """
    if not cluster.belongs_to_cluster() or settings.site is None:
        found = "there is no SLURM cluster, or the site cannot be read"
        return failure(found, "see the checks above: scontrol ping")
    from irnet_hpc.sweep import slurm_parameters, state_folder, submit_jobs
    from irnet_hpc.sweep.matrix.resources import Resources

    folder = settings.trial_folder
    folder.mkdir(exist_ok=True)
    token = f"doctor-{settings.token}"
    job_folder = state_folder() / token
    resources = Resources(nodes=N_NODES, memory_gb=MEMORY_GB, minutes=MINUTES)
    parameters = slurm_parameters(
        settings.site, resources, name=JOB_NAME, token=token, after=None, is_training=True
    )
    began = time.monotonic()
    probe = NodeProbe(folder, cluster.sbatch_options(settings.site))
    try:
        (submitted,) = submit_jobs(job_folder, parameters, [probe])
    except UserError:
        shutil.rmtree(job_folder, ignore_errors=True)
        raise
    job = submitted.job_id
    # Checks run in a thread that Ctrl-C does not reach, so the process cleans up when it exits.
    atexit.register(_clean_up, job, folder, job_folder)
    try:
        report = _wait_for_report(job, folder, job_folder, settings)
        verdict = judge_report(job, report, time.monotonic() - began)
    finally:
        _clean_up(job, folder)
        atexit.unregister(_clean_up)
    shutil.rmtree(job_folder, ignore_errors=True)
    return verdict


def _clean_up(job: str, *folders: Path) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask(("scancel", "--quiet", job.partition("_")[0]))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_report(job: str, folder: Path, job_folder: Path, settings: Settings) -> dict:
    """Wait for the report of a job and return it.

    Raises:
        UserError: If the job ended without a report, or has not ended after the longest wait.
    """
    last_seen, state = time.monotonic(), "PENDING"
    deadline = last_seen + settings.wait_s
    # The folder is listed because NFS asks the server for a listing, but may look up a single name
    # in its cache.
    while "report.json" not in {path.name for path in folder.iterdir()}:
        now = time.monotonic()
        answer = ask(("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%T %r"))
        if answer.out.split() and not answer.out.startswith(ENDED):
            last_seen, state = now, " ".join(answer.out.split())
        elif now - last_seen > VISIBILITY_S:
            reason = _first_error(job_folder)
            raise UserError(
                f"job {job} ended without a report: {reason}; its log is in {job_folder}"
            )
        if now > deadline:
            raise UserError(
                f"job {job} is still {state} after {settings.wait_s:.0f} s and was cancelled; wait "
                "longer with python -m irnet_hpc.doctor --slurm --wait SECONDS, or name a less "
                "busy partition in the site's file"
            )
        time.sleep(POLL_S)
    return read_json(folder / "report.json")


def _first_error(job_folder: Path) -> str:
    """Find the line that best explains the failure in the logs of the ranks and the launcher."""
    logs = sorted(job_folder.glob("*_log.err"))
    lines = [telling_line(path.read_text(errors="replace")) for path in logs]
    lines.sort(key=is_launcher_line)
    return next(filter(None, lines), "its log is empty")


def judge_report(job: str, report: dict, seconds: float) -> Verdict:
    """Make a verdict from the report of a job, which arrived `seconds` after its submission."""
    nodes = report["nodes"]
    hosts = ", ".join(node["host"] for node in nodes)
    facts = {"job": job, "seconds": seconds, **report}
    probe = "python -m irnet_hpc.doctor.probes ranks DIR --engine auto"
    by_hand = f"by hand: srun -N2 --ntasks-per-node=1 {probe}"
    verdict = judge_sum(report["sum"], N_NODES, by_hand)
    found = f"job {job} on {hosts} in {seconds:.0f} s: {verdict.found}"
    if verdict.level == Level.FAILURE:
        return verdict._replace(found=found, facts=facts)
    if len({node["host"] for node in nodes}) != N_NODES:
        todo = f"see which nodes SLURM gives: {SHOW_NODES}"
        return failure(f"{found}, but not on {N_NODES} nodes", todo, **facts)
    if (n_winners := sum(node["won"] for node in nodes)) != 1:
        return failure(
            f"{found}; {n_winners} of {N_NODES} nodes created the same file; exactly one must "
            "succeed",
            "name a results folder on another file system: "
            "python -m irnet_hpc.doctor --slurm --results DIR",
            **facts,
        )
    if trouble := nodes[0]["trouble"]:
        return warning(
            f"{found}; on {nodes[0]['host']} {trouble}, so a preempted job cannot requeue itself",
            f"{cluster.ASK_ADMIN}: srun scontrol ping",
            **facts,
        )
    worst = max(nodes, key=lambda node: abs(node["skew_s"]))
    if abs(worst["skew_s"]) > MAX_CLOCK_SKEW_S:
        return warning(
            f"{found}; the clock of {worst['host']} differs by {-worst['skew_s']:+.1f} s from the "
            "file system's",
            "synchronise all clocks with one time server: srun -N2 timedatectl timesync-status",
            **facts,
        )
    skew_s = max(0.01, abs(worst["skew_s"]))
    return ok(
        f"{found}; sbatch and scontrol work there, clocks agree within {skew_s:.2f} s", **facts
    )


def make_check(wait_s: float) -> Check:
    """Make the check of two nodes.

    Its time limit depends on `wait_s`, the longest wait for the job.
    """
    return Check("two nodes", check_two_nodes, wait_s + CLEANUP_S, SHOW_NODES)
