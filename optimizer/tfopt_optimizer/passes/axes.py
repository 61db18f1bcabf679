"""Which axes of what an operation reads are axes of its result, position for position.

    links(BatchMatMulV2 of [rows, 128, 64] and [64, 32]) -> inputs (("0", "row", "inner"), ("inner", "column")),
                                                            output ("0", "row", "column")

What a result holds at one position of an axis is computed from that position alone of every input's axis of that label,
and from all of the others. Labels beginning with SAME stand for axes that keep their length and mix their positions
(Softmax); NEW for one of length 1; what is in the output alone has a length of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tfopt_optimizer.passes.constants import told
from tfopt_optimizer.passes.slices import NEW, ONE_OF, WHOLE, entries

SAME = "="
Labels = tuple[str, ...]
_COUNTS = {"Split": "num_split", "SplitV": "num_split", "Unpack": "num"}


class Links(NamedTuple):
    """`inputs`: None for what is no tensor of such axes (a permutation, say)."""

    inputs: tuple[Labels | None, ...]
    output: Labels


class Known(Protocol):
    """What must be known of the tensors (dimensions.Dimensions)."""

    def of(self, name: str, /) -> Sequence[Any] | None: ...

    def numbers(self, name: str, /) -> list[int] | None: ...


def links(node: Any, known: Known) -> Links | None:
    """None for an operation that is not known here, and where the ranks or the axes that it names are not."""
    given = [name if ":" in name else f"{name}:0" for name in node.input if not name.startswith("^")]
    rule = _RULES.get(node.op)
    try:
        return rule(node, given, known) if rule else None
    except _UnknownError:
        return None


def results(node: Any) -> int:
    """How many results have the axes that `links` tells; of the others of an operation nothing is known."""
    return max(1, int(told(node, _COUNTS[node.op]).i)) if node.op in _COUNTS else 1


class _UnknownError(Exception):
    """Of a rank or of a value."""


Rule = Callable[[Any, list[str], Known], Links | None]


def _rank(known: Known, name: str) -> int:
    dims = known.of(name)
    if dims is None:
        raise _UnknownError
    return len(dims)


def _numbers(known: Known, name: str) -> list[int]:
    found = known.numbers(name)
    if found is None:
        raise _UnknownError
    return found


def _labels(rank: int) -> list[str]:
    return [str(axis) for axis in range(rank)]


def _aligned(ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """Of axes that are broadcast: counted from the last."""
    whole = tuple(_labels(max(ranks, default=0)))
    return [whole[len(whole) - rank :] for rank in ranks], whole


def _marked(labels: list[str], marked: Sequence[int], mark: str) -> Labels:
    rank = len(labels)
    places = {axis % rank for axis in marked} if rank else set()
    return tuple(f"{mark}{label}" if axis in places else label for axis, label in enumerate(labels))


def _unary(node: Any, given: list[str], known: Known) -> Links:
    labels = tuple(_labels(_rank(known, given[0])))
    return Links((labels, *(None,) * (len(given) - 1)), labels)


def _broadcast(node: Any, given: list[str], known: Known) -> Links:
    inputs, output = _aligned([_rank(known, name) for name in given])
    return Links(tuple(inputs), output)


def _alike(node: Any, given: list[str], known: Known) -> Links | None:
    return _broadcast(node, given, known) if len({_rank(known, name) for name in given}) == 1 else None


def _last_mixed(node: Any, given: list[str], known: Known) -> Links:
    labels = _marked(_labels(_rank(known, given[0])), [-1], SAME)
    return Links((labels,), labels)


def _mixed(node: Any, given: list[str], known: Known) -> Links:
    labels = _marked(_labels(_rank(known, given[0])), _numbers(known, given[1]), SAME)
    return Links((labels, None), labels)


def _reduced(node: Any, given: list[str], known: Known) -> Links:
    labels = _labels(_rank(known, given[0]))
    gone = _marked(labels, _numbers(known, given[1]), "over")
    left = [NEW if label.startswith("over") else label for label in gone]
    output = left if told(node, "keep_dims").b else [label for label in left if label != NEW]
    return Links((gone, None), tuple(output))


def _transposed(node: Any, given: list[str], known: Known) -> Links:
    labels, order = _labels(_rank(known, given[0])), _numbers(known, given[1])
    return Links((tuple(labels), None), tuple(labels[axis] for axis in order))


def _expanded(node: Any, given: list[str], known: Known) -> Links:
    labels, (axis, *_) = _labels(_rank(known, given[0])), _numbers(known, given[1])
    place = axis % (len(labels) + 1)
    return Links((tuple(labels), None), (*labels[:place], NEW, *labels[place:]))


def _squeezed(node: Any, given: list[str], known: Known) -> Links | None:
    dims = known.of(given[0])
    if dims is None or not told(node, "squeeze_dims").list.i:
        return None
    labels = tuple(_labels(len(dims)))
    gone = {int(axis) % len(dims) for axis in told(node, "squeeze_dims").list.i}
    return Links((labels,), tuple(label for axis, label in enumerate(labels) if axis not in gone))


def _matmul(node: Any, given: list[str], known: Known) -> Links:
    left, right = ("row", "inner"), ("inner", "column")
    if told(node, "transpose_a").b:
        left = left[::-1]
    if told(node, "transpose_b").b:
        right = right[::-1]
    return Links((left, right), ("row", "column"))


def _batch_matmul(node: Any, given: list[str], known: Known) -> Links:
    (left, right), batch = _aligned([_rank(known, name) - 2 for name in given])
    own, other = ("row", "inner"), ("inner", "column")
    if told(node, "adj_x").b:
        own = own[::-1]
    if told(node, "adj_y").b:
        other = other[::-1]
    return Links(((*left, *own), (*right, *other)), (*batch, "row", "column"))


def _einsum(node: Any, given: list[str], known: Known) -> Links | None:
    inputs, _, output = told(node, "equation").s.decode().replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(given) or "->" not in told(node, "equation").s.decode():
        return None
    more = [_rank(known, name) - len(term.replace("...", "")) for name, term in zip(given, terms, strict=True)]
    parts, batch = _aligned([count if "..." in term else 0 for count, term in zip(more, terms, strict=True)])
    found = [_spelt(term, part) for term, part in zip(terms, parts, strict=True)]
    if any(len(set(labels)) < len(labels) for labels in found):  # a diagonal
        return None
    return Links(tuple(found), _spelt(output, batch))


def _spelt(term: str, batch: Labels) -> Labels:
    before, dots, after = term.partition("...")
    return (*before, *(batch if dots else ()), *after)


def _joined(node: Any, given: list[str], known: Known) -> Links:
    *tensors, axis = given
    labels, places = _labels(_rank(known, tensors[0])), _numbers(known, axis)
    return Links((*(_marked(labels, places, "part"),) * len(tensors), None), _marked(labels, places, "whole"))


def _packed(node: Any, given: list[str], known: Known) -> Links:
    labels = _labels(_rank(known, given[0]))
    place = int(told(node, "axis").i) % (len(labels) + 1)
    return Links((tuple(labels),) * len(given), (*labels[:place], "packed", *labels[place:]))


def _sliced(node: Any, given: list[str], known: Known) -> Links:
    found = entries(node, _rank(known, given[0]), _numbers(known, given[3]))
    labels = {axis: str(axis) if taken == WHOLE else f"part{axis}" for _, axis, taken in found}
    output = [
        labels[axis] if taken == WHOLE else NEW if taken == NEW else f"whole{axis}"
        for _, axis, taken in found
        if taken != ONE_OF
    ]
    whole = tuple(labels[axis] for axis in sorted(labels) if axis >= 0)
    return Links((whole, None, None, None), tuple(output))


def _split(node: Any, given: list[str], known: Known) -> Links:
    place, axis = (1, 0) if node.op == "Split" else (0, 2)
    labels, places = _labels(_rank(known, given[place])), _numbers(known, given[axis])
    inputs: list[Labels | None] = [None] * len(given)
    inputs[place] = _marked(labels, places, "whole")
    return Links(tuple(inputs), _marked(labels, places, "part"))


def _unpacked(node: Any, given: list[str], known: Known) -> Links:
    labels = _labels(_rank(known, given[0]))
    gone = int(told(node, "axis").i) % len(labels)
    return Links((tuple(labels),), (*labels[:gone], *labels[gone + 1 :]))


def _gathered(node: Any, given: list[str], known: Known) -> Links | None:
    table, index = (_labels(_rank(known, name)) for name in given[:2])
    (axis,) = _numbers(known, given[2])
    if told(node, "batch_dims").i:
        return None
    place, places = axis % len(table), tuple(f"index{label}" for label in index)
    labels = _marked(table, [place], "over")
    return Links((labels, places, None), (*labels[:place], *places, *labels[place + 1 :]))


def _tiled(node: Any, given: list[str], known: Known) -> Links:
    labels = _labels(_rank(known, given[0]))
    repeated = [axis for axis, count in enumerate(_numbers(known, given[1])) if count != 1]
    return Links((_marked(labels, repeated, "part"), None), _marked(labels, repeated, "whole"))


def _padded(node: Any, given: list[str], known: Known) -> Links:
    labels, around = _labels(_rank(known, given[0])), _numbers(known, given[1])
    longer = [axis for axis in range(len(labels)) if any(around[2 * axis : 2 * axis + 2])]
    others = (None,) * (len(given) - 1)
    return Links((_marked(labels, longer, "part"), *others), _marked(labels, longer, "whole"))


def _biased(node: Any, given: list[str], known: Known) -> Links | None:
    if told(node, "data_format").s not in (b"", b"NHWC"):
        return None
    labels = tuple(_labels(_rank(known, given[0])))
    return Links((labels, labels[-1:]), labels)


def _normalized(node: Any, given: list[str], known: Known) -> Links | None:
    """Batch normalization; in training the channels are separate alone: tf_keras' layer normalization is that."""
    place = {b"NHWC": 3, b"NCHW": 1}.get(told(node, "data_format").s)
    if place is None or _rank(known, given[0]) != 4:
        return None
    channel, training = (str(place),), bool(told(node, "is_training").b)
    others = [axis for axis in range(4) if axis != place] if training else []
    labels = _marked(_labels(4), others, SAME)
    moments = None if training else channel
    return Links((labels, channel, channel, moments, moments), labels)


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_RULES: Mapping[str, Rule] = {
    **_table(
        _unary,
        "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Cos Cosh Elu EnsureShape Erf Erfc Exp Expm1 Floor Identity Inv"
        " Invert IsFinite IsInf IsNan LeakyRelu Log Log1p LogicalNot Neg OnesLike PreventGradient Reciprocal Relu Relu6"
        " Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Snapshot Softplus Softsign Sqrt Square StopGradient Tan Tanh"
        " ZerosLike",
    ),
    **_table(
        _broadcast,
        "Add AddV2 Atan2 BitwiseAnd BitwiseOr BitwiseXor ClipByValue Div DivNoNan Equal FloorDiv FloorMod Greater"
        " GreaterEqual Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Mul MulNoNan NotEqual Pow RealDiv"
        " SelectV2 SquaredDifference Sub TruncateDiv TruncateMod Xdivy Xlog1py Xlogy",
    ),
    **_table(_alike, "AddN Select"),
    **_table(_last_mixed, "Softmax LogSoftmax"),
    **_table(_mixed, "Cumsum Cumprod ReverseV2"),
    **_table(_reduced, "All Any ArgMax ArgMin EuclideanNorm Max Mean Min Prod Sum"),
    **_table(_batch_matmul, "BatchMatMul BatchMatMulV2 BatchMatMulV3"),
    **_table(_split, "Split SplitV"),
    **_table(_padded, "Pad PadV2"),
    "BiasAdd": _biased,
    "ConcatV2": _joined,
    "Einsum": _einsum,
    "ExpandDims": _expanded,
    "FusedBatchNormV3": _normalized,
    "GatherV2": _gathered,
    "MatMul": _matmul,
    "Pack": _packed,
    "Squeeze": _squeezed,
    "StridedSlice": _sliced,
    "Tile": _tiled,
    "Transpose": _transposed,
    "Unpack": _unpacked,
}
