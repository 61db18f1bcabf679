"""The optimizer's part of the settings, as one frozen value that also goes into the fingerprint."""

from __future__ import annotations

import dataclasses

from tfopt_optimizer import allotment, verify
from tfopt_optimizer.device import CPU, Device

DEFAULT_BUCKETS = (1, 2, 4, 8, 16, 32)
LATENCY, THROUGHPUT, MEMORY = "latency", "throughput", "memory"  # optimize_for


@dataclasses.dataclass(frozen=True)
class OptimizerFlags:
    """`allowed_batch_sizes` empty: from the records, else DEFAULT_BUCKETS. Threads 0: the usable cores (cpu.py).

    `lossless_max_rel_error` is relative to each output's largest magnitude. `candidate_timeout_s` bounds everything
    that one candidate (signature x bucket x engine) may take: lowering, compiling, checking, measuring. Once
    `optimize_budget_s` (None: 30, or 300 where the flags allow compiling or compressing) is used up, a bucket gets one
    more candidate, the likeliest, and at twice the budget no further bucket is opened (allotment.py). `engines` names
    those that may take part beside plain TensorFlow, as far as the other flags allow; empty: all. `without_tensorflow`:
    the plan must run where TensorFlow is not installed, however slow the engines are (standalone.py). `optimize_for`:
    "latency" of a call that has the cores for itself, "throughput" with all cores busy, or "memory" of what is not
    slower than plain TensorFlow.

    `device` is where compiled segments run ("cpu", "gpu", "tpu"), `device_kind` which accelerator that is (device.py),
    `memory_fraction` the most of a gpu's memory that a process takes, 0.0: XLA's own limit.

    The `lossy_*` ones are the gate of `allow_compression`: `lossy_top1` is the share of rows that must keep their best
    class. `compression_requires_records` leaves lossy candidates out where the model has no warmup records.
    """

    allow_precompilation: bool = False
    allow_compression: bool = False
    use_tfrt: bool = True
    disable_optimizer: bool = False
    allowed_batch_sizes: tuple[int, ...] = ()
    candidate_timeout_s: float = 300.0
    optimize_budget_s: float | None = None
    lossless_max_rel_error: float = 1e-4
    intra_op_threads: int = 0
    inter_op_threads: int = 0
    device: str = CPU
    device_kind: str = ""
    memory_fraction: float = 0.0
    devices_per_replica: int = 1
    engines: tuple[str, ...] = ()
    optimize_for: str = LATENCY
    lossy_mean_rel_error: float = 1e-4
    lossy_max_rel_error: float = 1e-2
    lossy_top1: float = 0.99
    compression_requires_records: bool = False
    without_tensorflow: bool = False

    def budget_s(self) -> float:
        """Seconds for the search."""
        compiles = self.allow_precompilation or self.device != CPU
        default = allotment.default_s(compiles, self.allow_compression)
        return default if self.optimize_budget_s is None else self.optimize_budget_s

    def lossy(self) -> verify.Tolerance:
        """The gate of candidates that change precision."""
        return verify.Tolerance(self.lossy_max_rel_error, self.lossy_mean_rel_error, self.lossy_top1)

    def accelerator(self) -> Device:
        """The device for one of the optimizer's processes: those of one replica, and no more memory than is needed."""
        needed = self.devices_per_replica
        return Device(self.device, self.device_kind, needed, self.memory_fraction, per_replica=needed)
