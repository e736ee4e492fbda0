"""An ONNX model as protobuf has it, once it is known that it fits into memory."""

from pathlib import Path

import onnx

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.targets.onnx.graph_size import check_size


def read_message(path: Path) -> onnx.ModelProto:
    """The ONNX model in `path`; ArtifactError for a file that is none, or that holds too much."""
    if not foreign.present(path):
        raise ArtifactError(f"expected an ONNX graph at {path}, found none")
    data = foreign.read_bytes(path, foreign.ONNX_GRAPH, path.parent)
    try:
        check_size(memoryview(data))
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf raises whatever it meets
        raise ArtifactError(f"{path.name} is no ONNX model ({str(error)[:200]})") from error
    return model
