"""What others have published: MAEs of published.csv, shown beside ours where a pack is of the same dataset, and never mixed in.

They are of other rows, other splits and other ways of selecting, and say so in each line.
"""

import csv
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# how published.csv calls a model -> our architecture; what is not here is called the same, or is not ours
OURS = {"random-forest": "random_forest"}
BEST_CLASSICAL = "best of 10 classical"


class Published(NamedTuple):
    """A line of published.csv."""

    dataset: str  # a source's name, e.g. oqmd
    n_rows: int | None  # of the dataset, all splits together; None: not stated
    property: str
    unit: str
    features: str
    model: str
    depth: int | None
    mae: float  # in `unit`
    split: str  # and what the number was selected on
    source: str

    @property
    def ours(self) -> tuple[str, int | None]:
        """(architecture, depth) of the same model here, if it is one of ours at all."""
        return OURS.get(self.model, self.model), self.depth


@functools.cache
def read_published() -> tuple[Published, ...]:
    """All lines of the file that the package brings along, in its order."""
    with (Path(__file__).parent / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Published(
                **line
                | {"n_rows": int(line["n_rows"]) if line["n_rows"] else None}
                | {"depth": int(line["depth"]) if line["depth"] else None, "mae": float(line["mae"])}
            )
            for line in csv.DictReader(file)
        )


def published_on(dataset: str | None, targets: Iterable[tuple[str, str]]) -> list[Published]:
    """The lines of a dataset for properties given with their units, property by property."""
    lines = read_published()
    return [
        line for target in targets for line in lines if line.dataset == dataset and (line.property, line.unit) == target
    ]
