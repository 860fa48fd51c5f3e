"""Export a run as a portable model: a folder that predicts without the pack of the run.

    result.json  model.safetensors  evidence.safetensors  card.md

The matrices of the network are rounded to bf16. All errors in the folder are those of the rounded
network, on the val and test rows of the pack; if they differ from those of the run by more than a
hundredth, nothing is written.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from irnet_hpc.errors import UserError
from irnet_hpc.export.model_card import ExportedModel, portable_card
from irnet_hpc.files import write_json, write_text
from irnet_hpc.models.modes import own_modes
from irnet_hpc.predict.committee import EnsembleReport, calibrate_ensemble, own_pack
from irnet_hpc.predict.held_out import Evidence, HeldOut
from irnet_hpc.predict.members import read_member
from irnet_hpc.predict.portable import licence_of, load_portable, write_evidence
from irnet_hpc.predict.screening import Ensemble
from irnet_hpc.runs.portable import CARD, is_portable
from irnet_hpc.runs.result import RunResult
from irnet_hpc.train.model_file import read_finished, write_compact

# Level of the intervals that the card describes.
LEVEL = 0.9
# The largest share by which the rounding of the weights may change a test MAE.
TOLERANCE = 0.01
# The fields of an attempt that say how it computed, but not where or when.
KEPT_OF_ATTEMPT = ("size", "engine", "data", "threads")


class Rounded(NamedTuple):
    """Hold the test MAE of a property, in its unit, before and after the weights are rounded."""

    of_run: float
    of_file: float

    @property
    def change(self) -> float:
        """The change as a share of the run's MAE."""
        return self.of_file / self.of_run - 1 if self.of_run else 0.0


@own_modes()
def export_portable(
    run: str | Path, folder: str | Path, pack_dir: str | Path | None = None
) -> tuple[Path, dict[str, Rounded]]:
    """Export the network of a finished run as a portable model.

    Args:
        run: The folder of the run, of protocol honest and not started from another run.
        folder: The folder to write; it appears once it is complete. An existing one is replaced if
            it is a portable model.
        pack_dir: Folder of the run's pack; None: $IRNET_PACKS, else packs/.

    Returns:
        The folder; and, for each property, the test MAE of the run and of the written network.

    Raises:
        UserError: If the folder holds something else, the run or its pack cannot be used, or the
            rounding changes an error by more than TOLERANCE.
    """
    target = Path(folder)
    if target.exists() and not is_portable(target):
        raise UserError(
            f"the folder to write must not exist, unless it is a portable model, got {folder}"
        )
    finished = read_finished(run, "a run to export")
    with own_pack(read_member(run), pack_dir) as pack:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as near:
            whole = Path(near, target.name)
            whole.mkdir()
            result = _without_place(finished.result)
            write_json(whole / "result.json", dataclasses.asdict(result))
            write_compact(finished, whole / "model.safetensors")
            write_evidence(whole, read_member(whole), pack)
            ensemble, evidence = load_portable(whole, torch.device("cpu"))
            rounded = _compare(evidence, result)
            ensemble, reports = calibrate_ensemble(ensemble, evidence, LEVEL)
            write_text(whole / CARD, _card(whole, ensemble, reports, rounded))
            if target.exists():
                # Other files in the folder are kept.
                for path in whole.iterdir():
                    path.replace(target / path.name)
            else:
                shutil.move(whole, target)
    return target, rounded


def _without_place(result: RunResult) -> RunResult:
    """Return a result without the names of machines and the times in its attempts."""
    attempts = [
        {name: attempt[name] for name in KEPT_OF_ATTEMPT if name in attempt}
        for attempt in result.attempts
    ]
    return dataclasses.replace(result, attempts=attempts)


def _compare(evidence: dict[str, Evidence], result: RunResult) -> dict[str, Rounded]:
    """Compare the test MAEs of a written network with those of its run.

    Raises:
        UserError: If a MAE has changed by more than TOLERANCE.
    """
    rounded = {}
    for name, (_, test) in evidence.items():
        assert isinstance(test, HeldOut)  # since it has just been written
        of_run = result.per_property[name]["test_mae"] if result.per_property else result.test_mae
        rounded[name] = Rounded(of_run, float(np.abs(test.error).mean()))
        if not abs(rounded[name].change) <= TOLERANCE:
            raise UserError(
                f"bf16 weights must change the test MAE of {name} by at most {TOLERANCE:.0%}, got "
                f"{of_run:.4g} before and {rounded[name].of_file:.4g} after; nothing is written"
            )
    return rounded


def _card(
    folder: Path,
    ensemble: Ensemble,
    reports: Sequence[EnsembleReport],
    rounded: dict[str, Rounded],
) -> str:
    (member,), known = ensemble.members, ensemble.known
    assert known is not None  # since it is portable
    licence, citation = licence_of(folder)
    floors = np.broadcast_to(member.scaling.floor, len(member.units))
    exported = ExportedModel(
        file="model.safetensors",
        size=(folder / "model.safetensors").stat().st_size,
        units=member.units,
        features="+".join(ensemble.layout.names),
        feature_labels=member.feature_labels,
        pack="",
        floors={n: float(f) for n, f in zip(member.units, floors, strict=True) if np.isfinite(f)},
        elements=member.elements,
        licence=licence,
        citation=citation,
        verified=_in_words(rounded, member.units),
        reports=reports,
        intervals=ensemble.intervals,
        weights=[dict.fromkeys(member.units, 1.0)],
        n_groups=1,
    )
    n_formulas = f"{len(known.train):,} and {len(known.val):,}"
    return portable_card(member, exported, n_formulas)


def _in_words(rounded: dict[str, Rounded], units: dict[str, str]) -> str:
    """Say in a sentence what the rounding of the weights did to the test errors."""
    parts = [
        f"{name} {one.of_run:.5g} to {one.of_file:.5g} {units[name]} ({one.change:+.2%})"
        for name, one in rounded.items()
    ]
    return "Rounding its matrices to bf16 has changed the test MAE: " + "; ".join(parts) + "."
