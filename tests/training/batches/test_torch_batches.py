"""The loader as a PyTorch dataset, in one process and in several."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Dataset, ExampleOptions, Loader, TrainingExamples
from toy import checkerboard

pytestmark = pytest.mark.backend
if keras.backend.backend() == "torch":
    import torch
    from torch.utils.data import DataLoader

    from shortlist.training import to_torch
else:
    __test__ = False  # other backends need not have PyTorch


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def make_loader(dataset: Dataset, **options: Any) -> Loader:
    rows = TrainingExamples(
        dataset, options=ExampleOptions(history_length=3, unknown_rate=0.2)
    )
    return Loader(rows, **{"batch_size": 16, "seed": 5, **options})


def assert_equal(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, values in other.items():
            assert isinstance(one[name], torch.Tensor)
            assert one[name].numpy().dtype == values.dtype
            np.testing.assert_array_equal(one[name].numpy(), values)


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_batches_are_tensors_of_the_loader_s(
    dataset: Dataset, shard: tuple[int, int]
) -> None:
    loader = make_loader(dataset, shard=shard)
    batches = DataLoader(to_torch(loader), batch_size=None)
    assert len(batches) == len(loader)
    assert_equal(batches, loader.batches(0, range(len(loader))))
    assert_equal(batches, loader.batches(0, range(len(loader))))
    batches.dataset.set_epoch(4)
    assert_equal(batches, loader.batches(4, range(len(loader))))


# Python 3.12 and JAX, which Keras may have imported, warn of forks beside threads;
# these workers only run NumPy.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # one processor
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_share_the_batches_and_keep_their_order(
    dataset: Dataset, persistent: bool, shard: tuple[int, int]
) -> None:
    loader = make_loader(dataset, shard=shard)
    made = to_torch(loader)
    batches = DataLoader(
        made, batch_size=None, num_workers=2, persistent_workers=persistent
    )
    for epoch in (0, 3):
        made.set_epoch(epoch)
        assert_equal(batches, loader.batches(epoch, range(len(loader))))


def test_it_begins_where_the_loader_stands(dataset: Dataset) -> None:
    loader = make_loader(dataset)
    loader.seek(2 * len(loader) + 5)
    made = to_torch(loader)
    assert_equal(made, loader.batches(2, range(5, len(loader))))
    made.set_epoch(3, batch=len(loader) - 1)
    assert_equal(made, loader.batches(3, [len(loader) - 1]))
