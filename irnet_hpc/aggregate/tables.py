"""Results -> tables: one computation whose outcome is a plain frozen Table, which rendering.py and report.py show.

A table holds only what is comparable: one pack, recipe, protocol, number of training rows and start. Its rows are
properties, its columns architecture x depth, its cells the mean over runs of the test MAE in the property's unit. The
classical models of a pack have a table of their own; of theirs, the others have the best as a column. So do networks of
several properties, which are compared with one network for each.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from irnet_hpc.aggregate.groups import Group, group_runs, is_stale, pack_labels, short
from irnet_hpc.aggregate.scores import BestClassical, Cell, best_classical, cell_of
from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.errors import UserError
from irnet_hpc.runs.collect import FinishedRun, Gap
from irnet_hpc.runs.spec import ARCHITECTURES, RunSpec
from irnet_hpc.runs.states import GapState

NOT_RUN = "not run"
STATES = {  # of runs without a result, the most telling first -> in a cell
    GapState.FAILED: "failed",
    GapState.PREEMPTED: "unfinished",
    GapState.UNREADABLE: "unreadable",
    GapState.STALE: "stale",
    GapState.RUNNING: "running",
    GapState.UNFINISHED: "unfinished",
    GapState.QUEUED: "queued",
    GapState.NOT_RUN: NOT_RUN,
}


def belongs(spec: RunSpec, group: Group, packs: dict[str, str]) -> bool:
    """Whether a run that has no result would stand in the table of this group, were it done."""
    pack = packs.get(spec.pack) or re.sub(r"-split\d+(?=-|$)", "", spec.pack)
    recipe = re.sub(r"#[0-9a-f]{6}$", "", group.recipe.removesuffix(" (stale)"))
    joint = spec.property if len(spec.properties) > 1 else None
    ours = (pack, spec.recipe, spec.protocol, spec.train_rows, spec.start_from is None, joint)
    return ours == (
        group.pack,
        recipe,
        group.protocol,
        group.train_rows,
        group.start_from is None,
        group.joint,
    )


def why_missing(gaps: Iterable[Gap], model: tuple[str, int | None], name: str) -> str:
    """Of a cell that is not there: what its runs are, the worst first."""
    states = {
        gap.state
        for gap in gaps
        if (gap.spec.architecture, gap.spec.depth) == model and name in gap.spec.properties
    }
    known = [state for state in STATES if state in states]
    return STATES.get(known[0], known[0]) if known else NOT_RUN


@dataclasses.dataclass(frozen=True)
class Row:
    property: str
    unit: str
    n_train: int  # rows; of several splits their mean, rounded
    n_val: int
    n_test: int
    baseline: (
        float  # MAE of predicting the train median for every test row; of several splits their mean
    )
    baseline_best: bool
    cells: tuple[Cell | None, ...]  # one a model of the table
    best_classical: BestClassical | None = None  # None: no result, or a table of classical models
    missing: tuple[
        str, ...
    ] = ()  # one a model of the table: why there is no cell; empty where there is one


@dataclasses.dataclass(frozen=True)
class Table:
    pack: str
    recipe: str
    protocol: str
    selected_on: str  # val | test
    train_rows: int | None
    start_from: str | None  # in words
    models: tuple[tuple[str, int | None], ...]  # (architecture, depth), in the order of the columns
    rows: tuple[Row, ...]
    source: str | None = None  # of the pack, e.g. oqmd
    held_out: bool = (
        False  # whether its test rows are a chemistry that training lacks, and no random ones
    )
    splits: tuple[int, ...] = ()  # seeds of the packs' splits
    joint: str | None = None  # the properties that each network has together; None: one

    @property
    def settings(self) -> dict[str, str | int | None]:
        """What all of its numbers have in common, as the first columns of whatever is written of it."""
        names = ("pack", "recipe", "protocol", "selected_on", "train_rows", "start_from")
        return {name: getattr(self, name) for name in names}

    @property
    def title(self) -> str:
        parts = [self.pack] + ([f"{len(self.splits)} splits"] if len(self.splits) > 1 else [])
        parts += [f"recipe {self.recipe}", f"protocol {self.protocol}"]
        parts += [f"first {self.train_rows:,} training rows"] if self.train_rows else []
        parts += [f"started from {self.start_from}"] if self.start_from else []
        parts += [f"one network for {self.joint.replace(',', ', ')}"] if self.joint else []
        # A number that was selected on the rows it is measured on is optimistic, and says so wherever it appears.
        return ", ".join(parts) + (" (selected on test)" if self.selected_on == "test" else "")

    @property
    def name(self) -> str:
        """What tells this table from the others, as a file's name and a label: letters, digits and _.+=-"""
        parts = [self.pack, self.recipe, self.protocol, self.train_rows and f"n{self.train_rows}"]
        parts += [
            short("start", self.start_from),
            short("joint", self.joint and f"joint-{self.joint}"),
        ]
        return "_".join(
            re.sub(r"[^A-Za-z0-9_.+=-]+", "-", str(part)).strip("-") for part in parts if part
        )

    @property
    def compared_depths(self) -> tuple[int, ...]:
        """Depths at which a row holds both plain and irnet: the papers' headline comparison."""
        return tuple(
            depth
            for depth in sorted({depth for _, depth in self.models})
            if any(
                self.cell(row, "plain", depth) and self.cell(row, "irnet", depth)
                for row in self.rows
            )
        )

    @property
    def has_classical(self) -> bool:
        """Whether a row has a best classical model to compare with."""
        return any(row.best_classical for row in self.rows)

    @property
    def compared_with_single(self) -> tuple[tuple[str, int | None], ...]:
        """Models of a joint table that were also trained for one of its properties alone."""
        columns = zip(self.models, zip(*(row.cells for row in self.rows), strict=True), strict=True)
        return tuple(
            model
            for model, cells in columns
            if any(cell and cell.improvement_over_single is not None for cell in cells)
        )

    def why_missing(self, row: Row, architecture: str, depth: int | None) -> str:
        """Why a model has no cell in a row, in a few words."""
        model = (architecture, depth)
        return (
            row.missing[self.models.index(model)] if row.missing and model in self.models else ""
        ) or NOT_RUN

    def cell(self, row: Row, architecture: str, depth: int | None) -> Cell | None:
        model = (architecture, depth)
        return row.cells[self.models.index(model)] if model in self.models else None


def tabulate(runs: Sequence[FinishedRun], gaps: Iterable[Gap] = ()) -> tuple[Table, ...]:
    """All the tables that `runs` give; `gaps` say why cells are missing. Raises UserError, naming two folders, where one name
    stands for two contents."""
    gaps = [gap for gap in gaps if gap.spec]
    classical = [run for run in runs if run.spec.is_classical and not is_stale(run)]
    packs, groups = pack_labels(runs), group_runs(runs)
    by_name = {group[:-1]: group for group in groups}
    tables = []
    for group in groups:
        single = by_name.get(group._replace(joint=None)[:-1]) if group.joint else None
        theirs = [run for run in classical if packs[run.spec.pack] == group.pack]
        ours = [gap for gap in gaps if belongs(gap.spec, group, packs)]
        tables.append(_table(group, theirs, single.runs if single else (), ours))
    return tuple(tables)


def model_order(model: tuple[str, int | None]) -> tuple:
    """plain, srnet, irnet, the classical ones, custom and what else there is, each by depth."""
    architecture, depth = model
    known = (
        ARCHITECTURES.index(architecture) if architecture in ARCHITECTURES else len(ARCHITECTURES)
    )
    return known, architecture, depth or 0


def _table(
    group: Group, classical: list[FinishedRun], single: Sequence[FinishedRun], gaps: Sequence[Gap]
) -> Table:
    runs = group.runs
    specs = [run.spec for run in runs] + [
        gap.spec for gap in gaps
    ]  # what failed everywhere has a column that says so
    models = tuple(sorted({(spec.architecture, spec.depth) for spec in specs}, key=model_order))
    by_property = defaultdict(list)
    for run in runs:
        by_property[run.spec.property].append(run)
    known = list(PROPERTIES)
    names = sorted(
        by_property, key=lambda name: (known.index(name) if name in known else len(known), name)
    )
    on_test = group.protocol == "paper" or any(run.result.selected_on == "test" for run in runs)
    theirs = (
        [] if runs[0].spec.is_classical else classical
    )  # in their own table nothing is compared with them
    theirs = [run for run in theirs if run.spec.train_rows == group.train_rows]
    # The first n rows of a joint network are fewer of a property that some do not report: nobody else trained on them.
    unlike = {
        run.spec.property
        for run in runs
        if group.joint and run.result.n_train < (group.train_rows or 0)
    }
    theirs, single = (
        [run for run in others if run.spec.property not in unlike] for others in (theirs, single)
    )
    return Table(
        pack=group.pack,
        recipe=group.recipe,
        protocol=group.protocol,
        selected_on="test" if on_test else "val",
        train_rows=group.train_rows,
        start_from=group.start_from,
        models=models,
        rows=tuple(
            _row(
                name,
                models,
                by_property[name],
                best_classical(theirs, name, group.protocol),
                single,
                gaps,
            )
            for name in names
        ),
        source=runs[0].result.pack_identity.get("source"),
        held_out=runs[0].split_identity.get("by") in ("element", "family"),
        splits=tuple(sorted({run.split for run in runs if run.split is not None})),
        joint=group.joint,
    )


def _row(
    name: str,
    models: Sequence[tuple[str, int | None]],
    runs: list[FinishedRun],
    classical: BestClassical | None,
    single: Sequence[FinishedRun],
    gaps: Sequence[Gap],
) -> Row:
    _refuse_unequal_rows(runs)
    first = runs[0].result
    one_of_split = list({run.split: run.result for run in runs}.values())
    of_model = {model: [run for run in runs if _model(run) == model] for model in models}
    alone = {
        model: [run for run in single if _model(run) == model and run.spec.property == name]
        for model in models
    }
    mae = {
        model: fmean(run.result.test_mae for run in found)
        for model, found in of_model.items()
        if found
    }
    baseline = fmean(result.baseline_mae for result in one_of_split)
    # What was trained on some of the splits only has a mean over others than its rivals', and cannot be the best.
    comparable = [
        mae[model]
        for model in mae
        if len({run.split for run in of_model[model]}) == len(one_of_split)
    ]
    comparable += (
        [classical.mae]
        if classical and len({run.split for run in classical.runs}) == len(one_of_split)
        else []
    )
    least = min([baseline, *comparable])
    cells = tuple(
        cell_of(
            found,
            of_model.get(("plain", model[1]), []),
            mae[model] in comparable and mae[model] == least,
            classical,
            alone[model],
        )
        if found
        else None
        for model, found in of_model.items()
    )
    return Row(
        property=name,
        unit=first.unit,
        n_train=round(fmean(result.n_train for result in one_of_split)),
        n_val=round(fmean(result.n_val for result in one_of_split)),
        n_test=round(fmean(result.n_test for result in one_of_split)),
        baseline=baseline,
        baseline_best=baseline == least,
        cells=cells,
        best_classical=classical and dataclasses.replace(classical, best=classical.mae == least),
        missing=tuple(
            "" if found else why_missing(gaps, model, name) for model, found in of_model.items()
        ),
    )


def _model(run: FinishedRun) -> tuple[str, int | None]:
    return run.spec.architecture, run.spec.depth


def _refuse_unequal_rows(runs: Sequence[FinishedRun]) -> None:
    """Runs of one split have the same rows, and those of all the same unit."""
    first_of_all, first_of_split = runs[0], {}
    for run in runs:
        first = first_of_split.setdefault(run.split, run)
        for field in ("unit", "n_train", "n_val", "n_test", "baseline_mae"):
            other = first_of_all if field == "unit" else first
            ours, theirs = getattr(run.result, field), getattr(other.result, field)
            same = (
                math.isclose(ours, theirs, rel_tol=1e-6)
                if field == "baseline_mae"
                else ours == theirs
            )
            if (
                not same
            ):  # the baseline depends on the targets alone; ranks may sum it in another order
                raise UserError(
                    f"{other.folder} and {run.folder} are cells of one row, but their {field} differs: {theirs} and {ours}"
                )
