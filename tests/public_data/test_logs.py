"""Fetching published logs into a cache, against a publisher on the loopback."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest

from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.public_data import logs, recbole_wheel
from shortlist.public_data.logs import BASE_URL, PUBLIC_LOGS, cache_folder, fetch

SMALL = {
    "ml-latest-small/ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,9649\n",
    "ml-latest-small/movies.csv": b"movieId,title,genres\n1,Toy Story (1995),Comedy\n",
    "ml-latest-small/README.txt": b"Licence\n",
    "ml-latest-small/links.csv": b"not needed",
}


def make_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def publish(publisher, name: str, archive: bytes, md5: str | None = None) -> None:
    md5 = md5 or hashlib.md5(archive).hexdigest()
    publisher.files[f"{name}.zip"] = archive
    publisher.files[f"{name}.zip.md5"] = f"MD5 ({name}.zip) = {md5}\n".encode()


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(into: Path) -> Path:
        raise ResourceError("pip-failed", "pip has no index.")

    monkeypatch.setattr(recbole_wheel, "download_wheel", refuse)


def test_fetch_takes_the_expected_files_and_no_others(
    publisher, tmp_path: Path
) -> None:
    publish(publisher, "ml-latest-small", make_zip(SMALL))
    source = fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url)
    assert source.events.read_bytes() == SMALL["ml-latest-small/ratings.csv"]
    assert source.items and source.items.name == "movies.csv"
    assert source.users is None
    assert visible(tmp_path) == ["ml-latest-small"]
    expected = ["ORIGIN.txt", "README.txt", "movies.csv", "ratings.csv"]
    assert visible(source.folder) == expected


def test_second_fetch_needs_no_network(publisher, tmp_path: Path) -> None:
    publish(publisher, "ml-latest-small", make_zip(SMALL))
    first = fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url)
    asked = len(publisher.requests)
    assert fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url) == first
    assert len(publisher.requests) == asked


def test_notice_tells_origin_licence_and_citation(publisher, tmp_path: Path) -> None:
    archive = make_zip(SMALL)
    publish(publisher, "ml-latest-small", archive)
    source = fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url)
    assert f"MD5 {hashlib.md5(archive).hexdigest()} checked" in source.origin
    assert source.origin in source.notice
    assert "research use" in source.notice
    assert "https://doi.org/10.1145/2827872" in source.notice


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-25m"])
def test_terms_forbid_redistribution_where_grouplens_does(name: str) -> None:
    assert "no redistribution without permission" in PUBLIC_LOGS[name].licence


@pytest.mark.parametrize("name", ["ml-32m", "ml-latest-small"])
def test_terms_allow_redistribution_under_the_same_conditions(name: str) -> None:
    assert "only under these same conditions" in PUBLIC_LOGS[name].licence


def test_addresses_are_those_of_grouplens() -> None:
    assert BASE_URL == "https://files.grouplens.org/datasets/movielens"
    assert PUBLIC_LOGS["ml-1m"].archive == "ml-1m.zip"
    assert PUBLIC_LOGS["ml-100k"].files == ("u.data", "u.user", "u.item")
    assert PUBLIC_LOGS["ml-1m"].files == ("ratings.dat", "users.dat", "movies.dat")


def test_unknown_name_suggests_a_known_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'ml-100k'") as caught:
        fetch("ml-100", cache=tmp_path)
    assert caught.value.code == "unknown-source"
    assert visible(tmp_path) == []


def test_missing_checksum_is_refused_before_the_archive_is_asked_for(
    publisher, tmp_path: Path
) -> None:
    publisher.files["ml-latest-small.zip"] = make_zip(SMALL)
    with pytest.raises(ResourceError, match="offers no MD5") as caught:
        fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url)
    assert caught.value.code == "checksum-missing"
    assert [path for path, _ in publisher.requests] == ["ml-latest-small.zip.md5"]
    assert visible(tmp_path) == []


def test_wrong_checksum_is_refused_even_for_ml_100k(
    publisher, tmp_path: Path, no_wheel: None
) -> None:
    publish(publisher, "ml-100k", make_zip({"ml-100k/u.data": b""}), md5="0" * 32)
    with pytest.raises(ResourceError) as caught:
        fetch("ml-100k", cache=tmp_path, base_url=publisher.url)
    assert caught.value.code == "checksum-mismatch"
    assert visible(tmp_path) == []


@pytest.mark.parametrize("member", ["../escaped.csv", "/escaped.csv", "a\\..\\b.csv"])
def test_archive_with_a_member_outside_its_folder_is_refused(
    publisher, tmp_path: Path, member: str
) -> None:
    publish(publisher, "ml-latest-small", make_zip({**SMALL, member: b"x"}))
    with pytest.raises(ArtifactError, match="stay inside its folder") as caught:
        fetch("ml-latest-small", cache=tmp_path / "cache", base_url=publisher.url)
    assert caught.value.code == "archive-unsafe"
    assert not (tmp_path / "cache" / "ml-latest-small").exists()
    assert visible(tmp_path) == ["cache"]


def test_archive_without_the_expected_files_is_refused(
    publisher, tmp_path: Path
) -> None:
    publish(publisher, "ml-latest-small", make_zip({"other/ratings.csv": b"x"}))
    with pytest.raises(ArtifactError, match="ml-latest-small/movies.csv") as caught:
        fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url)
    assert caught.value.code == "archive-incomplete"
    assert not (tmp_path / "ml-latest-small").exists()


def damage(archive: bytes) -> bytes:
    start = archive.index(b"ratings.csv") + len("ratings.csv")
    return archive[:start] + b"\xff" * 20 + archive[start + 20 :]


@pytest.mark.parametrize("spoil", [damage, lambda archive: archive[:-30]])
def test_damaged_archive_is_refused(tmp_path: Path, spoil) -> None:
    (tmp_path / "ml-latest-small.zip").write_bytes(spoil(make_zip(SMALL)))
    with pytest.raises(ArtifactError, match="not a readable zip file") as caught:
        fetch("ml-latest-small", cache=tmp_path, base_url="http://127.0.0.1:1")
    assert caught.value.code == "archive-damaged"
    assert visible(tmp_path) == ["ml-latest-small.zip"]


def test_archive_put_there_by_hand_is_used_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ml-latest-small.zip").write_bytes(make_zip(SMALL))
    source = fetch("ml-latest-small", cache=tmp_path, base_url="http://127.0.0.1:1")
    assert source.events.exists()
    assert "not checked against the publisher's MD5" in source.origin
    assert visible(tmp_path) == ["ml-latest-small", "ml-latest-small.zip"]


def test_archive_put_there_with_its_checksum_is_checked(tmp_path: Path) -> None:
    archive = make_zip(SMALL)
    (tmp_path / "ml-latest-small.zip").write_bytes(archive)
    checksum = tmp_path / "ml-latest-small.zip.md5"
    checksum.write_text(f"{'0' * 32}  ml-latest-small.zip\n")
    with pytest.raises(ResourceError) as caught:
        fetch("ml-latest-small", cache=tmp_path)
    assert caught.value.code == "checksum-mismatch"
    checksum.write_text(f"{hashlib.md5(archive).hexdigest()}  ml-latest-small.zip\n")
    assert "checked" in fetch("ml-latest-small", cache=tmp_path).origin


def test_ml_100k_is_rebuilt_from_the_wheel_when_the_publisher_is_away(
    monkeypatch: pytest.MonkeyPatch, publisher, tmp_path: Path
) -> None:
    def offer(into: Path) -> Path:
        members = {
            "inter": "u\ti\tr\tt\n196\t242\t3\t881250949\n",
            "user": "u\ta\tg\to\tz\n196\t49\tM\twriter\t55105\n",
            "item": "i\tt\ty\tc\n242\tKolya\t1996\tComedy\n",
        }
        path = into / "recbole.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for kind, text in members.items():
                name = f"recbole/dataset_example/ml-100k/ml-100k.{kind}"
                archive.writestr(name, text)
        return path

    monkeypatch.setattr(recbole_wheel, "download_wheel", offer)
    source = fetch("ml-100k", cache=tmp_path, base_url="http://127.0.0.1:1")
    assert source.events.read_text() == "196\t242\t3\t881250949\n"
    assert source.users and source.users.read_text() == "196|49|M|writer|55105\n"
    assert source.origin.startswith("rebuilt from the wheel recbole==1.2.1")
    assert visible(tmp_path) == ["ml-100k"]


def test_both_ways_failing_tells_both_reasons_and_where_to_put_the_file(
    tmp_path: Path, publisher, no_wheel: None
) -> None:
    with pytest.raises(ResourceError) as caught:
        fetch("ml-100k", cache=tmp_path, base_url="http://127.0.0.1:1")
    assert caught.value.code == "pip-failed"
    assert "cannot be reached" in caught.value.message
    assert f"copy the file to '{tmp_path}/ml-100k.zip'" in caught.value.message
    assert "pip has no index" in caught.value.message
    assert visible(tmp_path) == []


def test_other_sets_do_not_turn_to_the_wheel(
    tmp_path: Path, publisher, no_wheel: None
) -> None:
    with pytest.raises(ResourceError) as caught:
        fetch("ml-1m", cache=tmp_path, base_url="http://127.0.0.1:1")
    assert caught.value.code == "source-unreachable"


def test_full_disk_while_unpacking_keeps_the_checked_archive(
    monkeypatch: pytest.MonkeyPatch, publisher, tmp_path: Path
) -> None:
    publish(publisher, "ml-latest-small", make_zip(SMALL))
    check = logs._check_members

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(logs, "_check_members", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        fetch("ml-latest-small", cache=tmp_path, base_url=publisher.url)
    assert caught.value.code == "no-space"
    assert not (tmp_path / "ml-latest-small").exists()
    monkeypatch.setattr(logs, "_check_members", check)
    source = fetch("ml-latest-small", cache=tmp_path, base_url="http://127.0.0.1:1")
    assert source.origin.endswith("checked")


def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHORTLIST_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("SHORTLIST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "shortlist"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "shortlist"
