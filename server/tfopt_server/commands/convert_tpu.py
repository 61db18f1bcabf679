"""`tfopt convert-tpu`: the Cloud TPU inference converter, with the option language of the original."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfopt_server import argv as arguments
from tfopt_server import flags, logs
from tfopt_server.commands import HELP

if TYPE_CHECKING:
    from tfopt_optimizer.tpu.convert import ConversionJob
    from tfopt_optimizer.tpu.report import Report

USAGE = """\
usage: tfopt convert-tpu --input_model_dir=DIR --output_model_dir=DIR --converter_options_string='...'

Converts a TensorFlow 2 SavedModel for Cloud TPU. Every function on the TPU is compiled by XLA, and the converted
model's answers are compared with the original's on its warmup records, before anything is written (docs/tpu.md).

  --input_model_dir=DIR              the SavedModel (the folder of saved_model.pb)
  --output_model_dir=DIR             where to write the converted model; must not hold anything yet
  --converter_options_string=TEXT    ConverterOptions in text format, e.g. tpu_functions { function_alias: "tpu_func" }
  --converter_options_file=FILE      the same from a file
  --report_file=FILE                 also write the report as JSON (it lies in the model's assets.extra as well)
  --report_html=FILE                 also write the report as a self-contained page
  --topology=NAME                    also compile for this TPU, without one: v5e:1x1, v5e:2x2, v6e:2x2, v5p:2x2x1 ...
                                     (needs libtpu: pip install libtpu)
  --dry_run                          check, convert and compare, and write no model
"""
FLAGS = (
    flags.Flag("input_model_dir", "str", "", "the SavedModel"),
    flags.Flag("output_model_dir", "str", "", "where to write"),
    flags.Flag("converter_options_string", "str", "", "ConverterOptions in text format"),
    flags.Flag("converter_options_file", "str", "", "the same from a file"),
    flags.Flag("report_file", "str", "", "the report as JSON"),
    flags.Flag("report_html", "str", "", "the report as a page"),
    flags.Flag("topology", "str", "", "also compile for this TPU"),
    flags.Flag("dry_run", "bool", False, "write no model"),
)


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """0: converted; 1: the model or the options do not allow it; 2: mistakes in the arguments."""
    if any(a in HELP for a in argv):
        sys.stdout.write(USAGE)
        return 0
    parsed = arguments.parse(argv, FLAGS, environ)
    values = {name: str(value) for name, value in parsed.values.items()}
    dry_run = bool(parsed.values.get("dry_run"))
    wrong = [*parsed.errors, *parsed.unknown, *parsed.unresolved, *_mistakes(values, parsed.positionals, dry_run)]
    if wrong:
        sys.stderr.write("".join(f"tfopt convert-tpu: {w}\n" for w in wrong) + f"\n{USAGE}")
        return 2
    logs.quiet_native(environ, "warning")
    return _convert(values, dry_run)


def _mistakes(values: dict[str, str], positionals: Sequence[str], dry_run: bool) -> list[str]:
    found = [f"expected no positional arguments, received {list(positionals)}"] if positionals else []
    needed = ["input_model_dir"] if dry_run else ["input_model_dir", "output_model_dir"]
    found += [f"--{name} is required" for name in needed if not values.get(name)]
    if dry_run and values.get("output_model_dir"):
        found.append("--dry_run writes no model: expected no --output_model_dir")
    if values.get("converter_options_string") and values.get("converter_options_file"):
        found.append("expected one of --converter_options_string and --converter_options_file, received both")
    return found


def _convert(values: dict[str, str], dry_run: bool) -> int:
    from tfopt_optimizer.saved_model import SavedModelError
    from tfopt_optimizer.tpu import convert, report
    from tfopt_optimizer.tpu.errors import ConversionError
    from tfopt_warmup.records import WarmupError

    try:
        done = convert.convert(_job(values, dry_run))
        if values.get("report_file"):
            Path(values["report_file"]).write_text(done.to_json() + "\n")
        if values.get("report_html"):
            Path(values["report_html"]).write_text(_page(values, done), encoding="utf-8")
    except (ConversionError, SavedModelError, WarmupError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in report.lines(done)))
    return 0


def _page(values: dict[str, str], done: Report) -> str:
    from tfopt_optimizer.page import page

    folder = Path(values.get("output_model_dir") or values["input_model_dir"]).resolve()
    return page.render_conversion(f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name, done)


def _job(values: dict[str, str], dry_run: bool) -> ConversionJob:
    from tfopt_optimizer.saved_model import read_signatures
    from tfopt_optimizer.tpu import options
    from tfopt_optimizer.tpu.convert import ConversionJob

    from tfopt_server import samples

    text = values.get("converter_options_string", "")
    if values.get("converter_options_file"):
        text = Path(values["converter_options_file"]).read_text()
    source = Path(values["input_model_dir"])
    output = None if dry_run else Path(values["output_model_dir"]).absolute()
    given = options.parse(text)
    material = samples.gather(read_signatures(source), samples.read(source))
    return ConversionJob(source, output, given, material.samples, _SOURCES[material.source], values.get("topology", ""))


_SOURCES = {"warmup": "warmup records", "synthesized": "inputs made up from the signatures: add warmup records"}
