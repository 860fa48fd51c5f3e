"""List the keys of a matrix and of a site, and write docs/matrix.md from them."""

import dataclasses
from typing import Annotated, Any, Literal

from msgspec import Meta

from irnet_hpc.sweep.matrix.fields import markdown_table
from irnet_hpc.sweep.matrix.origins import InitKeys
from irnet_hpc.sweep.matrix.pack_keys import Fold, NumberOfFolds, PackKeys, Repeats, Seed
from irnet_hpc.sweep.matrix.resources import NARROWING, Resources, Retry
from irnet_hpc.sweep.matrix.sites import Site, WholeNodes


@dataclasses.dataclass(frozen=True)
class MatrixKeys:
    """The keys of a matrix."""

    packs: Annotated[
        list[str | dict],
        Meta(
            description="the packs; a name is enough if the pack exists or if the name is "
            "SOURCE-FEATURES; otherwise a mapping is needed (see below)"
        ),
    ]
    properties: Annotated[
        list[str],
        Meta(
            description="the properties, or `all`; properties joined by commas in one text are "
            "trained as one network with an output for each. A pack's own list replaces this one"
        ),
    ]
    models: Annotated[
        list[str | dict],
        Meta(
            description="names such as `irnet-17`, classical models such as `random_forest`, layer "
            "strings such as `64BARx2-1`, and mappings (see below)"
        ),
    ]
    recipes: Annotated[
        list[str | dict],
        Meta(
            description="the recipes of the networks: names, or inline recipes `{name: mine, "
            "base: paper, batch: 64}` (docs/recipes.md). Classical models need none: each has "
            "recipe `grid`, which may be listed",
            extra={"default": "`[onecycle]`"},
        ),
    ] = dataclasses.field(default_factory=list)
    protocols: Annotated[list[str], Meta(description="`honest` or `paper` (docs/protocols.md)")] = (
        dataclasses.field(default_factory=lambda: ["honest"])
    )
    seeds: Annotated[list[int], Meta(description="the seeds, from 0 to 2**63 - 1")] = (
        dataclasses.field(default_factory=lambda: [0])
    )
    split_seeds: Annotated[
        list[Seed],
        Meta(
            description="seeds of the split; the packs are called NAME (seed 0), NAME-split1, ... "
            "A pack's own list replaces this one",
            extra={"default": "`[0]`"},
        ),
    ] = dataclasses.field(default_factory=list)
    splits: Annotated[
        list[str],
        Meta(
            description="rules of the split, such as `random`, `element:O` or `family:halogens`; "
            "the packs are called NAME, NAME-element_O, ...; `families`: each family of elements "
            "in turn",
            extra={"default": "`[random]`"},
        ),
    ] = dataclasses.field(default_factory=list)
    folds: Annotated[
        NumberOfFolds | list[Fold],
        Meta(
            description="a number deals the rows of each table to so many folds; the packs are "
            "called NAME-folds5-fold0, ... and their predictions are put together (docs/small.md). "
            "A list names official folds of the sources `matbench:TASK`; those packs are called "
            "NAME-fold0, ... and their errors are averaged. A pack's own key replaces this one",
            extra={"default": "none"},
        ),
    ] = dataclasses.field(default_factory=list)
    repeats: Annotated[
        Repeats,
        Meta(
            description="how many times the rows are dealt anew to their folds, if `folds` is a "
            "number"
        ),
    ] = 1
    train_rows: Annotated[
        list,
        Meta(
            description="train on the first N rows only, for each N in the list; `all`: every row",
            extra={"rule": "a list of whole numbers or `all`"},
        ),
    ] = dataclasses.field(default_factory=lambda: ["all"])
    init: Annotated[
        list[dict | str | None],
        Meta(
            description="the trained cells to start from (see below), or `pretrained:oqmd`, the "
            "network that ships with the package; null: random weights"
        ),
    ] = dataclasses.field(default_factory=lambda: [None])
    resources: Annotated[
        dict | list[dict],
        Meta(
            description="what a cell requests from the scheduler; if several entries fit a cell, "
            "the last entry that states a key decides it (see below)"
        ),
    ] = dataclasses.field(default_factory=dict)
    pack_resources: Annotated[
        dict,
        Meta(description="what a job that builds a pack on one rank requests: keys of `resources`"),
    ] = dataclasses.field(default_factory=lambda: {"minutes": 120})
    retry: Annotated[
        Literal[False] | dict,  # type: ignore[valid-type]
        Meta(
            description="if a cell ran out of memory or time, try it once more with twice as much, "
            "within these limits (see below); false: never",
            extra={"rule": "a mapping or false"},
        ),
    ] = dataclasses.field(default_factory=dict)
    budget_device_hours: Annotated[
        float | None,
        Meta(
            description="refuse to start if the unfinished cells may use more device-hours; a "
            "device is what one rank computes on",
            extra={"rule": "a number of hours, 0 or more"},
        ),
    ] = None


@dataclasses.dataclass(frozen=True)
class ModelKeys:
    """The keys of an entry of `models` that is a mapping."""

    architectures: Annotated[
        list[str],
        Meta(description="architectures, each combined with every depth; also classical models"),
    ]
    depths: Annotated[
        list[int],
        Meta(description="depths of the networks; a combination that does not exist is dropped"),
    ] = dataclasses.field(default_factory=list)


INTRODUCTION = """\
# Keys of a matrix and of a site

This page is made by `python -m irnet_hpc.sweep keys >docs/matrix.md` from the types that check the
keys. A key that is not listed is refused, and the message names the nearest known key; a key given
twice is refused, too.

A matrix is a YAML file, or a mapping in Python (`irnet_hpc.run_sweep`). Its cells are the product
of packs, properties, models, recipes, protocols, seeds, splits, training rows and origins. If a key
takes a list, a single text or mapping counts as a list of one. Only decimal numbers are numbers:
`12:30:00`, `010`, `0x10` and `1_000`, of which YAML 1.1 makes others, are text.
"""


def keys_page() -> str:
    """Write the page that lists every key: its values, default and meaning."""
    sections: list[tuple[str, str, Any]] = [
        ("A matrix", "", MatrixKeys),
        ("An entry of `packs`", "", PackKeys),
        ("An entry of `models`", "", ModelKeys),
        ("An entry of `init`",
         "An origin has the model, the seed and the split of the cell that starts from it.",
         InitKeys),
        ("`resources`, `pack_resources`",
         "With `for: {KEY: VALUE or [VALUES]}` an entry of `resources` applies to some cells only; "
         "KEY is "
         f"one of {', '.join(f'`{key}`' for key in NARROWING)}.", Resources),
        ("`retry`", "", Retry),
        ("A site",
         "`env/sites/NAME.yaml`, chosen by `--site NAME` or `$IRNET_SITE`.", Site),
        ("`whole_nodes` of a site", "", WholeNodes),
    ]  # fmt: skip
    parts = [INTRODUCTION]
    for title, text, record in sections:
        parts.append(
            "\n".join(
                [f"## {title}", "", *([text, ""] if text else []), markdown_table(record), ""]
            )
        )
    return "\n".join(parts)
