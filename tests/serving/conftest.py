"""Gives each test a bundle and a recommender."""

import pytest

from tiny_bundle import make_contents


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory):
    from shortlist.bundle.bundle import write_bundle

    path = tmp_path_factory.mktemp("tiny") / "bundle"
    write_bundle(path, make_contents())
    return path


@pytest.fixture
def recommender(bundle_path):
    from shortlist.serving.recommender import Recommender

    loaded = Recommender.load(bundle_path)
    yield loaded
    loaded.close()
