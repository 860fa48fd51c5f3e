"""Predict with finished runs: formulas, structures or feature columns -> the property in its unit, with its spread.

    python -m irnet_hpc.predict RUN... formulas.csv -o predictions.csv          several runs are averaged
    python -m irnet_hpc.predict --best band_gap formulas.csv -o predictions.csv.gz
    python -m irnet_hpc.predict RUN --enumerate "Li|Na-Fe|Co-O, step 0.05" --top 100 --lowest -o best.csv
    zcat huge.csv.gz | python -m irnet_hpc.predict RUN - -o - --max formation_energy=-1 | head

Where the runs' packs are at hand, val gives intervals and what lies outside of the training rows is marked; how many of the
test rows the intervals hold is said on stderr. Rows that cannot be predicted stay in their place, with the reason in
`problem`. Memory does not depend on how many rows there are. docs/prediction.md says more.
"""

import argparse
import dataclasses
import gc
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from irnet_hpc.console import CommandParser, command_parser
from irnet_hpc.errors import UserError, check_choice
from irnet_hpc.files import json_text, write_json

if TYPE_CHECKING:
    from irnet_hpc.predict.candidates import Candidates
    from irnet_hpc.predict.screening import Screen


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    _check(arguments)
    folders, table = _runs_and_table(arguments)

    # Here, so that --help and mistakes in the command come at once.
    from irnet_hpc.distributed.engines import device_of
    from irnet_hpc.distributed.processes import keep_freed_memory
    from irnet_hpc.predict import output as listing
    from irnet_hpc.predict.committee import assemble
    from irnet_hpc.predict.screening import screened

    keep_freed_memory()
    listing.check_output(arguments.output)
    if arguments.best:
        from irnet_hpc.predict.best_run import best_run

        folders = [best_run(Path(arguments.results), arguments.best, arguments.pack, say)]
    screen, trust = assemble(folders, arguments.pack_dir, arguments.interval, device_of(0), say)
    properties = screen.properties
    wanted = listing.Wanted(
        listing.bounds(arguments.min, "--min", properties),
        listing.bounds(arguments.max, "--max", properties),
        arguments.top,
        _ranked_by(arguments, properties),
        arguments.lowest,
    )
    began, tallies = time.monotonic(), []
    with _candidates(arguments, table, screen) as candidates:
        head = listing.header(candidates.header, screen)
        rows = listing.lines(
            screen, screened(screen, candidates, arguments.workers), wanted, tallies
        )
        with listing.written_to(arguments.output) as stream:
            listing.write(stream, head, _reporting(rows, tallies, candidates.n_rows))
    last = tallies[-1] if tallies else listing.Tally()
    seconds = time.monotonic() - began
    say(
        f"{last.n_rows:,} rows in {seconds:.1f} s: {last.n_kept:,} written, {last.n_problems:,} with a problem, "
        f"{last.n_outside:,} outside of the training rows"
    )
    if arguments.output != "-":
        about = {
            "runs": [
                {"folder": str(member.folder), "key": member.result.key}
                for member in screen.members
            ],
            "properties": [dataclasses.asdict(one) for one in trust],
            "rows": last._asdict(),
            "command": sys.argv[1:] if argv is None else argv,
        }
        write_json(f"{arguments.output}.about.json", about)
        step = next_step(arguments.output)
        say(
            f"wrote {arguments.output}; units, runs and errors are in {arguments.output}.about.json\nnext: {step}"
        )
        if arguments.json:
            print(
                json_text(
                    {
                        "output": arguments.output,
                        "seconds": round(seconds, 3),
                        "next": step,
                        **about,
                    }
                ),
                end="",
            )
    return 0


def next_step(output: str) -> str:
    """A look at the list."""
    path = shlex.quote(output)
    return f"zcat {path} | head -n 6" if output.endswith(".gz") else f"head -n 6 {path}"


def _check(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.interval < 1:
        raise UserError(
            f"--interval must be between 0 and 1, e.g. 0.9, however: {arguments.interval:g}"
        )
    for option in ("top", "workers"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            raise UserError(f"--{option} must be at least 1, however: {getattr(arguments, option)}")
    if arguments.top is None and (arguments.lowest or arguments.by):
        raise UserError("--lowest and --by say which are the first, so they need --top N")
    if not arguments.enumerate and arguments.no_endpoints:
        raise UserError("--no-endpoints is about --enumerate")
    if arguments.pack and not arguments.best:
        raise UserError("--pack chooses among the runs of --best; a run knows its own pack")
    if arguments.json and arguments.output == "-":
        raise UserError("stdout can have one of the two, the list by -o - or the object by --json")


def _runs_and_table(arguments: argparse.Namespace) -> tuple[list[str], str | None]:
    """The runs' folders and the candidates' table, which is the last name unless they are enumerated."""
    names = list(arguments.names)
    table = None
    if not arguments.enumerate:
        if not names:
            raise UserError(
                "candidates must be given: a .csv or .jsonl as the last name, - for stdin, or --enumerate"
            )
        table = names.pop()
        if table != "-" and Path(table).is_dir():
            raise UserError(
                f"the last name must be the table of candidates, however: {table} is a folder"
            )
        if table != "-" and not Path(table).exists():
            raise UserError(f"there is no table {table}")
        if (
            Path(arguments.output).exists()
            and table != "-"
            and Path(arguments.output).samefile(table)
        ):
            raise UserError(
                f"predictions must go to another file than the candidates', however: {table}"
            )
    if arguments.best and names:
        raise UserError(
            f"runs are given by name or chosen by --best, not both, however: {names[0]}"
        )
    if not arguments.best and not names:
        raise UserError("runs must be given: their folders, or --best PROPERTY")
    return names, table


@contextmanager
def _candidates(
    arguments: argparse.Namespace, table: str | None, screen: "Screen"
) -> Iterator["Candidates"]:
    """What is to be predicted. Raises UserError where it lacks what the runs' features need."""
    from irnet_hpc.features import sets as features
    from irnet_hpc.predict import candidates
    from irnet_hpc.predict import compositions as spaces
    from irnet_hpc.predict.screening import seen_elements

    layout = screen.layout
    needs = [name for name in layout.names if features.FEATURE_SETS[name].of_structure]
    if table is not None:
        with candidates.opened(table, layout.columns, layout.formula_needed) as found:
            if needs and not found.has_structures:
                raise UserError(
                    f"feature set {needs[0]} needs structures, JSON lines, however: {table} has formulas only"
                )
            yield found
        return
    if needs or layout.columns:
        raise UserError(
            f"--enumerate gives formulas, however: the runs need feature set {needs[0] if needs else 'columns'} too"
        )
    seen = seen_elements(screen)
    space = spaces.parse_space(
        arguments.enumerate,
        features.ELEMENTS if seen is None else seen,
        endpoints=not arguments.no_endpoints,
    )
    n_rows = spaces.count(space)
    say(f"{n_rows:,} compositions in {arguments.enumerate!r}")
    yield candidates.of_formulas(spaces.formulas(space), n_rows)


def _ranked_by(arguments: argparse.Namespace, properties: tuple[str, ...]) -> str:
    """The property that says which rows are the first."""
    if arguments.top and not arguments.by and len(properties) > 1:
        raise UserError(
            f"--top needs --by PROPERTY where there are several: {', '.join(properties)}"
        )
    return check_choice("predicted property", arguments.by or properties[0], properties)


def _reporting(blocks: Iterator[list], tallies: list, n_rows: int | None) -> Iterator[list]:
    """The blocks; and on a terminal how far they are, of so many rows where that is known."""
    with tqdm(total=n_rows, unit=" rows", disable=None) as bar:  # None: only on a terminal
        for number, block in enumerate(blocks):
            yield block
            if number == 0:  # all that will be imported is there
                gc.freeze()  # and is not walked through again and again, 5 % of the time
            if tallies:
                bar.update(tallies[-1].n_rows - bar.n)
            del tallies[:-1]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser() -> CommandParser:
    parser = command_parser("predict", __doc__)
    add = parser.add_argument
    add(
        "names",
        nargs="*",
        metavar="RUN... TABLE",
        help="folders of finished runs, then a .csv or .jsonl (.gz, .xz), or -",
    )
    add("-o", "--output", required=True, help="a .csv or .csv.gz, or - for stdout")
    add(
        "--best",
        metavar="PROPERTY",
        help="the run below --results of the lowest val MAE instead of named ones",
    )
    add("--results", default="results", help="where --best looks (default: %(default)s)")
    add("--pack", help="of --best: among the runs on this pack")
    add(
        "--enumerate",
        metavar="SPACE",
        help="candidates instead of a table, e.g. 'A-B-O, step 0.05'",
    )
    add(
        "--no-endpoints",
        action="store_true",
        help="of --enumerate: every place has at least one step",
    )
    add(
        "--min",
        action="append",
        default=[],
        metavar="[P=]X",
        help="keep rows predicted at least X, in the unit",
    )
    add("--max", action="append", default=[], metavar="[P=]X", help="keep rows predicted at most X")
    add(
        "--top",
        type=int,
        metavar="N",
        help="keep the N rows of the highest values, the highest first",
    )
    add("--lowest", action="store_true", help="of --top: the lowest instead")
    add("--by", metavar="P", help="of --top: the property that decides, where there are several")
    add(
        "--interval",
        type=float,
        default=0.9,
        help="share of values that an interval is to hold (default: %(default)s)",
    )
    add(
        "--workers",
        type=int,
        default=1,
        help="processes that compute features (default: %(default)s)",
    )
    add("--pack-dir", help="where the runs' packs are (default: $IRNET_PACKS, else packs)")
    add(
        "--json", action="store_true", help="one object on stdout at the end, for a program to read"
    )
    return parser
