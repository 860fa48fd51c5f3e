"""Find the runs that a folder stands for: itself, all seeds of a model, or the folds of a table."""

import logging
from pathlib import Path

from irnet_hpc.data.splits import name_of_folds

logger = logging.getLogger(__name__)


def runs_in(folder: Path | str) -> list[Path]:
    """Return the folders of the runs that a folder stands for, in order.

    Args:
        folder: The folder of a run; or the folder above the seeds of a model, which stands for its
            finished runs; or either of them with the name that the packs of all folds of a table
            have in common, such as `results/mine-magpie-folds5/...`, which stands for the folds.

    Returns:
        The folders; the given one alone if it stands for no others, whether or not it is a run.
    """
    path = Path(folder)
    if (path / "result.json").exists():
        return [path]
    if folds := _folds_of(path):
        return [run for fold in folds for run in runs_in(fold)]
    seeds = [seed for seed in path.glob("seed*") if seed.is_dir()]
    finished = [seed for seed in seeds if (seed / "result.json").exists()]
    if not finished:
        return [path]
    if len(finished) < len(seeds):
        logger.warning(
            f"warning: {len(seeds) - len(finished)} of the {len(seeds)} runs in {path} have no "
            "result and are left out"
        )
    return sorted(finished, key=_natural)


def _folds_of(path: Path) -> list[Path]:
    """Return the same folder below the pack of each fold; empty if the path names no folds."""
    for place, part in enumerate(path.parts):
        above = Path(*path.parts[:place])
        beside = above.iterdir() if "-folds" in part and above.is_dir() else ()
        packs = [one for one in beside if one.name != part and name_of_folds(one.name) == part]
        folds = [pack.joinpath(*path.parts[place + 1 :]) for pack in sorted(packs, key=_natural)]
        if found := [fold for fold in folds if fold.is_dir()]:
            return found
    return []


def _natural(path: Path) -> tuple[int, str]:
    """Order seed10 after seed9."""
    return len(path.name), path.name
