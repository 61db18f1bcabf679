"""What is found at a base path."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfopt_server.repository import Listing, look, stamp, version_number, what_is_missing

NOT_A_DIRECTORY = "[Errno 20] Not a directory: '%s'"


def complete(folder: Path, shards: int = 1) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"model")
    (folder / "variables" / "variables.index").write_bytes(b"index")
    for i in range(shards):
        (folder / "variables" / f"variables.data-{i:05}-of-{shards:05}").write_bytes(b"data")
    return folder


@pytest.mark.parametrize(
    ("name", "number"),
    [("1", 1), ("00000123", 123), (" 7\t", 7), ("+5", 5), ("9223372036854775807", 2**63 - 1), ("0", 0)]
    + [(n, None) for n in ("", "-1", "1.5", "v1", "1a", "0x10", "9223372036854775808", "latest", "1_000", "١", "+")],
)
def test_version_numbers_are_read_as_absl_reads_them(name: str, number: int | None) -> None:
    assert version_number(name) == number


def test_numbered_folders_and_everything_beside_them(tmp_path: Path) -> None:
    for name in ("1", "00000123", "tmp", "2.old"):
        complete(tmp_path / name)
    (tmp_path / "9").write_text("a file is no version")
    assert look(tmp_path) == Listing({1: tmp_path / "1", 123: tmp_path / "00000123"}, {})


def test_the_last_name_wins_where_two_are_the_same_number(tmp_path: Path) -> None:
    complete(tmp_path / "01")
    complete(tmp_path / "1")
    assert look(tmp_path) == Listing({1: tmp_path / "1"}, {}, ignored=("01",))


def test_a_bare_model_is_version_1_whatever_lies_beside_it(tmp_path: Path) -> None:
    complete(tmp_path)
    (tmp_path / "7").mkdir()
    assert look(tmp_path) == Listing({1: tmp_path}, {})


def test_nothing_there_is_a_problem_and_not_an_empty_list(tmp_path: Path) -> None:
    assert look(tmp_path / "absent") == Listing({}, {}, problem=f"there is nothing at {tmp_path / 'absent'}")
    assert look(tmp_path) == Listing({}, {})
    (tmp_path / "file").write_text("")
    assert look(tmp_path / "file") == Listing(
        {}, {}, problem=f"cannot read {tmp_path / 'file'}: {NOT_A_DIRECTORY % (tmp_path / 'file')}"
    )


def test_a_folder_that_is_still_being_copied_is_not_taken(tmp_path: Path) -> None:
    complete(tmp_path / "1")
    arriving = tmp_path / "2"
    arriving.mkdir()
    seen = [look(tmp_path).incomplete]
    (arriving / "saved_model.pb").write_bytes(b"model")
    variables = arriving / "variables"
    variables.mkdir()
    (variables / "variables.data-00000-of-00002").write_bytes(b"data")
    seen.append(look(tmp_path).incomplete)
    (variables / "variables.index").write_bytes(b"index")
    seen.append(look(tmp_path).incomplete)
    (variables / "variables.data-00001-of-00002").write_bytes(b"data")
    assert seen == [{2: "saved_model.pb"}, {2: "variables/variables.index"}, {2: "1 of 2 variable files"}]
    assert look(tmp_path) == Listing({1: tmp_path / "1", 2: arriving}, {})


def test_a_bare_model_that_is_still_being_copied_is_not_taken(tmp_path: Path) -> None:
    complete(tmp_path)
    (tmp_path / "variables" / "variables.data-00000-of-00001").unlink()
    assert look(tmp_path) == Listing({}, {1: "variables/variables.data-*"})


def test_a_session_bundle_is_taken_so_that_its_load_can_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "export.meta").write_bytes(b"")
    assert what_is_missing(tmp_path) == ""


def test_the_stamp_changes_with_the_content(tmp_path: Path) -> None:
    folder = complete(tmp_path / "1")
    before = stamp(folder)
    assert stamp(folder) == before
    (folder / "saved_model.pb").write_bytes(b"another model")
    assert stamp(folder) != before
    assert stamp(tmp_path / "absent") == ()
