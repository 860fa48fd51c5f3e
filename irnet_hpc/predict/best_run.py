"""The choice of a run: the lowest val MAE of a property among the networks below a folder of results."""

import math
from collections.abc import Callable
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun, collect_runs, one_a_property


def best_run(results: Path, name: str, pack: str | None, say: Callable[[str], None]) -> Path:
    """The folder of the run. Its val MAE is that of all runs whose val rows are comparable: one source and one split.

    Raises UserError where no network has that property and a val MAE, or where packs are of several sources or splits:
    whose val rows are easier says nothing of whose model is better.
    """
    runs = [one for run in collect_runs(results)[0] for one in one_a_property(run)]
    of_property = [run for run in runs if run.spec.property == name]
    if not of_property:
        known = sorted({run.spec.property for run in runs})
        raise UserError(
            f"no run below {results} predicts {name!r}; predicted there: {', '.join(known) or 'nothing'}"
        )
    usable = [
        run
        for run in of_property
        if run.result.val_mae is not None and pack in (None, run.spec.pack)
    ]
    networks = [
        run
        for run in usable
        if not run.spec.is_classical and (run.folder / "model.safetensors").exists()
    ]
    if not networks:
        there = sorted({run.spec.pack for run in of_property})
        raise UserError(
            f"no network on {name} below {results} has a val MAE and its model{f' on pack {pack}' if pack else ''}; "
            f"runs on it are of the packs {', '.join(there)}"
        )
    kinds = {_val_rows(run): run.spec.pack for run in networks}
    if len(kinds) > 1:
        packs = ", ".join(sorted({run.spec.pack for run in networks}))
        raise UserError(
            f"val MAEs of several sources or splits do not compare; give --pack, one of {packs}"
        )
    best = min(networks, key=_val_mae)
    say(
        f"best of {len(networks)} runs by val MAE, {_val_mae(best):.4g} {best.result.unit}: {best.folder}"
    )
    ahead = [run for run in usable if run.spec.is_classical and _val_mae(run) < _val_mae(best)]
    if ahead:
        rival = min(ahead, key=_val_mae)
        say(
            f"note: {rival.spec.architecture} has {_val_mae(rival):.4g}, but of classical models no model is kept"
        )
    seeds = [run for run in networks if run.folder.parent == best.folder.parent]
    if len(seeds) > 1:
        say(
            f"note: it has {len(seeds)} seeds; their mean is mostly better: give the folders {best.folder.parent}/seed*"
        )
    return best.folder


def _val_mae(run: FinishedRun) -> float:
    return math.inf if run.result.val_mae is None else run.result.val_mae


def _val_rows(run: FinishedRun) -> tuple:
    """What decides which materials are val."""
    identity = run.result.pack_identity
    return (
        str(identity.get("source")),
        str(identity.get("source_sha256")),
        str(identity.get("split")),
    )
