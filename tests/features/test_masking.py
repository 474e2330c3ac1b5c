"""Masked items: how many, which, and that larger masks contain the smaller ones."""

import hypothesis.strategies as st
from hypothesis import given, settings

from alignrec_recbole.cli._types import MASK_SEED
from alignrec_recbole.features.masking import MASK_SEED_OFFSET, masked_items, masked_name

TOKENS = st.lists(
    st.text("abcdé字0 ", min_size=1, max_size=6), min_size=1, max_size=30, unique=True
).map(lambda names: ["[PAD]", *(name for name in names if name != "[PAD]")])
RATIO = st.floats(0, 1)


@settings(max_examples=30, deadline=None)
@given(TOKENS, RATIO, RATIO, st.integers(-5, 5))
def test_a_larger_mask_contains_the_smaller_one(tokens, one, other, seed):
    small, large = (masked_items(tokens, ratio, seed) for ratio in sorted((one, other)))
    assert not (small & ~large).any()
    assert not large[0]  # PAD
    assert large.sum() == int(max(one, other) * (len(tokens) - 1) + 1e-9)


@settings(max_examples=30, deadline=None)
@given(TOKENS, RATIO, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_matter(tokens, ratio, seed, random):
    shuffled = [*tokens[:1], *random.sample(tokens[1:], len(tokens) - 1)]
    found = [
        {
            token
            for token, masked in zip(order, masked_items(order, ratio, seed), strict=True)
            if masked
        }
        for order in (tokens, shuffled)
    ]
    assert found[0] == found[1]


def test_the_option_takes_the_seeds_that_a_mask_can_have() -> None:
    assert MASK_SEED.min == -MASK_SEED_OFFSET


def test_a_counterpart_is_that_of_the_features_beneath_all_layers() -> None:
    for name, expected in (
        ("filled-mean:shuffled:a@1", "filled-mean:shuffled:a-no-image@1"),
        ("shuffled:filled-mean:a@1", "shuffled:filled-mean:a-no-image@1"),
        ("filled-mean:zero:a", "filled-mean:zero:a-no-image"),
        ("filled-mean:a@b", "filled-mean:a@b-no-image"),
    ):
        assert masked_name(name, "image") == expected
