"""The curves of trainings as event files, which TensorBoard shows: history.csv of every run below a folder, read again.

python -m irnet_hpc.tensorboard                                what is below results/, to results/tensorboard/
python -m irnet_hpc.tensorboard results/oqmd-magpie            of one pack, to results/oqmd-magpie/tensorboard/
python -m irnet_hpc.tensorboard results/ --logdir /tmp/curves  writes there instead
tensorboard --logdir results/tensorboard                       TensorBoard itself: pip install tensorboard

To be run at any time, also beside trainings: each call writes what is there by then. Nothing of TensorFlow's is needed to
write: an event file is records of a length and a message, each with its CRC-32C (tensorflow/core/lib/io/record_writer.h), and
of the message (tensorflow/core/util/event.proto) four fields are used.
"""

import argparse
import contextlib
import csv
import shlex
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from irnet_hpc.console import exit_status
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json, replacing

NAME = "events.out.tfevents.irnet_hpc"  # TensorBoard takes every file with `tfevents` in its name
TAGS = {
    "train_mae": "mae/train",
    "val_mae": "mae/selection",
    "lr": "learning_rate",
}  # column of history.csv -> curve


# ----------------------------------------------------------------------------------------------------------- the format


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (
                0x82F63B78 if value & 1 else 0
            )  # Castagnoli's polynomial, bits reversed
        table.append(value)
    return tuple(table)


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720, B.4); zlib has another polynomial."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """As records hold it, so that the CRC of something that holds CRCs is not degenerate."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(message: bytes) -> bytes:
    length = struct.pack("<Q", len(message))
    return (
        length
        + struct.pack("<I", masked(crc32c(length)))
        + message
        + struct.pack("<I", masked(crc32c(message)))
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _nested(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def event(wall_time_s: float, step: int, values: Mapping[str, float]) -> bytes:
    """An Event: wall_time = 1 (double), step = 2 (int64), summary = 5 of value = 1 with tag = 1 and simple_value = 2 (float)."""
    summary = b"".join(
        _nested(1, _nested(1, tag.encode()) + b"\x15" + struct.pack("<f", value))
        for tag, value in values.items()
    )
    return b"\x09" + struct.pack("<d", wall_time_s) + b"\x10" + _varint(step) + _nested(5, summary)


def version(wall_time_s: float) -> bytes:
    """The first event of a file: file_version = 3."""
    return b"\x09" + struct.pack("<d", wall_time_s) + _nested(3, b"brain.Event:2")


# ------------------------------------------------------------------------------------------------------------- the runs


def events(folder: Path) -> Iterator[bytes]:
    """The messages of a run: one an epoch from history.csv, whose seconds are added to when the run first began, and the
    test MAE at the last epoch once there is a result."""
    began, epoch = started(folder), 0
    yield version(began)
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            try:
                epoch, seconds = int(line["epoch"]), float(line["seconds"])
                values = {tag: float(line[column]) for column, tag in TAGS.items()}
            except (KeyError, TypeError, ValueError):
                break  # a line that is being written
            yield event(began + seconds, epoch, values)
    with contextlib.suppress(UserError, OSError, LookupError, TypeError, ValueError):
        result = read_json(folder / "result.json")
        yield event(
            began + float(result["wall_time_s"]), epoch, {"mae/test": float(result["test_mae"])}
        )


def started(folder: Path) -> float:
    """When a run first began, in seconds since 1970; of a folder that does not say, when its history was last written."""
    with contextlib.suppress(UserError, OSError, LookupError, TypeError, ValueError):
        return datetime.fromisoformat(
            read_json(folder / "run.json")["attempts"][0]["started"]
        ).timestamp()
    return (folder / "history.csv").stat().st_mtime


def write(path: Path, messages: Iterable[bytes]) -> None:
    with replacing(path, sync=False) as temporary:  # it can be written again at any time
        temporary.write_bytes(b"".join(map(record, messages)))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m irnet_hpc.tensorboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="?", type=Path, default=Path("results"), help="default: results"
    )
    parser.add_argument(
        "--logdir", type=Path, metavar="DIR", help="where to write; default: RESULTS/tensorboard"
    )
    return parser


def main() -> None:
    arguments = parser().parse_args()
    results, logdir = arguments.results, arguments.logdir or arguments.results / "tensorboard"
    if not results.is_dir():
        raise UserError(
            f"{results} is not a folder; give the one that train and sweep write their runs to"
        )
    folders = sorted(path.parent for path in results.rglob("history.csv"))
    if not folders:
        raise UserError(
            f"no history.csv below {results}: no network has trained for an epoch there"
        )
    for folder in folders:
        write(logdir / folder.relative_to(results) / NAME, events(folder))
    print(
        f"wrote the curves of {len(folders)} run{'s'[: len(folders) > 1]} below {logdir}\nnext: {shlex.join(['tensorboard', '--logdir', str(logdir)])}"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
