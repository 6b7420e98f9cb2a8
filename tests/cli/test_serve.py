"""`shortlist serve`: its flags reach the server, and what is not kept is said."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist.bundle.bundle import write_bundle
from shortlist.cli.serve import serve
from shortlist.serving.http.limits import ServerSettings
from tiny_bundle import make_contents


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "bundle"
    write_bundle(path, make_contents())
    return path


def run_and_stop(bundle: Path, *arguments: str | Path) -> str:
    """What a server prints that is stopped once it is ready."""
    command = [Path(sys.executable).with_name("shortlist"), "serve"]
    with subprocess.Popen(
        [*command, "--bundle", bundle, "--port=0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said, err = first + process.stdout.read(), process.stderr.read()
        assert (process.wait(timeout=60), err) == (0, "")
    return said


def test_without_a_file_it_is_said_that_events_are_not_kept(bundle: Path) -> None:
    said = run_and_stop(bundle)
    assert "lost when the server stops; --events FILE stores them" in said
    assert json.loads(run_and_stop(bundle, "--json"))["events"] is None


def test_with_a_file_nothing_is_said(bundle: Path, tmp_path: Path) -> None:
    assert "--events" not in run_and_stop(bundle, "--events", tmp_path / "e")
    ready = json.loads(run_and_stop(bundle, "--json", "--events", tmp_path / "e"))
    assert ready["events"] == str(tmp_path / "e")


def test_flags_have_the_defaults_of_the_settings() -> None:
    flags = {
        name: parameter.default
        for name, parameter in inspect.signature(serve).parameters.items()
    }
    settings = ServerSettings()
    assert flags["drain_seconds"] == settings.drain_seconds
    assert flags["max_connections"] == settings.connections.in_all
    assert flags["max_connections_per_client"] == settings.connections.per_client
    assert flags["max_users"] == settings.state.max_users
    assert flags["max_state_mb"] * 2**20 == settings.state.max_bytes
    assert flags["max_events_mb"] * 2**20 == settings.max_events_bytes
    assert flags["access_log"] is settings.access_log is False


def test_flags_reach_the_server(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {}
    # The handler would outlive the test.
    monkeypatch.setattr("shortlist.cli.serve._log_to_stderr", lambda: None)
    monkeypatch.setattr(
        "shortlist.serving.http.server.serve",
        lambda *_, **options: given.update(options),
    )
    serve(
        bundle,
        drain_seconds=7.5,
        max_connections=20,
        max_connections_per_client=3,
        max_users=4,
        max_state_mb=5,
        max_events_mb=6,
        allowed_host=["shop.example"],
        access_log=True,
        events=tmp_path / "e",
    )
    settings = given["settings"]
    assert (settings.connections.in_all, settings.connections.per_client) == (20, 3)
    assert (settings.state.max_users, settings.state.max_bytes) == (4, 5 * 2**20)
    assert (settings.max_events_bytes, settings.drain_seconds) == (6 * 2**20, 7.5)
    assert settings.allowed_hosts == ("shop.example",) and settings.access_log
    assert given["events_path"] == tmp_path / "e"


def test_two_servers_do_not_share_an_events_file(bundle: Path, tmp_path: Path) -> None:
    from shortlist.serving.event_store.events import SqliteEventStore

    store = SqliteEventStore(tmp_path / "e")
    command = [Path(sys.executable).with_name("shortlist"), "serve"]
    done = subprocess.run(
        [*command, "--bundle", bundle, "--port=0", "--events", tmp_path / "e"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    store.close()
    assert done.returncode == 4
    assert "error[events-in-use]" in done.stderr and "Traceback" not in done.stderr
