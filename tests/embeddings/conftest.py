"""Host tables are tested twice: with the compiled core and with its NumPy twin."""

from __future__ import annotations

import pytest

from shortlist import native
from table_cases import needs_core


@pytest.fixture(
    params=[pytest.param(native.core(), marks=needs_core), None], ids=["core", "twin"]
)
def way(request, monkeypatch):
    """Runs a test with the compiled core and again with the twin."""
    monkeypatch.setattr(native, "_core", request.param)
