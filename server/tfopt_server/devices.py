"""Which device this process serves on: what --device asks for, looked for on this machine, and said once in the log."""

from __future__ import annotations

import logging

from tfopt_optimizer import device
from tfopt_optimizer.device import Device, Found
from tfopt_optimizer.errors import DeviceMissing

from tfopt_server.settings import Settings

log = logging.getLogger(__name__)


def resolve(settings: Settings) -> Device:
    """The device, found by a process of its own where it is not the CPU (seconds). DeviceMissing with
    --require_device where it is not there; without, the CPU serves and the log says why."""
    return chosen(device.find(settings.device), settings)


def chosen(found: Found, settings: Settings) -> Device:
    """`resolve`, with what was found given."""
    why = "; ".join(f"{name}: {reason}" for name, reason in found.missing.items())
    if not found.device.accelerated:
        if settings.require_device:
            raise DeviceMissing(f"--require_device: expected --device={settings.device} to be there: {why}")
        if settings.device != device.CPU:
            level = logging.INFO if settings.device == device.AUTO else logging.WARNING
            log.log(level, "--device=%s: serving on the cpu (%s)", settings.device, why)
        return found.device
    fraction, there = settings.per_process_gpu_memory_fraction, found.device.count
    count = min(settings.num_devices or there, there)
    if count < settings.num_devices:
        log.warning("--num_devices=%d: there are %d, which serve", settings.num_devices, there)
    name, kind, each = found.device.name, found.device.kind, settings.num_cores_per_replica
    if count < each:
        raise DeviceMissing(f"--num_cores_per_replica: expected at least {each} {name}s to serve on, there are {count}")
    count -= count % each
    spread = f", {each} for each replica" if each > 1 else ""
    log.info("device: %s (%s), %d of %d%s", name, kind, count, there, spread)
    return Device(name, kind, count, fraction, reserve=fraction > 0.0, per_replica=each)
