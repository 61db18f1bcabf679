"""Checks of what clients see: tags, signatures, their inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator

from tfopt_optimizer.doctor.findings import HERE, SERVING, VERTEX, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.wording import count, shape

_METHODS = {
    "tensorflow/serving/predict": None,
    "tensorflow/serving/classify": (("inputs",), ("classes", "scores")),
    "tensorflow/serving/regress": (("inputs",), ("outputs",)),
}
# Operations that read a string as bytes, not as text.
_BINARY = frozenset({
    "DecodeJpeg", "DecodePng", "DecodeImage", "DecodeBmp", "DecodeGif", "DecodeAndCropJpeg", "DecodeWebP", "DecodeWav",
    "DecodeRaw", "DecodePaddedRaw", "DecodeCompressed", "DecodeProtoV2", "ParseExample", "ParseExampleV2",
    "ParseSingleExample", "ParseSequenceExample", "ParseSequenceExampleV2", "ParseTensor",
})  # fmt: skip
# Operations whose strings are bytes that are no text.
_MAKES_BINARY = frozenset({
    "EncodeJpeg", "EncodeJpegVariableQuality", "EncodePng", "EncodeWav", "EncodeProto", "SerializeTensor",
})  # fmt: skip


def tags(model: Patient) -> Iterator[Found]:
    if set(model.tags) not in model.tag_sets:
        there = ["{" + ", ".join(sorted(s)) + "}" for s in model.tag_sets]
        yield error(f"no graph has the tags {{{', '.join(model.tags)}}}", there)


def serving_default(model: Patient) -> Iterator[Found]:
    if not model.signatures:
        yield error("the model has no signature that a client could call")
    elif all(s.key != "serving_default" for s in model.signatures):
        yield error("there is no signature serving_default", [s.key for s in model.signatures])


def method_names(model: Patient) -> Iterator[Found]:
    odd = [f"{s.key}: {s.method_name!r}" for s in model.signatures if s.method_name not in _METHODS]
    if odd:
        yield warning("method names that TensorFlow Serving does not know", odd)
    bent = [text for s in model.signatures if (text := _misfit(s))]
    if bent:
        yield warning("classify or regress signatures that those methods cannot answer", bent)


def _misfit(signature: SignatureInfo) -> str:
    wanted = _METHODS.get(signature.method_name)
    if wanted is None:
        return ""
    inputs, outputs = wanted
    given, answers = [t.name for t in signature.inputs], {t.name for t in signature.outputs}
    if given != list(inputs):
        return f"{signature.key}: expected the one input {inputs[0]!r}, it has {', '.join(given) or 'none'}"
    if not answers & set(outputs):
        return f"{signature.key}: expected an output {' or '.join(outputs)}, it has {', '.join(sorted(answers))}"
    return ""


def batch_dimension(model: Patient) -> Iterator[Found]:
    fixed, scalars = [], []
    for signature in model.signatures:
        for tensor in signature.inputs:
            if tensor.shape is None:
                continue
            if not tensor.shape:
                scalars.append(f"{signature.key}: {tensor.name}")
            elif tensor.shape[0] is not None:
                fixed.append(f"{signature.key}: {tensor.name} {shape(tensor.dtype, tensor.shape)}")
    if fixed:
        yield warning("inputs whose first dimension is fixed: requests of other sizes fail or cannot be merged", fixed)
    if scalars:
        yield info("inputs without a batch dimension: such requests run one at a time", scalars)


def inner_dimensions(model: Patient) -> Iterator[Found]:
    open_ends = [
        f"{s.key}: {t.name} {shape(t.dtype, t.shape)}"
        for s in model.signatures
        for t in s.inputs
        if t.shape is None or None in t.shape[1:]
    ]
    if open_ends:
        yield info("inputs with unknown dimensions beside the batch", open_ends)


def int64_inputs(model: Patient) -> Iterator[Found]:
    found = [(s.key, t) for s in model.signatures for t in s.inputs if t.dtype == "int64"]
    wide = [f"{key}: {t.name} {shape(t.dtype, t.shape)}" for key, t in found]
    if wide:
        yield info("int64 inputs that int32 might carry", wide)


def bytes_names(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        kinds = {p.node.op for p in model.reached[signature.key]}
        inputs = [t.name for t in signature.inputs if t.dtype == "string" and not t.name.endswith("_bytes")]
        readers = sorted(kinds & _BINARY)
        if inputs and readers and signature.method_name.endswith("/predict"):
            yield info(f"{signature.key} reads bytes ({readers[0]}); inputs without the suffix _bytes", inputs)
        outputs = [t.name for t in signature.outputs if t.dtype == "string" and not t.name.endswith("_bytes")]
        makers = sorted(kinds & _MAKES_BINARY)
        if outputs and makers:
            yield warning(f"{signature.key} answers bytes ({makers[0]}) in outputs without the suffix _bytes", outputs)


def unused_inputs(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        used = model.graph.used([t.tensor for t in signature.outputs], [t.tensor for t in signature.inputs])
        unused = [t.name for t in signature.inputs if t.tensor and t.tensor not in used]
        if unused:
            yield warning(f"{signature.key}: {count(len(unused), 'input')} without influence on any output", unused)


CHECKS = (
    Check(
        "tags",
        "Export with the tag 'serve', or name the tags that the model has with --saved_model_tags.",
        VERTEX,
        tags,
    ),
    Check(
        "serving-default",
        "Name the signature that answers ordinary requests serving_default: clients that name none get that one, and "
        "Vertex AI's :predict cannot name another.",
        VERTEX,
        serving_default,
    ),
    Check(
        "method-names",
        "Give every signature one of tensorflow/serving/predict, classify, regress; tf.saved_model.save does so "
        "itself. Classify and regress need an input 'inputs' and outputs 'classes'/'scores' or 'outputs'.",
        SERVING,
        method_names,
    ),
    Check(
        "batch-dimension",
        "Export with None as the first dimension of every input (tf.TensorSpec([None, ...])), so that requests of any "
        "size run and are merged.",
        VERTEX,
        batch_dimension,
    ),
    Check(
        "inner-dimensions",
        "Fix what is fixed in reality, and add warmup records of the usual sizes: compiled engines serve only shapes "
        "that they have seen.",
        HERE,
        inner_dimensions,
    ),
    Check(
        "int64-inputs",
        "Ids and counts below 2,147,483,648 fit into int32, which accelerators and vector units handle twice as fast; "
        "declare the input so and cast where TensorFlow wants int64.",
        VERTEX,
        int64_inputs,
    ),
    Check(
        "bytes-names",
        "End names of binary inputs and outputs in _bytes: JSON carries them in base64 then; without it an output is "
        "sent as text, which bytes are not.",
        VERTEX,
        bytes_names,
    ),
    Check(
        "unused-inputs",
        "Leave the input out of the signature: every client must send it, and it is parsed, copied and padded for "
        "nothing. If it should matter, the export lost what used it.",
        HERE,
        unused_inputs,
    ),
)
