"""Read a result.json, and check its fields."""

import dataclasses
import typing
from pathlib import Path

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json

# Largest number in a result: its square is still finite.
MAX_NUMBER = 1e100


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The content of result.json.

    Errors are in `unit`, on the test rows unless the name says otherwise. For several properties in
    one network the unit is `relative`: each error is a mean over the properties, in standard
    deviations of their training rows. Row counts are of rows that report at least one.
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
    # Protocol paper: how much selecting on test flatters. The epoch is selected on one half of the
    # test rows; this is the MAE on the other half minus that on the selecting half, averaged over
    # both choices of the half.
    optimism: float | None
    best_epoch: int | None  # None: a classical model, which has no epochs to select from
    epochs: int | None
    n_train: int
    n_val: int
    n_test: int
    # None: a classical model without coefficients or weights, or whose number says nothing.
    n_parameters: int | None
    # Over all attempts, without what a killed one did after its last checkpoint.
    wall_time_s: float
    device_hours: float  # wall time of each attempt times its ranks
    # Training rows a second, evaluation left out; None: a classical model.
    samples_per_s: float | None
    peak_memory_gb: float
    bundle_size: int
    # Each {started, size, engine, data}; networks alone have data, where the features were.
    attempts: list
    engine: str  # none | horovod (gloo|mpi|nccl) | torch
    device: str
    # The recipe's; of a classical model that of its input, its library may compute in another.
    precision: str
    pack_identity: dict
    versions: dict
    commit: str | None
    # Classical models only; None: a network, or a result older than these fields.
    fitted_rows: int | None = None  # the number of first training rows it was fitted on
    # {point, tried: [{point, mae, seconds}]}: MAE on the rows that select.
    chosen: dict | None = None
    # Several properties in one network only: {name: {unit, test_mae, test_rmse, test_r2, val_mae,
    # baseline_mae, n_train, n_val, n_test}}, in the property's unit, over the rows that report it,
    # at the one epoch that was selected.
    per_property: dict | None = None
    # The run it started from, as warm_start.describe() has it; None: it started from nothing.
    origin: dict | None = None


# Computed once, since a report may read thousands of results: name -> types; and who may be absent.
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
        UserError: If it is not one of this version, or a field is of another type.
        OSError: If there is none.
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
    # Not attempts, which only say when and on how many ranks: their readers check them.
    for name, kinds in TYPES.items():
        if name != "attempts":
            _check_type(path, name, value.get(name), kinds)
    return RunResult(**value)


def _check_type(path: Path | str, name: str, value: object, kinds: tuple[type, ...]) -> None:
    """Raise UserError if a value is not null and of another type, or too large a number."""
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
