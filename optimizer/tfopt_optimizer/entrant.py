"""Who may take part in a contest: an engine in one of its variants, and what is known of it beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfopt_optimizer import likely
from tfopt_optimizer.choose import label
from tfopt_optimizer.plan import SignatureInfo


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A candidate engine. `worker` is "module:Class" of its worker process, `converter` of the one whose files it asks
    for with NeedsConversion; one on `standby` is started when that happens, the others at once.

    `heavy`: converting takes the longer the larger the weights are. `light`: it saves what a call costs beside the
    computing, so it cannot win where the computing takes long. `reserve`: it wins where the others fail, and is
    converted to only there. `spare`: another way into plain TensorFlow, not worth long calls where an engine has left
    it behind. `rows`: the least that it is for, where rows are independent. `streams`: it shares a batch among so many
    threads where the rows divide; of others one thread computes all. `precision` is a lossy one's (compression.py), ""
    where it computes as TensorFlow does.
    """

    engine: str
    variant: str
    worker: str
    converter: str = ""
    standby: bool = False
    heavy: bool = False
    light: bool = False
    reserve: bool = False
    spare: bool = False
    rows: int = 1
    streams: int = 1
    precision: str = ""

    @property
    def label(self) -> str:
        return label(self.engine, self.variant)

    @property
    def own_graph(self) -> bool:
        """Whether it runs the SavedModel's own graph where it serves, and can be given no other."""
        return likely.runs_own_graph(self.engine, self.variant)

    @property
    def split(self) -> bool:
        return self.engine.startswith(likely.HOST)

    def unfit(self, rows: int, *, alone: bool) -> str:
        """Why it is not for batches of so many rows; "" when it is. `alone`: a call is measured without others, which
        would keep the streams busy that it leaves idle."""
        if self.rows > rows:
            return f"for batches of {self.rows} rows or more"
        if alone and rows % self.streams:
            return f"for batches that divide among {self.streams} threads"
        return ""

    def refuses(self, signature: SignatureInfo, unchecked: Mapping[str, str]) -> str:
        """Why this engine cannot take a signature, by what it declares and by what TensorFlow checks and engines do not
        (engine -> reason); "" when it has to be tried."""
        if self.engine != "xla":
            return unchecked.get(self.engine, "")
        for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            for tensor in tensors:
                if tensor.dtype in ("string", "resource", "variant"):
                    return f"{kind} {tensor.name!r} is of type {tensor.dtype}, which XLA does not compute with"
        return ""
