"""Decide which of the waiting cells a worker trains next."""

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from irnet_hpc.sweep.bundles import Bundle
from irnet_hpc.sweep.cell_states import CellStatus

# Cells whose times differ by less than this factor count as equally long.
ALIKE = 1.5


class Agenda:
    """The bundles that wait for a place.

    Cells that others start from come first, then the longest, so that no long one is left when all
    other workers have ended, and of those that are equally long the ones whose pack is loaded.

    Args:
        bundles: The bundles.
        minutes: Cell -> its estimate in minutes; None: unknown.
        in_order: True to keep the order of the bundles.
    """

    def __init__(
        self,
        bundles: Iterable[Bundle],
        minutes: Mapping[str, float | None],
        in_order: bool = False,
    ) -> None:
        self.waiting, self.in_order = list(bundles), in_order
        self._place = {id(bundle): i for i, bundle in enumerate(self.waiting)}
        self._minutes = dict(minutes)
        # (pack, model) -> minutes that a cell took here; the cost of classical models is not
        # modelled.
        self._measured: dict[tuple[str, str], float] = {}
        self._origins = {
            status.origin for bundle in self.waiting for status in bundle if status.origin
        }

    @property
    def names(self) -> set[str]:
        """The names of the cells that wait."""
        return {status.name for bundle in self.waiting for status in bundle}

    def ready(
        self, may_start: Callable[[Bundle], bool], packs: Collection[str | None]
    ) -> list[Bundle]:
        """List the bundles that may start now, the first to start first.

        Args:
            may_start: Returns True if a bundle may start now.
            packs: The packs that workers without a cell have loaded.
        """
        ready = [bundle for bundle in self.waiting if may_start(bundle)]
        if self.in_order:
            return ready
        usual = self._usual_minutes()

        def rank(bundle: Bundle) -> tuple:
            first = bundle[0]
            minutes = max(1e-6, sum(self.minutes(status) or usual for status in bundle))
            return (
                not any(status.name in self._origins for status in bundle),
                -math.floor(math.log(minutes, ALIKE)),
                first.cell.spec.pack not in packs,
                first.cell.spec.pack,
                self._place[id(bundle)],
            )

        return sorted(ready, key=rank)

    def minutes(self, status: CellStatus) -> float | None:
        """Return how many minutes a cell will take; None if it is unknown."""
        known = self._minutes.get(status.name)
        spec = status.cell.spec
        return self._measured.get((spec.pack, spec.model)) if known is None else known

    def _usual_minutes(self) -> float:
        known = [value for value in self._minutes.values() if value is not None]
        return statistics.median(known) if known else 1.0

    def note(self, bundle: Sequence[CellStatus], seconds: float) -> None:
        """Learn from the time that a bundle took."""
        spec = bundle[0].cell.spec
        self._measured[spec.pack, spec.model] = seconds / 60 / len(bundle)

    def remove(self, bundle: Bundle) -> None:
        """Remove a bundle that starts, or that cannot be trained."""
        self.waiting = [other for other in self.waiting if other is not bundle]
