"""What `tfopt optimize` shows: the same lines everywhere, and in a terminal a bar that never goes back."""

from __future__ import annotations

import io
import re

import pytest
from tfopt_server.commands import progress
from tfopt_server.commands.progress import Bar, Lines, Steps, painted

LOG = [
    "a: rows are independent: 3 rows gave the same answer alone",
    "a x 1 [1/2]: litert/t1, xla",
    "a x 1: litert/t1 3 us",
    "a x 32 [2/2]: litert/t1",
    "b: computes the same as a and shares its plan",
    "c x 1 [1/2]: litert/t1",
    "c x 8 [2/2]: ",
    "c: requests are merged",
]


def test_how_far_it_is_is_read_from_the_log() -> None:
    steps, shares = Steps(3), []
    assert (steps.share, steps.what) == (0.0, "starting the engines")
    for line in LOG:
        steps.read(line)
        shares.append(round(steps.share, 3))
    assert shares == sorted(shares)
    assert shares[1] == 0.0
    assert shares[3] == pytest.approx(1 / 6, abs=1e-3)
    assert shares[-1] == 0.75  # two signatures of two sizes, the last one under way
    assert steps.what == "c x 8: "


def test_lines_that_it_does_not_know_change_nothing() -> None:
    steps = Steps(0)
    for line in ("", "[1/2]:", "x [1/0]: y", "x [99/1]: y", "\x1b[2J [1/2]: z"):
        steps.read(line)
    assert 0.0 <= steps.share <= 1.0


@pytest.mark.parametrize(
    ("share", "elapsed", "width", "line"),
    [
        (0.0, 0.4, 80, "  0 % " + " " * 24 + " 0:00  x 1: xla"),
        (0.5, 61.0, 80, " 50 % " + "█" * 12 + " " * 12 + " 1:01  x 1: xla"),
        (0.52, 3.0, 80, " 52 % " + "█" * 12 + "▌" + " " * 11 + " 0:03  x 1: xla"),
        (1.0, 3600.0, 80, "100 % " + "█" * 24 + " 60:00  x 1: xla"),
        (1.0, 1.0, 12, "100 % ████…"),
    ],
)
def test_the_bar(share: float, elapsed: float, width: int, line: str) -> None:
    found = painted(share, elapsed, "x 1: xla", width)
    assert found == line
    assert len(found) < width


def test_a_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in painted(0.5, 1.0, "\x1b[2J x 1", 80)


def screen(text: str) -> list[str]:
    """What stays on a terminal that knows carriage return and erase-line."""
    return [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]


def test_a_terminal_shows_the_same_log_and_is_left_clean() -> None:
    now = [0.0]
    plain, terminal = io.StringIO(), io.StringIO()
    with Lines(plain, lambda: now[0]) as lines, Bar(terminal, 2, lambda: now[0]) as bar:
        for line in LOG:
            now[0] += 1.5
            lines(line)
            bar(line)
    assert screen(terminal.getvalue()) == plain.getvalue().split("\n")
    assert re.search(r"\r\x1b\[K 75 % █+ +0:12  c x 8: ", terminal.getvalue())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_only_where_a_cursor_moves() -> None:
    assert type(progress.to(Terminal(), {"TERM": "xterm"}, 1)) is Bar
    assert type(progress.to(Terminal(), {"TERM": "dumb"}, 1)) is Lines
    assert type(progress.to(Terminal(), {}, 1)) is Lines
    assert type(progress.to(io.StringIO(), {"TERM": "xterm"}, 1)) is Lines
