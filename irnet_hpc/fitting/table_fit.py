"""Fit a table: pack it, train several models, and choose the one with the lowest val MAE.

The class that is returned is in fitted.py.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from irnet_hpc.data.cells import is_date
from irnet_hpc.data.splits import fold_rules, split_suffix
from irnet_hpc.distributed.launch import DEVICES
from irnet_hpc.errors import UserError, check_choice, check_whole, python_names
from irnet_hpc.fitting.fitted import FittedModel
from irnet_hpc.pack.store import Pack
from irnet_hpc.pack.table import pack_table
from irnet_hpc.predict.saved import PACKS, RESULTS, SavedFit, choose_runs, write_fit
from irnet_hpc.runs.classical_grids import GRIDS
from irnet_hpc.runs.recipes import DEFAULT_RECIPE, MIN_BATCH, RECIPES, fitting_batch
from irnet_hpc.runs.spec import model_of
from irnet_hpc.train.library import train_model

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

MODELS = ("extra_trees", "random_forest", "irnet-17")
FEATURES = "magpie+elements"
MIN_ROWS = 50
N_DATES = 20  # cells that tell a column of dates
# Tables of fewer rows are dealt to folds, since a tenth of them would be a small val or test part.
FEW_ROWS, N_FOLDS = 1000, 5
# The recipe of networks on few rows, that of jobs/transfer.yaml; the batch depends on the rows.
SMALL = {
    "name": "small",
    "base": DEFAULT_RECIPE,
    "epochs": 60,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "decay_epochs": 12.0,
}


class Reading(TypedDict, total=False):
    """The arguments of `pack_table` that `fit` passes on."""

    rows: int | None
    split: str
    split_seed: int
    filters: bool
    limits: Mapping[str, tuple[float, float]] | None
    data_dir: str | Path | None
    workers: int | None
    overwrite: bool
    formula_column: str | None
    rename: Mapping[str, str] | None
    drop: str | Sequence[str]
    missing: str | Sequence[str]
    sheet: str | None
    strict: bool
    duplicates: str | None


@python_names()
def fit(
    table: "str | Path | pd.DataFrame",
    target: str,
    *,
    unit: str | None = None,
    models: str | Sequence[str] = MODELS,
    features: str = FEATURES,
    recipe: str | dict[str, Any] | None = None,
    folds: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    device: str = "auto",
    **reading: Unpack[Reading],
) -> FittedModel:
    """Fit models to a table of formulas or structures and a property; return the best one.

    The table is read and split as `pack_table` does it: rows that cannot be read are left out and
    listed in `rejected`, a hash of the formula decides the split, and all rows of a formula are on
    one side. Each model is trained and tested as `train_model` does it. The model with the lowest
    MAE on the val rows is chosen; the test rows of a single split choose nothing.
    Progress is logged at level INFO by `logging.getLogger("irnet_hpc")`.

    Args:
        table: A DataFrame, a path to a table (.csv, .xlsx, .parquet, ...), or the name of a source
            such as `alloys`.
        target: The column to predict, by its header, such as `Eg (eV)`, or by the name of the
            property, such as `band_gap`.
        unit: The unit of the target, if neither the package nor the header tells it.
        models: The models to compare: classical ones such as `boosted_trees`, networks such as
            `irnet-17`, or layer strings such as `256BARx4-64BARx2-1`.
        features: Feature sets joined by +.
        recipe: The recipe of the networks: a name, or a dict of fields. None: the default recipe,
            or with 128 to 8,191 training rows one of more epochs and smaller batches.
        folds: The number of folds. Each formula is then a test row of one fold, and the mean of the
            models of all folds predicts. 1: a single split of 80, 10 and 10 % of the formulas.
            None: 5 for fewer than 1,000 rows, else 1.
        seed: The seed of the models.
        folder: The folder to keep packs and results in. If the call is interrupted, or repeated
            with more models, only what is missing is computed; models that were fitted there
            before take part in the choice. None: a temporary folder, which `save` copies.
        device: `auto`, `cpu` or `cuda`.
        **reading: Further arguments of `pack_table`, such as `formula_column` or `duplicates`.

    Returns:
        The fitted model, which predicts, shows the table of all models, and can be saved.

    Raises:
        UserError: If an argument or the table is wrong, if fewer than 50 rows can be used, if all
            targets are equal, or if no model could be trained.
    """
    if not isinstance(target, str):
        raise UserError(f"target must be the header of one column, got {target!r:.80}")
    for name in reading:
        check_choice("argument of fit", name, Reading.__annotations__)
    check_choice("device", device, DEVICES)
    _refuse_dates(table, target)
    if not isinstance(unit, str | None):
        raise UserError(f"unit must be a string such as 'GPa', got {unit!r}")
    wanted = _models(models)
    temporary = tempfile.TemporaryDirectory(prefix="irnet-fit-") if folder is None else None
    place = Path(temporary.name if temporary else folder or "")
    is_file = isinstance(table, str | os.PathLike)

    def packed(**split: Any) -> Pack:
        return pack_table(
            table,
            features=features,
            properties=target,
            units={target: unit} if unit else None,
            pack_dir=place / PACKS,
            **reading,
            **split,
        )

    with packed(name=None if is_file else f"table-{features}") as pack:
        (property,) = pack.units
        n_folds = _n_folds(folds, _check_rows(pack, property), reading)
        whole, own_recipe = pack.name, recipe or _recipe(pack, property)
    rules = fold_rules(n_folds) if n_folds > 1 else []
    packs = [whole + split_suffix(rule) for rule in rules] or [whole]
    with _said_before():
        for name, rule in zip(packs, rules, strict=False):
            packed(name=name, split=str(rule), split_seed=rule.seed).close()
    common = {"seed": seed, "results": place / RESULTS, "device": device, "keep_model": "always"}
    failed = {}
    for name, options in wanted.items():
        logger.info(f"model {name}" + (f", {n_folds} folds" if rules else ""))
        used = {"recipe": None if name in GRIDS else own_recipe} | options | common
        try:
            for pack_name in packs:
                train_model(place / PACKS / f"{pack_name}.h5", property, **used)
        except UserError as error:
            if len(wanted) == 1:
                raise
            logger.warning(f"warning: {name} is left out: {error}")
            failed[name] = str(error)
    if len(failed) == len(wanted):
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise UserError(f"no model could be trained on {property}: {reasons}")
    chosen = choose_runs(place, property, packs)
    write_fit(place, SavedFit(property, whole, tuple(packs), chosen, failed))
    model = FittedModel(place, temporary)
    if worse := model.worse_than_median:
        logger.warning(
            f"warning: predicting the training median is better than {', '.join(worse)}, on test"
        )
    return model


def _n_folds(folds: int | None, n_rows: int, reading: Mapping[str, Any]) -> int:
    """Return the number of folds for a table of `n_rows` rows; 1 for a single split."""
    if folds is not None and check_whole("folds", folds) < 1:
        raise UserError(f"folds must be at least 1, which is a single split, got {folds}")
    own_split = {"split", "split_seed"} & reading.keys()
    if folds and folds > 1 and own_split:
        raise UserError(f"folds are a split of their own, so they take no {own_split.pop()}")
    if folds is None:
        return N_FOLDS if n_rows < FEW_ROWS and not own_split else 1
    return folds


@contextlib.contextmanager
def _said_before() -> Iterator[None]:
    """Keep packing from repeating its warnings about one table for each fold."""
    logger = logging.getLogger("irnet_hpc.pack")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _recipe(pack: Pack, property: str) -> dict[str, Any] | None:
    """Return the recipe for the training rows of a pack; None for the default one.

    So few rows that a batch has MIN_BATCH of them anyway are left to the default recipe, which is
    fitted to them.
    """
    n_rows = int(pack.attrs["reported"][property]["train"])
    batch = fitting_batch(n_rows)
    if batch >= RECIPES[DEFAULT_RECIPE].batch or n_rows < 16 * MIN_BATCH:
        return None
    return SMALL | {"batch": batch, "norm_group": batch}


def _models(models: str | Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return name -> the arguments of `train_model` that name the model.

    Raises UserError if a name is unknown or is given twice.
    """
    names = [models] if isinstance(models, str) else models
    if (
        not isinstance(names, Sequence)
        or not names
        or not all(isinstance(name, str) for name in names)
    ):
        raise UserError(f"models must be names such as {', '.join(MODELS)}, got {models!r:.80}")
    wanted = {}
    for name in names:
        if name in wanted:
            raise UserError(f"each model must be given once, got {name!r} twice")
        described = model_of(name)
        wanted[name] = (
            {"layers": described["layers"]}
            if "layers" in described
            else {"architecture": described["architecture"], "depth": described["depth"]}
        )
    return wanted


def _refuse_dates(table: object, target: str) -> None:
    """Raise UserError if the target is a column of a DataFrame that holds dates."""
    columns = getattr(table, "columns", ())
    if target not in columns:
        return  # a file, or a column that is called otherwise: reading it tells
    known = table[target].dropna()  # type: ignore[index]
    if known.ndim == 1 and len(known) and all(is_date(value) for value in known.iloc[:N_DATES]):
        raise UserError(
            f"target must be a column of numbers, but {target!r} holds dates, such as "
            f"{str(known.iloc[0])[:10]}"
        )


def _check_rows(pack: Pack, property: str) -> int:
    """Return the number of rows that report the property.

    Raises UserError if there are too few to learn from, or all are equal.
    """
    import numpy as np

    y = np.concatenate([pack.y(property, pack.rows(role)) for role in ("train", "val", "test")])
    y = y[~np.isnan(y)]
    if len(y) < MIN_ROWS:
        left_out = ", ".join(f"{n:,} {why}" for why, n in pack.attrs["rejected"].items())
        raise UserError(
            f"a table must have at least {MIN_ROWS} rows that can be used, got {len(y)} of "
            f"{pack.attrs['n_read']:,} rows" + (f" ({left_out})" if left_out else "")
        )
    if y.min() == y.max():
        raise UserError(
            f"the targets must differ, but all {len(y):,} values of {property} are {y[0]:g} "
            f"{pack.units[property]}"
        )
    return len(y)
