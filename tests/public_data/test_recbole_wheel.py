"""MovieLens 100K rebuilt from a wheel, on a tiny wheel made by hand."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from shortlist.errors import ArtifactError, ResourceError
from shortlist.public_data import recbole_wheel

MEMBERS = {
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "196\t242\t3\t881250949\n186\t302\t3\t891717742\n1\t267\t1\t874965758\n",
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t85711\n",
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n"
    "267\tunkonwn\tunkonwn\tunknown\n"
    "543\tMisérables, Les\t1995\tDrama Musical\n"
    "1412\tLand Before Time III (1995)\tV\tAnimation Film-Noir Sci-Fi\n",
}


def make_wheel(path: Path, members: dict[str, str] = MEMBERS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for kind, text in members.items():
            name = f"recbole/dataset_example/ml-100k/ml-100k.{kind}"
            archive.writestr(name, text)
    return path


def test_events_keep_their_order_and_layout(tmp_path: Path) -> None:
    recbole_wheel.convert(make_wheel(tmp_path / "a.whl"), tmp_path)
    assert (tmp_path / "u.data").read_bytes() == (
        b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n1\t267\t1\t874965758\n"
    )


def test_users_are_separated_by_pipes(tmp_path: Path) -> None:
    recbole_wheel.convert(make_wheel(tmp_path / "a.whl"), tmp_path)
    assert (tmp_path / "u.user").read_bytes() == b"1|24|M|technician|85711\n"


def test_items_get_title_year_and_nineteen_flags_in_latin_1(tmp_path: Path) -> None:
    recbole_wheel.convert(make_wheel(tmp_path / "a.whl"), tmp_path)
    assert (tmp_path / "u.item").read_bytes().decode("latin-1").splitlines() == [
        "1|Toy Story (1995)|01-Jan-1995|||0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0",
        "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0",
        "543|Misérables, Les (1995)|01-Jan-1995|||"
        "0|0|0|0|0|0|0|0|1|0|0|0|1|0|0|0|0|0|0",
        "1412|Land Before Time III (1995) (V)|01-Jan-1995|||"
        "0|0|0|1|0|0|0|0|0|0|1|0|0|0|0|1|0|0|0",
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"user": MEMBERS["user"], "item": MEMBERS["item"]}, "no item named"),
        ({**MEMBERS, "inter": ""}, "not enough values"),
        ({**MEMBERS, "inter": "user_id:token\titem_id:token\n"}, "the header"),
        ({**MEMBERS, "user": MEMBERS["user"] + "2\t53\n"}, "2 columns, line 3"),
    ],
)
def test_another_layout_is_refused(
    tmp_path: Path, members: dict[str, str], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        recbole_wheel.convert(make_wheel(tmp_path / "a.whl", members), tmp_path)
    assert caught.value.code == "wheel-layout"
    assert not list(tmp_path.glob("u.*"))


def fake_pip(
    monkeypatch: pytest.MonkeyPatch,
    *,
    code: int = 0,
    said: str = "",
    content: bytes = b"",
) -> list[list[str]]:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        if content:
            (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, code, stdout=said)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_pip_is_given_the_pinned_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = fake_pip(monkeypatch, content=b"wheel")
    monkeypatch.setattr(recbole_wheel, "SHA256", hashlib.sha256(b"wheel").hexdigest())
    assert recbole_wheel.download_wheel(tmp_path).read_bytes() == b"wheel"
    pinned = Path(commands[0][commands[0].index("-r") + 1]).read_text()
    assert "--require-hashes" in commands[0] and "--no-deps" in commands[0]
    assert pinned == f"recbole==1.2.1 --hash=sha256:{recbole_wheel.SHA256}\n"


def test_another_wheel_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_pip(monkeypatch, content=b"something else")
    with pytest.raises(
        ResourceError, match=f"must be {recbole_wheel.SHA256}"
    ) as caught:
        recbole_wheel.download_wheel(tmp_path)
    assert caught.value.code == "checksum-mismatch"


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        (1, "noise\nERROR: no matching distribution\n", "1.2.1: ERROR: no matching"),
        (1, "", "exit status 1"),
        (0, "", "no error, and no wheel"),
    ],
)
def test_pip_that_fails_is_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, said: str, message: str
) -> None:
    fake_pip(monkeypatch, code=code, said=said)
    with pytest.raises(ResourceError, match=message) as caught:
        recbole_wheel.download_wheel(tmp_path)
    assert caught.value.code == "pip-failed"


def test_pip_that_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired("pip", 300)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ResourceError, match="timed out after 300 seconds"):
        recbole_wheel.download_wheel(tmp_path)
