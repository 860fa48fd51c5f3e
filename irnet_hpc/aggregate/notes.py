"""Write the notes below the tables: missing results with the reasons, and explanations of names."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from irnet_hpc.aggregate.findings import Findings
from irnet_hpc.aggregate.formats import one_line
from irnet_hpc.aggregate.groups import content_hash, runs_with_changed_origin, split_families
from irnet_hpc.aggregate.mae_table import row_format
from irnet_hpc.runs.collect import FinishedRun, Gap


class Note(NamedTuple):
    """A heading, and the lines to which it applies (cells, files or names)."""

    heading: str
    lines: tuple[str, ...] = ()


def gap_notes(gaps: Mapping[Path, Gap]) -> list[Note]:
    """List the folders without a result by state, each with the reason."""
    by_state = defaultdict(list)
    for folder, gap in sorted(gaps.items()):
        by_state[gap.state].append(one_line(f"{folder}: {gap.why}" if gap.why else str(folder)))
    return [Note(state, tuple(by_state[state])) for state in sorted(by_state)]


def problem_notes(problems: Mapping[Path, str]) -> list[Note]:
    """List the predictions and histories that cannot be used."""
    lines = tuple(one_line(problems[path]) for path in sorted(problems))
    return [Note("predictions or histories that cannot be used", lines)] if lines else []


def legend(findings: Findings) -> list[Note]:
    """Explain the names in the tables that need an explanation."""
    runs = findings.runs
    custom = {f"{run.spec.model}: {run.spec.layers}" for run in runs if run.spec.layers}
    families = split_families(runs)
    changed = {str(run.folder) for run in runs_with_changed_origin(runs)}
    notes = (
        _note("runs whose MAE is far above the baseline's: do not use them", _failed(findings)),
        _note("a few test rows make half of an MAE", _decided_by_few_rows(findings)),
        _note("layer strings", custom),
        _note(
            "different recipes with the same name, each in a table of its own",
            _recipes_of_one_name(runs),
        ),
        _note(
            "fitted on fewer rows, as many as the model can take in reasonable time",
            _fitted_on_fewer_rows(runs),
        ),
        _note(
            "packs that are named like splits of one pack but differ in more than the split, so "
            "they are not merged",
            [
                f"{', '.join(family.packs)}: {', '.join(family.differing)}"
                for family in families
                if family.differing
            ],
        ),
        _note(
            "started from a run that may have seen test formulas (its result does not say)",
            [
                str(run.folder)
                for run in runs
                if run.spec.start_from and (run.result.origin or {}).get("n_shared_test") is None
            ],
        ),
        _note("started from a run that has since been trained differently", changed),
        _note(
            "stale: trained with a recipe or a trainer that has since changed",
            {table.recipe_label for table in findings.tables if table.stale},
        ),
    )
    return [note for note in notes if note.lines]


def _note(heading: str, lines: Iterable[str]) -> Note:
    return Note(heading, tuple(sorted(lines)))


def _failed(findings: Findings) -> Iterator[str]:
    scores = [entry for table in findings.tables for entry in table.scored()]
    for row, _, score in scores:
        for run in score.far_above_baseline:
            result, on_val = run.result, ""
            if result.val_mae is not None:
                on_val = f"{result.val_mae:.4g} on val, "
            yield one_line(
                f"{run.folder}, {row.property}: MAE {on_val}{result.test_mae:.4g} on test, "
                f"{result.times_baseline:,.3g} times the baseline's, which is "
                f"{result.baseline_mae:.4g} {row.unit} on test"
            )


def _decided_by_few_rows(findings: Findings) -> Iterator[str]:
    for table in findings.tables:
        for row, model, score in table.scored():
            if score.half and score.half.are_few:
                words = score.half.words(row_format(row), row.unit)
                yield one_line(f"{row.property}, {model}, {table.title}: {words}")


def _fitted_on_fewer_rows(runs: Iterable[FinishedRun]) -> set[str]:
    fewer = set()
    for run in runs:
        spec, result = run.spec, run.result
        n_fitted = result.fitted_rows or result.n_train
        if spec.is_classical and n_fitted < result.n_train:
            rows = f"the first {n_fitted:,} of {result.n_train:,} training rows"
            fewer.add(f"{spec.model} on {spec.pack}, {spec.property}: {rows}")
    return fewer


def _recipes_of_one_name(runs: Iterable[FinishedRun]) -> set[str]:
    """Describe how recipes of the same name differ. The grids of classical models are left out."""
    contents: dict[str, list[dict]] = defaultdict(list)
    for run in runs:
        recipes = contents[run.spec.recipe]
        if not run.spec.is_classical and run.result.recipe not in recipes:
            recipes.append(run.result.recipe)
    return {
        f"{name}#{content_hash(recipe)}: {_differing_fields(recipe, recipes)}"
        for name, recipes in contents.items()
        for recipe in recipes
        if len(recipes) > 1
    }


def _differing_fields(recipe: dict, others: Sequence[dict]) -> str:
    fields = [name for name in recipe if any(other.get(name) != recipe[name] for other in others)]
    return ", ".join(f"{name} {recipe[name]}" for name in fields)
