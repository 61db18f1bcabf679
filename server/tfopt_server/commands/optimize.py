"""`tfopt optimize MODEL --out PLAN`: what `tfopt serve` would do with the model, ahead of time and watched.

MODEL is a SavedModel or a base path with versions (the newest is taken), here or in a bucket. Without --out the plan
goes into the plan cache, where a server with the same flags, versions and processor finds it; with --in_place into the
model itself, so that it travels with it (assets.extra/tfopt, which TensorFlow Serving ignores).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_server import argv as arguments
from tfopt_server import flags, logs
from tfopt_server.commands import HELP, models, progress
from tfopt_server.commands.serve import announce, complain
from tfopt_server.settings import Notice, Settings, SettingsErrors, resolve
from tfopt_server.storage import plans
from tfopt_server.uris import Uri

if TYPE_CHECKING:
    from tfopt_optimizer.optimize import OptimizeJob

OUT = flags.Flag("out", "str", "", "folder to write the plan to (default: the plan cache)")
IN_PLACE = flags.Flag("in_place", "bool", False, "write the plan into the model, beside those for other machines")
USAGE = (
    "usage: tfopt optimize MODEL [--out=PLAN | --in_place] [flags]\n\n"
    "Optimizes a SavedModel and writes the plan to PLAN, into the model, or into the plan cache. Flags are those of\n"
    "`tfopt serve`.\n"
)


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """0: a plan was written; 1: none could be made; 2: mistakes in the arguments."""
    if any(a in HELP for a in argv):
        sys.stdout.write(f"{USAGE}{flags.usage()}")
        return 0
    try:
        settings, notices, out, in_place = read(argv, environ)
    except SettingsErrors as errors:
        complain(errors, argv, environ)
        return 2
    logs.configure(settings.log_format, settings.log_level)
    logs.quiet_native(environ, settings.log_level)
    announce(notices)
    return _optimize(settings, out, environ, in_place)


def read(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Settings, tuple[Notice, ...], Path | None, bool]:
    """Settings with MODEL as the base path, the folder to write to (None: the cache), and whether it is the model."""
    parsed = arguments.parse(argv, (*flags.ALL, OUT, IN_PLACE), environ)
    if len(parsed.positionals) != 1:
        raise SettingsErrors([f"expected one MODEL, received {list(parsed.positionals)}", *parsed.errors])
    if parsed.values.get("disable_optimizer"):
        raise SettingsErrors(["--disable_optimizer: expected an optimizer to run, received the wish for none"])
    values = {**parsed.values, "model_base_path": parsed.positionals[0]}
    settings, notices = resolve(dataclasses.replace(parsed, values=values, positionals=()), environ)
    out, in_place = str(parsed.values.get("out", "")), bool(parsed.values.get("in_place"))
    if out and in_place:
        raise SettingsErrors([f"expected --out or --in_place, received both (--out={out})"])
    if in_place and isinstance(settings.model_base_path, Uri):
        raise SettingsErrors([f"--in_place: expected a folder of this machine, received {settings.model_base_path}"])
    return settings, notices, Path(out).absolute() if out else None, in_place


def _optimize(settings: Settings, out: Path | None, environ: Mapping[str, str], in_place: bool) -> int:
    from tfopt_optimizer import carried
    from tfopt_optimizer.cache import cached, name_of, optimize_cached
    from tfopt_optimizer.errors import DeviceMissing, OptimizeError
    from tfopt_optimizer.optimize import optimize
    from tfopt_optimizer.saved_model import SavedModelError, read_signatures
    from tfopt_warmup.records import WarmupError

    from tfopt_server.batching_parameters import BatchingParametersError

    try:
        folder = brought(settings)
        settings = dataclasses.replace(settings, model_base_path=folder)
        signatures = read_signatures(folder, settings.saved_model_tags)
        with progress.to(sys.stdout, environ, len(signatures)) as say:
            job = _job(settings, out or settings.plan_cache_dir, say)
            if out is None:
                cache = carried.folder(folder) if in_place else settings.plan_cache_dir
                if settings.plan_bucket is not None and not in_place and cached(job, cache) is None:
                    plans.pull(settings.plan_bucket, name_of(job), cache, say)
                _, out = optimize_cached(job, cache, say)
                if settings.plan_bucket is not None and not in_place:
                    plans.push(settings.plan_bucket, out, say, anew=False)
            else:
                optimize(job, say)
            say(f"plan: {out}")
    except (OptimizeError, SavedModelError, WarmupError, BatchingParametersError, DeviceMissing, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _job(settings: Settings, plan_dir: Path, say: progress.Say) -> OptimizeJob:
    """The job that loading the model would make, so that the plan is the one that the server looks for."""
    from tfopt_optimizer.optimize import OptimizeJob
    from tfopt_optimizer.saved_model import read_signatures

    from tfopt_server import converted, devices, plane, preparing, samples

    folder = settings.model_base_path
    assert isinstance(folder, Path)
    options = plane.load_options(settings, devices.resolve(settings))
    model = converted.of(folder, settings.plan_cache_dir, say, as_it_is=False)
    chosen = preparing.with_sizes(options.flags, preparing.parameters_for(folder, options), model)
    recorded = samples.read(folder) if options.warmup else ()
    material = samples.gather(read_signatures(folder, options.tags), recorded)
    for note in material.notes:
        say(f"no samples: {note}")
    return OptimizeJob(
        model.folder, plan_dir, options.tags, chosen, material.samples, material.source, material.made_up
    )


def brought(settings: Settings) -> Path:
    """The newest SavedModel at the base path, a bucket's as a copy on this machine. OSError."""
    return models.newest(settings.model_base_path, settings.model_cache_dir, print)
