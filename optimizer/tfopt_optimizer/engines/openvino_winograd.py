"""3x3 convolutions with fewer multiplications (Winograd; Lavin and Gray, arXiv 1509.09308), in operations of OpenVINO.

None of the engines here has them on x86. A tile of m x m results is computed from n x n pixels, n = m + 2: both are
brought into another basis, where n^2 products do the work of 9 m^2 (36 of 144 for m = 4). For all tiles of all rows:

    D [n n, tiles, C]   the tiles' pixels, overlapping; Gather copies a pixel's channels at a time
    V = (B' x B') D     one product of [n n, n n] and [n n, tiles C]
    M [k] = V [k] U [k] n n products of [tiles, C] and [C, O]; U = (G x G) w is computed when the model is opened
    Y = (A' x A') M     [m m, tiles O], where bias and activation are the product's own
    and a Gather to pixels, which leaves out what the last tiles have too much.

Of pixels outside of the image the first Gather makes zeros: OpenVINO does of any index beyond the end, and its own
passes rely on it. It calls the three products oneDNN's `brgemm` and packs U. It holds tensors of convolutions as
channels-last, so the transposes around all this cost nothing, where shapes are static. Results differ by float32
rounding (4e-6 of the largest for m = 4, 1e-6 for m = 2). A pixel that is not finite spoils the tiles it is in.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfopt_optimizer.errors import NotLowerable

# Of the direct convolution's cost, by the estimate below, which is coarse: of 17 layers on Zen 4, beside other work,
# those up to 0.76 (ResNet50's too) took 0.43 to 0.73 of the direct one's time, those above mostly 0.8 to 1.5.
WORTH = 0.8
MOST = 32 << 20  # bytes of V and M: 29 MB still gain a third (112 x 112 x 128), 58 MB nothing (224 x 224 x 64)
# B', G, A' by the size of a tile: the points 0, 1, -1 and infinity, and for 4 also 2 and -2.
_BASES = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution's shapes. `pads`: how far above and left of its input it begins."""

    rows: int
    sizes: tuple[int, int]
    channels: int
    results: tuple[int, int]
    outputs: int
    pads: tuple[int, int]

    def tiles(self, m: int) -> tuple[int, int]:
        return -(-self.results[0] // m), -(-self.results[1] // m)

    def cost(self, m: int) -> float:
        """In multiplications of the direct convolution, by measured layers: the products run at nine tenths of its
        rate, the transforms at six tenths and wait for memory beside, weights come from beyond the core's cache."""
        number, n2 = self.rows * int(np.prod(self.tiles(m))), (m + 2) ** 2
        turned = 1.6 * (n2 * self.channels + m * m * self.outputs) + 20 * self.channels + 10 * self.outputs
        return n2 * (number * (1.15 * self._pairs + turned) + 16 * self._pairs)

    def held(self, m: int) -> int:
        """Bytes of the tiles in the other basis, and of the products."""
        return 4 * (m + 2) ** 2 * self.rows * int(np.prod(self.tiles(m))) * (self.channels + self.outputs)

    @property
    def direct(self) -> int:
        return 9 * self.rows * self.results[0] * self.results[1] * self._pairs

    @property
    def _pairs(self) -> int:
        return self.channels * self.outputs

    def best(self) -> int:
        """The size of a tile; 0 where the direct convolution is the better one."""
        able = [m for m in _BASES if self.held(m) <= MOST and self.cost(m) <= WORTH * self.direct]
        return min(able, key=self.cost, default=0)


@dataclasses.dataclass
class Tail:
    """What follows a convolution and belongs to it: results * scale + bias by output channel, then an activation."""

    last: Any
    scale: np.ndarray
    bias: np.ndarray
    activation: Any = None


def rewrite(openvino: Any, model: Any) -> None:
    """Replaces the convolutions where it pays, in place. NotLowerable when there are none. Shapes must be static."""
    layers = [(node, layer) for node in model.get_ordered_ops() if (layer := layer_of(node)) and layer.best()]
    found = [(node, layer) for node, layer in layers if not _thinned(node)]
    if not found:
        raise NotLowerable("it has no 3x3 convolution for which fewer multiplications pay")
    for node, layer in found:
        tail = _tail(node, layer.outputs)
        weights = np.asarray(node.input_value(1).get_node().data)
        results = _Writer(openvino.opset13, layer, layer.best()).results(node.input_value(0), weights, tail)
        tail.last.output(0).replace(results.output(0))
    model.validate_nodes_and_infer_types()


def layer_of(node: Any) -> Layer | None:
    """None for what is no 3x3 convolution without strides, with constant float32 weights and shapes that are known."""
    if node.get_type_name() != "Convolution" or _constant(node.input_value(1)) is None:
        return None
    weights, attributes = node.input_value(1).get_shape(), node.get_attributes()
    known = node.get_input_partial_shape(0).is_static and node.get_output_partial_shape(0).is_static
    plain = list(attributes["strides"]) == list(attributes["dilations"]) == [1, 1]
    if list(weights)[2:] != [3, 3] or not known or not plain:
        return None
    rows, channels, *sizes = node.get_input_shape(0)
    _, outputs, *results = node.get_output_shape(0)
    return Layer(rows, (*sizes,), channels, (*results,), outputs, (*attributes["pads_begin"],))


def _thinned(node: Any) -> bool:
    """Whether 1x1 convolutions with strides are all that is computed from it, as from the last layer of ResNet50's
    stages: OpenVINO takes those strides to the layers before, so that it computes a quarter of their pixels."""
    waiting, seen = [node], {node.get_name()}
    while waiting:
        for taker in [port.get_node() for port in waiting.pop().output(0).get_target_inputs()]:
            one_by_one = taker.get_type_name() == "Convolution" and list(taker.get_input_shape(1))[2:] == [1, 1]
            if not one_by_one and taker.get_type_name() not in ("Add", "Multiply", "Relu", "Clamp"):
                return False
            strided = one_by_one and max(taker.get_attributes()["strides"]) > 1
            if not strided and taker.get_name() not in seen:
                seen.add(taker.get_name())
                waiting.append(taker)
    return True


def _tail(node: Any, outputs: int) -> Tail:
    found = Tail(node, np.ones(outputs), np.zeros(outputs))
    while (after := _only(found.last)) is not None:
        kind, values = after.get_type_name(), _by_channel(after, outputs)
        if kind == "Multiply" and values is not None:
            found.scale, found.bias = found.scale * values, found.bias * values
        elif kind == "Add" and values is not None:
            found.bias = found.bias + values
        else:
            break
        found.last = after
    if after is not None and after.get_type_name() in ("Relu", "Clamp"):
        found.last = found.activation = after
    return found


def _only(node: Any) -> Any:
    """The operation that alone takes a node's output, else None."""
    takers = list(node.output(0).get_target_inputs())
    return takers[0].get_node() if len(takers) == 1 else None


def _by_channel(node: Any, outputs: int) -> np.ndarray | None:
    """The constant operand of a node, as float64, where it has a value for each channel and none for a pixel."""
    for operand in node.input_values():
        values = _constant(operand)
        if values is not None and values.shape in ((1, outputs, 1, 1), (outputs, 1, 1)):
            return values.reshape(-1).astype(np.float64)
    return None


def _constant(operand: Any) -> np.ndarray | None:
    node = operand.get_node()
    if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() != "f32":
        return None
    found: np.ndarray = np.asarray(node.data)
    return found


class _Writer:
    """Writes one layer's operations."""

    def __init__(self, operations: Any, layer: Layer, m: int) -> None:
        self._ops, self._layer, self._m, self._n = operations, layer, m, m + 2
        self._high, self._wide = layer.tiles(m)
        self._tiles = layer.rows * self._high * self._wide
        self._to, self._weights, self._back = (np.array(basis, np.float64) for basis in _BASES[m])

    def results(self, source: Any, weights: np.ndarray, tail: Tail) -> Any:
        ops, layer, m2, n2 = self._ops, self._layer, self._m**2, self._n**2
        pixels = self._reshape(self._transpose(source, 0, 2, 3, 1), -1, layer.channels)
        given = self._reshape(self._rows(pixels, self._taken()), n2, -1)
        turned = self._reshape(self._product(np.kron(self._to, self._to), given), n2, self._tiles, layer.channels)
        products = ops.matmul(turned, self._floats(self._turned(weights, tail.scale)), False, False)
        found = self._product(np.kron(self._back, self._back), self._reshape(products, n2, -1))
        found = ops.add(found, self._floats(np.tile(tail.bias, self._tiles)[None]))
        found = self._reshape(self._activated(found, tail.activation), m2 * self._tiles, layer.outputs)
        found = self._reshape(self._rows(found, self._left()), layer.rows, *layer.results, layer.outputs)
        return self._transpose(found, 0, 3, 1, 2)

    def _turned(self, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """[O, C, 3, 3] in the other basis: [n n, C, O]."""
        outputs, channels = weights.shape[:2]
        scaled = weights.astype(np.float64).reshape(outputs, channels, 9) * scale[:, None, None]
        basis: np.ndarray = np.kron(self._weights, self._weights)
        found: np.ndarray = basis @ scaled.transpose(2, 1, 0).reshape(9, -1)
        return found.reshape(-1, channels, outputs)

    def _taken(self) -> np.ndarray:
        """Which pixel is at each place of each tile; outside of the image the one behind the last."""
        layer, n, m = self._layer, range(self._n), self._m
        y, x, row, high, wide = np.ix_(n, n, range(layer.rows), range(self._high), range(self._wide))
        y, x = high * m + y - layer.pads[0], wide * m + x - layer.pads[1]
        height, width = layer.sizes
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return np.where(inside, (row * height + y) * width + x, layer.rows * height * width)

    def _left(self) -> np.ndarray:
        """Where each result is among those of the tiles."""
        layer, m = self._layer, self._m
        row, y, x = np.ix_(range(layer.rows), range(layer.results[0]), range(layer.results[1]))
        tile = (row * self._high + y // m) * self._wide + x // m
        return (y % m * m + x % m) * self._tiles + tile

    def _activated(self, value: Any, activation: Any) -> Any:
        if activation is None:
            return value
        if activation.get_type_name() == "Relu":
            return self._ops.relu(value)
        bounds = activation.get_attributes()
        return self._ops.clamp(value, bounds["min"], bounds["max"])

    def _rows(self, value: Any, which: np.ndarray) -> Any:
        indices = self._ops.constant(which.reshape(-1).astype(np.int32))
        return self._ops.gather(value, indices, self._ops.constant(np.int64(0)))

    def _product(self, left: np.ndarray, right: Any) -> Any:
        return self._ops.matmul(self._floats(left), right, False, False)

    def _reshape(self, value: Any, *shape: int) -> Any:
        return self._ops.reshape(value, self._ops.constant(np.array(shape, np.int64)), False)

    def _transpose(self, value: Any, *order: int) -> Any:
        return self._ops.transpose(value, self._ops.constant(np.array(order, np.int64)))

    def _floats(self, values: np.ndarray) -> Any:
        return self._ops.constant(np.ascontiguousarray(values, np.float32))
