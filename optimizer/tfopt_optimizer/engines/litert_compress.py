"""Makes lossy LiteRT models of the float ones in the plan, with ai-edge-quantizer, in a process of its own.

No calibration: static ranges would need the quantizer's interpreter, which stops at strings, and OpenVINO is the better
engine for the models that are left.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfopt_optimizer import compression, whole
from tfopt_optimizer.engines import litert
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.errors import NotLowerable, first_line

_RECIPES = {compression.INT8_DYNAMIC: "dynamic_wi8_afp32", compression.INT8_WEIGHTS: "weight_only_wi8_afp32"}


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        from ai_edge_quantizer import quantizer, recipe

        self._plan_dir, self._quantizer, self._recipe = place.plan_dir, quantizer, recipe
        return dict.fromkeys(_RECIPES, "")

    def prepare(self, target: Target) -> Prepared:
        """Writes a model for the shapes that the float one is for. NotLowerable when there is none to make it of."""
        sources = (litert.own_folder(target), litert.shared_folder(target))
        for source, folder in zip(sources, litert.folders(target), strict=True):
            if (self._plan_dir / source / litert.MODEL).exists():
                self._make(source, folder, litert.precision(target.variant))
                return Prepared()
        raise NotLowerable("there is no float LiteRT model to make it of")

    def _make(self, source: str, folder: str, precision: str) -> None:
        try:
            quantizer = self._quantizer.Quantizer(str(self._plan_dir / source / litert.MODEL))
            quantizer.load_quantization_recipe(getattr(self._recipe, _RECIPES[precision])())
            model = bytes(quantizer.quantize().quantized_model)
        except Exception as error:
            # The quantizer raises whatever it meets: it all means "not this way".
            raise NotLowerable(f"ai-edge-quantizer cannot make it: {first_line(error)}") from error
        path = self._plan_dir / folder
        path.mkdir(parents=True, exist_ok=True)
        whole.write(path / litert.MODEL, model)

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Models are files in the plan."""
