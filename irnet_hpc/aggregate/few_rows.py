"""Find out how many test rows cause half of an MAE.

If two of a hundred rows decide an MAE, it says more about these rows than about the model. Often
their targets are wrong, or they resemble a training row with a wrong target.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from irnet_hpc.runs.collect import FinishedRun
from irnet_hpc.runs.predictions import Predictions, has_predictions, pool_splits, readable_runs

if TYPE_CHECKING:
    import numpy as np

HALF = 0.5
# At most this fraction of the rows are a few, or a single row. If errors are normally distributed,
# 23 % of the rows make half of the MAE; of OQMD's formation energies, about 8 %.
FEW = 0.02
MIN_ROWS = 10  # with fewer test rows, every row is one of a few
N_NAMES = 3  # formulas that are named


@dataclasses.dataclass(frozen=True)
class HalfRows:
    """The smallest set of test rows that causes half of an MAE, or of a difference of MAEs."""

    n: int
    n_rows: int  # number of test rows
    share: float  # fraction of the MAE that the n rows make
    mae_without: float | None  # MAE or difference over all other rows; None: there are none
    formulas: tuple[str, ...]  # formulas of the worst of them, the worst first

    @property
    def are_few(self) -> bool:
        """Return True if these rows are so few that they decide the MAE."""
        return self.n_rows >= MIN_ROWS and self.n <= few(self.n_rows)

    @property
    def names(self) -> str:
        """The formulas, followed by dots if not all are shown."""
        more = ["..."] if self.n > len(self.formulas) else []
        return ", ".join([*self.formulas, *more])

    def words(self, form: str, unit: str) -> str:
        """Say how much of the MAE comes from these rows, and how large it is without them."""
        rows = f"{self.n:,} of {self.n_rows:,} test rows ({self.names})"
        verb = "makes" if self.n == 1 else "make"
        them = "it" if self.n == 1 else "them"
        text = f"{rows} {verb} {100 * self.share:.0f} % of it"
        if self.mae_without is None:
            return text
        return f"{text}; without {them} it is {self.mae_without:{form}} {unit}"


def few(n_rows: int) -> int:
    """Return the largest number of rows that counts as few among `n_rows` rows."""
    return max(1, math.floor(FEW * n_rows))


def half_rows(runs: Sequence[FinishedRun], predictions: Predictions) -> HalfRows | None:
    """Find the fewest rows that make half of the mean MAE of some runs.

    Args:
        runs: the runs of one model on one property.
        predictions: the reader of their predictions.

    Returns:
        The rows. None if the predictions of a run are missing or cannot be read, if the MAE is 0,
        or if there is a single run whose MAE and RMSE already show that half of its MAE cannot come
        from few rows.
    """
    # A report of thousands of single runs reads no predictions, and needs no numpy.
    if len(runs) == 1 and not (_may_be_few(runs[0]) and has_predictions(runs[0])):
        return None
    splits = predictions.by_split(runs)
    readable = readable_runs(runs, splits)
    if sum(map(len, readable.values())) < len(runs):
        return None
    import numpy as np

    parts, formulas, sums = [], [], []
    for pool in pool_splits(readable, splits):
        errors = np.concatenate([splits[split].errors(readable[split]) for split in pool])
        parts.append(errors.sum(axis=0) / (errors.shape[1] * len(runs)))
        formulas.append(splits[pool[0]].rows.formula)
        sums.append(errors)
    return _half_rows(np.concatenate(parts), np.concatenate(formulas), sums)


def _half_rows(
    part: "np.ndarray", formulas: "np.ndarray", errors: "Sequence[np.ndarray]"
) -> HalfRows | None:
    """Collect the rows with the largest shares of the MAE until they make half of it.

    Args:
        part: for each row of all pools, its share of the MAE (n_rows,); they add up to the MAE.
        formulas: the formulas of these rows (n_rows,).
        errors: for each pool, the absolute errors (n_runs, n_rows of the pool).
    """
    import numpy as np

    total = float(part.sum())
    if not total > 0:
        return None
    order = np.argsort(-part, kind="stable")
    sums = np.cumsum(part[order])
    n = int(np.searchsorted(sums, HALF * total * (1 - 1e-12))) + 1
    kept = np.ones(len(part), bool)
    kept[order[:n]] = False
    ends = np.cumsum([pool.shape[1] for pool in errors])[:-1]
    rest = [
        pool[:, of_pool]
        for pool, of_pool in zip(errors, np.split(kept, ends), strict=True)
        if of_pool.any()
    ]
    without = np.concatenate([pool.mean(axis=1) for pool in rest]) if rest else None
    return HalfRows(
        n=n,
        n_rows=len(part),
        share=float(sums[n - 1]) / total,
        mae_without=None if without is None else float(without.mean()),
        formulas=tuple(str(formula) for formula in formulas[order[: min(n, N_NAMES)]]),
    )


def half_of_difference(
    differences: "Sequence[np.ndarray]", formulas: "Sequence[np.ndarray]"
) -> HalfRows | None:
    """Count the rows that make half of the difference of two MAEs.

    Args:
        differences: for each draw of test rows, the differences of the two models' errors, averaged
            over runs (n_rows,). The mean difference is the mean of these draws' means.
        formulas: for each draw, the formulas (n_rows,).

    Returns:
        The rows that contribute most in the direction of the difference, and the difference over
        all other rows; None if the difference is 0.
    """
    import numpy as np

    n_draws = len(differences)
    part = np.concatenate([draw / (len(draw) * n_draws) for draw in differences])
    total = float(part.sum())
    if total == 0:
        return None
    order = np.argsort(-np.sign(total) * part, kind="stable")
    shares = np.cumsum(part[order]) / total
    n = int(np.argmax(shares >= HALF * (1 - 1e-12))) + 1
    kept = np.ones(len(part), bool)
    kept[order[:n]] = False
    ends = np.cumsum([len(draw) for draw in differences])[:-1]
    rest = [
        float(draw[of_draw].mean())
        for draw, of_draw in zip(differences, np.split(kept, ends), strict=True)
        if of_draw.any()
    ]
    names = np.concatenate(formulas)[order[: min(n, N_NAMES)]]
    return HalfRows(
        n=n,
        n_rows=len(part),
        share=float(shares[n - 1]),
        mae_without=float(np.mean(rest)) if rest else None,
        formulas=tuple(map(str, names)),
    )


def _may_be_few(run: FinishedRun) -> bool:
    """Return False if MAE and RMSE show that no few rows can cause half of the MAE.

    If k of n rows cause half of the MAE, the sum of their squared errors is at least (n MAE / 2)**2
    / k, so that RMSE / MAE is at least sqrt(n / (4 k)).
    """
    result, n = run.result, run.result.n_test
    return n >= MIN_ROWS and result.test_rmse >= 0.999 * result.test_mae * math.sqrt(
        n / (4 * few(n))
    )
