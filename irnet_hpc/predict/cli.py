"""Predict with finished runs: formulas, structures or feature columns -> properties with intervals.

    python -m irnet_hpc.predict --pretrained oqmd formulas.csv         the network of the package
    python -m irnet_hpc.predict RUN... formulas.csv -o predictions.csv     several runs are averaged
    python -m irnet_hpc.predict NETWORK FOREST formulas.csv -o predictions.csv --committee  weighted
    python -m irnet_hpc.predict --best band_gap formulas.csv -o predictions.csv.gz
    python -m irnet_hpc.predict RUN cifs/ -o predictions.csv               a folder of structures
    python -m irnet_hpc.predict RUN --enumerate "Li|Na-Fe|Co-O, step 0.05" --top 100 -o best.csv
    zcat huge.csv.gz | python -m irnet_hpc.predict RUN - -o - --max formation_energy=-1 | head

If the packs of the runs are available, their val rows calibrate prediction intervals, and materials
outside the training data are marked. The share of test rows within the intervals is printed on
stderr. A row that cannot be predicted stays in its place, and the column `problem` says why. Memory
does not depend on the number of rows. docs/prediction.md says more.
"""

import argparse
import csv
import dataclasses
import gc
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from irnet_hpc.console import CommandParser, command_parser, json_answer
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import write_json
from irnet_hpc.pack.options import add_reading_options, reading_of

if TYPE_CHECKING:
    from irnet_hpc.predict.candidates import Candidates
    from irnet_hpc.predict.output import OutputBatch, RowFilter, Tally
    from irnet_hpc.predict.screening import Ensemble


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    _check(arguments)
    folders, table = _runs_and_table(arguments)
    stdout, command = sys.stdout, list(sys.argv[1:] if argv is None else argv)
    # Lines for people always go to stderr, since stdout may get the predictions or the JSON object.
    with json_answer(True) as answer:
        about = _predict(arguments, folders, table, stdout)
        if arguments.output != "-":
            seconds = about.pop("seconds")
            about["command"] = command
            write_json(f"{arguments.output}.about.json", about)
            step = next_step(arguments.output)
            print(
                f"wrote {arguments.output}; units, runs and errors are in "
                f"{arguments.output}.about.json\nnext: {step}",
                flush=True,
            )
            if arguments.json:
                answer({"output": arguments.output, "seconds": seconds, "next": step, **about})
    return 0


def _predict(
    arguments: argparse.Namespace, folders: list[str], table: str | None, stdout: TextIO
) -> dict:
    """Write the predictions. Returns the facts that about.json records about them."""
    # Imported here, so that --help and errors in the command appear at once.
    from irnet_hpc.distributed.gpus import device_of
    from irnet_hpc.distributed.processes import keep_freed_memory
    from irnet_hpc.predict import output
    from irnet_hpc.predict.best_run import best_runs
    from irnet_hpc.predict.committee import calibrate_ensemble, load_ensemble
    from irnet_hpc.predict.saved import runs_and_packs
    from irnet_hpc.predict.screening import screen
    from irnet_hpc.predict.weights import weigh
    from irnet_hpc.runs.portable import name_of

    keep_freed_memory()
    output.check_output(arguments.output)
    runs, pack_dir = runs_and_packs(folders, arguments.pack_dir)
    if arguments.best:
        runs = list(best_runs(arguments.results, arguments.best, arguments.pack))
    ensemble, evidence = load_ensemble(runs, pack_dir, device_of(0))
    if arguments.committee:
        if len(ensemble.members) < 2:
            raise UserError("--committee needs several runs, got one")
        ensemble, evidence = weigh(ensemble, evidence)
    ensemble, reports = calibrate_ensemble(ensemble, evidence, arguments.interval)
    row_filter = _row_filter(arguments, ensemble.properties)
    began = time.monotonic()
    with _candidates(arguments, table, ensemble) as candidates:
        header = output.output_header(candidates.header, ensemble)
        screened = screen(ensemble, candidates, arguments.workers)
        batches = output.format_rows(ensemble, screened, row_filter)
        with output.open_output(arguments.output, stdout) as stream:
            tally = _write(stream, header, batches, candidates.n_rows)
    seconds = time.monotonic() - began
    print(
        f"{tally.n_rows:,} rows in {seconds:.1f} s: {tally.n_kept:,} written, "
        f"{tally.n_problems:,} with a problem, {tally.n_outside:,} outside the training data"
        + (f", {tally.n_known:,} with a formula that the model has seen" if ensemble.known else ""),
        flush=True,
    )
    if tally.n_seen:
        print(
            f"note: {tally.n_seen:,} rows have the features of a training row (distance 0): the "
            "models have seen them, so the errors stated are not for them",
            flush=True,
        )
    return {
        "seconds": round(seconds, 3),
        "runs": [
            {"folder": name_of(member.folder), "key": member.result.key}
            for member in ensemble.members
        ],
        "properties": [dataclasses.asdict(report) for report in reports],
        "rows": tally._asdict(),
    }


def _write(
    stream: TextIO, header: list[str], batches: Iterable["OutputBatch"], n_rows: int | None
) -> "Tally":
    """Write the predictions as CSV, with a progress bar on a terminal. Returns the final counts."""
    from irnet_hpc.predict.output import Tally

    tally = Tally()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    from tqdm import tqdm

    # None: tqdm shows the bar if stderr is a terminal.
    with tqdm(total=n_rows, unit=" rows", disable=None) as bar:
        for number, batch in enumerate(batches):
            writer.writerows(batch.rows)
            if number == 0:
                # All imports are done. Frozen, their objects are no longer traversed by every
                # garbage collection, which took 5 % of the time.
                gc.freeze()
            tally = batch.tally
            bar.update(tally.n_rows - bar.n)
    return tally


def next_step(output: str) -> str:
    """Return a command that shows the first rows of the output."""
    path = shlex.quote(output)
    return f"zcat {path} | head -n 6" if output.endswith(".gz") else f"head -n 6 {path}"


def _check(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.interval < 1:
        raise UserError(f"--interval must be between 0 and 1, e.g. 0.9, got {arguments.interval:g}")
    for option in ("top", "workers"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise UserError(f"--{option} must be at least 1, got {value}")
    if arguments.top is None and (arguments.lowest or arguments.by):
        raise UserError("--lowest and --by say how --top N orders rows, but --top is not given")
    if not arguments.enumerate and arguments.no_endpoints:
        raise UserError("--no-endpoints needs --enumerate, which is not given")
    if arguments.pack and not arguments.best:
        raise UserError("--pack needs --best; a run given by its folder records its own pack")
    if arguments.json and arguments.output == "-":
        raise UserError("stdout can get either the predictions (-o -) or the object of --json")


def _runs_and_table(arguments: argparse.Namespace) -> tuple[list[str], str | None]:
    """Return the folders of the runs and the table.

    The table is the last name; with --enumerate there is none.
    """
    names = list(arguments.names)
    table = None
    if not arguments.enumerate:
        if not names:
            raise UserError(
                "candidates are missing: give a .csv or .jsonl as the last name, - for stdin, "
                "or --enumerate"
            )
        table = names.pop()
        _check_table(table, arguments.output)
    if arguments.best and names:
        raise UserError(
            f"give either the folders of runs or --best, got both --best and {names[0]}"
        )
    if arguments.pretrained and (names or arguments.best):
        given = f"the run {names[0]}" if names else "--best"
        raise UserError(f"--pretrained must be given without other models, got it with {given}")
    if arguments.pretrained:
        names = [f"pretrained:{arguments.pretrained}"]
    if not arguments.best and not names:
        raise UserError(
            "runs are missing: give their folders, --pretrained NAME or --best PROPERTY"
        )
    if arguments.committee and arguments.best:
        raise UserError("--committee needs the folders of several runs, got --best, which is one")
    return names, table


def _check_table(table: str, output: str) -> None:
    if table == "-":
        return
    if (Path(table) / "result.json").exists():
        raise UserError(f"the last name must be the table of candidates, got the run {table}")
    if not Path(table).exists():
        raise UserError(f"there is no table {table}")
    if Path(output).exists() and Path(output).samefile(table):
        raise UserError(f"the output must not be the table of candidates, got {table} for both")


@contextmanager
def _candidates(
    arguments: argparse.Namespace, table: str | None, ensemble: "Ensemble"
) -> Iterator["Candidates"]:
    """Open the candidates.

    Raises:
        UserError: If the features of the runs need structures or columns that the candidates do not
            have.
    """
    from irnet_hpc.features.sets import ELEMENTS
    from irnet_hpc.predict import candidates, compositions
    from irnet_hpc.predict.screening import training_elements

    layout = ensemble.layout
    if table is not None:
        with candidates.open_table(
            table, layout.columns, layout.formula_needed, reading_of(arguments)
        ) as rows:
            if layout.structure_set and not rows.has_structures:
                raise UserError(
                    f"feature set {layout.structure_set} needs crystal structures, but {table} has "
                    "formulas only; they are read from folders, archives and JSON lines"
                )
            yield rows
        return
    if layout.structure_set or layout.columns:
        raise UserError(
            "--enumerate needs runs whose features are computed from formulas, "
            f"got feature set {layout.structure_set or 'columns'}"
        )
    elements = training_elements(ensemble)
    space = compositions.parse_space(
        arguments.enumerate,
        ELEMENTS if elements is None else elements,
        endpoints=not arguments.no_endpoints,
    )
    n_rows = compositions.count(space)
    print(f"{n_rows:,} compositions in {arguments.enumerate!r}", flush=True)
    yield candidates.formula_candidates(compositions.enumerate_formulas(space), n_rows)


def _row_filter(arguments: argparse.Namespace, properties: tuple[str, ...]) -> "RowFilter":
    """Make the RowFilter that the options describe."""
    from irnet_hpc.predict.output import RowFilter

    minimum = _bounds(arguments.min, "--min", properties)
    maximum = _bounds(arguments.max, "--max", properties)
    if arguments.top and not arguments.by and len(properties) > 1:
        raise UserError(
            "--top needs --by PROPERTY if the runs predict several properties, "
            f"got {', '.join(properties)}"
        )
    by = check_choice("predicted property", arguments.by or properties[0], properties)
    return RowFilter(minimum, maximum, arguments.top, by, arguments.lowest)


def _bounds(pairs: Sequence[str], option: str, properties: Sequence[str]) -> dict[str, float]:
    """Read `[PROPERTY=]VALUE` pairs; the name may be left out if there is only one property."""
    from irnet_hpc.data.numerals import parse_number

    bounds: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        if not name and len(properties) > 1:
            raise UserError(f"{option} must name one of {', '.join(properties)}, got {pair!r}")
        name = check_choice("predicted property", name or properties[0], properties)
        if name in bounds:
            raise UserError(f"{option} must be given once for {name}, got {', '.join(pairs)}")
        try:
            bounds[name] = parse_number(text)
        except ValueError:
            raise UserError(f"{option} must be [PROPERTY=]NUMBER, got {pair!r}") from None
    return bounds


def parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = command_parser("predict", __doc__)
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="RUN... TABLE",
        help="folders of finished runs, of all seeds of a model, or of a model that irnet_hpc.fit "
        "has saved, then the table: .csv, .tsv or .jsonl (.gz, .xz), .xlsx, .parquet, .feather or "
        ".json, or - for stdin; or a folder or archive of structures",
    )
    add("-o", "--output", default="-", help="a .csv or .csv.gz, or - for stdout (the default)")
    add(
        "--pretrained",
        metavar="NAME",
        help="instead of RUN...: use a network that ships with the package: oqmd",
    )
    add(
        "--best",
        metavar="PROPERTY",
        help="instead of RUN...: use the run below --results with the lowest val MAE",
    )
    add(
        "--committee",
        action="store_true",
        help="weigh several runs by their errors on val; without it all count the same",
    )
    add("--results", default="results", help="folder that --best searches (default: %(default)s)")
    add("--pack", help="with --best: consider only runs on this pack")
    add(
        "--enumerate",
        metavar="SPACE",
        help="predict compositions instead of a table, e.g. 'A-B-O, step 0.05'",
    )
    add(
        "--no-endpoints",
        action="store_true",
        help="with --enumerate: leave out compositions that lack one of the places",
    )
    add(
        "--min",
        action="append",
        default=[],
        metavar="[P=]X",
        help="keep rows whose prediction is at least X, in the property's unit",
    )
    add(
        "--max",
        action="append",
        default=[],
        metavar="[P=]X",
        help="keep rows whose prediction is at most X",
    )
    add("--top", type=int, metavar="N", help="keep the N rows with the highest predictions, sorted")
    add("--lowest", action="store_true", help="with --top: keep the lowest predictions instead")
    add("--by", metavar="P", help="with --top: the property to sort by, if there are several")
    add(
        "--interval",
        type=float,
        default=0.9,
        help="share of true values that intervals should contain (default: %(default)s)",
    )
    add(
        "--workers",
        type=int,
        default=1,
        help="processes that compute features (default: %(default)s)",
    )
    add_reading_options(parser)
    add("--pack-dir", help="folder of the runs' packs (default: $IRNET_PACKS, else packs)")
    add("--json", action="store_true", help="print one JSON object on stdout at the end")
    return parser
