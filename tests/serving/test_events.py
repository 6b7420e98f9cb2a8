"""Acknowledged events are on the disk; a batch is kept whole or not at all."""

import sqlite3
import subprocess
import sys
import threading

import pytest

from shortlist.errors import ArtifactError, ResourceError
from shortlist.serving.events import Event, SqliteEventStore


def event(user_id="ann", item_id="heat", timestamp_ms=5, label=None):
    return Event(
        user_id=user_id, item_id=item_id, timestamp_ms=timestamp_ms, label=label
    )


def kept(path):
    store = SqliteEventStore(path)
    try:
        return list(store.read())
    finally:
        store.close()


def test_events_come_back_in_order_and_as_they_were(tmp_path):
    events = [
        event("7", 7, 30, 4.5),
        event(7, "7", 10),
        event("é 🎬 \0 '\"", "a/b", 2**62),
        event(-(2**63), 2**63 - 1, 0),
    ]
    store = SqliteEventStore(tmp_path / "deep/er/events.sqlite")
    store.append(events[:1])
    store.append(events[1:])
    assert list(store.read()) == events
    store.close()
    assert kept(tmp_path / "deep/er/events.sqlite") == events


def test_every_commit_waits_for_the_disk(tmp_path):
    store = SqliteEventStore(tmp_path / "e")
    (mode,) = store._connection.execute("PRAGMA journal_mode").fetchone()
    (synchronous,) = store._connection.execute("PRAGMA synchronous").fetchone()
    assert (mode, synchronous) == ("wal", 2)  # 2: FULL, the log is synced
    store.close()


def test_a_killed_process_has_lost_nothing_it_acknowledged(tmp_path):
    script = (
        "import os, sys\n"
        "from shortlist.serving.events import Event, SqliteEventStore\n"
        "store = SqliteEventStore(sys.argv[1])\n"
        "for i in range(20):\n"
        "    store.append([Event(user_id='ann', item_id=i, timestamp_ms=i)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "e"], timeout=60)
    assert done.returncode == -9
    assert [e.item_id for e in kept(tmp_path / "e")] == list(range(20))


def test_a_batch_that_fails_half_way_leaves_nothing(tmp_path):
    store = SqliteEventStore(tmp_path / "e")
    store.append([event()])
    with pytest.raises(OverflowError):
        store.append([event("bob"), event(item_id=2**70)])
    store.append([event("cat")])
    store.close()
    assert [e.user_id for e in kept(tmp_path / "e")] == ["ann", "cat"]


def test_several_threads_lose_nothing(tmp_path):
    store = SqliteEventStore(tmp_path / "e")

    def post(name):
        for i in range(25):
            store.append([event(name, i)])

    threads = [threading.Thread(target=post, args=(f"u{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = list(store.read())
    for n in range(4):
        assert [e.item_id for e in events if e.user_id == f"u{n}"] == list(range(25))
    store.close()


def test_two_stores_may_share_a_file(tmp_path):
    first, second = SqliteEventStore(tmp_path / "e"), SqliteEventStore(tmp_path / "e")
    first.append([event("ann")])
    second.append([event("bob")])
    assert [e.user_id for e in first.read()] == ["ann", "bob"]
    first.close()
    second.close()


def foreign(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id)")
    connection.close()


def later(path):
    SqliteEventStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_text("not a database" * 99), foreign, later]
)
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path, spoil):
    path = tmp_path / "e"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="must be a file that this ver") as caught:
        SqliteEventStore(path)
    assert (caught.value.code, caught.value.file) == ("events-unreadable", str(path))
    assert path.read_bytes() == before


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    store = SqliteEventStore(tmp_path / "e")
    store._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(ResourceError, match="before they are acknowledged") as caught:
        store.append([event()])
    assert caught.value.code == "events-not-stored"
    store._connection.execute("PRAGMA query_only = 0")
    store.append([event()])
    assert len(list(store.read())) == 1
    store.close()


def test_a_full_disk_is_said_and_the_store_lives_on(tmp_path):
    store = SqliteEventStore(tmp_path / "e")
    store.append([event()])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ResourceError, match="SQLite said: database or disk is full"):
        store.append([event(item_id="x" * 1000)] * 50)
    assert len(list(store.read())) == 1
    store.close()
