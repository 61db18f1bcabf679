"""The SavedModels that the converter's tests convert, a file per kind; they are built in the process of the tests."""

from __future__ import annotations

from builders.tpu import functions, nets, refusals, sizes, strings, variables

BUILDERS = (
    functions.BUILDERS | nets.BUILDERS | sizes.BUILDERS | strings.BUILDERS | variables.BUILDERS | refusals.BUILDERS
)
