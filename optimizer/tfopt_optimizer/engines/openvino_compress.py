"""Makes lossy OpenVINO models of the float32 one in the plan, with NNCF, in a process of its own.

`int8` is calibrated on the signature's records (calibration.py); the weight-only ones need none. The float32 model must
be there: the openvino worker wrote it when `f32` was tried.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tfopt_optimizer import compression, verify, whole
from tfopt_optimizer.engines import calibration, openvino, openvino_blocked, openvino_prune
from tfopt_optimizer.engines.base import Arrays, Place, Prepared, Runner, Target
from tfopt_optimizer.errors import NotLowerable, first_line

PRUNING_CALLS = 8  # records that a share of zeros is tried on, four rows each


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place, self._nncf = place, library()
        self._device = openvino.Device(place)
        return dict.fromkeys(MAKERS, "")

    def prepare(self, target: Target) -> Prepared:
        """Writes the model of `target.variant` for all shapes of the signature. NotLowerable says why not."""
        source = self._place.plan_dir / openvino.folder(Target(target.signature, openvino.F32, folder=target.folder))
        if not (source / openvino.MODEL).exists():
            raise NotLowerable("OpenVINO has no float32 model to make it of")
        model = openvino_blocked.without(self._device.core.read_model(str(source / openvino.MODEL)))
        try:
            made = MAKERS[target.variant](self, model, target)
        except NotLowerable:
            raise
        except Exception as error:
            # NNCF raises whatever its passes meet: it all means "not this way".
            raise NotLowerable(f"NNCF cannot make it: {first_line(error)}") from error
        folder = self._place.plan_dir / openvino.folder(target)
        with whole.files(folder, openvino.WEIGHTS, openvino.MODEL) as part:
            self._device.openvino.save_model(made, str(part / openvino.MODEL), compress_to_fp16=False)
        return Prepared()

    def _records(self, model: Any, target: Target) -> list[Arrays]:
        path = calibration.path(self._place.plan_dir, target)
        if not path.exists():
            raise NotLowerable("there are no records to calibrate on")
        names = {port.any_name for port in model.inputs}
        return [{n: a for n, a in call.items() if n in names} for call in calibration.read(path)]

    def static(self, model: Any, target: Target) -> Any:
        nncf, feeds = self._nncf, self._records(model, target)
        kind = nncf.ModelType.TRANSFORMER if attends(model) else None
        # The whole range that was seen: NNCF's default cuts it to the mean of the calls' largest values, which made the
        # largest errors two to four times larger (digits 0.046 for 0.015, a small MLP 0.11 for 0.029).
        widest = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            model_type=kind,
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=widest),
        )

    def pruned(self, model: Any, target: Target) -> Any:
        """With as many zeros as the gate's bounds allow on the records; the tournament judges what 8 bits add."""
        feeds = self._records(model, target)[:PRUNING_CALLS]
        gate = calibration.gate(calibration.path(self._place.plan_dir, target))
        expected, reason = [self._answers(model, call) for call in feeds], ""
        for sparsity in compression.SPARSITIES:
            thinned = model.clone()
            if not openvino_prune.prune(self._device.openvino, thinned, sparsity):
                raise NotLowerable("it has no fully connected layers whose zeros could be skipped")
            verdicts = [
                verify.check(e, self._answers(thinned, call), gate) for e, call in zip(expected, feeds, strict=True)
            ]
            verdict = verify.judge(verify.add_calls(v.agreement for v in verdicts), "", gate)
            if verdict.passed:
                return self.static(thinned, target)
            reason = f"{verdict.reason} with {sparsity:.0%} zeros"
        raise NotLowerable(reason)

    def _answers(self, model: Any, feeds: Arrays) -> Arrays:
        properties = self._device.properties(openvino.F32)
        found = self._device.core.compile_model(model, "CPU", properties)(feeds)
        return {str(number): found[number].copy() for number in range(len(model.outputs))}

    def weights(self, model: Any, target: Target) -> Any:
        modes = self._nncf.CompressWeightsMode
        if target.variant == compression.INT8_WEIGHTS:
            return self._nncf.compress_weights(model, mode=modes.INT8_ASYM)
        smaller = self._nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=self._nncf.GroupSizeFallbackMode.ADJUST  # where 64 does not divide a layer
        )
        return self._nncf.compress_weights(
            model, mode=modes.INT4_ASYM, ratio=1.0, group_size=64, advanced_parameters=smaller
        )

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Models are files in the plan."""


MAKERS: Mapping[str, Callable[[Converter, Any, Target], Any]] = {
    compression.INT8: Converter.static,
    compression.PRUNED: Converter.pruned,
    compression.INT8_WEIGHTS: Converter.weights,
    compression.INT4_WEIGHTS: Converter.weights,
}


def library() -> Any:
    """The nncf package, without its reports to a web service."""
    openvino.library()
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level would set every handler of the process
    return nncf


def attends(model: Any) -> bool:
    """Whether it is a transformer: a softmax whose result is multiplied with a matrix. NNCF minds."""
    for node in model.get_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            return True
        if node.get_type_name() == "Softmax":
            consumers = [end.get_node().get_type_name() for end in node.output(0).get_target_inputs()]
            if "MatMul" in consumers:
                return True
    return False
