"""Ctrl-C and SIGTERM end a training with the right exit code, wherever it stands."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist import interrupts
from small_logs import TINY

# Under one backend: TensorFlow starts threads when it is imported, which a fork loses.
pytestmark = pytest.mark.timeout(600)

# Keras is imported once; each process that gets a signal is a fork of this one. It
# sends the signal to itself when a function is called for the given time.
DRIVER = """
import ctypes, functools, importlib, json, os, signal, sys
import keras
from shortlist import interrupts
from shortlist.cli import main as entry
from shortlist.cli import stages, train
from shortlist.training import fit
from shortlist.training.loop import checkpointing

interrupts.GRACE_SECONDS = 0.2
folder, settings = sys.argv[1], json.loads(sys.argv[2])

def hang():
    "Waits in compiled code for ever, without the interpreter's lock."
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

def signalling(call, number, when, then):
    calls = 0
    @functools.wraps(call)
    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == when:
            os.kill(os.getpid(), number)
            if then == "hang":
                hang()
            if then == "again":
                os.kill(os.getpid(), number)
                hang()
            if then == "fail":
                raise ValueError("a step that was cut short")
        return call(*args, **kwargs)
    return counted

def run(arguments, point, number, when, then):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        os.close(reading)
        if point:
            module, _, path = point.partition(":")
            *owners, name = path.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            setattr(owner, name, signalling(getattr(owner, name), number, when, then))
        sys.argv = ["shortlist", *arguments]
        code = 99
        try:
            entry.main()
        except SystemExit as end:
            code = end.code
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text

os.chdir(folder)
for line in sys.stdin:
    print(json.dumps(run(*json.loads(line))), flush=True)
"""

INT, TERM = int(signal.SIGINT), int(signal.SIGTERM)
PROGRESS = "shortlist.training.loop.checkpointing:Checkpointing"
FIRST = ["train", "--overwrite"]
AGAIN = ["train", "--resume"]
# Each goes on where the one before it ended; the first ends before any checkpoint.
CASES = [
    (FIRST, "shortlist.cli.train:open_recipe", INT, 1, ""),
    (FIRST, "keras:Model.fit", INT, 1, "hang"),
    (AGAIN, "keras:Model.fit", TERM, 1, "fail"),
    (AGAIN, "shortlist.embeddings.host.kernels:lookup_checked", INT, 3, ""),
    (AGAIN, f"{PROGRESS}._save_now", TERM, 2, ""),
    (
        AGAIN,
        f"{PROGRESS}.on_train_batch_begin",
        INT,
        2,
        "hang",
    ),
    (
        AGAIN,
        f"{PROGRESS}.on_train_batch_begin",
        TERM,
        2,
        "again",
    ),
    (AGAIN, "shortlist.models.pipeline:Pipeline.rank", INT, 1, ""),
    (AGAIN, "shortlist.models.ranker:Ranker.score_on_batch", INT, 1, "fail"),
    (AGAIN, "shortlist.training.stages:weights_tried", TERM, 1, ""),
]


@pytest.mark.slow
def test_every_interruption_has_its_exit_code_and_can_be_resumed(
    project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    older = (folder / "run" / "run.json").read_bytes()
    settings = [*TINY, "--set=seed=3"]
    cases = [
        [[*command, *settings], *rest]
        for command, *rest in [*CASES, (AGAIN, "", 0, 0, "")]
    ]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, folder, json.dumps(settings)],
        input="\n".join(map(json.dumps, cases)),
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line[0] == "["]
    for case, (code, text) in zip(CASES, told, strict=False):
        assert code == 128 + case[2], (case, code, text)
        assert "Traceback" not in text and "error[" not in text, (case, text)
        assert text.count("interrupted") == (case[2] == INT), (case, text)
    assert told[len(CASES)][0] == 0, told[len(CASES)]
    assert (folder / "run" / "run.json").read_bytes() != older
    assert not (folder / ".run.training").exists()


def test_before_the_first_checkpoint_resume_alone_knows_the_older_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shortlist.errors import InputError
    from shortlist.training.runs.unfinished import State, Unfinished

    out = tmp_path / "run"
    shutil.copytree(project / "run", out)

    def begin(**options: bool) -> Unfinished:
        begun = State(recipe={"seed": 1}, dataset_fingerprint="f", backend="jax")
        return Unfinished(out, begun, **options)

    with pytest.raises(KeyboardInterrupt), begin(overwrite=True):
        raise KeyboardInterrupt
    # Not to be overwritten by a training that does not resume.
    with pytest.raises(InputError, match="exists already"):
        begin()
    with begin(resume=True) as unfinished:
        assert unfinished.state.overwrite
    # It ended without an interruption, and had done nothing.
    assert not unfinished.folder.exists()
    with pytest.raises(InputError, match="exists already"):
        begin(resume=True)
    assert (out / "run.json").is_file()


def test_signals_count_only_where_they_are_handled() -> None:
    interrupts.note(INT)
    assert interrupts.received() is None


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_what_ends_the_process(number: signal.Signals) -> None:
    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with pytest.raises(kind) as caught:
        interrupts.raise_for(number)
    if kind is SystemExit:
        assert caught.value.args == (143,)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_while_modules_are_loaded(number: signal.Signals) -> None:
    code = (
        "import builtins, os, sys\n"
        "from shortlist.cli import main\n"
        "load = builtins.__import__\n"
        "def loading(name, *rest):\n"
        "    if name == 'typer':\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return load(name, *rest)\n"
        "builtins.__import__ = loading\n"
        "sys.argv = ['shortlist', 'doctor']\n"
        "main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 128 + number
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_a_signal_that_the_parent_turned_off_stays_off() -> None:
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from shortlist import interrupts\n"
        "interrupts.install()\n"
        "assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN\n"
        "assert interrupts.handled() == [signal.SIGTERM]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
