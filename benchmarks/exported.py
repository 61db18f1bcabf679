"""Benchmark models as an accelerator gets them: StableHLO per batch size, and the weights once.

python -m benchmarks.exported --models=resnet50,bert_base --batches=1,8,32 --out=exported      # needs TensorFlow
python -m benchmarks.sweep exported --device=gpu                                              # needs jax alone
python -m benchmarks.ahead exported --topologies=v5e:2x2,v6e:2x2                              # needs libtpu
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfopt_optimizer import saved_model, typed_json
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.plan import SignatureInfo

from benchmarks import models
from benchmarks.models import Model

FILE = "exported.json"
VARIANT = "pjrt"  # the module as it is; variants for accelerators are made of it (engines/xla.py)


def export(model: Model, batches: Sequence[int], folder: Path) -> None:
    """Lowers the model for every batch size into `folder`."""
    from tfopt_optimizer.engines.stablehlo import Lowerer

    models.ensure(model)
    (info,) = [s for s in saved_model.read_signatures(model.saved_model) if s.key == models.SIGNATURE]
    folder.mkdir(parents=True, exist_ok=True)
    lowerer = Lowerer()
    lowerer.open(Place(model.saved_model, folder, saved_model.DEFAULT_TAGS, 0, 0))
    shapes = []
    for rows in batches:
        wanted = {name: array.shape for name, array in model.rows(rows, 0).items()}
        lowerer.prepare(Target(info, VARIANT, wanted, f"b{rows}", rows))
        shapes.append({"rows": rows, "shapes": wanted})
    told = {"model": model.name, "signature": dataclasses.asdict(info), "batches": shapes}
    (folder / FILE).write_text(json.dumps(told, indent=1))


def read(folder: Path) -> Iterator[tuple[Model, Path, Target]]:
    """Every module below `folder`: the model, the folder with its weights, and the target without a variant."""
    for path in sorted(folder.glob(f"*/{FILE}")):
        told = json.loads(path.read_text())
        info = typed_json.build(SignatureInfo, told["signature"], str(path))
        for batch in told["batches"]:
            shapes = {name: tuple(shape) for name, shape in batch["shapes"].items()}
            target = Target(info, "", shapes, f"b{batch['rows']}", batch["rows"])
            yield models.MODELS[told["model"]], path.parent, target


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exported", description=__doc__)
    parser.add_argument("--models", default="resnet50,bert_base")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    for model in models.select(given.models.split(","), quick=False):
        export(model, [int(b) for b in given.batches.split(",")], given.out / model.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
