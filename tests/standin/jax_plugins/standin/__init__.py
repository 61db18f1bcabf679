"""A jax plugin whose "gpus" are host devices: every line of ours that runs on a gpu runs here, without one.

Processes that have tests/standin on PYTHONPATH see STANDIN_DEVICES of them (2). What this cannot show: CUDA's own
compiler, its memory, its speed.
"""

import os

from jax._src import hardware_utils, xla_bridge
from jaxlib import xla_client


def initialize():
    hardware_utils.has_visible_nvidia_gpu = lambda: True
    xla_bridge.register_backend_factory(
        "cuda",
        lambda: xla_client.make_cpu_client(asynchronous=False, num_devices=int(os.environ.get("STANDIN_DEVICES", "2"))),
        priority=500,
        fail_quietly=False,
    )
