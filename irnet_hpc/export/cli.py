"""Export a finished run as ONNX, compared with its model, with a model card beside it.

    python -m irnet_hpc.export RUN model.onnx                         writes model.onnx and model.md
    python -m irnet_hpc.export RUN model.onnx --pack-dir /data/packs  verified on its test rows
    python -m irnet_hpc.export results/oqmd-magpie/band_gap/irnet-17/onecycle/honest/seed0 gap.onnx

The input of the graph is features as a pack stores them (n_rows, n_features); its output is
predictions (n_rows, n_properties) in the properties' units. The scaling is part of the graph. Of
the classical models, boosted_trees and tabm cannot be exported. The command needs the extra `onnx`:
pip install 'irnet_hpc[onnx]'.
"""

import shlex
from collections.abc import Sequence

from irnet_hpc.console import CommandParser, command_parser, json_answer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    # Imported here, so that --help appears at once.
    from irnet_hpc.export.model import export_model

    # Lines for people go to stderr.
    with json_answer(True):
        path, card, exported = export_model(arguments.run, arguments.model, arguments.pack_dir)
        print(f"wrote {path} and {card}. {exported.verified}", flush=True)
        print(f"next: {shlex.join(['less', str(card)])}", flush=True)
    return 0


def parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = command_parser("export", __doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="folder of a finished run")
    add(
        "model",
        metavar="model.onnx",
        help="file to write; the model card gets the same name with .md",
    )
    add("--pack-dir", help="folder of the run's pack (default: $IRNET_PACKS, else packs)")
    return parser
