"""Checks that every registered model passes, usable for a model of your own:

    from alignrec_recbole.testing.testbed import Testbed
    from alignrec_recbole.testing.model_checks import model_checks

    testbed = Testbed("MyModel", tmp_path)
    for check in model_checks(testbed.under_test):
        check(testbed)

A check raises AssertionError with what it found. The thresholds fit the default world of
synthetic.py and the settings of testbed.py. Over ten worlds and seeds each, AlignRec, LightGCN and
BPR have a top-1 of 1.00 and a last loss of at most 0.18, 0.03 and 0.08 of the first; AlignRec's
cold AUC is at least 0.968 with the right features and at most 0.671 with shuffled ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from alignrec_recbole.models._base import PairwiseRecommender
from alignrec_recbole.testing.checks import answers, chance, data, ranking, resources, training
from alignrec_recbole.testing.testbed import ModelUnderTest, Testbed

Check = Callable[[Testbed], None]


def model_checks(under_test: ModelUnderTest) -> Iterator[Check]:
    """The checks that apply to a model."""
    yield answers.check_right_top_item
    yield ranking.check_pad_never_recommended
    yield ranking.check_seen_items_masked
    yield ranking.check_scores_agree
    yield ranking.check_eval_is_pure
    yield chance.check_save_load_equal
    yield chance.check_same_seed_equal
    yield answers.check_features_matter
    yield data.check_renaming_items_is_harmless
    yield data.check_row_order_is_harmless
    yield data.check_renumbering_is_harmless
    yield data.check_ties_do_not_follow_numbers
    yield data.check_other_users_of_a_batch_are_harmless
    yield data.check_held_out_rows_unused
    yield data.check_degenerate_inputs
    yield resources.check_memory_ceiling
    yield resources.check_device_is_followed
    yield resources.check_config_is_closed
    yield resources.check_prints_and_writes_nothing
    if under_test.learns:
        yield chance.check_other_seed_differs
        yield training.check_loss_falls
        yield training.check_nan_is_refused
        yield training.check_gradients
        if issubclass(under_test.model_class, PairwiseRecommender):
            yield training.check_step_waits_for_nothing
    if under_test.uses_features:
        yield data.check_feature_rows_by_token
        yield answers.check_missing_modality


def checks_by_name() -> dict[str, Check]:
    """Every check, also the one for testbeds on other devices, `check_scores_as_on_cpu`."""
    return {
        name: value
        for module in (answers, chance, data, ranking, resources, training)
        for name, value in vars(module).items()
        if name.startswith("check_") and value.__module__ == module.__name__
    }
