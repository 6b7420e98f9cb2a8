"""What every test runs under: one Keras backend per process, and no silent skips."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends on the machine.
settings.register_profile(
    "shortlist", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shortlist")

BACKENDS = ("jax", "tensorflow", "torch")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=BACKENDS,
        default=os.environ.get("KERAS_BACKEND", "jax"),
        help="the Keras backend of this process",
    )
    parser.addoption(
        "--fail-on-skip",
        action="store_true",
        help="fail if a test is skipped, unless it needs a GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Keras reads the backend when it is first imported, so before any test module.
    os.environ["KERAS_BACKEND"] = config.getoption("--backend")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # A shell ignores Ctrl-C for its background jobs, and scripts/test.sh starts some.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    backend = config.getoption("--backend")
    missing = [name for name in ("keras", backend) if not _is_installed(name)]
    for item in items:
        if missing and item.get_closest_marker("backend"):
            reason = f"{' and '.join(missing)} missing: pip install -e '.[{backend}]'"
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu") and not Path("/dev/nvidiactl").exists():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--fail-on-skip") and session.exitstatus == 0:
        required = _required_backends()
        skips = [r for r in _skips(session.config) if "gpu" not in r.keywords]
        if skips or any(name in required for name in _missing_backends(session.config)):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    reasons = Counter(_reason(report) for report in _skips(config))
    missing = _missing_backends(config)
    if not reasons and not missing:
        return
    terminalreporter.section("not run, and how to get it")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")
    for name in missing:
        how = "not asked of Python 3.13"
        if name in _required_backends():
            how = "make test-all installs it"
        terminalreporter.write_line(f"the backend suites under {name}: {how}")
    if config.getoption("--fail-on-skip"):
        terminalreporter.write_line("--fail-on-skip: only GPU tests may be skipped")


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _missing_backends(config: pytest.Config) -> list[str]:
    """Backends that scripts/test.sh leaves out; said once, by the first run."""
    if config.getoption("--backend") != "jax":
        return []
    return [name for name in BACKENDS if not _is_installed(name)]


def _required_backends() -> tuple[str, ...]:
    # The Makefile does not install PyTorch for Python 3.13.
    return BACKENDS[:2] if sys.version_info >= (3, 13) else BACKENDS


def _skips(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [] if reporter is None else reporter.stats.get("skipped", [])


def _reason(report: pytest.TestReport) -> str:
    place = report.longrepr
    text = place[2] if isinstance(place, tuple) else str(place)
    return text.removeprefix("Skipped: ")
