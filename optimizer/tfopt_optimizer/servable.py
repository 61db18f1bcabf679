"""What the server holds for one loaded version: a runner per signature and bucket, as the plan says.

    servable = Servable.open(model_dir, plan_dir, plan)
    servable.signatures["serving_default"].run({"x": np.zeros([3, 32], np.float32)})

Only the engines that the plan names are imported; plain TensorFlow is loaded when a request first needs it. Nothing is
compiled here: executables are deserialized. One that does not load is compiled again from its module, and a bucket
whose module does not compile either goes to plain TensorFlow; `notes` and the log say so.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import cpu, lazy_tensorflow, likely, saved_model, shortening
from tfopt_optimizer.choose import label
from tfopt_optimizer.device import ON_CPU, Device
from tfopt_optimizer.engines import table
from tfopt_optimizer.engines.base import Place, Runner, Target
from tfopt_optimizer.errors import OutOfMemory, first_line
from tfopt_optimizer.fitting import InnerBuckets
from tfopt_optimizer.lazy_tensorflow import LazyTensorFlow, TensorFlowMissing
from tfopt_optimizer.plan import BucketPlan, Fingerprint, Plan, SignatureInfo, SignaturePlan
from tfopt_optimizer.signature_runner import Bucket, Run, SignatureRunner, of_whole_rows, shortened_runner

log = logging.getLogger(__name__)


class Servable:
    """A model version, ready to run. `notes` names every bucket that does not run as planned, `dropped` (signature,
    rows) those for which the device has no memory."""

    def __init__(
        self,
        plan: Plan,
        signatures: Mapping[str, SignatureRunner],
        tensorflow: LazyTensorFlow,
        runners: Sequence[Runner],
        notes: Sequence[str],
    ) -> None:
        self.plan, self.signatures, self.notes = plan, signatures, tuple(notes)
        self.dropped: tuple[tuple[str, int | None], ...] = ()
        self._tensorflow, self._runners = tensorflow, runners

    @classmethod
    def open(
        cls,
        model_dir: Path,
        plan_dir: Path | None = None,
        plan: Plan | None = None,
        tags: Sequence[str] = saved_model.DEFAULT_TAGS,
        *,
        intra_op_threads: int = 0,
        inter_op_threads: int = 0,
        device: Device = ON_CPU,
    ) -> Servable:
        """Opens a plan; without one the SavedModel runs as it is. SavedModelError when TensorFlow is needed at once
        and cannot load the model. Threads 0: the usable cores."""
        cores = cpu.usable_cores()
        folder = Path(plan_dir) if plan_dir is not None else Path(model_dir)
        threads = (intra_op_threads or cores, inter_op_threads or cores)
        place = Place(Path(model_dir), folder, tuple(tags), *threads, device=device)
        tensorflow = LazyTensorFlow(place, plan.loader if plan else None)
        if plan is None:
            plan = as_it_is(place, tensorflow.loader())
        return _Opening(place, plan, tensorflow).servable()

    @property
    def tensorflow_loaded(self) -> bool:
        return self._tensorflow.loaded

    def close(self) -> None:
        """Frees weights and executables; no call may be running."""
        for runner in self._runners:
            runner.close()
        self._tensorflow.close()
        self.signatures = {}


class _Opening:
    """The steps of Servable.open."""

    def __init__(self, place: Place, plan: Plan, tensorflow: LazyTensorFlow) -> None:
        self._place, self._plan, self._tensorflow = place, plan, tensorflow
        self._runners: list[Runner] = []
        self._notes: list[str] = []
        self._dropped: list[tuple[str, int | None]] = []
        self._opened: dict[Hashable, Runner] = {}  # twins (twins.py) share their runners
        self._openers: dict[Callable[..., Any], Any] = {}  # made for the engines that the plan names alone

    def servable(self) -> Servable:
        signatures = {s.signature.key: self._signature(s) for s in self._plan.signatures}
        servable = Servable(self._plan, signatures, self._tensorflow, self._runners, self._notes)
        servable.dropped = tuple(self._dropped)
        return servable

    def _signature(self, plan: SignaturePlan) -> SignatureRunner:
        reference = self._tensorflow.run(plan.signature, self._plan.loader) if lazy_tensorflow.installed() else None
        inside = reference  # what stands in for a bucket: rows that were cut come to it
        if reference is not None and plan.shortening is not None:
            inside = of_whole_rows(plan.shortening, reference)
        levels: dict[tuple[int, ...], list[Bucket]] = {}
        for bucket in plan.buckets:
            level = levels.setdefault(bucket.inner, [])
            opened = self._bucket(plan, bucket, inside, smaller=any(b.static and b.batch for b in level))
            level += [opened] if opened else []
        if plan.shortening is not None:
            return shortened_runner(plan, plan.shortening, levels, reference)
        runners = {sizes: SignatureRunner(plan, found, reference) for sizes, found in levels.items()}
        first = next(iter(runners.values()))
        first.inner = InnerBuckets(plan.inner, runners) if plan.inner is not None else None
        return first

    def _bucket(
        self, plan: SignaturePlan, bucket: BucketPlan, reference: Run | None, *, smaller: bool
    ) -> Bucket | None:
        """None for one that the device has no memory for, where a `smaller` one is there to take its rows."""
        if bucket.engine == "tensorflow":
            return self._tensorflow_bucket(plan.signature, bucket)
        try:
            runner = self._compiled(plan, bucket)
        except Exception as error:
            if isinstance(error, OutOfMemory):
                self._dropped.append((plan.signature.key, bucket.batch))
                if smaller and bucket.batch is not None:
                    self._note(f"{plan.signature.key} x {bucket.batch} is dropped: {first_line(error)}")
                    return None
            # Whatever keeps an executable from loading (another processor, a damaged file, another jaxlib): requests
            # are answered all the same, by plain TensorFlow, and the operator reads why.
            if reference is None:
                where = f"{plan.signature.key} x {bucket.batch}"
                raise TensorFlowMissing(
                    f"{where}: {bucket.engine} cannot be loaded, and TensorFlow is not installed to take its place: "
                    f"{error}"
                ) from error
            self._note(
                f"{plan.signature.key} x {bucket.batch}: {bucket.engine} cannot be loaded, plain TF runs: {error}"
            )
            cost = _measured(bucket, "tensorflow", self._plan.loader)
            return Bucket(
                bucket.batch,
                label("tensorflow", self._plan.loader),
                False,
                cost,
                reference,
                bucket.shapes,
                bucket.inner,
            )
        self._runners.append(runner)
        cost, name = _measured(bucket, bucket.engine, bucket.variant), label(bucket.engine, bucket.variant)
        return Bucket(bucket.batch, name, bucket.static, cost, runner, bucket.shapes, bucket.inner, bucket.positions)

    def _tensorflow_bucket(self, signature: SignatureInfo, bucket: BucketPlan) -> Bucket:
        self._tensorflow.load()
        run = self._tensorflow.run(signature, bucket.variant)
        cost = _measured(bucket, bucket.engine, bucket.variant)
        return Bucket(bucket.batch, label(bucket.engine, bucket.variant), False, cost, run, bucket.shapes, bucket.inner)

    def _compiled(self, plan: SignaturePlan, bucket: BucketPlan) -> Runner:
        signature = plan.signature
        if plan.shortening is not None and not likely.runs_own_graph(bucket.engine, bucket.variant):
            signature = shortening.opened(signature, plan.shortening)
        place = bucket.artifact or signature.key
        key = (bucket.engine, bucket.variant, place, tuple(sorted(bucket.shapes.items())))
        if key not in self._opened:
            kind = table.opener(bucket.engine, bucket.variant)
            if kind not in self._openers:
                self._openers[kind] = kind(self._place, self._tensorflow.load)
            target = Target(
                *(signature, bucket.variant, bucket.shapes, bucket.artifact, bucket.batch, bucket.engine),
                varying=bool(bucket.inner),
                open=not bucket.static,
                lengths=plan.shortening if bucket.positions else None,
            )
            self._opened[key] = self._openers[kind].runner(target, self._note)
        return self._opened[key]

    def _note(self, line: str) -> None:
        self._notes.append(line)
        log.warning(line)


def as_it_is(place: Place, loader: str) -> Plan:
    """The plan of a model that is not optimized: every signature on plain TensorFlow, nothing padded or merged."""
    why = "the optimizer is switched off"
    bucket = BucketPlan(None, {}, "tensorflow", loader, False, "", (), why)
    signatures = tuple(
        SignaturePlan(info, False, why, False, why, (bucket,))
        for info in saved_model.read_signatures(place.model_dir, place.tags)
    )
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Plan(Fingerprint("", "", {}, {}), "cpu", loader, "none", signatures, (why,), now, 0.0)


def _measured(bucket: BucketPlan, engine: str, variant: str) -> float:
    found = (c.measured for c in bucket.candidates if (c.engine, c.variant) == (engine, variant))
    measured = next(found, None)
    return measured.median_us if measured else 0.0
