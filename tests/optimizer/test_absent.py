"""What TensorFlow's import does without, and who notices."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading

import pytest
from tfopt_optimizer.absent import absent


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "tfopt_spare.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "tfopt_spare"
    sys.modules.pop("tfopt_spare", None)


def test_it_is_absent_within_and_there_again_afterwards(module):
    with absent(module), pytest.raises(ModuleNotFoundError, match="tfopt_spare is left out here"):
        importlib.import_module(module)
    assert importlib.import_module(module)
    with absent(module):
        assert importlib.import_module(module)  # what is there already stays


def test_other_threads_find_it(module):
    found = []
    with absent(module):
        other = threading.Thread(target=lambda: found.append(importlib.import_module(module)))
        other.start()
        other.join()
    assert [each.__name__ for each in found] == [module]


IMPORT = """
import json, sys
from pathlib import Path
from tfopt_optimizer.engines import tensorflow
from tfopt_optimizer.engines.base import Place
tf = tensorflow.tensorflow(Place(Path("m"), Path("p"), ("serve",), 1, 1))
there = [name for name in tensorflow.UNNEEDED if name in sys.modules]
import jax, sklearn
print(json.dumps([there, float(tf.constant(1.0) + 1.0), float(jax.numpy.ones(()) + 1.0)]))
"""


@pytest.mark.tensorflow
def test_tensorflow_is_imported_without_them_and_they_can_be_imported_after_it():
    done = subprocess.run([sys.executable, "-c", IMPORT], stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == [[], 2.0, 2.0]
