"""The check of an exported file, by arithmetic."""

import pytest
import torch

from unfreeze.inference.export.check import CheckFailedError, CheckImages, _batch_sizes, check_file, compare
from unfreeze.inference.export.graph import Signature
from unfreeze.models.classifier import build_classifier
from unfreeze.models.outputs import Outputs, TaskClasses

ONE = Outputs.of("abc")
LOGITS = torch.tensor([[1.0, 2.0, 4.0], [-4.0, 3.0, 1.0], [0.5, 0.0, 0.25]])


def result_of(ours: torch.Tensor, theirs: torch.Tensor, outputs: Outputs = ONE, at: float = 0.0):
    return compare(ours, theirs, outputs, thresholds=(at,) * ours.shape[1])


def test_the_difference_is_relative_to_the_largest_output() -> None:
    off = LOGITS.clone()
    off[1, 0] += 0.0002
    result = result_of(LOGITS, off)
    assert result.difference == pytest.approx(0.0002 / 4, rel=1e-2)
    assert result.passed
    off[1, 0] += 0.0006
    assert not result_of(LOGITS, off).passed
    assert result_of(LOGITS * 1e-8, off * 1e-8).difference == pytest.approx(result_of(LOGITS, off).difference, rel=1e-3)


def test_another_class_is_a_different_prediction_except_for_ties() -> None:
    near = torch.tensor([[1.0, 1.00005], [2.0, -3.0]])
    other = torch.tensor([[1.00005, 1.0], [2.0, -3.0]])
    result = result_of(near, other, Outputs.of("ab"))
    assert result.difference < 1e-4
    assert result.same == 1
    assert not result.passed
    assert result_of(
        torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0000001], [2.0, 0.0]]), Outputs.of("ab")
    ).passed


def test_each_task_has_to_agree() -> None:
    outputs = Outputs((TaskClasses("one", ("a", "b")), TaskClasses("two", ("c", "d"))))
    ours = torch.tensor([[9.0, 1.0, 0.5, 0.5001], [-9.0, 1.0, 0.5, 0.0]])
    theirs = ours.clone()
    theirs[0, 2:] = torch.tensor([0.5002, 0.5001])
    assert result_of(ours, theirs, outputs).same == 1


def test_labels_are_compared_at_their_thresholds_and_on_them_rounding_decides_nothing() -> None:
    outputs = Outputs(ONE.tasks, multilabel=True)
    ours = torch.tensor([[0.6, 0.2, 0.9], [0.1, 0.2, 0.3]])
    assert result_of(ours, ours - 5e-5, outputs, at=0.19997).same == 0
    assert result_of(ours, ours - 2e-6, outputs, at=0.2).same == 2
    assert result_of(ours, ours - 2e-5, outputs, at=0.5).same == 2


def test_a_file_that_ignores_its_input_fails() -> None:
    ours = 5 + 1e-4 * torch.randn(8, 3, dtype=torch.float64)
    blind = ours.mean(dim=0).expand(8, -1)
    result = result_of(ours, blind, at=0)
    assert result.difference < 1e-4
    assert not result.passed
    assert result.is_weak
    assert result_of(ours, ours + 1e-7).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_fail(value: float) -> None:
    off = LOGITS.clone()
    off[0, 0] = value
    assert not result_of(LOGITS, off).passed
    assert not result_of(torch.zeros(2, 3), torch.full((2, 3), 1e-9)).passed
    assert result_of(torch.zeros(2, 3), torch.zeros(2, 3)).is_weak


@pytest.mark.parametrize(("count", "sizes"), [(256, (32, 7)), (40, (27, 7)), (3, (2, 1)), (2, (2, 1)), (1, (1,))])
def test_batches_have_two_sizes(count: int, sizes: tuple[int, ...]) -> None:
    assert _batch_sizes(count) == sizes


def test_a_file_with_other_outputs_is_refused() -> None:
    torch.manual_seed(0)
    classifier = build_classifier("tiny", classes="abc", weights=None, image_size=32)
    classifier.network.eval()
    images = CheckImages(torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8), "val images")
    sizes: list[int] = []

    def run_file(seen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sizes.append(len(seen))
        return (1.001 * classifier.network(seen),)

    with pytest.raises(
        CheckFailedError, match=r"of 20 val images, the same prediction for all, .* 1\.0e-03 .* 1e-04"
    ) as error:
        check_file(run_file, classifier, Signature.of(classifier, inside=False), images)
    assert error.value.exit_code == 1
    assert sum(sizes) == 20
    assert len(set(sizes)) == 2
