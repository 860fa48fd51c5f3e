"""Why a table has no number where one could stand: runs that have no result, in the words of a cell."""

import re
from collections.abc import Iterable

from irnet_hpc.grouping import Group
from irnet_hpc.results import Gap
from irnet_hpc.runs import RunSpec

NOT_RUN = "not run"
STATES = {  # of runs without a result, the most telling first -> in a cell
    "failed": "failed",
    "preempted": "unfinished",
    "unreadable, and left out": "unreadable",
    "stale": "stale",
    "running": "running",
    "running, or interrupted": "unfinished",
    "queued": "queued",
    "not run": NOT_RUN,
}


def belongs(spec: RunSpec, group: Group, packs: dict[str, str]) -> bool:
    """Whether a run that has no result would stand in the table of this group, were it done."""
    pack = packs.get(spec.pack) or re.sub(r"-split\d+(?=-|$)", "", spec.pack)
    recipe = re.sub(r"#[0-9a-f]{6}$", "", group.recipe.removesuffix(" (stale)"))
    joint = spec.property if len(spec.properties) > 1 else None
    ours = (pack, spec.recipe, spec.protocol, spec.train_rows, spec.start_from is None, joint)
    return ours == (group.pack, recipe, group.protocol, group.train_rows, group.start_from is None, group.joint)


def why_missing(gaps: Iterable[Gap], model: tuple[str, int | None], name: str) -> str:
    """Of a cell that is not there: what its runs are, the worst first."""
    states = {
        gap.state for gap in gaps if (gap.spec.architecture, gap.spec.depth) == model and name in gap.spec.properties
    }
    known = [state for state in STATES if state in states]
    return STATES.get(known[0], known[0]) if known else NOT_RUN
