"""`load_run`: what a script is told does not depend on how it hands its images over."""

import doctest
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import SaveCheckpoint, logits_of
from tests.launch import ROOT
from tests.photos import photo, save_photo
from unfreeze import Run, load_run
from unfreeze.errors import UnfreezeError
from unfreeze.runs import loaded_run


def test_the_examples_of_the_docstrings_are_so(digits_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits_place)
    done = doctest.testmod(loaded_run, raise_on_error=False, report=True)
    assert done.attempted >= 20
    assert done.failed == 0


def test_the_script_in_the_docs_runs_as_it_stands(
    digits_place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(digits_place)
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "predict.md").read_text(), re.DOTALL)
    assert block is not None
    exec(compile(block[1], "predict.md", "exec"), {})
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out[:2]] == [["photos/seven.png", "7"], ["photos/two.png", "2"]]
    assert out[2] == "torch.Size([2, 10]) torch.Size([2, 96])"


@pytest.fixture
def run(save_checkpoint: SaveCheckpoint) -> Run:
    return load_run(save_checkpoint(), device="cpu", batch_size=2, workers=0)


def test_however_images_are_handed_over_the_answers_are_the_same(run: Run, tmp_path: Path) -> None:
    pictures = [photo(str(number), (40, 30)) for number in range(3)]
    paths = [save_photo(tmp_path / f"photos/{number}.png", seed=str(number), size=(40, 30)) for number in range(3)]
    arrays = [np.asarray(picture) for picture in pictures]
    batch = np.stack(arrays).transpose(0, 3, 1, 2)
    ways: list[Any] = [
        paths,
        [str(path) for path in paths],
        iter(paths),
        tmp_path / "photos",
        str(tmp_path / "photos/*.png"),
        pictures,
        (picture for picture in pictures),
        arrays,
        [torch.from_numpy(array.copy()) for array in arrays],
        batch,
        torch.from_numpy(batch.copy()),
        [batch[:1], batch[1:]],
    ]
    expected = run.probabilities(paths)
    assert expected.shape == (3, 3)
    assert expected.sum(dim=1) == pytest.approx(torch.ones(3))
    for way in ways:
        assert torch.equal(run.probabilities(way), expected)
    for alone in (paths[0], pictures[0], arrays[0], batch[:1]):
        torch.testing.assert_close(run.probabilities(alone), expected[:1], rtol=1e-5, atol=1e-6)
    assert [each.path for each in run.predict(pictures)] == ["#0", "#1", "#2"]
    assert [each.path for each in run.predict(paths)] == list(map(str, paths))
    assert run.predict([]) == []
    assert run.probabilities([]).shape == (0, 3)


def test_pictures_are_seen_as_files_are(run: Run, tmp_path: Path) -> None:
    see_through = Image.new("RGBA", (30, 30), (200, 10, 10, 0))
    see_through.putpixel((3, 3), (0, 0, 0, 255))
    deep = Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70)
    for number, picture in enumerate((see_through, deep, photo("x").convert("P"), photo("y").convert("L"))):
        picture.save(tmp_path / f"{number}.png")
        assert torch.equal(run.probabilities(picture), run.probabilities(tmp_path / f"{number}.png"))
    grey = np.full((1, 1, 30, 30), 90, dtype=np.uint8)
    assert torch.equal(run.probabilities(grey), run.probabilities(grey.repeat(3, axis=1)))


def test_the_most_probable_come_first(run: Run) -> None:
    (found,) = run.predict(photo("a"), top_k=3)
    sure = run.probabilities(photo("a"))[0]
    assert [each.rank for each in found.classes] == [1, 2, 3]
    assert [each.probability for each in found.classes] == sorted(sure.tolist(), reverse=True)
    assert found.classes[0].label == found.label == run.classes[int(sure.argmax())]
    assert run.predict(photo("a"))[0].classes == found.classes[:1]


def test_images_of_other_bands_are_arrays(save_checkpoint: SaveCheckpoint) -> None:
    run = load_run(save_checkpoint(in_chans=5), workers=0, device="cpu")
    values = np.random.default_rng(0).integers(0, 255, (2, 5, 20, 24), dtype=np.uint8)
    assert run.probabilities(values).shape == (2, 3)
    torch.testing.assert_close(run.probabilities(values[1].transpose(1, 2, 0)), run.probabilities(values)[1:])
    with pytest.raises(UnfreezeError, match=r"want uint8 of shape .* C being 5$"):
        run.predict(values[:, :3])


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ("no.png", r"images: no\.png: no such file"),
        (np.zeros((2, 3, 4, 4), dtype=np.float32), r"images: got float32 of shape \(2, 3, 4, 4\), want uint8 of shape"),
        (np.zeros((7, 7), dtype=np.uint8), r"images: got uint8 of shape \(7, 7\), want uint8 of shape"),
        (np.zeros((0, 3, 4, 4), dtype=np.uint8), r"images: got uint8 of shape \(0, 3, 4, 4\)"),
        ([3], "images: got int, want paths, Pillow images, or uint8 arrays or tensors"),
        (["tests", Image.new("RGB", (2, 2))], "images: "),
    ],
    ids=["missing", "floats", "two sides", "none", "numbers", "mixed"],
)
def test_what_is_no_image_is_refused(run: Run, images: Any, told: str) -> None:
    with pytest.raises(UnfreezeError, match=told):
        run.predict(images)


def test_a_file_that_can_not_be_read_is_named(run: Run, tmp_path: Path) -> None:
    save_photo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    for ask in (run.predict, run.probabilities, run.features):
        with pytest.raises(UnfreezeError, match=r"images: .*b\.png can't be read \(not an image\)"):
            ask(tmp_path)
    with pytest.raises(UnfreezeError, match="top_k: got 0, want 1 or more"):
        run.predict(tmp_path / "a.png", top_k=0)


def test_the_result_is_that_of_the_run_wherever_in_it_one_points(digits_place: Path, tmp_path: Path) -> None:
    folder = digits_place / "outputs/digits"
    result = json.loads((folder / "result.json").read_text())
    for path in (folder, folder / "checkpoints/best.ckpt"):
        run = load_run(path)
        assert (run.result, run.path) == (result, path)
    (tmp_path / "alone.ckpt").write_bytes((folder / "checkpoints/best.ckpt").read_bytes())
    alone = load_run(tmp_path / "alone.ckpt")
    assert alone.classes == tuple("0123456789")
    with pytest.raises(UnfreezeError, match=r"alone\.ckpt lies in no run's directory"):
        _ = alone.result
    with pytest.raises(UnfreezeError, match=r"alone\.ckpt lies in no run's directory"):
        alone.plot_rates()
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/checkpoints/best.ckpt").rename(tmp_path / "run/checkpoints/epoch1.ckpt")
    with pytest.raises(UnfreezeError, match=r"epoch1\.ckpt: .* those of its best checkpoint; want load_run"):
        load_run(tmp_path / "run/checkpoints/epoch1.ckpt").plot_confusion()


class TestFeatures:
    def test_they_are_what_the_head_sees(self, run: Run) -> None:
        features = run.features([photo("a"), photo("b")])
        assert features.shape == (2, 1024)
        head = run.classifier.network.get_submodule("fc")
        logits = torch.nn.functional.linear(features, head.weight, head.bias)
        torch.testing.assert_close(logits.softmax(dim=1), run.probabilities([photo("a"), photo("b")]))

    @pytest.mark.parametrize(("layer", "module"), [("stage3", "stage3"), ("stem", "conv1.1"), ("conv5.1", "conv5.1")])
    def test_a_layer_is_what_its_module_puts_out_before_anything_writes_into_it(
        self, run: Run, layer: str, module: str
    ) -> None:
        kept: list[torch.Tensor] = []
        pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 32), dtype=np.uint8)
        last = "conv1.2" if layer == "stem" and hasattr(run.classifier.network.conv1, "2") else module
        hook = run.classifier.network.get_submodule(last).register_forward_hook(
            lambda *given: kept.append(given[2].clone())
        )
        logits_of(run.classifier, torch.from_numpy(pixels))
        hook.remove()
        maps = run.features(pixels, layer=layer, pool="none")
        torch.testing.assert_close(maps, kept[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(run.features(pixels, layer=layer), maps.mean(dim=(2, 3)))

    def test_a_probe_can_be_trained_on_them(self, run: Run) -> None:
        probe = torch.nn.Linear(1024, 2)
        probe(run.features(photo("a"))).sum().backward()
        assert probe.weight.grad is not None

    def test_a_layer_that_is_not_there_is_refused_with_what_there_is(self, run: Run) -> None:
        with pytest.raises(UnfreezeError) as told:
            run.features(photo("a"), layer="stage9")
        assert str(told.value).startswith(
            "layer: tiny has no 'stage9'; layer groups: head stage4 stage3 stage2 stem; or a"
        )
        with pytest.raises(UnfreezeError, match="pool: got 'max', want one of avg, none"):
            run.features(photo("a"), pool="max")  # type: ignore[arg-type]
