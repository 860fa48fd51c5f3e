"""Export a finished run, or the mean of several, as ONNX or as a portable model, with a card.

    python -m irnet_hpc.export RUN model.onnx                         writes model.onnx and model.md
    python -m irnet_hpc.export RUN model.onnx --pack-dir /data/packs  verified on its test rows
    python -m irnet_hpc.export results/oqmd-magpie/band_gap/irnet-17/onecycle/honest gap.onnx
    python -m irnet_hpc.export NETWORK FOREST model.onnx --committee  weighted by errors on val
    python -m irnet_hpc.export RUN folder --portable        predicts with intervals, without a pack

The folder of all seeds or folds of a model gives one graph of their mean, as `predict` computes it.
A portable model is a folder that `predict`, `load_model` and `train --init` take in the place of a
run. It needs no pack: it holds the network in bf16, what calibrates its intervals and distances,
and hashes of the formulas that it has seen. Only single networks can be exported so.

The input of an ONNX graph is features as a pack stores them (n_rows, n_features); its output is
predictions (n_rows, n_properties) in the properties' units. The scaling is part of the graph. Of
the classical models, boosted_trees and tabm cannot be exported. The command needs the extra `onnx`:
pip install 'irnet_hpc[onnx]'.
"""

import shlex
from collections.abc import Sequence

from irnet_hpc.console import CommandParser, command_parser, json_answer
from irnet_hpc.errors import UserError
from irnet_hpc.runs.portable import CARD, file_sha256


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    # Imported here, so that --help appears at once.
    from irnet_hpc.export.model import export_model
    from irnet_hpc.export.model_card import size_text
    from irnet_hpc.export.portable import export_portable

    # Lines for people go to stderr.
    with json_answer(True):
        if arguments.portable:
            if len(arguments.run) > 1 or arguments.committee:
                raise UserError(
                    f"--portable exports one run, got {', '.join(arguments.run)}"
                    + " and --committee" * arguments.committee
                )
            folder, rounded = export_portable(arguments.run[0], arguments.model, arguments.pack_dir)
            changes = ", ".join(f"{name} {one.change:+.2%}" for name, one in rounded.items())
            print(f"wrote {folder}; bf16 has changed its test MAE: {changes}", flush=True)
            for name in ("result.json", "model.safetensors", "evidence.safetensors"):
                print(f"  {name}  sha256 {file_sha256(folder / name)}", flush=True)
            print(f"next: {shlex.join(['less', str(folder / CARD)])}", flush=True)
            return 0
        path, card, exported = export_model(
            arguments.run, arguments.model, arguments.pack_dir, committee=arguments.committee
        )
        size = size_text(exported.size)
        print(f"wrote {path} ({size}) and {card}. {exported.verified}", flush=True)
        print(f"next: {shlex.join(['less', str(card)])}", flush=True)
    return 0


def parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = command_parser("export", __doc__)
    add = parser.add_argument
    add(
        "run",
        nargs="+",
        metavar="RUN",
        help="folder of a finished run, or of all seeds or folds of a model; several are averaged",
    )
    add(
        "model",
        metavar="model.onnx",
        help="file to write, with the model card beside it (.md); with --portable the folder",
    )
    add("--portable", action="store_true", help="write a folder that predicts without the pack")
    add(
        "--committee",
        action="store_true",
        help="weigh several models by their errors on val; without it all count the same",
    )
    add("--pack-dir", help="folder of the run's pack (default: $IRNET_PACKS, else packs)")
    return parser
