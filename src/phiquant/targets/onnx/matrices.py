"""Products with stored matrices: MatMulNBits, MatMul over floats, or MatMul over DequantizeLinear.

    form      quantized                                  float
    fused     MatMulNBits on (out, blocks, bytes)        MatMul on (in, out)
    standard  DequantizeLinear on (in, out), axis 0,     MatMul on (in, out)
              then MatMul

A tied head and the embedding read the same bytes. Quantized and fused: GatherBlockQuantized sees
them as (vocabulary, bytes), MatMulNBits as (vocabulary, blocks, bytes), two descriptions of one
place in the external data. Otherwise the matrix is (in, out) = (hidden, vocabulary), and the
embedding gathers columns of it.
"""

from dataclasses import dataclass

import onnx_ir as ir

from phiquant.phi.network.parts import Linear, Network, Role
from phiquant.planning.plan import Plan, PlanRow
from phiquant.targets.onnx.external import StoredTensor
from phiquant.targets.onnx.formats import GRIDS, OnnxForm
from phiquant.targets.onnx.graph import CONTRIB, DATA_TYPES, GraphBuilder
from phiquant.targets.onnx.grids import BlockwiseGrid


@dataclass(frozen=True, slots=True)
class StoredForms:
    """How the rows of a plan are stored: which form, and which matrices are transposed."""

    form: OnnxForm
    tied: bool

    def transposed(self, row: PlanRow) -> bool:
        """Whether the tensor is stored as (in, out)."""
        if row.role is None or row.role.is_norm:
            return False
        if row.role is Role.EMBEDDING:
            return self.tied and not self.as_nbits(row)
        return not self.as_nbits(row)

    def as_nbits(self, row: PlanRow) -> bool:
        """Whether the tensor is stored as MatMulNBits takes it."""
        return self.form.fused and isinstance(GRIDS[row.grid], BlockwiseGrid)

    def wanted(self, row: PlanRow) -> list[StoredTensor]:
        """The stored tensors of a row."""
        grid = GRIDS[row.grid]
        if not isinstance(grid, BlockwiseGrid):
            transposed = self.transposed(row)
            shape = row.shape[::-1] if transposed else row.shape
            return [StoredTensor(f"{row.output}.weight", DATA_TYPES[row.grid], shape, transposed)]
        if not self.as_nbits(row):
            return self._standard(row, grid)
        parts = grid.layout(row.shape)
        return [
            StoredTensor(f"{row.output}.{part}", ir.DataType.from_numpy(layout.dtype), layout.shape)
            for part, layout in parts.items()
        ]

    def _standard(self, row: PlanRow, grid: BlockwiseGrid) -> list[StoredTensor]:
        codes = _code_type(grid)
        scales = DATA_TYPES[grid.kind.name]
        types = {"weight": codes, "scales": scales, "zero_points": codes}
        rows, columns = row.shape
        transposed = self.transposed(row)
        tensors = []
        for part in grid.layout(row.shape):
            width = columns if part == "weight" else columns // grid.block
            shape = (width, rows) if transposed else (rows, width)
            tensors.append(StoredTensor(f"{row.output}.{part}", types[part], shape, transposed))
        return tensors


def _code_type(grid: BlockwiseGrid) -> ir.DataType:
    """DequantizeLinear without zero points wants signed codes."""
    if grid.bits == 4:
        return ir.DataType.INT4 if grid.symmetric else ir.DataType.UINT4
    return ir.DataType.INT8 if grid.symmetric else ir.DataType.UINT8


class Matrices:
    """Adds the products of one plan's matrices to a graph."""

    def __init__(self, builder: GraphBuilder, plan: Plan, network: Network, form: OnnxForm) -> None:
        self._builder = builder
        self._held = plan.by_source
        self._network = network
        self._form = form
        self._layout = StoredForms(form, network.is_tied)

    def linear(self, x: ir.Value, layer: Linear, name: str) -> ir.Value:
        """The outputs of a layer for `x`; `name` is the node's.

        Where the plan has its parts instead, the products are put side by side.
        """
        rows = self._held[layer.weight.name]
        if len(rows) == 1:
            return self._product(x, rows[0], name)
        beside, _, _ = name.rpartition("/")
        products = [
            self._product(x, row, f"{beside}/{row.output.rpartition('.')[2]}") for row in rows
        ]
        return self._builder("Concat", *products, axis=-1, name=f"{name}/Concat")

    def _product(self, x: ir.Value, row: PlanRow, name: str) -> ir.Value:
        b = self._builder
        grid = GRIDS[row.grid]
        if isinstance(grid, BlockwiseGrid) and self._form.fused:
            return self._nbits(x, row, grid, name)
        if isinstance(grid, BlockwiseGrid):
            weight = self._dequantized(row.output, grid, name, axis=0)
        else:
            weight = self._as_activations(b.weight(f"{row.output}.weight"), row)
        return b("MatMul", x, weight, name=f"{name}/MatMul")

    def head(self, x: ir.Value) -> ir.Value:
        """Logits of `x`."""
        return self.linear(x, self._network.head, "/lm_head")

    def embed(self, ids: ir.Value) -> ir.Value:
        """Rows `ids` (batch, tokens) of the embedding, as (batch, tokens, hidden)."""
        b, (row,) = self._builder, self._held[self._network.embedding.weight.name]
        grid = GRIDS[row.grid]
        name = "/model/embed_tokens"
        if isinstance(grid, BlockwiseGrid):
            if self._form.fused:
                return self._gather_blocks(ids, row, grid, name)
            return self._gather_standard(ids, row, grid, name)
        weight = b.weight(f"{row.output}.weight")
        if self._layout.transposed(row):
            gathered = b("Gather", weight, ids, axis=1, name=f"{name}/Gather")
            gathered = b("Transpose", gathered, perm=[1, 2, 0], name=f"{name}/Transpose")
        else:
            gathered = b("Gather", weight, ids, axis=0, name=f"{name}/Gather")
        return self._as_activations(gathered, row)

    def _nbits(self, x: ir.Value, row: PlanRow, grid: BlockwiseGrid, name: str) -> ir.Value:
        b = self._builder
        rows, columns = row.shape
        if row.role is Role.EMBEDDING:
            shape = grid.layout(row.shape)["weight"].shape
            weight = b.alias(f"{row.output}.weight", f"{row.output}.weight", shape)
        else:
            weight = b.weight(f"{row.output}.weight")
        parts = [weight, b.weight(f"{row.output}.scales")]
        if not grid.symmetric:
            parts.append(b.weight(f"{row.output}.zero_points"))
        product = b(
            "MatMulNBits",
            x,
            *parts,
            name=f"{name}/MatMulNBits",
            domain=CONTRIB,
            K=columns,
            N=rows,
            bits=grid.bits,
            block_size=grid.block,
            accuracy_level=self._form.accuracy_level,
        )
        return b.known(product, "batch_size", "sequence_length", rows)

    def _gather_blocks(
        self, ids: ir.Value, row: PlanRow, grid: BlockwiseGrid, name: str
    ) -> ir.Value:
        b = self._builder
        shape = (row.shape[0], row.shape[1] * grid.bits // 8)
        parts = [
            b.alias(f"{row.output}.weight", f"{row.output}.weight.rows", shape),
            ids,
            b.weight(f"{row.output}.scales"),
        ]
        if not grid.symmetric:
            parts.append(b.weight(f"{row.output}.zero_points"))
        gathered = b(
            "GatherBlockQuantized",
            *parts,
            name=f"{name}/GatherBlockQuantized",
            domain=CONTRIB,
            bits=grid.bits,
            block_size=grid.block,
            gather_axis=0,
            quantize_axis=1,
        )
        return b.known(gathered, "batch_size", "sequence_length", row.shape[1])

    def _gather_standard(
        self, ids: ir.Value, row: PlanRow, grid: BlockwiseGrid, name: str
    ) -> ir.Value:
        """Gather codes and parameters, then dequantize what was gathered."""
        b = self._builder
        across = self._layout.transposed(row)
        axis = 1 if across else 0
        parts = [
            b("Gather", self._apart(row, part), ids, axis=axis, name=f"{name}/{part}")
            for part in grid.layout(row.shape)
        ]
        rows = b(
            "DequantizeLinear",
            *parts,
            axis=0 if across else 2,
            block_size=grid.block,
            name=f"{name}/DequantizeLinear",
        )
        if across:
            return b("Transpose", rows, perm=[1, 2, 0], name=f"{name}/Transpose")
        return rows

    def _apart(self, row: PlanRow, part: str) -> ir.Value:
        """A part of the embedding that no other node reads.

        A tied head has the same bytes under their own name: ONNX Runtime makes MatMulNBits only of
        weights that the product alone reads, and would dequantize the whole head for each token.
        """
        name = f"{row.output}.{part}"
        if not self._network.is_tied:
            return self._builder.weight(name)
        return self._builder.alias(name, f"{name}.rows")

    def _dequantized(self, output: str, grid: BlockwiseGrid, name: str, axis: int) -> ir.Value:
        b = self._builder
        names = ["weight", "scales"] if grid.symmetric else ["weight", "scales", "zero_points"]
        return b(
            "DequantizeLinear",
            *(b.weight(f"{output}.{part}") for part in names),
            axis=axis,
            block_size=grid.block,
            name=f"{name}/DequantizeLinear",
        )

    def _as_activations(self, value: ir.Value, row: PlanRow) -> ir.Value:
        """The value in the activations' type; the runtime widens constants once, when it loads."""
        if DATA_TYPES[row.grid] is self._builder.activations:
            return value
        return self._builder("Cast", value, to=int(self._builder.activations))
