"""Resuming, checking and giving up, against a publisher on the loopback."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from shortlist.errors import ResourceError
from shortlist.public_data.download import download, parse_md5, progress_bar, read_text

BODY = bytes(range(256)) * 40
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "body.bin"


@pytest.fixture
def url(publisher) -> str:
    publisher.files["body.bin"] = BODY
    return f"{publisher.url}/body.bin"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def leave_part(target: Path, url: str, content: bytes, validator: str) -> None:
    target.with_name("body.bin.part").write_bytes(content)
    note = json.dumps({"url": url, "validator": validator})
    target.with_name("body.bin.part.json").write_text(note)


def test_file_arrives_whole_and_reports_progress(url: str, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(url, target, md5=MD5.upper(), progress=lambda *now: seen.append(now))
    assert target.read_bytes() == BODY
    assert seen[0] == (0, len(BODY)) and seen[-1] == (len(BODY), len(BODY))
    assert names(target.parent) == ["body.bin"]


def test_broken_connection_is_resumed_at_the_next_byte(
    publisher, url: str, target: Path
) -> None:
    publisher.cuts = [1000, 2500]
    download(url, target, md5=MD5)
    assert target.read_bytes() == BODY
    assert [wanted for _, wanted in publisher.requests] == [
        None,
        "bytes=1000-",
        "bytes=3500-",
    ]


def test_partial_file_is_kept_after_too_many_breaks_and_resumed_by_the_next_call(
    publisher, url: str, target: Path
) -> None:
    publisher.cuts = [10, 10, 10, 10]
    with pytest.raises(ResourceError, match="40 bytes are kept") as caught:
        download(url, target, md5=MD5)
    assert caught.value.code == "download-interrupted"
    assert not target.exists()
    assert target.with_name("body.bin.part").read_bytes() == BODY[:40]
    download(url, target, md5=MD5)
    assert publisher.requests[-1] == ("body.bin", "bytes=40-")
    assert target.read_bytes() == BODY


def test_changed_file_is_started_over(publisher, url: str, target: Path) -> None:
    leave_part(target, url, b"old" * 100, validator='"zero"')
    download(url, target, md5=MD5)
    assert target.read_bytes() == BODY


def test_server_that_ignores_ranges_is_read_from_the_start(
    publisher, url: str, target: Path
) -> None:
    publisher.accepts_ranges = False
    publisher.cuts = [1000]
    download(url, target, md5=MD5)
    assert target.read_bytes() == BODY


def test_partial_file_as_long_as_the_file_is_started_over(
    publisher, url: str, target: Path
) -> None:
    leave_part(target, url, b"x" * len(BODY), validator='"one"')
    download(url, target, md5=MD5)
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_without_a_strong_validator_nothing_is_resumed(
    publisher, url: str, target: Path, etag: str | None
) -> None:
    publisher.etag, publisher.cuts = etag, [1000]
    download(url, target, md5=MD5)
    assert target.read_bytes() == BODY
    assert [wanted for _, wanted in publisher.requests] == [None, None]


def test_partial_file_of_another_address_is_not_continued(
    publisher, url: str, target: Path
) -> None:
    leave_part(target, "http://elsewhere/body.bin", BODY[:100], validator='"one"')
    download(url, target, md5=MD5)
    assert publisher.requests == [("body.bin", None)]


def test_wrong_checksum_is_refused_and_leaves_nothing(url: str, target: Path) -> None:
    with pytest.raises(ResourceError, match=f"must be {'0' * 32}.*{MD5}") as caught:
        download(url, target, md5="0" * 32)
    assert caught.value.code == "checksum-mismatch"
    assert names(target.parent) == []


def test_wrong_checksum_keeps_the_file_that_was_there(url: str, target: Path) -> None:
    target.write_bytes(b"before")
    with pytest.raises(ResourceError):
        download(url, target, md5="0" * 32)
    assert target.read_bytes() == b"before"


def test_missing_file_names_the_status_and_the_way_out(publisher, target: Path) -> None:
    with pytest.raises(ResourceError, match="answered 404.*copy the file to") as caught:
        download(f"{publisher.url}/none.bin", target, md5=MD5)
    assert caught.value.code == "source-http-error"
    assert names(target.parent) == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x", "no address"])
def test_unreachable_server_is_one_clear_error(
    publisher, target: Path, address: str
) -> None:
    with pytest.raises(ResourceError, match="cannot be reached") as caught:
        read_text(address, target)
    assert caught.value.code == "source-unreachable"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{MD5}  body.bin\n", MD5),
        (f"{MD5} *body.bin", MD5),
        (f"MD5 (body.bin) = {MD5}\n", MD5),
        (f"MD5 (folder/body.bin) = {MD5.upper()}", MD5),
        (MD5, MD5),
        (f"{'a' * 32}  other.bin\n{MD5}  body.bin\n", MD5),
        (f"{'a' * 32}  other.bin\n{'b' * 32}  third.bin\n", None),
        (f"{'a' * 64}  body.bin\n", None),
        ("<html>not found</html>", None),
        ("", None),
    ],
)
def test_md5_files_of_both_kinds_are_read(text: str, expected: str | None) -> None:
    assert parse_md5(text, "body.bin") == expected


def test_off_a_terminal_progress_is_one_line(capsys: pytest.CaptureFixture) -> None:
    with progress_bar("a file", show=False) as report:
        for done in range(5):
            report(done, 2_500_000)
    assert capsys.readouterr().err == "Downloading a file (2.5 MB)\n"


def test_on_a_terminal_progress_is_a_bar(capsys: pytest.CaptureFixture) -> None:
    with progress_bar("a file", show=True) as report:
        report(5, 10)
        report(10, 10)
    assert "a file" in capsys.readouterr().err
