"""Write a trained network as an ONNX graph, and compare the graph with the network."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from irnet_hpc.distributed.processes import Shared, no_warnings
from irnet_hpc.errors import UserError
from irnet_hpc.predict.members import Member, NetworkMember, fold_normalisation

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18


class Graph(nn.Module):
    """The exported function: features as packed -> predictions in their units."""

    feature_mean: Tensor  # (n_features,)
    feature_mean_rest: Tensor  # (n_features,), what the mean is more than its float32
    feature_scale: Tensor  # (n_features,)
    target_mean: Tensor  # (n_properties,)
    target_scale: Tensor  # (n_properties,)
    floor: Tensor  # (n_properties,), lowest prediction; -inf: predictions are not cut

    def __init__(self, member: NetworkMember) -> None:
        super().__init__()
        scaling = member.scaling
        self.network = fold_normalisation(member.network)
        self.clip, self.has_floor = float(scaling.clip), bool(np.isfinite(scaling.floor).any())
        mean, rest = scaling.feature_means()
        self.register_buffer("feature_mean", torch.from_numpy(mean))
        self.register_buffer("feature_mean_rest", torch.from_numpy(rest))
        for name in ("feature_scale", "target_mean", "target_scale", "floor"):
            self.register_buffer(name, torch.as_tensor(getattr(scaling, name), dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """Predict (n_rows, n_properties), in their units, from features (n_rows, n_features).

        A row with a feature that is not finite gets NaN. Otherwise the prediction would
        depend on the runtime: Clip and Relu give a number for NaN in onnxruntime on CUDA and in
        TensorRT, and for infinity everywhere.
        """
        is_finite = torch.isfinite(features).all(1, keepdim=True)
        x = (features - self.feature_mean - self.feature_mean_rest) / self.feature_scale
        x = x.clamp(-self.clip, self.clip) if self.clip else x
        # The same as Network.forward, but without autocast, which ONNX does not have.
        for block in self.network.body:
            x = block(x, None, None)
        x = self.network.output(x) * self.target_scale + self.target_mean
        x = torch.maximum(x, self.floor) if self.has_floor else x
        return torch.where(is_finite, x, torch.nan)


def network_graph(member: NetworkMember) -> "ModelProto":
    """Return the network of a run as an ONNX model."""
    import onnx

    example = torch.zeros(2, len(member.feature_labels), dtype=torch.float32)
    n_rows = torch.export.Dim("n_rows")
    with no_warnings(), _errors_alone.block():
        program = torch.onnx.export(
            Graph(member).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["features"],
            output_names=["prediction"],
            dynamic_shapes=({0: n_rows},),
            verbose=False,  # torch 2.13 prints its steps to stdout by default
        )
    # torch.onnx.export returns None only with dynamo=False.
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata_of_one(member))
    return model


def write_graph(path: Path, model: "ModelProto", name: str) -> None:
    """Check an ONNX model and write it to a file.

    Args:
        path: The file to write.
        model: The model.
        name: The name of the model in a message.

    Raises:
        UserError: If the model is invalid, or too large for a file.
    """
    import onnx

    # protobuf, which knows no file above 2 GiB, has an error class of its own for it.
    try:
        onnx.checker.check_model(model)
        content = model.SerializeToString()
    except Exception as error:
        raise UserError(
            f"the graph of {name} cannot be written: {' '.join(str(error).split())[:200]}"
        ) from None
    path.write_bytes(content)


def metadata_of(members: Sequence[Member], features: str, labels: Sequence[str]) -> dict[str, str]:
    """Return the metadata of a file: the properties, units, features and keys of its runs.

    Args:
        members: The runs.
        features: The feature sets of all runs, as a sum.
        labels: The labels of the features of the graph, (n_features,).
    """
    return {
        "property": ",".join(members[0].units),
        "unit": ",".join(members[0].units.values()),
        "features": features,
        "feature_labels": json.dumps(list(labels), ensure_ascii=False),
        "key": ",".join(member.result.key for member in members),
    }


def metadata_of_one(member: Member) -> dict[str, str]:
    """Return the metadata of a file of a single run."""
    return metadata_of([member], member.result.pack_identity["features"], member.feature_labels)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let torch.onnx log errors alone until the block ends."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


_errors_alone = Shared(_quiet)


def evaluate_graph(path: Path, x: np.ndarray, output: str = "prediction") -> tuple[np.ndarray, str]:
    """Predict rows with an ONNX file.

    Args:
        path: The ONNX file.
        x: (n_rows, n_features) float32, features as packed.
        output: The output to compute: `prediction`, or `sd` of a mean of several models.

    Returns:
        The output (n_rows, n_properties), in the properties' units, and the name of the
        runtime that evaluated the graph.
    """
    session: Any
    try:
        import onnxruntime
    except ModuleNotFoundError:
        from onnx.reference import ReferenceEvaluator

        session, evaluator = ReferenceEvaluator(str(path)), "onnx's reference evaluator"
    else:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        evaluator = f"onnxruntime {onnxruntime.__version__}"
    return session.run([output], {"features": x})[0], evaluator


@torch.no_grad()
def float32_predictions(member: NetworkMember, x: np.ndarray) -> np.ndarray:
    """Predict rows with a run's network in float32, without folding, as `evaluate_graph` does."""
    out = member.network(torch.from_numpy(member.scaling.features(x))).double().numpy()
    return member.scaling.in_unit(out)
