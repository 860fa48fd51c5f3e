"""Predict with the model that `fit` has chosen; show, save and load it.

A fitted model is a folder (predict/saved.py): a pack, the runs of all models that were compared,
and fit.json, which names the chosen one. The same folder is what `save` copies and `load` opens.
"""

import functools
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from irnet_hpc.aggregate.report import Report, make_tables
from irnet_hpc.errors import UserError
from irnet_hpc.fitting.comparison import BASELINE, NESTED, compare
from irnet_hpc.fitting.display import model_html
from irnet_hpc.pack.blocks import lost_path, rejected_path
from irnet_hpc.pack.store import load_pack, pack_path
from irnet_hpc.predict.model import DEFAULT_LEVEL, Model, load_model
from irnet_hpc.predict.saved import FILE, PACKS, RESULTS, read_fit

if TYPE_CHECKING:
    import pandas as pd


class FittedModel:
    """The best of several models that were fitted to a table.

    Attributes:
        property: The property that it predicts.
        unit: The unit of the property, and of all errors.
        folder: The folder with the pack and the runs.
        failed: Model -> why it could not be trained.
    """

    def __init__(
        self,
        folder: Path | str,
        temporary: "tempfile.TemporaryDirectory | None" = None,
        device: str = "auto",
    ) -> None:
        self.folder = Path(folder)
        # The folder is removed when this object is.
        self._temporary, self._device = temporary, device
        self._fit = read_fit(self.folder)
        self.property, self.failed = self._fit.property, dict(self._fit.failed)
        with load_pack(self._fit.table, self.folder / PACKS) as pack:
            self.unit: str = pack.units[self.property]
            self._n_read, self._n_packed = int(pack.attrs["n_read"]), pack.n_rows
            self._n_rejected: dict[str, int] = dict(pack.attrs["rejected"])

    def __repr__(self) -> str:
        low, high = self.test_interval
        anew = " of models chosen anew in each fold" if NESTED in self.comparison.index else ""
        return (
            f"<FittedModel of {self.property}: {self.name}, test MAE{anew} {self.test_mae:.4g} "
            f"({low:.4g} to {high:.4g}) {self.unit}>"
        )

    def _repr_html_(self) -> str:
        return model_html(self)

    def __reduce__(self) -> NoReturn:
        raise UserError(
            "a fitted model cannot be pickled; save it with model.save(folder), and load it with "
            "irnet_hpc.load(folder)"
        )

    @property
    def name(self) -> str:
        """The name of the chosen model, such as `extra_trees`."""
        return str(self.comparison.index[self.comparison["chosen"]][0])

    @functools.cached_property
    def comparison(self) -> "pd.DataFrame":
        """The errors of all models and of the baseline, the lowest val MAE first.

        The index is the name of the model. The columns are `chosen`; `val_mae`, by which the model
        was chosen; `test_mae` with its 95 % interval from `low` to `high`, which redraws test rows
        by formula; `test_rmse`, `test_r2`; `n_train`, `n_val`, `n_test`; and `seconds`, the time
        of training. The baseline predicts the median of the training rows for every row.

        With folds, all rows are test rows, each of the models that were not trained on it. The row
        `chosen in each fold` takes for each fold the model with the lowest MAE on val in that fold.
        So no test row has a say in the choice, as it has in the val MAE over all folds.
        """
        return compare(self.folder / RESULTS, self._fit)

    @property
    def n_folds(self) -> int:
        """The number of folds; 1 for a single split."""
        return len(self._fit.packs)

    @property
    def test_mae(self) -> float:
        """The MAE to expect, on test rows that chose nothing.

        With folds and several models it is that of the row `chosen in each fold`.
        """
        return self._honest("test_mae")

    @property
    def test_interval(self) -> tuple[float, float]:
        """The 95 % interval of `test_mae`."""
        return self._honest("low"), self._honest("high")

    @property
    def worse_than_median(self) -> list[str]:
        """The names of the models whose test MAE is above that of the training median."""
        errors = self.comparison["test_mae"]
        return [name for name in errors.index[errors > errors[BASELINE]] if name != NESTED]

    def _honest(self, column: str) -> float:
        """Return a number of the row on whose errors no test row had a say."""
        numbers = self.comparison[column]
        return float(numbers[NESTED if NESTED in numbers.index else self.name])

    @functools.cached_property
    def rejected(self) -> "pd.DataFrame":
        """The rows that were left out, each with its line in the table and the reason.

        Lines count as in a CSV file: the first row is line 2.
        """
        return _read_csv(rejected_path(self._pack))

    @functools.cached_property
    def left_out(self) -> "pd.DataFrame":
        """The values that were left out though their rows were kept, each with the reason."""
        return _read_csv(lost_path(self._pack))

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of rows: `read`, `packed`, then for each reason those left out."""
        return {"read": self._n_read, "packed": self._n_packed, **self._n_rejected}

    @property
    def _pack(self) -> Path:
        return pack_path(self._fit.table, self.folder / PACKS)

    @functools.cached_property
    def _model(self) -> Model:
        return load_model(self._fit.runs, pack_dir=self.folder / PACKS, device=self._device)

    def predict(
        self,
        materials: "Iterable[str] | pd.DataFrame",
        level: float = DEFAULT_LEVEL,
        workers: int = 1,
    ) -> "pd.DataFrame":
        """Predict materials, in the order given.

        Args:
            materials: Formulas, structures, or a DataFrame with a column of either.
            level: The fraction of values that intervals should contain, between 0 and 1.
            workers: The number of processes that compute features.

        Returns:
            A DataFrame with the index and columns of `materials`, then `predicted_<property>`,
            `low_<property>` and `high_<property>` in the property's unit; `distance` to the
            training rows; `outside`, why a row is unlike the training rows, or empty; and
            `problem`, why a row has no prediction, or empty.

        Raises:
            UserError: If a column is missing, or materials are formulas where structures are
                needed.
        """
        return self._model.predict(materials, level, workers)

    def report(self) -> Report:
        """Make the report of all models, as `python -m irnet_hpc.aggregate` does.

        `model.report().write_page("report.html")` writes it as a page, with charts.
        """
        return make_tables(self.folder / RESULTS)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Copy the model, its pack and all runs that were compared into a folder.

        `python -m irnet_hpc.predict FOLDER new.csv -o predictions.csv` predicts with it, too.

        Args:
            folder: The folder to write; it appears once it is complete.
            overwrite: True to replace the folder of another fitted model.

        Raises:
            UserError: If the folder exists, unless it is a fitted model and `overwrite` is True.
        """
        target = Path(folder)
        if target.exists() and not (overwrite and (target / FILE).is_file()):
            hint = ", unless it is a fitted model and overwrite=True" if overwrite else ""
            raise UserError(f"the folder to save in must not exist{hint}, got {folder}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as near:
            whole = Path(near, "fit")
            for part in (PACKS, RESULTS):
                shutil.copytree(
                    self.folder / part, whole / part, ignore=shutil.ignore_patterns(".*")
                )
            shutil.copy(self.folder / FILE, whole / FILE)
            if target.exists():
                target.rename(Path(near, "former"))
            whole.rename(target)
        return target


def load(folder: str | Path, *, device: str = "auto") -> FittedModel:
    """Load a model that `fit` has written or `FittedModel.save` has copied.

    Args:
        folder: The folder of the model.
        device: The device on which networks compute: `auto`, `cpu` or `cuda`.

    Raises:
        UserError: If the folder is none of a fitted model, or is damaged.
    """
    return FittedModel(folder, device=device)


def _read_csv(path: Path) -> "pd.DataFrame":
    """Read a list of rows or values. All columns but `line` are text, even the formula NaN."""
    import pandas as pd

    if not path.exists():
        return pd.DataFrame()
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.astype({"line": int})
