"""Models loaded as the server loads them and run on elements, with real plans."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from tfopt_server.beam.scorer import ElementError, Scorer, ScoringError, parse
from tfopt_warmup import records

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("optimized_here")]
QUICK = ("--optimize_budget_s=1", "--engines=litert", "--allowed_batch_sizes=1,4")


@pytest.fixture(scope="module")
def scorer(savedmodel, tmp_path_factory):
    """scorer(name): one scorer per model, with a plan of its own making."""
    cache, made = tmp_path_factory.mktemp("plans"), {}

    def load(name, signature="serving_default"):
        if name not in made:
            made[name] = Scorer.load(str(savedmodel(name).parent), (*QUICK, f"--plan_cache_dir={cache}"), signature)
        return made[name]

    return load


def element(word, id):
    return {"word": word, "id": id}


def test_elements_are_scored_together_and_each_gets_its_own_answer(scorer):
    scored = scorer("lookup").score([element("red", 0), element(b"green", np.int64(1)), element("other", 2)])
    assert [answer["index"].item() for answer in scored.answers] == [1, 2, 99]
    assert [answer["name"].item() for answer in scored.answers] == [b"uno", b"dos", b"?"]
    assert [answer["vector"].shape for answer in scored.answers] == [(4,)] * 3
    assert (scored.calls, scored.outside) == (1, 0)


def test_more_elements_than_the_largest_bucket_and_only_the_wanted_outputs(scorer):
    words = ["red", "green", "x"] * 3
    scored = scorer("lookup").score([element(word, 0) for word in words], ["index"])
    assert scored.answers == [{"index": {"red": 1, "green": 2}.get(word, 99)} for word in words]


def test_what_the_model_refuses_costs_its_neighbours_nothing_where_refusals_are_kept(scorer):
    batch = [element("red", 0), element("red", 1000), element("red", "x"), element("green", 1)]
    scored = scorer("lookup").score(batch, ["index"], keep=True)
    first, refused, unread, last = scored.answers
    assert [first, last] == [{"index": 1}, {"index": 2}]
    assert isinstance(refused, ScoringError)
    assert "indices" in str(refused)
    assert isinstance(unread, ElementError)
    assert str(unread) == "element 2: input 'id': expected int64[], received 'x'"
    assert [str(pickle.loads(pickle.dumps(error))) for error in (refused, unread)] == [str(refused), str(unread)]


def test_without_that_a_bad_element_fails_the_batch(scorer):
    with pytest.raises(ScoringError, match="serving_default: INVALID_ARGUMENT"):
        scorer("lookup").score([element("red", 0), element("red", 1000)])
    with pytest.raises(ElementError, match="element 1"):
        scorer("lookup").score([element("red", 0), element("red", "x")])


def test_an_output_that_is_none_is_named(scorer):
    with pytest.raises(ScoringError, match=r"expected some of \['index', 'name', 'vector'\], received 'vectors'"):
        scorer("lookup").score([element("red", 0)], ["vectors"])


@pytest.mark.slow
def test_rows_that_change_with_their_company_are_scored_alone(scorer):
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    scored = scorer("row_dependent").score(list(rows))
    assert [answer["centered"].tolist() for answer in scored.answers] == [[0.0] * 4] * 2  # each is its own mean
    assert scored.calls == 2


@pytest.mark.slow
def test_a_signature_without_rows_takes_whole_requests(scorer):
    scored = scorer("scalar").score([1.0, {"x": np.float32(2.5)}])
    assert [answer["y"].item() for answer in scored.answers] == [2.0, 5.0]


@pytest.mark.slow
def test_outputs_without_rows_are_whole(scorer):
    (answer,) = scorer("no_batch_outputs").score([[1.0, 2.0, 3.0, 4.0]]).answers
    assert answer["columns"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert answer["total"].item() == 10.0


@pytest.mark.slow
def test_elements_outside_of_the_plan_are_answered_and_counted(savedmodel_copy, tmp_path):
    """Sequences of a length that no record had, of a model whose answers padding would change."""
    folder = savedmodel_copy("averaged")
    recorded = {"tokens": np.array([[1, 2, 3], [4, 5, 6]], np.int32)}
    records.write(records.path_in(folder), [records.predict_log("m", "serving_default", recorded)])
    scorer = Scorer.load(str(folder), (*QUICK, f"--plan_cache_dir={tmp_path}"), "serving_default")
    scored = scorer.score([[1, 2, 3], [1, 2], [3, 2, 1], [2, 1]])
    assert (scored.calls, scored.outside) == (2, 2)
    assert np.allclose(scored.answers[0]["mean"], scored.answers[2]["mean"], atol=1e-6)
    assert np.allclose(scored.answers[1]["mean"], scored.answers[3]["mean"], atol=1e-6)


def test_mistakes_in_flags_come_at_once():
    with pytest.raises(ValueError, match="--allowed_batch_sizes") as caught:
        parse("/m", ("--allowed_batch_sizes=none", "--alow_precompilation"))
    assert "allow_precompilation" in str(caught.value)


def test_a_model_or_a_signature_that_is_not_there_is_named(scorer, savedmodel, tmp_path):
    with pytest.raises(ScoringError, match="/none"):
        Scorer.load(str(tmp_path / "none"), (), "serving_default")
    folder = shutil.copytree(savedmodel("lookup"), tmp_path / "m" / "1")
    with pytest.raises(ScoringError, match="expected one of the signatures serving_default, received 'other'"):
        Scorer.load(str(folder), ("--disable_optimizer", "--noenable_model_warmup"), "other")
    (folder / "saved_model.pb").write_bytes(b"no protobuf")
    with pytest.raises(ScoringError, match=r"saved_model\.pb"):
        Scorer.load(str(folder), ("--disable_optimizer",), "serving_default")
