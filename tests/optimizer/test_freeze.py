"""Graphs that would hold more than 2 GB of constants: refused by their size, before anything is copied."""

from __future__ import annotations

import pytest
from tfopt_optimizer import saved_model
from tfopt_optimizer.engines import freeze, tensorflow
from tfopt_optimizer.engines.base import Place
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.split.source import Sources

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def copies(monkeypatch):
    """What would copy the variables; the list of who tried."""
    tried = []

    def copy(*_arguments, **_options):
        tried.append("copied")
        raise AssertionError("copied")

    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    monkeypatch.setattr(convert_to_constants, "convert_variables_to_constants_v2", copy)
    monkeypatch.setattr(tf.compat.v1.graph_util, "convert_variables_to_constants", copy)
    return tried


def place(folder, tmp_path):
    return Place(folder, tmp_path, ("serve",), 1, 1)


@pytest.mark.parametrize("name", ["cnn", "mlp_keras_saved"])
def test_what_a_function_reads_is_counted(savedmodel, tmp_path, monkeypatch, copies, name):
    model = tensorflow.open_model(place(savedmodel(name), tmp_path), tensorflow.FUNCTION)
    (info, *_) = saved_model.read_signatures(savedmodel(name), ("serve",))
    monkeypatch.setattr(freeze, "LARGEST", 1000)
    with pytest.raises(NotLowerable, match=r"^[\d.]+ kB of constants do not fit into a frozen graph$"):
        freeze.freeze(model, info)
    assert copies == []


def test_a_small_one_is_frozen(savedmodel, tmp_path):
    model = tensorflow.open_model(place(savedmodel("cnn"), tmp_path), tensorflow.FUNCTION)
    (info, *_) = saved_model.read_signatures(savedmodel("cnn"), ("serve",))
    assert set(freeze.freeze(model, info).outputs) == {t.name for t in info.outputs}


def test_what_a_session_would_freeze_to_be_cut_is_counted(savedmodel, tmp_path, monkeypatch, copies):
    folder = savedmodel("half_plus_two_v1_ref")  # reference variables, which only a session loads
    infos = saved_model.read_signatures(folder, ("serve",))
    monkeypatch.setattr(freeze, "LARGEST", 8)  # a and b, of float32
    with pytest.raises(NotLowerable, match=r"^8 B of constants do not fit into a frozen graph$"):
        Sources(place(folder, tmp_path)).of(next(i for i in infos if i.key == "serving_default"))
    assert copies == []
