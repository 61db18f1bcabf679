"""The SavedModels of the tests, a file per kind; each builder's docstring says the inputs and outputs.

`python -m builders FOLDER` writes all but those of tpu/, as FOLDER/NAME/1 (savedmodels.py).
"""

from __future__ import annotations

from builders import plain, sequences, served, shapes, sick, text

USUAL = plain.BUILDERS | text.BUILDERS | shapes.BUILDERS | sequences.BUILDERS
ALL = USUAL | sick.BUILDERS | served.BUILDERS
