"""Makes `tiny_bundle` importable, and gives each test a bundle and a recommender."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bundle"))


@pytest.fixture
def bundle_path(tmp_path):
    from tiny_bundle import make_contents

    from shortlist.bundle.bundle import write_bundle

    write_bundle(tmp_path / "bundle", make_contents())
    return tmp_path / "bundle"


@pytest.fixture
def recommender(bundle_path):
    from shortlist.serving.recommender import Recommender

    loaded = Recommender.load(bundle_path)
    yield loaded
    loaded.close()
