"""The conversion report's shares: where the work of a model is, by function."""

from __future__ import annotations

import pytest
from tfopt_optimizer.tpu import cost, files, graph, objects

pytestmark = pytest.mark.tensorflow


def costs(folder, alias: str) -> cost.Costs:
    model = graph.ModelGraph(files.read(folder).meta_graphs[0])
    placed = [n for n, a in model.meta.meta_info_def.function_aliases.items() if a == alias]
    of_arguments = objects.arguments(model, objects.handles(model, objects.checkpoint_keys(folder)))
    return cost.estimate(model, placed, of_arguments)


def test_two_products_on_the_tpu_and_the_parsing_of_text_on_the_cpu(tpu_model) -> None:
    found = costs(tpu_model("toy"), "tpu_func")
    tpu = [f for f in found.functions if f.where == "TPU"]
    # 10x16 and 16x4 products at two operations an element, a sum and a relu of 16.
    assert {f.operations for f in tpu} == {2 * (160 + 64) + 2 * 16}
    assert found.share("TPU") + found.share("CPU") == pytest.approx(1)
    assert 0.8 < found.share("TPU") < 1
    head, first, *_ = cost.lines(found)
    assert head.startswith("TPU cost: ")
    assert "__inference_tpu_func_" in first


def test_einsum_counts_by_its_equation(tpu_model) -> None:
    """8 tokens of 16, two heads of 8: every projection alone is 2 * 8 * 16 * 16."""
    found = costs(tpu_model("subclassed"), "tpu_func")
    (tpu,) = {f.operations for f in found.functions if f.where == "TPU"}
    assert tpu > 4 * 2 * 8 * 16 * 16 + 2 * 2 * 8 * 16 * 32


def test_a_model_that_one_row_does_not_fit(tpu_model) -> None:
    """Pairs of rows are reshaped to one: with a single row that graph is none."""
    found = costs(tpu_model("pairs"), "tpu_func")
    assert [f.operations > 0 for f in found.functions if f.where == "TPU"] == [True]
