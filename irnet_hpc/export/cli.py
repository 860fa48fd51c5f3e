"""Export a finished run as ONNX, verified against torch, with a model card beside it.

    python -m irnet_hpc.export RUN model.onnx                               writes model.onnx and model.md
    python -m irnet_hpc.export RUN model.onnx --pack-dir /data/packs        checked on test rows of a pack that lies elsewhere
    python -m irnet_hpc.export results/oqmd-magpie/band_gap/irnet-17/onecycle/honest/seed0 band_gap.onnx

The graph takes features as a pack has them (n_rows, n_features) and gives predictions (n_rows, n_properties) in their units:
scaling and cut are in it. It needs the extra `onnx`: pip install 'irnet_hpc[onnx]'.
"""

import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from irnet_hpc.console import CommandParser, command_parser
from irnet_hpc.errors import UserError
from irnet_hpc.export.graph import compare, write_graph
from irnet_hpc.export.model_card import Exported, model_card, source_of
from irnet_hpc.files import replacing, write_text
from irnet_hpc.predict.committee import assemble, own_pack
from irnet_hpc.predict.members import Member
from irnet_hpc.predict.screening import seen_elements

CHECKED_ROWS = 2000
TOLERANCE = 1e-4  # of the target's scale: float32 added up in another order


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    path = Path(arguments.model)
    if path.suffix != ".onnx":
        raise UserError(f"the model's name must end in .onnx, however: {path}")
    _require("onnx", "onnxscript")
    screen, trust = assemble([arguments.run], arguments.pack_dir, 0.9, torch.device("cpu"), say)
    (member,) = screen.members
    rows, licence, citation = _of_pack(member, arguments.pack_dir)
    with replacing(path) as temporary:
        write_graph(temporary, member)
        difference, by = compare(temporary, member, rows)
        relative = float((difference / member.scaling.target_scale).max())
        if not relative <= TOLERANCE:
            raise UserError(
                f"{path} must predict what torch does to {TOLERANCE:g} standard deviations, however: {relative:.2g}"
            )
    units = ", ".join(
        f"{d:.2g} {unit}" for d, unit in zip(difference, member.units.values(), strict=True)
    )
    verified = f"On {len(rows):,} rows {by} gives what torch gives, to {units}."
    floors = {
        n: float(f) for n, f in zip(member.units, _floors(member), strict=True) if np.isfinite(f)
    }
    known = seen_elements(screen)
    exported = Exported(
        path.name,
        member.units,
        member.feature_labels,
        floors,
        known,
        licence,
        citation,
        verified,
        trust,
    )
    card = path.with_suffix(".md")
    write_text(card, model_card(member.spec, member.result, exported))
    say(f"wrote {path} and {card}. {verified}\nnext: {shlex.join(['less', str(card)])}")
    return 0


def _require(*names: str) -> None:
    import importlib.util

    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f"export needs {' and '.join(missing)}: pip install 'irnet_hpc[onnx]'")


def _floors(member: Member) -> np.ndarray:
    return np.broadcast_to(member.scaling.floor, len(member.units))


def _of_pack(member: Member, pack_dir: str | None) -> tuple[np.ndarray, str, str]:
    """Features of rows to compare on (n_rows, n_features), and the data's licence and citation.

    Where the pack is not at hand: rows drawn as the training rows are scaled, and what is known of the source.
    """
    _, licence, citation = source_of(member.result.pack_identity)
    try:
        with own_pack(member, pack_dir) as pack:
            test = pack.rows("test")
            rows = pack.x(slice(test.start, min(test.stop, test.start + CHECKED_ROWS)))
            return (
                rows,
                pack.attrs.get("licence") or licence,
                pack.attrs.get("citation") or citation,
            )
    except UserError:
        drawn = np.random.default_rng(0).normal(size=(CHECKED_ROWS, len(member.feature_labels)))
        rows = (drawn * member.scaling.feature_scale + member.scaling.feature_mean).astype(
            np.float32
        )
        return rows, licence, citation


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parser() -> CommandParser:
    parser = command_parser("export", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a finished run of a network")
    parser.add_argument(
        "model", metavar="model.onnx", help="the file to write; the card gets its name with .md"
    )
    parser.add_argument(
        "--pack-dir", help="where the run's pack is (default: $IRNET_PACKS, else packs)"
    )
    return parser
