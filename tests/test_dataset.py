"""The data set with item features: one copy of them, whatever is asked for first."""

import pytest

from alignrec_recbole.dataset import MultimodalDataset
from alignrec_recbole.testing.testbed import Testbed


@pytest.mark.parametrize("first", ["features", "splits"])
def test_splits_share_the_features_in_either_order(tmp_path, first):
    testbed = Testbed("AlignRec", tmp_path)
    dataset = MultimodalDataset(testbed.config(testbed.world, 1, {}))
    if first == "features":
        assert dataset.features
    train, valid, test = dataset.build()
    for name, loaded in train.features.items():
        for other in (valid, test, dataset):
            assert other.features[name] is loaded


def test_released_features_are_read_again(tmp_path):
    testbed = Testbed("AlignRec", tmp_path)
    train, valid, _ = MultimodalDataset(testbed.config(testbed.world, 1, {})).build()
    before = dict(train.features)
    valid.release_features()
    for name, again in train.features.items():
        assert again is not before[name]
        assert (again.values == before[name].values).all()
