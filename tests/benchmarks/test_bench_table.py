"""The printed tables, and the description of the machine that stands above them."""

from __future__ import annotations

import pytest

from benchmarks import machine, table

CPUINFO = """processor\t: 0
model name\t: Intel(R) Xeon(R)   Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu sse2 avx2 fma avx512f amx_tile hypervisor
"""


def test_a_table_aligns_text_left_and_numbers_right():
    rows = [["mlp", 12345.6, 0.5], ["bert_small", 3.14159, None]]
    assert table.render(["model", "us", "ratio"], rows, "In process") == (
        "In process\n"
        "model           us  ratio\n"
        "----------  ------  -----\n"
        "mlp         12,346    0.5\n"
        "bert_small    3.14      -"
    )


def test_a_row_with_a_missing_cell_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells, received 1"):
        table.render(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1, "1"), (1.5, "1.50"), (15.25, "15.2"), (151.6, "152"), (0.01234, "0.0123"), (1e6, "1,000,000")],
)
def test_numbers_have_three_significant_digits(value, shown):
    assert table.number(value) == shown


def test_the_processor_is_named_as_the_kernel_names_it():
    assert machine.cpu_model(CPUINFO) == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert machine.cpu_flags(CPUINFO) == ("avx2", "fma", "avx512f", "amx_tile")
    assert machine.memory_gib("MemTotal:       16777216 kB\nMemFree: 1 kB\n") == 16.0


def test_this_machine_describes_itself():
    found = machine.describe()
    assert found.cores > 0
    assert found.memory_gib > 0
    assert {"numpy", "grpcio", "gunicorn"} <= set(found.versions)
    assert found.label() == found.label().lower()
    assert "/" not in found.label()


def test_the_label_of_a_machine_fits_a_file_name():
    described = machine.Machine(machine.cpu_model(CPUINFO), 4, (), 16.0, "Linux", "3.11", {}, 0.0)
    assert described.label() == "intel-xeon-platinum-8481c-4c"
