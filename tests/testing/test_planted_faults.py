"""The kit passes sound parts of other designs, and catches each planted fault by the check that is meant to."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import strangers

from ssl_dc.plugins.registry import registry
from ssl_dc.testing import Outcome, run_checks

pytestmark = pytest.mark.usefixtures("strangers_installed")

SETTINGS: dict[str, Any] = {"required_option": {"temperature": 0.5}}
COMPILES = "compiles_whole_if_it_claims_to"


def outcomes(kind: str, name: str) -> list[Outcome]:
    return run_checks(registry().find(kind, name), SETTINGS.get(name))


NEED_SITES = {
    "masks_come_with_the_gated_route_only",
    "open_masks_change_nothing",
    "a_shut_mask_saves_its_layers",
    "a_half_shut_mask_saves_half_of_its_layers",
    "a_shut_position_saves_its_layers",
    "an_open_mask_uses_its_layers",
}
WITHOUT = {
    "dropping": {"two_processes_are_one"},
    "thresholded": {"without_gates_there_is_no_loss", "a_pooled_rule_decides_as_the_gate_does"},
    "ruled": {"without_gates_there_is_no_loss"},
    "top_k": {
        "without_gates_there_is_no_loss",
        "the_threshold_has_an_effect",
        "a_higher_threshold_shuts_more",
        "a_pooled_rule_decides_as_the_gate_does",
    },
    "blocks": {"a_shut_position_saves_its_layers"},
    "without_sites": NEED_SITES,
    "one_route": NEED_SITES,
}
"""The checks that do not apply to a sound part, besides that of a claim that it does not make."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, strangers.name_of(each)) for kind, classes in strangers.SOUND.items() for each in classes],
)
def test_a_sound_part_of_another_design_passes(kind: str, name: str) -> None:
    seen = outcomes(kind, name)
    assert [outcome for outcome in seen if outcome.state == "failed"] == []
    not_applied = {outcome.name for outcome in seen if outcome.state == "does not apply"}
    assert not_applied - {COMPILES} == WITHOUT.get(name, set())


class Fault(NamedTuple):
    """A planted fault.

    Attributes:
        kind: Of the part.
        name: Of the part.
        check: The check that is meant to fail.
        said: Words of what it then says.
        also: Other checks that the same fault breaks.
    """

    kind: str
    name: str
    check: str
    said: str
    also: frozenset[str] = frozenset()


def also(*names: str) -> frozenset[str]:
    return frozenset(names)


OWN_THRESHOLDS = "each_image_may_have_thresholds_of_its_own"

FAULTS = [
    # of any part
    Fault("objective", "long_summary", "record_has_a_summary_of_one_line", "saw 'No full stop'"),
    Fault("objective", "wrong_name", "options_bear_the_name_of_the_part", "saw 'another_name'"),
    Fault("objective", "undescribed", "every_option_is_described", "saw none for temperature"),
    Fault("objective", "extra_allowed", "unknown_options_are_refused", "to be refused, saw it accepted"),
    Fault("objective", "imports_torch", "importing_the_options_imports_no_torch", "strangers.heavy not to import torch"),
    Fault("objective", "required_option", "defaults_are_valid", "saw none for temperature"),
    Fault(
        "objective",
        "changes_on_reading",
        "every_option_survives_a_config_file_with_another_value",
        "'margin' to be 0.01 after a config was saved and read, saw 0.0001",
    ),
    Fault(
        "objective",
        "left_out_of_the_file",
        "every_option_survives_a_config_file_with_another_value",
        "'temperature' to be 1.5 after a config was saved and read, saw 0.5",
    ),
    # objectives
    Fault("objective", "misnamed_term", "terms_bear_the_names_of_the_weights", "['contrastive', 'uniformity']"),
    Fault(
        "objective",
        "term_of_each_image",
        "terms_are_finite_float32_scalars",
        "saw torch.float32 of the shape (8,)",
        also("terms_are_float32_under_bf16", "state_is_saved_whole", "two_processes_are_one"),
    ),
    Fault("objective", "terms_in_bf16", "terms_are_float32_under_bf16", "saw torch.bfloat16"),
    Fault("objective", "one_embedding", "there_is_an_embedding_of_each_view", "saw [(8, 8)]"),
    Fault("objective", "unused_head", "every_trainable_parameter_gets_a_gradient", "second_head.weight, saw none"),
    Fault("objective", "detached_view", "trained_views_get_a_gradient", "the features of view 1"),
    Fault("objective", "keeps_the_encoder", "the_encoder_is_left_alone", "the encoder's own parameters as encoder."),
    Fault("objective", "moves_the_encoder", "the_encoder_is_left_alone", "to be left alone, saw it changed"),
    Fault("objective", "queue_not_saved", "state_is_saved_whole", "again from the saved state, saw"),
    Fault("objective", "statistics_of_one_process", "two_processes_are_one", "as in one process, saw"),
    Fault("objective", "breaks_the_graph", COMPILES, "term.item() > 0"),
    Fault("objective", "says_any_views", "as_many_views_are_taken_as_it_says", "takes 3 positional arguments"),
    # gating schemes
    Fault(
        "gating",
        "soft_masks",
        "masks_are_0_or_1",
        "0 and 1 only in training",
        also("masks_are_0_or_1_under_bf16", OWN_THRESHOLDS),
    ),
    Fault("gating", "first_thresholds_for_all", OWN_THRESHOLDS, "each with its own thresholds, saw"),
    Fault(
        "gating",
        "one_mask_for_all_channels",
        "masks_are_0_or_1",
        "the shape (8, 12) in training mode, saw (8, 1)",
        also("masks_are_0_or_1_under_bf16", OWN_THRESHOLDS, "it_trains_in_a_network", "state_is_saved_whole"),
    ),
    Fault(
        "gating", "masks_in_float32", "masks_are_0_or_1_under_bf16", "torch.bfloat16 in training mode, saw torch.float32"
    ),
    Fault(
        "gating",
        "sampled_in_evaluation",
        "evaluation_masks_are_deterministic_and_without_gradient",
        "the same mask twice",
        also("state_is_saved_whole", OWN_THRESHOLDS),
    ),
    Fault(
        "gating",
        "batch_in_evaluation",
        "evaluation_masks_are_deterministic_and_without_gradient",
        "of images one by one",
        also(OWN_THRESHOLDS, "the_threshold_has_an_effect"),
    ),
    Fault(
        "gating",
        "hard_masks",
        "training_masks_carry_a_gradient_to_every_parameter",
        "a mask with a gradient in training mode, saw one without",
        also("it_trains_in_a_network"),
    ),
    Fault("gating", "rule_without_threshold", "a_pooled_rule_decides_as_the_gate_does", "differ at the threshold"),
    Fault("gating", "half_the_cost", "declared_cost_is_the_counted_cost", "macs = 96, as counted"),
    Fault(
        "gating",
        "upside_down_threshold",
        "a_higher_threshold_shuts_more",
        "no more to be open at the threshold",
        also("the_threshold_has_an_effect"),
    ),
    Fault("gating", "opens_above_budget", "it_can_be_held_to_a_budget", "saw the slope -0."),
    Fault(
        "gating",
        "detached_loss",
        "losses_are_finite_scalars_with_a_gradient_to_every_mask",
        "losses with a gradient, saw none in budget",
        also("it_can_be_held_to_a_budget"),
    ),
    Fault("gating", "neither_loss_nor_threshold", "it_can_be_held_to_a_budget", "saw neither"),
    Fault(
        "gating",
        "says_it_has_no_gates",
        "gates_are_declared",
        "saw gates = False",
        also("options_survive_a_config_file"),
    ),
    Fault("gating", "same_gate_twice", "each_site_of_its_granularity_gets_a_gate", "saw the same one twice"),
    Fault(
        "gating", "ignores_the_threshold", "the_threshold_has_an_effect", "gives the same mask at the thresholds -10,000"
    ),
    Fault(
        "gating",
        "always_shut",
        "the_threshold_has_an_effect",
        "shuts every entry of its mask",
        also("training_masks_carry_a_gradient_to_every_parameter"),
    ),
    Fault(
        "gating",
        "one_entry_too_many",
        "it_trains_in_a_network",
        "PluginError: the gate at blocks.0.hidden (strangers.gating.WideGate) must give a mask (N, 8), not (8, 9)",
        also("masks_are_0_or_1", "masks_are_0_or_1_under_bf16", OWN_THRESHOLDS, "state_is_saved_whole"),
    ),
    # encoders
    Fault(
        "encoder",
        "always_gated",
        "masks_come_with_the_gated_route_only",
        "no masks on the dense route",
        also("the_dense_route_runs_no_gate"),
    ),
    Fault(
        "encoder",
        "not_registered",
        "both_routes_are_trained_in_one_backward",
        "parameters to train, saw none",
        also("state_is_saved_whole"),
    ),
    Fault(
        "encoder",
        "wide_features",
        "both_routes_give_features_of_the_declared_width",
        "the shape (8, 24)",
        also("it_works_without_gates"),
    ),
    Fault("encoder", "cost_of_the_other", "declared_cost_is_the_counted_cost", "as counted on the gated route"),
    # backbones
    Fault("backbone", "wrong_width", "features_have_the_declared_width", "the shape (4, 12) on the dense route"),
    Fault("backbone", "detached_mask", "every_parameter_gets_a_gradient", "hidden.gate.layer.weight"),
    Fault("backbone", "own_batch_norm", "batch_norms_come_from_the_policy_and_are_told_the_route", "its own: stem.1"),
    Fault(
        "backbone",
        "always_the_dense_norm",
        "batch_norms_come_from_the_policy_and_are_told_the_route",
        "told the gated route, saw 1 of 3 told otherwise",
        also("every_parameter_gets_a_gradient"),
    ),
    Fault(
        "backbone",
        "saves_the_shortcut",
        "a_shut_mask_saves_its_layers",
        "to have no effect with hidden shut, saw the features change",
        also("a_half_shut_mask_saves_half_of_its_layers"),
    ),
    Fault("backbone", "mean_mask", "a_half_shut_mask_saves_half_of_its_layers", "at most 0.500 of the weights of conv1"),
    Fault(
        "backbone", "uncounted_convolution", "declared_cost_is_the_counted_cost", "as counted on the dense route at 32 px"
    ),
    Fault(
        "backbone",
        "unknown_layer",
        "gate_sites_are_declared_as_they_are",
        "saw ['unused']",
        also("an_open_mask_uses_its_layers"),
    ),
    Fault(
        "backbone",
        "masks_only_the_hidden",
        "a_shut_position_saves_its_layers",
        "expected conv2 to have no effect at the positions that positions shuts",
    ),
    Fault("backbone", "batch_statistics", "evaluation_is_deterministic_and_image_by_image", "of images one by one"),
    # norm policies
    Fault("norm", "swapped_routes", "for_route_is_the_batch_norm_that_acts", "what for_route's batch norm computes"),
    Fault(
        "norm",
        "is_a_batch_norm",
        "it_bears_conversion_to_synchronised_batch_norm",
        "after the conversion, saw SyncBatchNorm",
        also("for_route_is_the_batch_norm_that_acts"),
    ),
    Fault("norm", "one_layer_for_all", "each_position_gets_a_new_norm_layer", "saw two at the position stem share 10"),
    # data sets
    Fault("data", "grey_images", "images_are_pil_images_in_rgb", "saw 'L'"),
    Fault("data", "labels_from_one", "labels_are_numbers_of_classes", "from 0 to 1 in train, saw 1 to 2"),
    Fault("data", "new_noise_each_time", "an_index_is_always_the_same_image", "the second time, saw another"),
    Fault("data", "test_is_train", "there_are_images_to_train_and_to_test_on", "saw the set that is trained on"),
    Fault("data", "crashes_without_folder", "what_is_missing_is_a_data_error", "FileNotFoundError"),
    # views
    Fault(
        "views",
        "numpy_draws",
        "views_depend_on_torchs_seed_alone",
        "from the same seed of torch's generator, saw another",
        also("views_are_normalised", "it_can_be_sent_to_worker_processes"),
    ),
    Fault("views", "not_normalised", "views_are_normalised", "(pixel - mean) / std, saw values off by"),
    Fault("views", "cannot_be_pickled", "it_can_be_sent_to_worker_processes", "pickle local object"),
    Fault("views", "in_double", "views_are_float32_of_the_size_asked_for", "saw torch.float64 (3, 16, 16)"),
    Fault("views", "draws_on_the_image", "the_image_is_left_as_it_is", "saw it changed"),
    # optimisers
    Fault("optimizer", "counts_in_python", "state_is_saved_whole", "keeps 'steps' as a int"),
    Fault("optimizer", "decays_gates", "gates_are_not_decayed", "without decay to stay"),
    Fault(
        "optimizer",
        "forgets_biases",
        "every_parameter_is_taken_once",
        "each of 4 parameters once, saw 3",
        also("steps_lower_the_loss"),
    ),
    Fault(
        "optimizer",
        "own_rate",
        "the_rate_is_the_one_asked_for",
        "0.2 for twice the peak rate, saw 0.1",
        also("steps_lower_the_loss"),
    ),
    Fault("optimizer", "climbs_up", "steps_lower_the_loss", "step 1 to lower the square of the kernel"),
    # trackers and watchers
    Fault("tracker", "writes_the_metrics", "the_run_is_left_alone", "metrics.jsonl to be left alone, saw it changed"),
    Fault("tracker", "needs_a_new_folder", "it_bears_a_resumed_training", "on_start to be borne, saw FileExistsError"),
    Fault("watcher", "changes_metrics", "the_run_is_left_alone", "expected the metrics"),
    Fault(
        "watcher",
        "takes_no_epochs",
        "it_bears_every_event",
        "on_epoch_end to be borne, saw TypeError",
        also("it_bears_a_resumed_training", "the_run_is_left_alone"),
    ),
    # protocols
    Fault("protocol", "tensor_in_json", "it_reports_as_json_and_as_tables", "TypeError: Object of type Tensor"),
    Fault("protocol", "ragged_table", "it_reports_as_json_and_as_tables", "expected 3 texts in each row of 'lengths'"),
    Fault("protocol", "new_numbers_each_time", "the_same_model_gives_the_same_report", "the same report twice"),
    Fault(
        "protocol",
        "leaves_training_mode",
        "the_model_is_left_as_it_is",
        "evaluation mode, saw training mode",
        also("the_same_model_gives_the_same_report"),
    ),
    Fault("protocol", "crashes_without_gates", "a_model_without_gates_is_taken_or_refused", "RunError"),
    # commands
    Fault("command", "plain_function", "is_a_command", "expected a click.Command", also("help_is_shown")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault) -> None:
    failed = {outcome.name: outcome.message for outcome in outcomes(fault.kind, fault.name) if outcome.state == "failed"}
    assert fault.said in failed.get(fault.check, "passed")
    assert failed.keys() == {fault.check} | fault.also


def test_every_faulty_part_is_looked_at() -> None:
    planted = {(kind, strangers.name_of(each)) for kind, classes in strangers.FAULTY.items() for each in classes}
    assert {(fault.kind, fault.name) for fault in FAULTS} == planted
