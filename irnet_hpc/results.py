"""Every result.json below a folder, whatever the folders are called: read, checked, and which runs have none."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.runs import RunResult, RunSpec, read_recipe, read_result, read_spec

MAY_BE_NONE = ("n_parameters", "val_mae", "fitted_rows")  # numbers that not every result has


class Run(NamedTuple):
    folder: Path
    spec: RunSpec
    result: RunResult

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


def collect(results: Path) -> tuple[list[Run], dict[Path, Gap]]:
    """Read every result below `results`; the folders that have none, or none that can be read, come back as gaps."""
    if not results.is_dir():
        raise UserError(f"{results} is not a folder; give the one that train and sweep write their runs to")
    runs, gaps = [], {}
    for folder, names in _folders(results):
        if "result.json" in names:
            try:
                result = read_result(folder / "result.json")
                spec = _checked_spec(folder, result)
                with contextlib.suppress(UserError):  # of fields that recipes no longer have; it is shown as stale
                    result = dataclasses.replace(result, recipe=dataclasses.asdict(read_recipe(spec, result.recipe)))
                runs.append(Run(folder, spec, result))
            except (UserError, OSError) as error:
                gaps[folder] = Gap("unreadable, and left out", str(error))
        elif "error.json" in names:
            gaps[folder] = Gap("failed", _sentence(folder / "error.json"))
        elif "run.json" in names:
            gaps[folder] = Gap("running, or interrupted")
    return runs, gaps


def _folders(top: Path) -> Iterator[tuple[Path, set[str]]]:
    """Each folder below `top` with its files' names, in order; links are followed, each real folder is seen once."""
    seen = set()
    for folder, below, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith("."))
        if real not in seen:
            yield Path(folder), set(names)
        seen.add(real)


def _checked_spec(folder: Path, result: RunResult) -> RunSpec:
    """The specification of a result whose numbers can be counted on. Raises UserError where they cannot."""
    numbers = ("test_mae", "baseline_mae", "n_train", "n_val", "n_test", "device_hours", *MAY_BE_NONE)
    for name in numbers:
        value = getattr(result, name)
        if name in MAY_BE_NONE and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UserError(
                f"{folder / 'result.json'}: {name} must be a number that is not negative, however: {value!r}"
            )
    for name, kind in (("spec", dict), ("recipe", dict), ("pack_identity", dict), ("unit", str), ("key", str)):
        if not isinstance(getattr(result, name), kind):
            raise UserError(f"{folder / 'result.json'}: {name} must be of type {kind.__name__}")
    try:
        spec = result.spec
        for field in dataclasses.fields(RunSpec):
            value = spec.get(field.name)
            if field.name in spec and (isinstance(value, bool) or not isinstance(value, field.type)):
                kind = getattr(field.type, "__name__", field.type)
                raise UserError(f"{field.name} must be of type {kind}, however: {value!r}")
        return read_spec(spec)
    except UserError as error:
        raise UserError(f"{folder / 'result.json'}: {error}") from None


def _sentence(path: Path) -> str:
    """What a failed run said."""
    try:
        return str(read_json(path)["error"])
    except (UserError, OSError, KeyError) as error:
        return f"its error.json cannot be read ({error})"
