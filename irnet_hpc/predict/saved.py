"""Read and write fit.json, which makes a folder of packs and results a saved model.

    gaps/fit.json    the property, the pack, and the runs that predict
    gaps/packs/      the packs: one, or one for each fold
    gaps/results/    the runs of all models that were compared

`irnet_hpc.fit` writes such folders. `predict`, `load_model` and `irnet_hpc.load` read them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from irnet_hpc.data.splits import name_of_folds
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, write_json
from irnet_hpc.predict.best_run import best_runs

FILE = "fit.json"
FORMAT = "irnet-fit/1"
PACKS = "packs"
RESULTS = "results"


class SavedFit(NamedTuple):
    """The content of fit.json. Paths are below the folder of the file."""

    property: str
    table: str  # name of the pack with the whole table, which lists the rows left out
    packs: tuple[str, ...]  # names of the packs that models were trained on, one for each fold
    runs: tuple[Path, ...]  # folders of the runs that predict together
    failed: Mapping[str, str]  # model -> why it could not be trained


def write_fit(folder: Path, fit: SavedFit) -> None:
    """Write fit.json into a folder that holds the pack and the runs."""
    runs = [run.relative_to(folder).as_posix() for run in fit.runs]
    content = fit._asdict() | {"packs": list(fit.packs), "runs": runs, "failed": dict(fit.failed)}
    write_json(folder / FILE, {"format": FORMAT, **content})


def choose_runs(folder: Path, property: str, packs: Sequence[str]) -> tuple[Path, ...]:
    """Return the folders of the runs of the model with the lowest val MAE, one for each pack.

    Args:
        folder: A folder with results.
        property: The property to predict.
        packs: The names of the packs: one, or one for each fold of a table.

    Raises:
        UserError: If no run there can predict.
    """
    pack = name_of_folds(packs[0])
    return tuple(best_runs(folder / RESULTS, property, pack, each_seed=True))


def is_fit(folder: Path | str) -> bool:
    """Return True if a folder has a fit.json."""
    return Path(folder, FILE).is_file()


def read_fit(folder: Path | str) -> SavedFit:
    """Read the fit.json of a folder.

    Raises:
        UserError: If there is none, it is damaged, or it names a run outside the folder.
    """
    path = Path(folder, FILE)
    if not path.exists():
        raise UserError(f"{folder} is no folder of a fitted model, since it has no {FILE}")
    value = read_json(path)
    if value.get("format") != FORMAT:
        raise UserError(f"{path} must have format {FORMAT}, got {value.get('format')!r:.50}")
    failed = value.get("failed")
    runs, packs = _texts(value.get("runs")), _texts(value.get("packs"))
    texts = _texts([value.get("property"), value.get("table")])
    if not (runs and packs and texts):
        raise UserError(f"{path} must name a property, a table, packs and runs")
    if not isinstance(failed, dict) or not all(isinstance(why, str) for why in failed.values()):
        raise UserError(f"{path}: failed must map models to reasons, got {failed!r:.50}")
    for text in (texts[1], *packs, *runs):
        parts = PurePosixPath(text)
        if parts.is_absolute() or ".." in parts.parts:
            raise UserError(f"{path} must name packs and runs below its folder, got {text!r:.80}")
    paths = tuple(Path(folder, run) for run in runs)
    return SavedFit(texts[0], texts[1], packs, paths, failed)


def _texts(value: object) -> tuple[str, ...]:
    """Return a list of texts as a tuple; empty for anything else."""
    is_list = isinstance(value, list) and all(isinstance(text, str) for text in value)
    return tuple(value) if is_list else ()  # type: ignore[arg-type]


def runs_and_packs(
    names: Sequence[Path | str], pack_dir: Path | str | None
) -> tuple[list[Path | str], Path | str | None]:
    """Replace the folder of a saved model by its runs and its folder of packs.

    Args:
        names: Folders of runs, or the folder of one saved model.
        pack_dir: The folder of packs that the user gives; None: not given.

    Raises:
        UserError: If a saved model is given together with other folders, or cannot be read.
    """
    saved = [name for name in names if is_fit(name)]
    if not saved:
        return list(names), pack_dir
    if len(names) > 1:
        raise UserError(
            f"the folder of a fitted model must be given alone, got {saved[0]} and "
            f"{len(names) - 1} more; to average several models, give the folders of their runs"
        )
    return list(read_fit(saved[0]).runs), pack_dir or Path(saved[0], PACKS)
