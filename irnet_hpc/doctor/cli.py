"""Prove an environment: each line a check, its verdict, and what to do.

    python -m irnet_hpc.doctor                        this machine, the engine, where the results go, SLURM
    python -m irnet_hpc.doctor --slurm --site NAME    and a job of two nodes, as a sweep would submit it
    python -m irnet_hpc.doctor --only results slurm   some of it again
    python -m irnet_hpc.doctor --json                 for a program to read

Under a minute where all is well, --slurm apart, and never without end: whatever hangs or crashes is a verdict. Nothing stays
behind. Exit status: 0 if a matrix would run here (warnings and notes do not count), 1 if not, 2 for a user's mistake.
"""

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from irnet_hpc.doctor import cluster, engine, machine
from irnet_hpc.doctor import filesystem as place
from irnet_hpc.doctor import two_nodes as job
from irnet_hpc.doctor.checks import Check, Settings, TooLong, Verdict, end_all, examine, within
from irnet_hpc.errors import UserError

GROUPS = {
    "machine": machine.CHECKS,
    "engine": engine.CHECKS,
    "results": place.CHECKS,
    "slurm": cluster.CHECKS,
}
# check -> another that must not have failed for it to be worth trying
NEEDS = {
    **dict.fromkeys(("MPI", "NCCL", "two ranks", "under mpirun", "allocation"), "Horovod"),
    **dict.fromkeys(("names", "HDF5", "clock"), "results"),
    **dict.fromkeys(
        ("arrays", "requeue", "accounting", "srun --mpi", "sbatch", "state", "two nodes"), "SLURM"
    ),
}
WIDTH = max(len(check.name) for checks in (*GROUPS.values(), job.checks(0)) for check in checks)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    site, site_name = site_of(arguments.site)
    settings = Settings(
        Path(arguments.results).absolute(),
        secrets.token_hex(4),
        site,
        site_name,
        wait_s=arguments.wait,
    )
    checks = [check for group in arguments.only or GROUPS for check in GROUPS[group]]
    if arguments.slurm:
        if not cluster.is_here():
            raise UserError(
                "--slurm needs SLURM's commands on PATH and a cluster that they know; see scontrol ping"
            )
        checks += job.checks(arguments.wait)
    began, verdicts, took_s, n_left_out = time.monotonic(), {}, {}, 0
    try:
        for check in checks:
            if NEEDS.get(check.name) in verdicts and verdicts[NEEDS[check.name]].level == "failure":
                n_left_out += 1
                continue
            started = time.monotonic()
            if verdict := examine(check, settings):
                verdicts[check.name], took_s[check.name] = verdict, time.monotonic() - started
                if not arguments.json:
                    print("\n".join(lines_of(check, verdict)), flush=True)
    finally:
        end_all()
        with contextlib.suppress(TooLong, OSError):
            within(
                5, lambda: shutil.rmtree(settings.trial, ignore_errors=True)
            )  # of a check that was given up
    failed = any(verdict.level == "failure" for verdict in verdicts.values())
    seconds = time.monotonic() - began
    if arguments.json:
        print(as_json(verdicts, took_s, failed))
    else:
        mended = "once mended, " if failed else ""
        print(
            f"{summary(verdicts, n_left_out, seconds)}\n{mended}next: {next_step(verdicts, arguments.results)}"
        )
    return int(failed)


def site_of(name: str | None) -> tuple[object | None, str | None]:
    """The site that is asked for, and its name; no site where what reads it is missing, of which a check will speak."""
    try:
        from irnet_hpc.sweep.matrix.sites import read_site
    except ImportError:
        return None, name
    return read_site(name), name or os.environ.get("IRNET_SITE") or None


def lines_of(check: Check, verdict: Verdict) -> list[str]:
    level = verdict.level.upper() if verdict.level == "failure" else verdict.level
    lines = [f"{level:<8} {check.name:<{WIDTH}}  {verdict.found}"]
    return lines + ([f"{'':<8} {'':<{WIDTH}}  -> {verdict.todo}"] if verdict.todo else [])


def summary(verdicts: dict[str, Verdict], n_left_out: int, seconds: float) -> str:
    counts = Counter(verdict.level for verdict in verdicts.values())
    parts = [
        f"{n} {level}" for level in ("ok", "note", "warning", "failure") if (n := counts[level])
    ]
    parts += [f"{n_left_out} not tried"] if n_left_out else []
    end = "a matrix would not run here as it is" if counts["failure"] else "a matrix would run here"
    return f"{len(verdicts)} checks in {seconds:.0f} s: {', '.join(parts)}; {end}"


def next_step(verdicts: dict[str, Verdict], results: str) -> str:
    """The groups that failed, once that is mended; else the first pack."""
    failed = [
        name
        for name, checks in GROUPS.items()
        if any(c.name in verdicts and verdicts[c.name].level == "failure" for c in checks)
    ]
    where = [] if results == "results" else ["--results", results]
    if failed:
        return shlex.join(["python", "-m", "irnet_hpc.doctor", "--only", *failed, *where])
    if any(verdict.level == "failure" for verdict in verdicts.values()):  # of the job of two nodes
        return shlex.join(["python", "-m", "irnet_hpc.doctor", "--slurm", *where])
    return "python -m irnet_hpc.pack --source alloys"


def as_json(verdicts: dict[str, Verdict], took_s: dict[str, float], failed: bool) -> str:
    checks = {
        name: {**verdict._asdict(), "facts": dict(verdict.facts), "seconds": round(took_s[name], 2)}
        for name, verdict in verdicts.items()
    }
    return json.dumps({"would_run": not failed, "checks": checks}, indent=1, ensure_ascii=False)


def seconds(text: str) -> float:
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise argparse.ArgumentTypeError(
            f"must be whole seconds from 1 to 86,400, however: {text!r}"
        )
    return float(text)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--results",
        default="results",
        help="the folder that results will be in (default: %(default)s)",
    )
    add("--only", nargs="+", choices=GROUPS, help="these groups of checks alone")
    add(
        "--slurm",
        action="store_true",
        help="also run a job of two nodes; takes as long as the queue lets it",
    )
    add("--site", help="a name in env/sites or a YAML file; default: $IRNET_SITE")
    add(
        "--wait",
        type=seconds,
        default=300,
        metavar="SECONDS",
        help="for that job (default: %(default)s)",
    )
    add("--json", action="store_true", help="one object at the end, for a program to read")
    return parser
