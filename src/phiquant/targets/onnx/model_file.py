"""`ModelFile`: an ONNX graph read as data, and its tensors as arrays, with every claim checked.

External data are read from plain file names in the artifact's own directory, within the file's
bounds; nothing else that a graph names is opened (see `host.foreign` for links).
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.host.opened_file import Bytes, OpenedFile
from phiquant.host.shown import shown
from phiquant.targets.onnx.message import read_message

FOLDERS = 8
"""Slashes of a node's name by which it is found."""
WIDTHS: Mapping[ir.DataType, int] = {
    ir.DataType.FLOAT: 32,
    ir.DataType.FLOAT16: 16,
    ir.DataType.BFLOAT16: 16,
    ir.DataType.INT8: 8,
    ir.DataType.UINT8: 8,
    ir.DataType.INT4: 4,
    ir.DataType.UINT4: 4,
    ir.DataType.INT64: 64,
}
"""The element types that a decoder's tensors have → bits of an element."""


def extents(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """The tensor's shape."""
    sizes = []
    for extent in tensor.shape:
        if not isinstance(extent, int) or extent < 0:
            raise ArtifactError(f"{tensor.name} has no definite shape")
        sizes.append(extent)
    return tuple(sizes)


def nbytes_of(tensor: ir.TensorProtocol) -> int:
    """Bytes that the tensor's elements take."""
    if tensor.dtype not in WIDTHS:
        raise ArtifactError(
            f"{tensor.name} has {tensor.dtype.name} elements, which are not covered"
        )
    return (math.prod(extents(tensor)) * WIDTHS[tensor.dtype] + 7) // 8


def integer(node: ir.Node, name: str, default: int | None = None) -> int:
    """A node's attribute that is a whole number; ArtifactError if it has none and no `default`."""
    value = _attribute(node, name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int):
        raise ArtifactError(
            f"{node.name} has {shown(value)} for the attribute {name}, not a number"
        )
    return value


def real(node: ir.Node, name: str) -> float | None:
    """A node's attribute that is a real number; None if there is none."""
    value = _attribute(node, name)
    if value is not None and not isinstance(value, int | float):
        raise ArtifactError(
            f"{node.name} has {shown(value)} for the attribute {name}, not a number"
        )
    return value


def graph(node: ir.Node, name: str) -> ir.Graph | None:
    """A node's attribute that is a graph; None if there is none."""
    value = _attribute(node, name)
    return value if isinstance(value, ir.Graph) else None


def _attribute(node: ir.Node, name: str) -> Any:  # noqa: ANN401 (any kind of attribute)
    attribute = node.attributes.get(name)
    return None if attribute is None else attribute.value


class ModelFile:
    """The graph in `path`. Raises ArtifactError for a file that is no ONNX model."""

    def __init__(self, path: Path) -> None:
        message = read_message(path)
        try:
            with _no_warnings():
                self.model = ir.serde.deserialize_model(message)
        except Exception as error:  # onnx_ir raises whatever it meets
            raise ArtifactError(f"{path.name} is no ONNX model ({str(error)[:200]})") from error
        self.path = path
        self._opened: dict[str, OpenedFile] = {}
        self.nodes = tuple(self.model.graph)
        self._folders = _by_folder(self.nodes)

    def named(self, folder: str, *ops: str) -> Iterator[ir.Node]:
        """The nodes of the kinds `ops` whose names begin with `folder`, which ends with a slash."""
        for node in self._folders.get(folder, ()):
            if node.op_type in ops:
                yield node

    def tensor(self, value: ir.Value | None) -> ir.TensorProtocol:
        """The constant that `value` is; ArtifactError if it is computed."""
        producer = value.producer() if value is not None else None
        stored = value.const_value if value is not None else None
        if producer is not None and producer.op_type == "Constant":
            constant = _attribute(producer, "value")
            stored = constant if isinstance(constant, ir.TensorProtocol) else None
        if stored is None:
            name = value.name if value is not None else "an input"
            raise ArtifactError(f"{self.path.name}: {name} should be a stored tensor, and is not")
        return stored

    def array(self, tensor: ir.TensorProtocol) -> npt.NDArray[np.generic]:
        """The tensor's elements in its shape; 4-bit ones as flat bytes of two."""
        whole = self.rows(tensor, 1, 0, 1).reshape(-1)
        return whole if WIDTHS[tensor.dtype] == 4 else whole.reshape(extents(tensor))

    def rows(
        self, tensor: ir.TensorProtocol, count: int, first: int, last: int | None
    ) -> npt.NDArray[np.generic]:
        """Those of `count` rows of the tensor's elements; 4-bit ones as bytes of two."""
        return self._block(tensor, count, (first, last), (0, None))

    def columns(
        self, tensor: ir.TensorProtocol, count: int, first: int, last: int | None
    ) -> npt.NDArray[np.generic]:
        """Some columns of the tensor's elements in `count` rows; 4-bit ones as bytes of two."""
        return self._block(tensor, count, (0, None), (first, last))

    def _block(
        self,
        tensor: ir.TensorProtocol,
        count: int,
        rows: tuple[int, int | None],
        columns: tuple[int, int | None],
    ) -> npt.NDArray[np.generic]:
        """A block of the tensor's elements in `count` rows; the rest is not read."""
        nbytes = nbytes_of(tensor)
        if count < 1 or nbytes % count:
            raise ArtifactError(f"{tensor.name} has {nbytes} bytes, no {count} rows of one length")
        dtype = np.dtype(np.uint8 if WIDTHS[tensor.dtype] == 4 else tensor.dtype.numpy())
        width = nbytes // count // dtype.itemsize
        first, last, _ = slice(*rows).indices(count)
        left, right, _ = slice(*columns).indices(width)
        data: npt.NDArray[np.generic]
        if isinstance(tensor, ir.ExternalTensor):
            self.check_place(tensor)
            data = np.empty((max(last - first, 0), max(right - left, 0)), dtype)
            if data.size:
                start = (tensor.offset or 0) + (first * width + left) * dtype.itemsize
                file = self._opened[str(tensor.location)]
                _fill(data.view(np.uint8), file, start, width * dtype.itemsize)
            return data
        whole = self._held(tensor)
        if whole.size != nbytes:
            raise ArtifactError(f"{tensor.name} should have {nbytes} bytes, found {whole.size}")
        return whole.view(dtype).reshape(count, width)[first:last, left:right]

    def _held(self, tensor: ir.TensorProtocol) -> npt.NDArray[np.uint8]:
        try:
            return np.frombuffer(tensor.tobytes(), np.uint8)
        except (ValueError, TypeError) as error:  # fewer elements than its shape has
            raise ArtifactError(f"{tensor.name} cannot be read ({str(error)[:200]})") from error

    def check_place(self, tensor: ir.TensorProtocol) -> None:
        """ArtifactError for a tensor that is not where the graph says, or not all of it."""
        nbytes = nbytes_of(tensor)
        if not isinstance(tensor, ir.ExternalTensor):
            return
        location, first = str(tensor.location), tensor.offset or 0
        size = self._size(location, tensor)
        if first < 0 or first + nbytes > size:
            raise ArtifactError(
                f"{location} ends at byte {size}, before {tensor.name} does ({first + nbytes}); is "
                "the artifact complete?"
            )

    def _size(self, location: str, tensor: ir.ExternalTensor) -> int:
        if location in self._opened:
            return self._opened[location].nbytes
        if not foreign.is_plain_name(location):
            raise ArtifactError(
                f"{tensor.name} refers to {shown(location)}, outside the artifact's directory"
            )
        path = self.path.parent / location
        if not foreign.present(path):
            raise ArtifactError(f"{location}, which holds {tensor.name}, is missing")
        foreign.check_file(path, foreign.STORED, self.path.parent)
        self._opened[location] = OpenedFile(path, ArtifactError)
        return self._opened[location].nbytes


def _fill(into: Bytes, file: OpenedFile, start: int, stride: int) -> None:
    """Read rows of bytes, the first at `start`, each `stride` after the one before."""
    if into.shape[1] == stride:
        file.read_into(into.reshape(-1), start)
        return
    for number, row in enumerate(into):
        file.read_into(row, start + number * stride)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Raise ValueError for what onnx_ir logs a warning of: inputs, for one, that nothing gives."""
    logger, heard = logging.getLogger(ir.__name__), _Heard()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(heard)
    try:
        yield
    finally:
        logger.removeHandler(heard)
        logger.propagate = propagate
    if heard.words:
        raise ValueError(heard.words)


class _Heard(logging.Handler):
    """The first message."""

    words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words = self.words or record.getMessage()


def _by_folder(nodes: tuple[ir.Node, ...]) -> Mapping[str, list[ir.Node]]:
    """The nodes by what their names begin with, up to a slash."""
    folders: dict[str, list[ir.Node]] = {}
    for node in nodes:
        name, end = node.name or "", 0
        for _ in range(FOLDERS):
            end = name.find("/", end) + 1
            if end == 0:
                break
            folders.setdefault(name[:end], []).append(node)
    return folders
