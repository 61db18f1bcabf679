"""What the optimizer is given to check and measure with: clients' records, and rows made up where there are none."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_server import samples
from tfopt_warmup.records import Record, Run

USED, UNUSED = (SignatureInfo(key, "", (TensorInfo("x", "int32", (None, 4), "x:0"),), ()) for key in ("used", "unused"))


def test_which_samples_no_client_sent_is_told() -> None:
    sent = {"x": np.ones((1, 4), np.int32)}
    material = samples.gather([USED, UNUSED], [Record("predict", (Run("used", sent),))])
    assert (material.source, material.made_up) == ("warmup", ("unused",))
    assert material.samples["used"] == (sent,)
    assert len(material.samples["unused"]) == samples.ROWS
