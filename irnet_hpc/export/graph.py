"""irnet_hpc/export/graph.py"""

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from irnet_hpc.predict.members import Member, folded

OPSET = 18


class Graph(nn.Module):
    """What is exported: features as packed -> predictions in the unit."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        scaling = member.scaling
        self.network = folded(member.network)
        self.clip, self.cut = float(scaling.clip), bool(np.isfinite(scaling.floor).any())
        for name in ("feature_mean", "feature_scale", "target_mean", "target_scale", "floor"):
            self.register_buffer(name, torch.as_tensor(getattr(scaling, name), dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        x = (features - self.feature_mean) / self.feature_scale
        x = x.clamp(-self.clip, self.clip) if self.clip else x
        for block in (
            self.network.body
        ):  # Network.forward without its autocast, of which a graph knows nothing
            x = block(x, None, None)
        x = self.network.output(x) * self.target_scale + self.target_mean
        return torch.maximum(x, self.floor) if self.cut else x


def write_graph(path: Path, member: Member) -> None:
    """The ONNX file, with property, unit, feature labels and the run's key among its metadata."""
    import onnx

    example = torch.zeros(2, len(member.feature_labels))
    n_rows = torch.export.Dim("n_rows")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):  # it reports on its own steps
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Graph(member).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["features"],
            output_names=["prediction"],
            dynamic_shapes=({0: n_rows},),
        )
    model = program.model_proto
    facts = {
        "property": ",".join(member.units),
        "unit": ",".join(member.units.values()),
        "features": member.result.pack_identity["features"],
        "feature_labels": json.dumps(member.feature_labels, ensure_ascii=False),
        "key": member.result.key,
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@torch.no_grad()
def compare(path: Path, member: Member, x: np.ndarray) -> tuple[np.ndarray, str]:
    """The largest difference to the run's own network in float32 (n_properties,), in the units, and what ran the graph."""
    scaling = member.scaling
    own = member.network(torch.from_numpy(scaling.features(x))).double().numpy()
    own = np.maximum(own * scaling.target_scale + scaling.target_mean, scaling.floor)
    try:
        import onnxruntime
    except ModuleNotFoundError:
        from onnx.reference import ReferenceEvaluator

        found, by = (
            ReferenceEvaluator(str(path)).run(None, {"features": x})[0],
            "onnx's reference evaluator",
        )
    else:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found, by = session.run(None, {"features": x})[0], f"onnxruntime {onnxruntime.__version__}"
    return np.abs(found - own).max(0), by
