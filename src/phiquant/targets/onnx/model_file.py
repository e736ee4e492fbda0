"""`ModelFile`: an ONNX graph read as data, and its tensors as arrays, with every claim checked.

External data are mapped from plain file names in the artifact's own directory, within the file's
bounds; nothing else that a graph names is opened. A link is followed only to where the graph
itself lies (the hub's cache links all files into one directory).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from phiquant.errors import ArtifactError

LARGEST_GRAPH = 1 << 31
"""Protobuf's own limit in bytes."""


def extents(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The tensor's shape."""
    found = []
    for extent in tensor.shape:
        if not isinstance(extent, int) or extent < 0:
            raise ArtifactError(f"{tensor.name} has no definite shape")
        found.append(extent)
    return tuple(found)


class ModelFile:
    """The graph in `path`. Raises ArtifactError for a file that is no ONNX model."""

    def __init__(self, path: Path) -> None:
        if not path.is_file() or path.stat().st_size >= LARGEST_GRAPH:
            raise ArtifactError(f"expected an ONNX graph at {path}, found none")
        try:
            self.model = ir.load(path)
        except Exception as error:  # protobuf and onnx_ir raise whatever they meet
            raise ArtifactError(f"{path.name} is no ONNX model ({str(error)[:200]})") from error
        self.path = path
        self.nodes = tuple(self.model.graph)

    def named(self, prefix: str, *ops: str) -> Iterator[ir.Node]:
        """The nodes of the kinds `ops` whose names begin with `prefix`."""
        for node in self.nodes:
            if node.op_type in ops and (node.name or "").startswith(prefix):
                yield node

    def tensor(self, value: ir.Value | None) -> ir.TensorProtocol:
        """The constant that `value` is; ArtifactError if it is computed."""
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type == "Constant":
            constant = producer.attributes["value"].value
            assert isinstance(constant, ir.TensorProtocol)
            return constant
        if value is None or value.const_value is None:
            name = value.name if value is not None else "an input"
            raise ArtifactError(f"{self.path.name}: {name} should be a stored tensor, and is not")
        return value.const_value

    def array(self, tensor: ir.TensorProtocol) -> npt.NDArray[np.generic]:
        """The tensor's elements, mapped; 4-bit ones as flat bytes of two."""
        shape = extents(tensor)
        size = int(np.prod(shape, dtype=np.int64))
        nbytes = (size * tensor.dtype.bitwidth + 7) // 8
        if not isinstance(tensor, ir.ExternalTensor):
            data: npt.NDArray[np.generic] = np.frombuffer(tensor.tobytes(), np.uint8)
        else:
            data = self._mapped(tensor, nbytes)
        if data.size != nbytes:
            raise ArtifactError(f"{tensor.name} should have {nbytes} bytes, found {data.size}")
        if tensor.dtype.bitwidth == 4:
            return data
        return data.view(tensor.dtype.numpy()).reshape(shape)

    def _mapped(self, tensor: ir.ExternalTensor, nbytes: int) -> npt.NDArray[np.generic]:
        location = str(tensor.location)
        path = self.path.parent / location
        if Path(location).name != location or location in ("", ".", ".."):
            raise ArtifactError(
                f"{tensor.name} refers to {location!r}, outside the artifact's directory"
            )
        if path.is_symlink() and path.resolve().parent != self.path.resolve().parent:
            raise ArtifactError(f"{location}, which holds {tensor.name}, is a link to the outside")
        if not path.is_file():
            raise ArtifactError(f"{location}, which holds {tensor.name}, is missing")
        first = tensor.offset or 0
        if first < 0 or first + nbytes > path.stat().st_size:
            raise ArtifactError(
                f"{location} ends at byte {path.stat().st_size}, before {tensor.name} does "
                f"({first + nbytes}); is the artifact complete?"
            )
        if not nbytes:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r", first, (nbytes,))
