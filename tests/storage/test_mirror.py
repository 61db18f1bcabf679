"""A bucket's versions on this machine: what is copied, checked, taken up again, shared and given back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucketstub import Bucket
from tfopt_server import uris
from tfopt_server.errors import Code
from tfopt_server.repository import Listing
from tfopt_server.storage import download
from tfopt_server.storage.download import Download
from tfopt_server.storage.mirror import Mirror
from tfopt_server.storage.places import Places
from tfopt_server.storage.store import Object, StorageError

MODEL = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"weights" * 1000,
    "assets/empty": b"",
}


def put(bucket: Bucket, folder: str, model: dict[str, bytes] | None = None) -> None:
    bucket.objects |= {f"{folder}/{name}": data for name, data in (model or MODEL).items()}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class House:
    def __init__(self, cache: Path, uri: str = "gs://bucket/m") -> None:
        self.now = 0.0
        self.said: list[str] = []
        self.mirror = Mirror(uris.parse(uri), cache, 30.0, clock=lambda: self.now)

    def look(self) -> Listing:
        self.now += 30.0
        return self.mirror.look()

    def fetch(self, number: int = 1) -> Path:
        folder = self.look().versions[number]
        self.mirror.fetch(folder, self.said.append)
        return folder


@pytest.fixture
def house(tmp_path: Path, bucket: Bucket) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("cloud", ["gs", "s3", "az"])
def test_versions_are_found_and_copied(cloud: str, tmp_path: Path, bucket: Bucket) -> None:
    put(bucket, "m/1")
    put(bucket, "m/00000002")
    put(bucket, "m/latest")
    put(bucket, "m/3", {"saved_model.pb": b"", "variables/variables.data-00000-of-00002": b"half"})
    house = House(tmp_path, f"{cloud}://bucket/m")
    seen = house.look()
    assert {n: p.name for n, p in seen.versions.items()} == {1: "1", 2: "00000002"}
    assert seen.incomplete == {3: "variables/variables.index"}
    assert content(house.fetch(2)) == MODEL
    checked = "0 checked by MD5" if cloud == "az" else "4 checked by MD5"  # Azure's ETags are none
    assert ": 4 objects, 0.0 MB in " in house.said[0]
    assert house.said[0].endswith(f" s; {checked}, all by size and ETag")


def test_a_bare_model_is_version_1(house: House, bucket: Bucket) -> None:
    put(bucket, "m")
    assert content(house.fetch(1)) == MODEL


def test_looking_costs_one_request_however_many_versions_there_are_and_none_before_its_time(
    house: House, bucket: Bucket
) -> None:
    for number in (1, 2, 3):
        put(bucket, f"m/{number}")
    house.look()
    bucket.asked.clear()
    assert set(house.look().versions) == {1, 2, 3}
    assert len(bucket.asked) == 1
    put(bucket, "m/4")
    assert set(house.mirror.look().versions) == {1, 2, 3}
    assert set(house.look().versions) == {1, 2, 3, 4}
    bucket.objects = {k: v for k, v in bucket.objects.items() if not k.startswith("m/1/")}
    assert set(house.look().versions) == {2, 3, 4}


def test_a_bucket_that_is_away_is_a_problem_and_not_an_empty_one(house: House, bucket: Bucket) -> None:
    put(bucket, "m/1")
    house.look()
    bucket.denied = True
    assert "access is denied" in house.look().problem
    bucket.denied, bucket.objects = False, {}
    assert house.look().problem == "there is nothing at gs://bucket/m"


def test_what_is_here_already_is_compared_and_not_read_again(house: House, bucket: Bucket, tmp_path: Path) -> None:
    put(bucket, "m/1")
    house.fetch()
    sent = bucket.sent
    again = House(tmp_path)
    folder = again.fetch()
    assert (bucket.sent, again.said) == (sent, [f"gs://bucket/m/1 is here already, in {folder}"])
    bucket.objects["m/1/variables/variables.index"] = b"other"
    del bucket.objects["m/1/assets/empty"]
    (folder / "saved_model.pb").unlink()
    third = House(tmp_path)
    assert content(third.fetch()) == {
        **{k: v for k, v in MODEL.items() if k != "assets/empty"}, "variables/variables.index": b"other"
    }  # fmt: skip
    assert bucket.sent == sent + len(b"other") + len(b"graph")


def test_reads_that_break_off_are_tried_again(house: House, bucket: Bucket) -> None:
    put(bucket, "m/1")
    bucket.broken = 3
    assert content(house.fetch()) == MODEL


def downloaded(bucket: Bucket, folder: Path, *objects: Object, **options: float) -> Download:
    """With small pieces, and a reader that gives what the bucket holds."""

    def read(what: Object, start: int, stop: int) -> Iterator[memoryview]:
        with bucket.lock:
            bucket.asked.append(f"{what.key} {start}")
        if bucket.take("broken"):
            raise StorageError(Code.UNAVAILABLE, "away")
        data = bucket.objects[what.key][start:stop]
        if bucket.take("spoiled"):
            data = bytes(len(data))
        yield memoryview(data)

    made = Download(read, "gs://bucket/m", folder, lambda _: None, piece=100, pause_s=0.0)
    made.run(objects)
    return made


def large(bucket: Bucket) -> Object:
    bucket.objects["big"] = os.urandom(1050)
    return Object("big", "big", 1050, f'"{bucket.etag("big")}"')


def test_a_download_goes_on_where_an_earlier_one_ended(bucket: Bucket, tmp_path: Path) -> None:
    what = large(bucket)
    whole = bucket.objects["big"]
    bucket.broken = 1000
    with pytest.raises(StorageError, match="away"):
        downloaded(bucket, tmp_path, what)
    (tmp_path / "big.pieces").write_text(f"{what.etag} 1050 100\n0\n300\n1000\n7")  # the last line was being written
    with (tmp_path / "big.part").open("r+b") as part:
        for at in (0, 300, 1000):
            part.seek(at)
            part.write(whole[at : at + 100])
    bucket.broken = 0
    bucket.asked.clear()
    made = downloaded(bucket, tmp_path, what)
    assert (tmp_path / "big").read_bytes() == whole
    assert (made.resumed, made.checked, len(bucket.asked)) == (250, 1, 8)
    assert {p.name for p in tmp_path.iterdir()} == {"big"}


def test_what_another_object_left_is_not_gone_on_with(bucket: Bucket, tmp_path: Path) -> None:
    what = large(bucket)
    (tmp_path / "big.pieces").write_text('"another" 1050 100\n0\n300\n')
    (tmp_path / "big.part").write_bytes(bytes(1050))
    assert downloaded(bucket, tmp_path, what).resumed == 0
    assert (tmp_path / "big").read_bytes() == bucket.objects["big"]


def test_bytes_that_do_not_fit_their_checksum_are_read_again(bucket: Bucket, tmp_path: Path) -> None:
    what = large(bucket)
    bucket.spoiled = 1
    downloaded(bucket, tmp_path, what)
    assert (tmp_path / "big").read_bytes() == bucket.objects["big"]
    assert len(bucket.asked) == 22


def test_an_etag_that_only_looks_like_a_checksum_is_found_out(bucket: Bucket, tmp_path: Path) -> None:
    what = large(bucket)
    encrypted = Object(what.path, what.key, what.size, '"' + "0" * 32 + '"')
    assert downloaded(bucket, tmp_path, encrypted).checked == 0
    assert (tmp_path / "big").read_bytes() == bucket.objects["big"]


def test_bytes_that_are_wrong_each_time_are_refused(bucket: Bucket, tmp_path: Path, monkeypatch) -> None:
    what = large(bucket)

    def read(what: Object, start: int, stop: int) -> Iterator[memoryview]:
        yield memoryview(os.urandom(stop - start))

    with pytest.raises(StorageError, match="big arrived with another checksum each time") as raised:
        Download(read, "gs://bucket/m", tmp_path, lambda _: None).run([what])
    assert raised.value.code is Code.DATA_LOSS


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x"])
def test_no_object_is_written_outside_of_its_folder(name: str) -> None:
    with pytest.raises(StorageError, match="which is no path below a folder"):
        download.safe(name)


def test_progress_is_said(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    what, lines = large(bucket), list[str]()
    monkeypatch.setattr(download, "PROGRESS_S", 0.0)
    monkeypatch.setattr(download, "THREADS", 1)
    gate = threading.Event()

    def read(what: Object, start: int, stop: int) -> Iterator[memoryview]:
        if start:
            gate.wait(10)
        yield memoryview(bucket.objects[what.key][start:stop])

    def say(line: str) -> None:
        lines.append(line)
        gate.set()

    Download(read, "gs://bucket/m", tmp_path, say, piece=100).run([what])
    assert lines[0].startswith("downloading gs://bucket/m: 0.0 MB of 0.0 MB, ")


def test_a_copy_that_is_given_up_goes_when_nobody_uses_it(tmp_path: Path, bucket: Bucket) -> None:
    put(bucket, "m/1")
    one, two = House(tmp_path), House(tmp_path)
    folder = one.fetch()
    assert two.fetch() == folder
    one.mirror.release(folder)
    assert content(folder) == MODEL
    two.mirror.release(folder)
    assert not folder.exists()
    assert content(one.fetch()) == MODEL


def test_a_child_that_is_just_being_started_keeps_no_copy(tmp_path: Path, bucket: Bucket) -> None:
    put(bucket, "m/1")
    house = House(tmp_path)
    folder = house.fetch()
    inherited = os.dup(house.mirror._used["1"])  # between fork and exec
    house.mirror.release(folder)
    os.close(inherited)
    assert not folder.exists()


def test_what_an_earlier_server_left_goes(tmp_path: Path, bucket: Bucket) -> None:
    put(bucket, "m/1")
    first = House(tmp_path)
    first.fetch()
    os.close(first.mirror._used["1"])  # its process ended
    bucket.objects.clear()
    put(bucket, "m/2")
    second = House(tmp_path)
    folder = second.fetch(2)
    assert {p.name for p in folder.parent.iterdir() if not p.name.startswith(".")} == {"2"}


def test_two_that_want_the_same_download_it_once(tmp_path: Path, bucket: Bucket) -> None:
    put(bucket, "m/1")
    houses = [House(tmp_path) for _ in range(4)]
    threads = [threading.Thread(target=house.fetch) for house in houses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert bucket.sent == sum(map(len, MODEL.values()))
    assert all(len(house.said) == 1 for house in houses)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, bucket: Bucket) -> None:
    put(bucket, "m/1")
    (tmp_path / "file").write_text("")
    house = House(tmp_path / "file")
    with pytest.raises(StorageError, match=r"cannot be copied to .* \(--model_cache_dir\)"):
        house.fetch()


def test_folders_of_this_machine_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").write_bytes(b"x")
    places = Places(tmp_path / "cache")
    folder = places.look(tmp_path / "m").versions[1]
    places.fetch(folder, print)
    places.release(folder)
    assert folder.is_dir()
    assert places.stamp(folder)
    assert not (tmp_path / "cache").exists()
