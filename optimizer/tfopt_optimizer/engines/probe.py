"""`python -m tfopt_optimizer.engines.probe gpu`: one line of JSON, what the device is or why it is not there."""

from __future__ import annotations

import json
import os
import sys

from tfopt_optimizer.device import Device
from tfopt_optimizer.engines import pjrt
from tfopt_optimizer.errors import DeviceMissing, first_line


def look(name: str) -> dict[str, object]:
    """{"kind", "count"} of the device, or {"missing": why}."""
    try:
        devices = pjrt.devices(Device(name, count=0))
    except ImportError as error:
        return {"missing": f"jax is not installed ({first_line(error)})"}
    except DeviceMissing as error:
        return {"missing": str(error)}
    return {"kind": str(devices[0].device_kind), "count": len(devices)}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(look(sys.argv[1])) + "\n")
    sys.stdout.flush()
    os._exit(0)  # runtimes may hang while they are taken down
