"""Acknowledged events are on the disk; a batch is kept whole or not at all."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.serving.event_store.events import (
    Event,
    MemoryEventStore,
    SqliteEventStore,
)


def event(user_id="ann", item_id="heat", timestamp_ms=5, label=None, event_id=None):
    return Event(
        user_id=user_id,
        item_id=item_id,
        timestamp_ms=timestamp_ms,
        label=label,
        event_id=event_id,
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
        "from shortlist.serving.event_store.events import Event, SqliteEventStore\n"
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


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "other spelling"])
def test_a_file_belongs_to_one_store_at_a_time(tmp_path, how):
    path = other = tmp_path / "e"
    first = SqliteEventStore(path)
    first.append([event("ann")])
    if how == "symlink":
        other = tmp_path / "link"
        other.symlink_to(path)
    elif how == "hard link":
        other = tmp_path / "twin"
        other.hardlink_to(path)
    elif how == "other spelling":
        other = tmp_path / "sub" / ".." / "e"
        (tmp_path / "sub").mkdir()
    with pytest.raises(ResourceError, match="uses this events file") as caught:
        SqliteEventStore(other)
    assert (caught.value.code, caught.value.exit_code) == ("events-in-use", 4)
    first.append([event("bob")])
    first.close()
    assert [e.user_id for e in kept(path)] == ["ann", "bob"]


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
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="must be a file that this ver") as caught:
        SqliteEventStore(path)
    assert (caught.value.code, caught.value.file) == ("events-unreadable", str(path))
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


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


def users_of(path):
    """Users of the events in a database, read by SQLite alone."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT user_id FROM events ORDER BY rowid")
        return [user for (user,) in rows]


def deleted(path):
    path.unlink()


def deleted_with_its_log(path):
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def moved(path):
    path.rename(path.with_name("elsewhere"))


def moved_with_its_log(path):
    (path.parent / "old").mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(path.parent / "old" / file.name)


def without_log(path):
    path.with_name(path.name + "-wal").unlink()


def without_log_and_index(path):
    without_log(path)
    path.with_name(path.name + "-shm").unlink()


NAMES = ["ann", "bob", "cat", "dan"]
GONE = [deleted, deleted_with_its_log, moved, moved_with_its_log]


@pytest.mark.parametrize("ends", ["closed", "killed"])
@pytest.mark.parametrize("lose", [*GONE, without_log, without_log_and_index])
def test_acknowledged_events_survive_a_file_that_goes(tmp_path, lose, ends):
    path = tmp_path / "served" / "e"
    store = SqliteEventStore(path)
    store.append([event("ann")])
    store.append([event("bob")])
    lose(path)
    store.append([event("cat")])
    store.append([event("dan")])
    if ends == "killed":  # what a process that ends here leaves
        shutil.copytree(path.parent, tmp_path / "left")
        assert [e.user_id for e in kept(tmp_path / "left" / "e")] == NAMES
    store.close()
    assert [e.user_id for e in kept(path)] == NAMES


@pytest.mark.parametrize("lose", GONE)
def test_a_file_that_goes_is_noticed_between_events(tmp_path, lose, caplog):
    path = tmp_path / "e"
    store = SqliteEventStore(path)
    store.append([event("ann"), event("bob", event_id="7")])
    lose(path)
    store.check()
    assert "written again with all 2 events" in caplog.text
    assert users_of(path) == ["ann", "bob"]
    assert store.append([event("bob", event_id="7")]) == [False]  # ids as well
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ResourceError, match="uses this events file"):
        SqliteEventStore(path)
    store.close()


def test_a_file_that_goes_at_the_end_is_made_again(tmp_path):
    store = SqliteEventStore(tmp_path / "e")
    store.append([event("ann")])
    (tmp_path / "e").unlink()
    store.close()
    assert users_of(tmp_path / "e") == ["ann"]


def test_a_file_that_was_moved_away_holds_everything_too(tmp_path):
    store = SqliteEventStore(tmp_path / "e")
    store.append([event("ann")])
    moved(tmp_path / "e")
    store.append([event("bob")])
    store.close()
    assert users_of(tmp_path / "elsewhere") == ["ann"]


def replaced_by_nothing(path):
    path.rename(path.with_name("before"))
    path.touch()


def another_store(path):
    store = SqliteEventStore(path.with_name("other"))
    store.append([event("stranger")] * 5)
    store.close()
    return store.path


def replaced_by_a_store(path):
    path.rename(path.with_name("before"))
    another_store(path).rename(path)


def truncated(path):
    os.truncate(path, 0)


def cut_in_half(path):
    os.truncate(path, 4096 + 100)


def overwritten(path):
    path.write_bytes(b"not a database" * 1000)


def overwritten_by_a_store(path):
    shutil.copyfile(another_store(path), path)  # as `cp` does: into the same file


@pytest.mark.parametrize(
    "spoil",
    [replaced_by_nothing, replaced_by_a_store, overwritten, overwritten_by_a_store],
)
def test_a_file_that_is_no_longer_ours_gets_no_events(tmp_path, spoil, caplog):
    path = tmp_path / "e"
    store = SqliteEventStore(path)
    store.append([event("ann")] * 500)
    store._connection.execute("PRAGMA wal_checkpoint")  # so that the file holds them
    store.append([event("bob")])
    spoil(path)
    for _ in range(2):
        with pytest.raises(
            ResourceError, match="The events file cannot be used"
        ) as caught:
            store.append([event("cat")])
        assert caught.value.code == "events-file-lost"
    assert caplog.text.count("no more events are accepted") == 1  # not at each event
    store.close()
    (rescued,) = tmp_path.glob("e.rescued-*")
    assert users_of(rescued) == ["ann"] * 500 + ["bob"]
    assert stat.S_IMODE(rescued.stat().st_mode) == 0o600


@pytest.mark.parametrize("cut", [truncated, cut_in_half])
def test_a_file_that_is_cut_off_is_made_again(tmp_path, cut, caplog):
    path = tmp_path / "e"
    store = SqliteEventStore(path)
    store.append([event("ann")] * 500)
    store._connection.execute("PRAGMA wal_checkpoint")  # so that the file holds them
    store.append([event("bob", event_id="b")])
    cut(path)
    assert store.append([event("cat"), event("bob", event_id="b")]) == [True, False]
    assert "was cut off while serving: written again with all 501 events" in caplog.text
    shutil.copytree(tmp_path, tmp_path / "left")  # what a killed process leaves
    store.close()
    expected = ["ann"] * 500 + ["bob", "cat"]
    assert users_of(path) == users_of(tmp_path / "left" / "e") == expected


def test_a_cut_off_file_of_which_not_all_is_known_gets_no_events(tmp_path):
    path = tmp_path / "e"
    store = SqliteEventStore(path)
    store.append([event("ann")] * 2000)
    store._connection.execute("PRAGMA wal_checkpoint")
    store._connection.execute("PRAGMA cache_size = 0")  # what a large file comes to
    store._connection.execute("PRAGMA shrink_memory")
    cut_in_half(path)
    with pytest.raises(ResourceError, match="damaged or overwritten") as caught:
        store.append([event("bob")])
    assert caught.value.code == "events-file-lost"
    assert path.stat().st_size == 4196  # left as it is
    store.close()
    assert list(tmp_path.glob("e.rescued-*"))


def test_a_rescue_that_fails_is_told_and_events_are_refused(tmp_path, caplog):
    folder = tmp_path / "folder"
    store = SqliteEventStore(folder / "status")
    store.append([event("ann")])
    folder.rename(tmp_path / "moved")
    folder.symlink_to("/proc/self")  # has a file of that name, and takes no new one
    with pytest.raises(ResourceError, match="was replaced") as caught:
        store.append([event("bob")])
    assert caught.value.code == "events-file-lost"
    assert "could not be copied to" in caplog.text
    folder.unlink()
    (tmp_path / "moved").rename(folder)
    store.append([event("cat")])
    store.close()
    assert users_of(folder / "status") == ["ann", "cat"]


def test_a_file_that_comes_back_is_used_again(tmp_path, caplog):
    path = tmp_path / "e"
    store = SqliteEventStore(path)
    store.append([event("ann")])
    replaced_by_nothing(path)
    with pytest.raises(ResourceError):
        store.append([event("bob")])
    path.with_name("before").rename(path)
    store.append([event("cat")])
    assert "is back" in caplog.text
    store.close()
    assert users_of(path) == ["ann", "cat"]


def test_a_folder_that_goes_is_an_error_until_it_is_back(tmp_path):
    folder = tmp_path / "folder"
    store = SqliteEventStore(folder / "e")
    store.append([event("ann")])
    folder.rename(tmp_path / "other")
    with pytest.raises(ResourceError, match="could not be written again") as caught:
        store.append([event("bob")])
    assert caught.value.code == "events-file-lost"
    (tmp_path / "other").rename(folder)
    store.append([event("cat")])
    store.close()
    assert users_of(folder / "e") == ["ann", "cat"]


def test_what_other_programs_do_by_sqlite_is_no_damage(tmp_path, caplog):
    path = tmp_path / "e"
    store = SqliteEventStore(path)
    store.append([event("ann"), event("bob"), event("cat")])
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM events WHERE user_id = 'bob'")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.append([event("dan")])
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("VACUUM")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.append([event("eve")])
    assert users_of(path) == ["ann", "cat", "dan", "eve"]
    assert caplog.records == []
    store.close()


@pytest.mark.parametrize(
    ("values", "readable"),
    [
        (("bob", "heat", "2020-01-01", 4.0), False),
        (("bob", "heat", 5.5, 4.0), False),
        (("bob", "heat", -5, 4.0), False),
        (("bob", "heat", b"5", 4.0), False),
        (("bob", "heat", 5, "good"), False),
        (("bob", "heat", 5, float("inf")), False),
        ((1.5, "heat", 5, 4.0), False),
        ((b"bob", "heat", 5, 4.0), False),
        (("bob", b"\xff", 5, None), False),
        (("bob", "heat", "5", "4"), True),  # SQLite stores them as numbers
        ((7, 8, 5, None), True),
    ],
)
def test_rows_that_are_no_events_are_counted_and_passed_over(
    tmp_path, values, readable, caplog
):
    store = SqliteEventStore(tmp_path / "e")
    store.append([event("ann")])
    store._connection.execute("INSERT INTO events VALUES (?, ?, ?, ?)", values)
    store.append([event("cat")])
    read = [e.user_id for e in store.read()]
    assert read == ["ann", *[values[0]] * readable, "cat"]
    assert ("1 rows of" in caplog.text) is not readable
    store.close()
    assert len(users_of(tmp_path / "e")) == 3  # left in the file


def test_text_that_is_no_unicode_is_passed_over(tmp_path, caplog):
    store = SqliteEventStore(tmp_path / "e")
    store.append([event("ann"), event(7)])
    store._connection.execute(
        "INSERT INTO events VALUES (CAST(x'ff41' AS TEXT), 'heat', 5, NULL)"
    )
    store.append([event("cat", label=4.5)])
    assert [e.user_id for e in store.read()] == ["ann", 7, "cat"]
    assert "1 rows of" in caplog.text
    store.close()


def dangling(path):
    path.symlink_to(path.with_name("nowhere"))


def loop(path):
    path.symlink_to(path)


def folder(path):
    path.mkdir()


def fifo(path):
    os.mkfifo(path)


def fifo_as_log(path):
    os.mkfifo(path.with_name("e-wal"))


def made_by_sql(*statements):
    def spoil(path):
        SqliteEventStore(path).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return spoil


ENDLESS = (
    "CREATE VIEW events AS WITH RECURSIVE n(i) AS"
    " (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    " SELECT i AS user_id, 1 AS item_id, 1 AS timestamp_ms, 1.0 AS label FROM n"
)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (dangling, "a dangling link"),
        (loop, "a dangling link"),
        (folder, "not a regular file"),
        (fifo, "not a regular file"),
        (fifo_as_log, "not a regular file"),
        (made_by_sql("DROP TABLE events", ENDLESS), "without a table of events"),
        (made_by_sql("DROP TABLE events"), "without a table of events"),
        (made_by_sql("ALTER TABLE events ADD more"), "a table of another making"),
        (made_by_sql("CREATE VIEW v AS SELECT 1"), "'v', a view of another making"),
        (
            made_by_sql("CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END"),
            "'t', a trigger of another making",
        ),
        (
            made_by_sql("DROP TABLE event_ids", "CREATE TABLE event_ids (a, b)"),
            "'event_ids', a table of another making",
        ),
    ],
)
def test_what_is_no_event_store_is_refused_at_once(tmp_path, spoil, found):
    path = tmp_path / "e"
    spoil(path)
    with pytest.raises(ArtifactError, match=found) as caught:
        SqliteEventStore(path)
    assert (caught.value.code, caught.value.exit_code) == ("events-unreadable", 3)


def test_a_device_is_refused():
    with pytest.raises(ArtifactError, match="not a regular file"):
        SqliteEventStore("/dev/null")


def test_a_read_only_file_is_refused(tmp_path):
    SqliteEventStore(tmp_path / "e").close()
    (tmp_path / "e").chmod(0o444)
    with pytest.raises(ResourceError, match="Cannot write") as caught:
        SqliteEventStore(tmp_path / "e")
    assert caught.value.code == "no-permission"


@pytest.mark.parametrize(
    ("before", "after"), [(None, 0o600), (0o644, 0o640), (0o666, 0o660), (0o600, 0o600)]
)
def test_others_cannot_read_the_file(tmp_path, before, after):
    path = tmp_path / "e"
    if before is not None:
        SqliteEventStore(path).close()
        path.chmod(before)
    store = SqliteEventStore(path)
    store.append([event()])
    for ending in ("", "-wal", "-shm"):
        mode = stat.S_IMODE(path.with_name("e" + ending).stat().st_mode)
        assert mode == after, ending
    store.close()


@pytest.mark.parametrize("make_store", [SqliteEventStore, None])
def test_an_event_of_an_id_that_was_there_is_kept_once(tmp_path, make_store):
    store = make_store(tmp_path / "e") if make_store else MemoryEventStore()
    first = event("ann", event_id="a", timestamp_ms=1)
    assert store.append([first, event("bob")]) == [True, True]
    retry = event("ann", event_id="a", timestamp_ms=2)  # the time of arrival differs
    assert store.append([event("bob"), retry, event("ann", event_id="b")]) == [
        True,
        False,
        True,
    ]
    assert store.append([event("cat", event_id="c")] * 3) == [True, False, False]
    store.close()
    if make_store:
        assert users_of(tmp_path / "e") == ["ann", "bob", "bob", "ann", "cat"]
        again = SqliteEventStore(tmp_path / "e")
        assert again.append([retry]) == [False]
        again.close()


@pytest.mark.parametrize("make_store", [SqliteEventStore, None])
@pytest.mark.parametrize(
    "other", [{"user_id": "bob"}, {"item_id": "a/b"}, {"label": 1.0}, {"user_id": 7}]
)
def test_an_id_is_not_for_two_events(tmp_path, make_store, other):
    store = make_store(tmp_path / "e") if make_store else MemoryEventStore()
    store.append([event(event_id="a")])
    with pytest.raises(InputError, match="must belong to one event") as caught:
        store.append([event("new", event_id="n"), event(**other, event_id="a")])
    assert caught.value.code == "event-id-reused"
    assert store.append([event("new", event_id="n")]) == [True]  # nothing was kept
    store.close()


def test_ids_without_a_file_are_forgotten_in_order():
    store = MemoryEventStore(max_ids=2)
    store.append([event(event_id=name) for name in "abc"])
    fresh = store.append([event(event_id=name) for name in "bcd"])
    assert fresh == [False, False, True]
    assert store.append([event(event_id="a")]) == [True]


def test_a_file_of_an_earlier_version_is_read_and_written(tmp_path):
    # As the first version made it: no table of ids.
    with contextlib.closing(sqlite3.connect(tmp_path / "e")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE events (user_id NOT NULL, item_id NOT NULL,"
            " timestamp_ms INTEGER NOT NULL, label REAL)"
        )
        connection.execute("PRAGMA application_id = 0x53484C54")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("INSERT INTO events VALUES ('ann', 7, 5, NULL)")
        connection.commit()
    store = SqliteEventStore(tmp_path / "e")
    assert store.append([event("bob", event_id="a")]) == [True]
    assert [e.user_id for e in store.read()] == ["ann", "bob"]
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "e")) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("INSERT INTO events VALUES ('cat', 7, 5, NULL)")
        connection.commit()
    assert version == 1  # the first version reads it, too
    assert users_of(tmp_path / "e") == ["ann", "bob", "cat"]


def test_a_full_file_takes_no_more_and_is_read(tmp_path):
    store = SqliteEventStore(tmp_path / "e", max_bytes=2**16)
    accepted = 0
    with pytest.raises(ResourceError, match="its limit of 65536 bytes") as caught:
        for _ in range(100):
            store.append([event("x" * 1000)] * 5)
            accepted += 5
    assert caught.value.code == "events-full"
    assert 0 < accepted < 100
    assert len(list(store.read())) == accepted
    store.close()
    again = SqliteEventStore(tmp_path / "e", max_bytes=2**12)  # less than is there
    assert len(list(again.read())) == accepted
    with pytest.raises(ResourceError):
        again.append([event("x" * 1000)] * 5)
    again.close()


def test_blocks_hold_every_event_once(tmp_path, monkeypatch):
    monkeypatch.setattr("shortlist.serving.event_store.events._BLOCK_ROWS", 3)
    store = SqliteEventStore(tmp_path / "e")
    store.append([event(i, timestamp_ms=i, label=float(i)) for i in range(8)])
    blocks = list(store.blocks())
    assert [len(block.user_ids) for block in blocks] == [3, 3, 2]
    assert [user for block in blocks for user in block.user_ids] == list(range(8))
    assert [label for block in blocks for label in block.labels] == list(range(8))
    store.close()
