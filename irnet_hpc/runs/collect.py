"""Every result.json below a folder, whatever the folders are called: read, checked, and which runs have none."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs.result import LARGEST, RunResult, read_result
from irnet_hpc.runs.spec import RunSpec, read_recipe, read_spec

MAY_BE_NONE = ("n_parameters", "val_mae", "fitted_rows")  # numbers that not every result has
PER_PROPERTY = {  # of a result of several properties, what each has
    *(
        "unit",
        "test_mae",
        "test_rmse",
        "test_r2",
        "val_mae",
        "baseline_mae",
        "n_train",
        "n_val",
        "n_test",
    ),
}


class Run(NamedTuple):
    folder: Path
    spec: RunSpec
    result: RunResult
    joint: str | None = None  # all properties of the network, of which this is one

    @property
    def trained(self) -> RunSpec:
        """The specification of the training itself."""
        return dataclasses.replace(self.spec, property=self.joint) if self.joint else self.spec

    @property
    def split_identity(self) -> dict:
        """What its pack says of how it was split; empty where it says nothing."""
        split = self.result.pack_identity.get("split")
        return split if isinstance(split, dict) else {}

    @property
    def split(self) -> int | None:
        """The seed of its pack's split; None where there is none, as where the source's own column splits."""
        seed = self.split_identity.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def repetition(self) -> tuple[int, int]:
        """(split seed, seed): what tells runs of one cell apart."""
        return (self.split or 0, self.spec.seed)


class Gap(NamedTuple):
    """A cell that a table does not hold, or holds with a reservation."""

    state: str
    why: str = ""
    spec: RunSpec | None = None  # None: its run.json does not say


def collect(results: Path) -> tuple[list[Run], dict[Path, Gap]]:
    """Read every result below `results`; the folders that have none, or none that can be read, come back as gaps."""
    if not results.is_dir():
        raise UserError(
            f"{results} is not a folder; give the one that train and sweep write their runs to"
        )
    runs, gaps = [], {}
    for folder, names in _folders(results):
        if "result.json" in names:
            try:
                result = read_result(folder / "result.json")
                spec = _checked_spec(folder, result)
                with contextlib.suppress(
                    UserError
                ):  # of fields that recipes no longer have; it is shown as stale
                    result = dataclasses.replace(
                        result, recipe=dataclasses.asdict(read_recipe(spec, result.recipe))
                    )
                runs.append(Run(folder, spec, result))
            except (UserError, OSError) as error:
                gaps[folder] = Gap("unreadable, and left out", str(error), _planned_spec(folder))
        elif "error.json" in names:
            gaps[folder] = Gap("failed", _sentence(folder / "error.json"), _planned_spec(folder))
        elif "run.json" in names:
            gaps[folder] = Gap("running, or interrupted", spec=_planned_spec(folder))
    return runs, gaps


def _folders(top: Path) -> Iterator[tuple[Path, set[str]]]:
    """Each folder below `top` with its files' names, in order; links are followed, each real folder is seen once."""
    seen = set()
    for folder, below, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = (
            [] if real in seen else sorted(name for name in below if not name.startswith("."))
        )
        if real not in seen:
            yield Path(folder), set(names)
        seen.add(real)


def _planned_spec(folder: Path) -> RunSpec | None:
    """What a run without a result was to be, if its run.json can be read."""
    try:
        return read_spec(read_json(folder / "run.json")["spec"])
    except (UserError, OSError, KeyError, TypeError, AttributeError, ValueError):
        return None  # it is a gap all the same, in the notes under its folder's name


def _checked_spec(folder: Path, result: RunResult) -> RunSpec:
    """The specification of a result whose numbers can be counted on. Raises UserError where they cannot."""
    try:
        for name in (
            "test_mae",
            "baseline_mae",
            "n_train",
            "n_val",
            "n_test",
            "device_hours",
            *MAY_BE_NONE,
        ):
            _check_number(name, getattr(result, name), may_be_none=name in MAY_BE_NONE)
        spec = read_spec(result.spec)
        _check_per_property(spec.properties, result.per_property)
        return spec
    except UserError as error:
        raise UserError(f"{folder / 'result.json'}: {error}") from None


def _check_per_property(names: Sequence[str], per_property: object) -> None:
    """Of several properties each has its own numbers; of one there is nothing to say."""
    if len(names) == 1 and per_property is None:
        return
    if not isinstance(per_property, dict) or len(names) == 1 or per_property.keys() != set(names):
        raise UserError(
            f"per_property must be of {', '.join(names)}, and null for one, however: {per_property!r:.80}"
        )
    for name, of in per_property.items():
        if not isinstance(of, dict) or of.keys() != PER_PROPERTY or not isinstance(of["unit"], str):
            raise UserError(
                f"per_property of {name} must have {', '.join(sorted(PER_PROPERTY))}, however: {of!r:.80}"
            )
        for field in PER_PROPERTY - {"unit", "test_r2"}:
            _check_number(f"{field} of {name}", of[field], may_be_none=field == "val_mae")


def _check_number(name: str, value: object, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST:
        raise UserError(f"{name} must be a number that is not negative, however: {value!r:.50}")


def _sentence(path: Path) -> str:
    """What a failed run said."""
    try:
        return str(read_json(path)["error"])
    except (UserError, OSError, KeyError) as error:
        return f"its error.json cannot be read ({error})"


def one_a_property(run: Run) -> list[Run]:
    """A run of several properties as one a property, each with its own errors and its share of the device-hours."""
    names, result = run.spec.properties, run.result
    if len(names) == 1:
        return [run]
    shared = {
        "optimism": None,
        "per_property": None,
        "device_hours": result.device_hours / len(names),
    }
    return [
        Run(
            run.folder,
            dataclasses.replace(run.spec, property=name),
            dataclasses.replace(result, **result.per_property[name] | shared),
            run.spec.property,
        )
        for name in names
    ]
