"""Read a result.json, and check its fields."""

import dataclasses
import math
import typing
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs.recipes import Recipe, fitted_fields, fitted_to

# A MAE above this many times the baseline's is far above it. A model that predicts the mean of a
# property that is mostly zero comes close to twice the baseline, which predicts the median.
FAR_ABOVE = 3.0
ROUNDING = 1e-6  # a MAE that fp32 leaves where all targets are equal, in any unit
# The largest number allowed in a result; its square is still finite.
MAX_NUMBER = 1e100


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The content of result.json.

    Errors are in `unit`, and on the test rows unless the name says otherwise. If a network predicts
    several properties, the unit is `relative`: each error is first divided by the standard
    deviation of its property over the training rows, then averaged over the properties. Row counts
    are counts of rows that report at least one of the properties.
    """

    spec: dict
    key: str
    recipe: dict  # resolved
    unit: str
    test_mae: float
    test_rmse: float
    test_r2: float | None  # None where the test targets do not vary
    val_mae: float | None  # None under protocol paper, which trains on val
    baseline_mae: float  # MAE of predicting the train median for every test row
    selected_on: str  # val | test
    # Protocol paper: by how much selecting on test lowers the MAE. The epoch is selected on a half
    # of the test rows; this is the MAE on the other half minus the MAE on the selecting half,
    # averaged over both choices of the half.
    optimism: float | None
    best_epoch: int | None  # None: a classical model, which has no epochs to select from
    epochs: int | None
    n_train: int
    n_val: int
    n_test: int
    # None: a classical model that has no coefficients or weights, or whose count is not meaningful.
    n_parameters: int | None
    # Sum over all attempts; what a killed attempt did after its last checkpoint is not counted.
    wall_time_s: float
    device_hours: float  # sum over attempts of wall time times number of ranks
    # Training rows per second, not counting evaluation; None: a classical model.
    samples_per_s: float | None
    peak_memory_gb: float
    bundle_size: int
    # Each is {started, size, engine, data, threads}. Only networks have `data`: where the features
    # were. `threads` are those of each rank; results older than this field lack it.
    attempts: list
    engine: str  # none | horovod (gloo|mpi|nccl) | torch
    device: str
    # The recipe's precision; for a classical model that of its input, since its library may compute
    # in another.
    precision: str
    pack_identity: dict
    versions: dict
    commit: str | None
    # Classical models only; None: a network, or a result older than these fields.
    fitted_rows: int | None = None  # how many training rows, the first ones, it was fitted on
    # {point, tried: [{point, mae, seconds}]}; mae is on the rows that select.
    chosen: dict | None = None
    # Several properties in one network only: {name: {unit, test_mae, test_rmse, test_r2, val_mae,
    # baseline_mae, val_baseline_mae, n_train, n_val, n_test}}, in the property's unit, on the rows
    # that report it, at the one epoch that was selected for all.
    per_property: dict | None = None
    # MAE of predicting the train median for every val row, where there is a val_mae. A split by
    # chemistry may leave val rows that are harder or easier than the test rows. None: a result that
    # is older than this field.
    val_baseline_mae: float | None = None
    # The run that it started from, as warm_start.describe() returns it; None: random weights.
    origin: dict | None = None
    # The fields of the recipe that were fitted to few training rows, with the values used, such as
    # {batch: 16, norm_group: 16}; None: the recipe was used as it is, or an older result.
    fitted_recipe: dict | None = None
    # The hash of estimator.skops; None: a network, a model that is kept as numbers or not at all,
    # or a result that is older than this field.
    estimator_sha256: str | None = None

    @property
    def times_baseline(self) -> float:
        """The MAE divided by that of the baseline on the same rows, on val or test: the larger.

        If the baseline's MAE is 0, this is infinite, unless the MAE is only rounding: then it is 0.
        """
        on_val = self.baseline_mae if self.val_baseline_mae is None else self.val_baseline_mae
        return max(_ratio(self.val_mae or 0.0, on_val), _ratio(self.test_mae, self.baseline_mae))

    @property
    def has_earlier_fit(self) -> bool:
        """Return True if its recipe was fitted to its rows by a rule that has since changed."""
        if self.fitted_recipe is None:
            return False
        try:
            recipe = Recipe(**self.recipe)
        except (TypeError, UserError):  # it has a field that recipes no longer have
            return True
        return self.fitted_recipe != fitted_fields(recipe, fitted_to(recipe, self.n_train))

    @property
    def is_above_baseline(self) -> bool:
        """Return True if predicting the train median has a lower MAE, over val and test rows."""
        mae, baseline = self.test_mae * self.n_test, self.baseline_mae * self.n_test
        if self.val_mae is not None and self.val_baseline_mae is not None:
            mae += self.val_mae * self.n_val
            baseline += self.val_baseline_mae * self.n_val
        return mae > baseline + ROUNDING * (self.n_test + self.n_val)

    @property
    def is_far_above_baseline(self) -> bool:
        """Return True if the model is far worse than predicting one number for all rows."""
        return self.times_baseline > FAR_ABOVE


def _ratio(mae: float, baseline: float) -> float:
    if baseline:
        return mae / baseline
    return math.inf if mae > ROUNDING else 0.0


# The types of each field, and the fields that may be absent. Computed once, since a report may read
# thousands of results.
TYPES: dict[str, tuple[type, ...]] = {
    field.name: typing.get_args(field.type) or (typing.cast(type, field.type),)
    for field in dataclasses.fields(RunResult)
}
OPTIONAL = frozenset(
    field.name
    for field in dataclasses.fields(RunResult)
    if field.default is not dataclasses.MISSING
)


def read_result(path: Path | str) -> RunResult:
    """Read a result.json.

    Raises:
        UserError: If it is not a result of this version, or a field is of another type.
        OSError: If the file is missing or cannot be opened.
    """
    value = read_json(path)
    if value.keys() | OPTIONAL != TYPES.keys():
        wrong = sorted((value.keys() | OPTIONAL) ^ TYPES.keys())
        raise UserError(
            f"{path} is not a result of this version: keys missing or unknown: {', '.join(wrong)}"
        )
    if not all(isinstance(value[name], dict) for name in ("spec", "recipe", "pack_identity")):
        raise UserError(f"{path}: spec, recipe and pack_identity must be of type dict")
    if not all(isinstance(value[name], str) for name in ("unit", "key")):
        raise UserError(f"{path}: unit and key must be of type str")
    # `attempts` is not checked here: whoever reads the attempts checks them.
    for name, kinds in TYPES.items():
        if name != "attempts":
            _check_type(path, name, value.get(name), kinds)
    return RunResult(**value)


def _check_type(path: Path | str, name: str, value: object, kinds: tuple[type, ...]) -> None:
    """Raise UserError if a value has another type or is too large. None (null) is allowed."""
    if value is None:
        return
    known = (*kinds, int) if float in kinds else kinds
    if isinstance(value, bool) or not isinstance(value, known):
        wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
        raise UserError(f"{path}: {name} must be of type {wanted}, or null, got {value!r:.80}")
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise UserError(
            f"{path}: {name} must be a number of at most {MAX_NUMBER:g}, got {value!r:.50}"
        )
