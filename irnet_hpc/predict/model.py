"""Predict from Python with the models of finished runs."""

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irnet_hpc.data.structures.frames import structure_column
from irnet_hpc.errors import UserError
from irnet_hpc.models.modes import own_modes
from irnet_hpc.predict.candidates import frame_candidates
from irnet_hpc.predict.committee import EnsembleReport, calibrate_ensemble, load_ensemble
from irnet_hpc.predict.held_out import Evidence
from irnet_hpc.predict.output import flag_columns, number_columns, output_header
from irnet_hpc.predict.saved import runs_and_packs
from irnet_hpc.predict.screening import Ensemble, screen
from irnet_hpc.predict.weights import weigh
from irnet_hpc.runs.result import RunResult, read_result
from irnet_hpc.runs.spec import read_spec, run_folder

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_LEVEL = 0.9


Run = str | Path | RunResult


class Model:
    """An ensemble of trained models that predicts properties, with intervals and warnings.

    Attributes:
        units: Property -> unit.
        columns: Names of the columns, besides `formula`, that a DataFrame must have.
    """

    def __init__(self, ensemble: Ensemble, evidence: dict[str, Evidence]) -> None:
        self._ensemble, self._evidence = ensemble, evidence
        self._calibrated: dict[float, tuple[Ensemble, list[EnsembleReport]]] = {}
        self.units: dict[str, str] = {}
        for member in ensemble.members:
            self.units |= member.units
        self.columns = ensemble.layout.columns

    def __repr__(self) -> str:
        return f"<Model of {', '.join(self.properties)}, {len(self._ensemble.members)} run(s)>"

    @property
    def properties(self) -> tuple[str, ...]:
        """Return the names of the properties that the model predicts."""
        return self._ensemble.properties

    @own_modes()
    def report(self, level: float = DEFAULT_LEVEL) -> list[EnsembleReport]:
        """Return, for each property, the test errors and the coverage of the intervals.

        Args:
            level: The fraction of values that intervals should contain, between 0 and 1.
        """
        return self._calibrate(level)[1]

    @own_modes()
    def predict(
        self,
        materials: "Iterable[str] | pd.DataFrame",
        level: float = DEFAULT_LEVEL,
        workers: int = 1,
    ) -> "pd.DataFrame":
        """Predict the properties of materials, in the order given.

        The numbers are those of `python -m irnet_hpc.predict`, before they are rounded.

        Args:
            materials: Formulas; or structures of pymatgen, ASE or JARVIS; or a DataFrame with a
                column `formula` or `structure` and the columns that the models need as features.
            level: The fraction of values that intervals should contain, between 0 and 1.
            workers: Number of processes that compute features.

        Returns:
            A DataFrame. It has the index and the columns of `materials` (a Series is a column of
            formulas and keeps its index), and for each property: `predicted_<property>`;
            `low_<property>` and `high_<property>` if an interval could be calibrated; and
            `sd_<property>` if several models predict it. The last columns are `distance` (to the
            training rows; 1 is the limit), `outside` (why a row is outside the training data, or
            empty), of a portable model `seen_as` (`train` or `val` if its formula trained the model
            or selected its epoch, or empty), and `problem` (why a row has no prediction, or empty).
            The units are in `attrs["units"]` of the DataFrame.

        Raises:
            UserError: If a column is missing, or if the models need crystal structures.
        """
        import pandas as pd

        if isinstance(materials, str):
            raise UserError(f"materials must be a list of formulas, got the string {materials!r}")
        if not isinstance(materials, Iterable):
            raise UserError(f"materials must be a list or a DataFrame, got {materials!r:.80}")
        ensemble, _ = self._calibrate(level)
        layout = ensemble.layout
        frame = materials
        if not isinstance(frame, pd.DataFrame):
            if not isinstance(frame, pd.Series):
                frame = pd.Series(list(frame), dtype=object)
            holds = structure_column(frame.rename("structure").to_frame())
            frame = frame.rename(holds or "formula").to_frame()
            if layout.columns:
                raise UserError(
                    "the models take columns of a table as features "
                    f"({', '.join(layout.columns[:5])}), got formulas only; give a DataFrame"
                )
        if layout.structure_set and not structure_column(frame):
            raise UserError(
                f"feature set {layout.structure_set} needs crystal structures, got formulas; give "
                "structures of pymatgen, ASE or JARVIS, as a list or in a column `structure`"
            )
        header = output_header([str(name) for name in frame.columns], ensemble)
        candidates = frame_candidates(frame, layout.columns, layout.formula_needed)
        parts = []
        for batch in screen(ensemble, candidates, workers):
            columns = number_columns(ensemble, batch)
            parts.append(pd.DataFrame({**columns, **flag_columns(batch)}))
        own = header[len(frame.columns) :]
        predictions = pd.concat(parts) if parts else pd.DataFrame(columns=own, dtype=float)
        predictions.index = frame.index
        result = pd.concat([frame, predictions[own]], axis=1)
        result.attrs["units"] = dict(self.units)
        return result

    def _calibrate(self, level: float) -> tuple[Ensemble, list[EnsembleReport]]:
        if not isinstance(level, int | float) or not 0 < level < 1:
            raise UserError(f"level must be a number between 0 and 1, such as 0.9, got {level!r}")
        if level not in self._calibrated:
            self._calibrated[level] = calibrate_ensemble(self._ensemble, self._evidence, level)
        return self._calibrated[level]


@own_modes()
def load_model(
    runs: "Run | Sequence[Run]",
    *,
    results: str | Path = "results",
    pack_dir: str | Path | None = None,
    device: str = "auto",
    committee: bool = False,
) -> Model:
    """Load the model of a finished run, or the models of several runs as an ensemble.

    Args:
        runs: A finished run, or several, whose predictions are averaged. Each is the folder of a
            run or of all seeds of a model, or the result that `train_model` returned. The folder
            that `irnet_hpc.fit` or its model's `save` has written stands for the runs chosen there.
            `"pretrained:oqmd"` is the network that ships with the package.
        results: The folder of all runs; a run that is given by its result is looked up there.
        pack_dir: Folder of the packs that the runs were trained on. The packs calibrate intervals
            and show which materials are outside the training data. None: $IRNET_PACKS, else packs/.
        device: The device on which networks compute: `auto` (a GPU if there is one), `cpu` or
            `cuda`.
        committee: Whether to weigh the runs by their errors on val. Otherwise all runs that predict
            a property count the same.

    Returns:
        A model that predicts formulas or the rows of a DataFrame.

    Raises:
        UserError: If a run has not finished, has kept no model, or cannot be combined with the
            other runs; or if there are too few val rows to weigh a committee.
    """
    from irnet_hpc.distributed.gpus import device_of

    if not isinstance(runs, str | os.PathLike | RunResult | Iterable):
        raise UserError(f"runs must be folders or results of trainings, got {runs!r:.80}")
    given = [runs] if isinstance(runs, str | os.PathLike | RunResult) else list(runs)
    if not given:
        raise UserError("at least one run must be given, got none")
    folders = [
        _folder_of(run, results) if isinstance(run, RunResult) else Path(run) for run in given
    ]
    runs_there, packs = runs_and_packs(folders, pack_dir)
    ensemble, evidence = load_ensemble(runs_there, packs, device_of(0, device))
    return Model(*(weigh(ensemble, evidence) if committee else (ensemble, evidence)))


def _folder_of(run: RunResult, results: str | Path) -> Path:
    """Find the folder of a run by its result.

    Another run of the same name, say of a pack that has changed, has another result.
    """
    folder = run_folder(results, read_spec(run.spec))
    path = folder / "result.json"
    if not path.exists():
        raise UserError(
            f"a run must be below results, got {results}, where {folder} does not exist"
        )
    # As JSON, in which NaN is equal to itself, and a tuple to a list.
    here, there = (
        json.dumps(dataclasses.asdict(one), sort_keys=True) for one in (run, read_result(path))
    )
    if here != there:
        raise UserError(
            f"a run must be below results, got {results}, where {folder} has another result of "
            "that name"
        )
    return folder
