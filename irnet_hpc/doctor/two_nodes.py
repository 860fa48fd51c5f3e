"""A job of two nodes, by the way that a sweep's trainings go: submitit, sbatch, srun, the meeting of the ranks, a sum over
all of them. What each node sees of the results folder, the clock and SLURM comes back in a file."""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from irnet_hpc.doctor import cluster, machine
from irnet_hpc.doctor import probes as child
from irnet_hpc.doctor.checks import Check, Settings, Verdict, ask, failure, ok, reason, warning
from irnet_hpc.doctor.engine import of_sum
from irnet_hpc.doctor.filesystem import SKEW_S
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json

N_NODES, MINUTES, MEMORY_GB = 2, 5, 2.0
NAME = "irnet:doctor"
POLL_S = 0.5
GRACE_S = 10  # for a file that a node has written to be seen here, once the job has left the queue


class Gathering:
    """What submitit carries to the nodes and calls in every rank."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder = (
            folder  # where the results will be; what is written in it is what the others see
        )
        self.options = options  # of sbatch, by the site

    def __call__(self) -> None:
        from irnet_hpc.distributed.engines import start

        own = self.folder / f"rank{os.environ['SLURM_PROCID']}"
        try:
            own.write_bytes(b"")
        except OSError as error:
            raise UserError(
                f"{socket.gethostname()} cannot write {self.folder.parent} ({error.strerror}), as every node must; name "
                "another with --results"
            ) from None
        skew_s = own.stat().st_mtime - time.time()
        comm = start("auto", self.folder / "rendezvous")
        found = child.allreduce(comm)
        won = False
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.folder / "taken", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            won = True
        about = {
            "host": socket.gethostname(),
            "skew_s": skew_s,
            "won": won,
            "cores": machine.n_cores()[0],
            "memory_gb": machine.cgroup_limits()[1],
            "trouble": "" if comm.rank else self.reach_slurm(),
        }
        nodes = comm.gather(about)
        if comm.rank == 0:
            write_json(self.folder / "report.json", {"sum": found, "nodes": nodes})
        comm.close()

    def reach_slurm(self) -> str:
        """What is in the way of a job that requeues itself or submits another; empty where nothing is."""
        from irnet_hpc.sweep.jobs import outside_any_job

        job = os.environ["SLURM_JOB_ID"]
        with outside_any_job():
            environment = dict(os.environ)
        commands = (("scontrol", "show", "job", job), cluster.trial_of_sbatch(self.options))
        return "; ".join(
            filter(None, (ask(command, environment=environment).trouble for command in commands))
        )

    def checkpoint(self) -> None:
        return None  # a preempted check is not taken up again


def two_nodes(settings: Settings) -> Verdict:
    """Submit, wait, read what came back, and leave nothing."""
    if not cluster.is_here() or settings.site is None:
        return failure(
            "there is no SLURM to ask, or the site cannot be read",
            "see the checks above: scontrol ping",
        )
    from irnet_hpc.sweep import submit as submission
    from irnet_hpc.sweep.matrix.resources import Resources

    folder = settings.trial
    folder.mkdir(exist_ok=True)
    carried = submission.state_folder() / f"doctor-{settings.token}"
    parameters = submission.slurm_parameters(
        settings.site, Resources(nodes=N_NODES, memory_gb=MEMORY_GB, minutes=MINUTES), name=NAME,
        token=f"doctor-{settings.token}", after=None, is_training=True,
    )  # fmt: skip
    began = time.monotonic()
    gathering = Gathering(folder, cluster.site_options(settings.site))
    try:
        (job,) = (job.job_id for job in submission.sbatch(carried, parameters, [gathering]))
    except UserError:
        shutil.rmtree(carried, ignore_errors=True)
        raise
    atexit.register(
        _leave, job, folder, carried
    )  # Ctrl-C, of which this thread hears nothing, leaves none behind
    try:
        report = _wait_for(job, folder, carried, settings)
        seconds = time.monotonic() - began
        verdict = _verdict(job, report, seconds)
    finally:
        _leave(job, folder)
        atexit.unregister(_leave)
    shutil.rmtree(carried, ignore_errors=True)  # else its log is what one reads
    return verdict


def _leave(job: str, *folders: Path) -> None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        ask(("scancel", "--quiet", job.partition("_")[0]))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(job: str, folder: Path, carried: Path, settings: Settings) -> dict:
    """The report of a job; UserError where none comes."""
    deadline, seen_last, state = time.monotonic() + settings.wait_s, time.monotonic(), "PENDING"
    while "report.json" not in {
        path.name for path in folder.iterdir()
    }:  # a listing, which NFS asks anew
        now = time.monotonic()
        answer = ask(("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%T %r"))
        if answer.out.split() and not answer.out.startswith(
            ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        ):
            seen_last, state = now, " ".join(answer.out.split())
        elif now - seen_last > GRACE_S:
            raise UserError(
                f"job {job} ended without a report: {_why(carried)}; its log is in {carried}"
            )
        if now > deadline:
            raise UserError(
                f"job {job} is still {state} after {settings.wait_s:.0f} s and was cancelled; wait longer with "
                "python -m irnet_hpc.doctor --slurm --wait SECONDS, or name a less busy partition in the site's file"
            )
        time.sleep(POLL_S)
    return read_json(folder / "report.json")


def _why(carried: Path) -> str:
    """What the first rank that says anything says."""
    logs = [reason(path.read_text(errors="replace")) for path in sorted(carried.glob("*_log.err"))]
    logs.sort(
        key=lambda line: line.startswith(("srun:", "slurmstepd"))
    )  # of ranks that were ended for another
    return next(filter(None, logs), "it said nothing")


def _verdict(job: str, report: dict, seconds: float) -> Verdict:
    nodes, todo = (
        report["nodes"],
        "by hand: srun -N2 --ntasks-per-node=1 python -m irnet_hpc.doctor.probes ranks DIR --engine auto",
    )
    verdict = of_sum(report["sum"], N_NODES, todo)
    hosts = ", ".join(node["host"] for node in nodes)
    facts = {"job": job, "seconds": seconds, **report}
    if verdict.level == "failure":
        return verdict._replace(found=f"job {job} on {hosts}: {verdict.found}", facts=facts)
    found = f"job {job} on {hosts} in {seconds:.0f} s: {verdict.found}"
    if len({node["host"] for node in nodes}) != N_NODES:
        return failure(
            f"{found}, but not on {N_NODES} nodes",
            "see what SLURM gives: srun -N2 --ntasks-per-node=1 hostname",
            **facts,
        )
    if sum(node["won"] for node in nodes) != 1:
        return failure(
            f"{found}; one of {N_NODES} nodes that make a name at once must succeed, however: {sum(n['won'] for n in nodes)}",
            "name a results folder on another file system: python -m irnet_hpc.doctor --slurm --results DIR",
            **facts,
        )
    if trouble := nodes[0]["trouble"]:
        return warning(
            f"{found}; on {nodes[0]['host']} {trouble}, so a preempted job cannot requeue itself",
            "ask the cluster's administrators, showing: srun scontrol ping",
            **facts,
        )
    worst = max(nodes, key=lambda node: abs(node["skew_s"]))
    if abs(worst["skew_s"]) > SKEW_S:
        return warning(
            f"{found}; the clock of {worst['host']} is {-worst['skew_s']:+.1f} s from the file system's",
            "have all clocks set by one server: srun -N2 timedatectl timesync-status",
            **facts,
        )
    return ok(
        f"{found}; sbatch and scontrol answer there, clocks agree within {max(0.01, abs(worst['skew_s'])):.2f} s",
        **facts,
    )


def checks(wait_s: float) -> tuple[Check, ...]:
    return (Check("two nodes", two_nodes, wait_s + 120, "srun -N2 --ntasks-per-node=1 hostname"),)
