from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

from builders import ALL

for name, build in ALL.items():
    tf.keras.backend.clear_session()
    build(Path(sys.argv[1]) / name / "1")
