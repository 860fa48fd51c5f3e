"""Run the checks of the chosen groups in order, and summarise their verdicts."""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from irnet_hpc.doctor import cluster, commands, engine, filesystem, machine, two_nodes
from irnet_hpc.doctor.checks import (
    GROUP_NAMES,
    Check,
    Level,
    Settings,
    TimeLimitExceeded,
    Verdict,
    call_within,
    examine,
)

CHECKS = (machine.CHECKS, engine.CHECKS, filesystem.CHECKS, cluster.CHECKS)
GROUPS: dict[str, tuple[Check, ...]] = dict(zip(GROUP_NAMES, CHECKS, strict=True))
# check -> another check; if that one fails, this one is skipped
NEEDS = {
    **dict.fromkeys(("MPI", "NCCL", "two ranks", "under mpirun", "allocation"), "Horovod"),
    **dict.fromkeys(("names", "HDF5", "clock"), "results"),
    **dict.fromkeys(("arrays", "requeue", "accounting", "srun --mpi"), "SLURM"),
    **dict.fromkeys(("sbatch", "state", "two nodes"), "SLURM"),
}
# Checks of several ranks; if only these fail, cells of one rank run nevertheless.
SEVERAL_RANKS = ("Horovod", "MPI", "two ranks", "under mpirun", "allocation")
CLEANUP_S = 5.0


@dataclass
class Report:
    """The verdicts of one call of the doctor: name of the check -> verdict."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # time that each check took
    n_skipped: int = 0  # checks that were skipped because a check that they depend on failed
    total_s: float = 0.0

    @property
    def failed(self) -> bool:
        """True if a matrix would not run here."""
        return any(verdict.level == Level.FAILURE for verdict in self.verdicts.values())

    @property
    def failed_groups(self) -> list[str]:
        """List the groups in which a check failed."""
        return [name for name, checks in GROUPS.items() if any(map(self._has_failed, checks))]

    def _has_failed(self, check: Check) -> bool:
        verdict = self.verdicts.get(check.name)
        return verdict is not None and verdict.level == Level.FAILURE

    def summary(self) -> str:
        """Return one line that counts the verdicts by level."""
        counts = Counter(verdict.level for verdict in self.verdicts.values())
        parts = [f"{counts[level]} {level}" for level in Level if counts[level]]
        if self.n_skipped:
            parts.append(f"{self.n_skipped} not tried")
        number = f"{len(self.verdicts)} checks in {self.total_s:.0f} s"
        return f"{number}: {', '.join(parts)}; {self.conclusion()}"

    def conclusion(self) -> str:
        """Say what would run here."""
        if horovod := self.verdicts.get("Horovod"):
            others = [self.verdicts[name] for name in self.verdicts if name not in SEVERAL_RANKS]
            if any(verdict.level == Level.FAILURE for verdict in others):
                return "a matrix would not run here yet"
            if self.failed or engine.is_absent(horovod.facts):
                return "a matrix would run here with one rank per cell (--ranks 1)"
        return f"a matrix {'would not run here yet' if self.failed else 'would run here'}"

    def as_dict(self) -> dict:
        """Return the report as the object that `--json` prints."""
        checks = {
            name: verdict._asdict()
            | {"facts": dict(verdict.facts), "seconds": round(self.seconds[name], 2)}
            for name, verdict in self.verdicts.items()
        }
        return {"would_run": not self.failed, "checks": checks}


def run_checks(
    settings: Settings,
    groups: Sequence[str] = tuple(GROUPS),
    *,
    with_job: bool = False,
    on_verdict: Callable[[str, Verdict], None] = lambda name, verdict: None,
) -> Report:
    """Run the checks of some groups, and remove all temporary files.

    Args:
        settings: The options of this call.
        groups: Names of groups in `GROUPS`, in the order in which they run.
        with_job: True to submit also a job of two nodes through SLURM.
        on_verdict: Called with the name and the verdict of each check when the check has ended.

    Returns:
        The verdicts of all checks that apply to this machine.
    """
    checks = [check for group in groups for check in GROUPS[group]]
    if with_job:
        checks.append(two_nodes.make_check(settings.wait_s))
    report, began = Report(), time.monotonic()
    try:
        for check in checks:
            needed = report.verdicts.get(NEEDS.get(check.name, ""))
            if needed and needed.level == Level.FAILURE:
                report.n_skipped += 1
                continue
            started = time.monotonic()
            if verdict := examine(check, settings):
                report.verdicts[check.name] = verdict
                report.seconds[check.name] = time.monotonic() - started
                on_verdict(check.name, verdict)
    finally:
        commands.stop_all()
        # A check that exceeded its time limit leaves this folder behind.
        with contextlib.suppress(TimeLimitExceeded, OSError):
            call_within(CLEANUP_S, lambda: shutil.rmtree(settings.trial_folder, ignore_errors=True))
    report.total_s = time.monotonic() - began
    return report
