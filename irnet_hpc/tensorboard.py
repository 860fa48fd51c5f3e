"""Write the curves of trainings as event files for TensorBoard.

    python -m irnet_hpc.tensorboard                       runs below results/
    python -m irnet_hpc.tensorboard results/oqmd-magpie   runs of one pack
    python -m irnet_hpc.tensorboard --logdir /tmp/curves  instead of to results/tensorboard
    tensorboard --logdir results/tensorboard              TensorBoard itself, a separate package

The command may be called at any time, even while trainings run: each call writes the event files
again from the present content of history.csv. It needs tensorboardX, the extra `tensorboard`.
"""

import contextlib
import csv
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.console import CommandParser, command_parser, exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, replacing

# TensorBoard reads every file with `tfevents` in its name.
FILE_NAME = "events.out.tfevents.irnet_hpc"
# Column of history.csv -> name of the curve.
CURVES = {"train_mae": "mae/train", "val_mae": "mae/selection", "lr": "learning_rate"}
FILE_VERSION = "brain.Event:2"  # TensorBoard expects this in the first event of a file


class Point(NamedTuple):
    """The values of several curves at one moment."""

    time_s: float  # since 1970
    epoch: int
    values: Mapping[str, float]  # name of the curve -> value


def read_points(folder: Path) -> Iterator[Point]:
    """Yield the points of a run's curves: each epoch of history.csv, then the test MAE at the end.

    The seconds in history.csv count from the start of the training, so the time at which the run
    first began is added to them.
    """
    began, epoch = start_time(folder), 0
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            try:
                epoch, seconds = int(line["epoch"]), float(line["seconds"])
                values = {curve: float(line[column]) for column, curve in CURVES.items()}
            except (KeyError, TypeError, ValueError):
                break  # a training is still writing this line
            yield Point(began + seconds, epoch, values)
    with contextlib.suppress(UserError, OSError, LookupError, TypeError, ValueError):
        result = read_json(folder / "result.json")
        test_mae = {"mae/test": float(result["test_mae"])}
        yield Point(began + float(result["wall_time_s"]), epoch, test_mae)


def start_time(folder: Path) -> float:
    """Return the time at which a run first began, in seconds since 1970.

    If run.json does not state it, this is the time at which history.csv was last changed.
    """
    with contextlib.suppress(UserError, OSError, LookupError, TypeError, ValueError):
        started = read_json(folder / "run.json")["attempts"][0]["started"]
        return datetime.fromisoformat(started).timestamp()
    return (folder / "history.csv").stat().st_mtime


def write_event_file(path: Path, folder: Path) -> None:
    """Write the curves of a run to an event file, which is replaced if it exists."""
    # Imported here, since the import takes 2 s.
    from tensorboardX import RecordWriter
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    # Not synced to disk, since the file can be written again at any time.
    with (
        replacing(path, sync=False) as temporary,
        contextlib.closing(RecordWriter(str(temporary))) as writer,
    ):
        version = Event(wall_time=start_time(folder), file_version=FILE_VERSION)
        writer.write(version.SerializeToString())
        for point in read_points(folder):
            values = [
                Summary.Value(tag=curve, simple_value=value)
                for curve, value in point.values.items()
            ]
            event = Event(wall_time=point.time_s, step=point.epoch, summary=Summary(value=values))
            writer.write(event.SerializeToString())


def write_curves(results: Path, logdir: Path) -> int:
    """Write the curves of all runs below a folder, one event file per run.

    Args:
        results: The folder with the run folders.
        logdir: The folder to write to, for `tensorboard --logdir`. Its subfolders are those of
            `results`.

    Returns:
        The number of runs.

    Raises:
        UserError: If there are no curves, or if tensorboardX is not installed.
    """
    if not results.is_dir():
        raise UserError(
            f"{results} is not a folder; name the results folder, which train and sweep write to"
        )
    folders = sorted(path.parent for path in results.rglob("history.csv"))
    if not folders:
        raise UserError(f"no history.csv below {results}: no network has trained for an epoch")
    try:
        for folder in folders:
            write_event_file(logdir / folder.relative_to(results) / FILE_NAME, folder)
    except ModuleNotFoundError as error:
        if error.name != "tensorboardX":
            raise
        raise UserError(
            "event files need tensorboardX, which is not installed; "
            "pip install 'irnet_hpc[tensorboard]'"
        ) from None
    return len(folders)


def parser() -> CommandParser:
    """Make the parser of the command."""
    parser = command_parser("tensorboard", __doc__)
    parser.add_argument(
        "results",
        nargs="?",
        type=Path,
        default=Path("results"),
        help="folder of runs (default: results)",
    )
    parser.add_argument(
        "--logdir",
        type=Path,
        metavar="DIR",
        help="folder to write to (default: RESULTS/tensorboard)",
    )
    return parser


def main() -> None:
    """Run the command."""
    arguments = parser().parse_args()
    logdir = arguments.logdir or arguments.results / "tensorboard"
    n_runs = write_curves(arguments.results, logdir)
    print(f"wrote the curves of {n_runs} run{'s' if n_runs > 1 else ''} below {logdir}")
    print(f"next: {shlex.join(['tensorboard', '--logdir', str(logdir)])}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
