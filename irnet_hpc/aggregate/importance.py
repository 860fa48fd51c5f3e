"""Measure feature importances of the models that val chooses for each task.

`aggregate --importance` does this, and not `train`: it needs two or three models of a task and not
all of them, it needs no new training, and it takes seconds to a minute for each model.
"""

import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.aggregate.task_results import Task, TaskResult
from irnet_hpc.errors import UserError

if TYPE_CHECKING:
    from irnet_hpc.predict import Importance

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ModelImportance:
    """The importances of the features of one run's model."""

    task: Task
    result: TaskResult
    folder: Path  # of the run: the first of the model's runs
    found: "tuple[Importance, ...]"


def measure(
    tasks: Iterable[Task], pack_dir: Path | str | None
) -> tuple[tuple[ModelImportance, ...], dict[Path, str]]:
    """Measure the importances of the best network and the best classical model of each task.

    Args:
        tasks: the tasks.
        pack_dir: the folder of packs; None: $IRNET_PACKS, else packs/.

    Returns:
        The importances, and folder -> reason for the runs that have no model or no pack.
    """
    # Imported here, since tables need neither torch nor models.
    from irnet_hpc.predict import importance_of

    measured, problems = [], {}
    for task in tasks:
        for result in chosen(task):
            folder = result.score.runs[0].folder
            logger.info(f"measuring the importance of the features of {folder}")
            try:
                found = importance_of(folder, task.property, pack_dir)
            except UserError as error:
                problems[folder] = f"importance of features: {error}"
                logger.warning(f"warning: {problems[folder]}")
                continue
            measured.append(ModelImportance(task, result, folder, tuple(found)))
    return tuple(measured), problems


def chosen(task: Task) -> list[TaskResult]:
    """Return the best network and the best classical model by val, the better of them first."""
    kinds: dict[bool, TaskResult] = {}
    for result in task.comparable:
        kinds.setdefault(result.score.runs[0].spec.is_classical, result)
    return list(kinds.values())
