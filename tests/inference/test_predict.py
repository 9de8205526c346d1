"""`unfreeze predict`: the predictions of the test, in order, for any file names."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from tests.digits_run import REQUEST, save_digits
from tests.inference.conftest import SaveCheckpoint, logits_of
from tests.launch import train, unfreeze
from tests.photos import photo, save_photo
from unfreeze.data.store.framing import Frame, Resize
from unfreeze.inference.batch_loader import BatchLoader
from unfreeze.inference.inputs import ImageChunk, chunk_files
from unfreeze.inference.prediction import predict
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.outputs import Outputs, TaskClasses

Capture = pytest.CaptureFixture[str]
HEADER = ["path", "rank", "class", "probability"]


def rows_of(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
        heading, *rows = csv.reader(text)
    assert heading == HEADER
    return rows


def accuracy(rows: list[list[str]]) -> float:
    return float(np.mean([Path(path).parent.name == label for path, _, label, _ in rows]))


def test_the_test_folder_comes_to_the_runs_test_accuracy(
    digits_place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, out = digits_place / "outputs/digits", tmp_path / "rows.csv"
    assert unfreeze(["predict", str(run), str(digits_place / "digits/test"), "--out", str(out)], monkeypatch) == 0
    rows = rows_of(out)
    assert len(rows) == 120
    assert load_classifier(run).native_px == (8, 8)
    assert accuracy(rows) == json.loads((run / "result.json").read_text())["test"]["acc"]


def test_accuracy_with_images_of_many_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_digits(tmp_path / "digits", train=8, test=6, sizes=((8, 8), (40, 20), (11, 13), (64, 64)))
    stages = "strategy.stages=[{name: all, train: all, epochs: 1}]"
    assert train([*REQUEST, "data.root=digits", stages, "hydra.run.dir=run"], tmp_path).code == 0
    words = ["predict", str(tmp_path / "run"), str(tmp_path / "digits/test"), "--out", str(tmp_path / "rows.csv")]
    assert unfreeze(words, monkeypatch) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert load_classifier(tmp_path / "run").native_px is None
    assert accuracy(rows_of(tmp_path / "rows.csv")) == result["test"]["acc"]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_the_native_size_are_resized_in_the_batch_and_others_as_they_are_decoded(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    checkpoint, sizes = save_checkpoint(native_px=(20, 16)), [(20, 16), (40, 30), (20, 16), (16, 20), (33, 90)] * 3
    for number, size in enumerate(sizes):
        save_photo(tmp_path / f"photos/{number:02}.png", seed=str(number), size=size)
    (tmp_path / "photos/02.png").write_bytes(b"broken")
    words = ["predict", str(checkpoint), str(tmp_path / "photos"), "--batch-size", "4", "--workers", str(workers)]
    assert unfreeze([*words, "--top-k", "3", "--out", str(tmp_path / "rows.csv")], monkeypatch) == 1
    classifier = load_classifier(checkpoint)
    other, expected = Frame.choose(None, Resize.of(classifier.preprocessing)), []
    for number, size in enumerate(sizes):
        image = photo(str(number), size)
        pixels = np.asarray(image) if size == (20, 16) else other.apply(image)
        sure = logits_of(classifier, torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]).softmax(dim=1)[0]
        named = [
            (str(tmp_path / f"photos/{number:02}.png"), name, float(sure[i]))
            for i, name in enumerate(classifier.classes)
        ]
        expected += [] if number == 2 else sorted(named, key=lambda row: -row[2])
    rows = rows_of(tmp_path / "rows.csv")
    assert [(path, label) for path, _, label, _ in rows] == [(path, label) for path, label, _ in expected]
    assert [int(rank) for _, rank, _, _ in rows] == [1, 2, 3] * 14
    np.testing.assert_allclose([float(row[3]) for row in rows], [row[2] for row in expected], rtol=1e-4)


def test_a_bad_file_is_named_and_the_rest_goes_on(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    save_photo(Path("a.png")), save_photo(Path("c.png"))
    Path("b\n.png").write_bytes(b"<html>")
    words = ["predict", str(save_checkpoint()), "a.png", "b\n.png", "c.png", "no.png", "--format", "csv"]
    assert unfreeze(words, monkeypatch) == 1
    out, err = capsys.readouterr()
    assert [line.split(",")[0] for line in out.splitlines()] == ["path", "a.png", "c.png"]
    assert sorted(err.splitlines()) == ["b\\x0a.png: a web page, not an image", "no.png: no such file"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no.png", "*.gif"], "predict: no images: no.png (no such file); *.gif (matches no file)"),
        (["-"], "predict: no images: nothing is listed on standard input"),
        (["a.png", "--format", "xml"], "--format: got 'xml', want one of table, csv, jsonl"),
        (["a.png", "--out", "no/rows.csv"], "--out: there is no folder 'no'; make it, or type another file"),
        (["a.png", "--device", "tpu"], "device: got 'tpu', want one of auto, cpu, cuda, mps"),
    ],
)
def test_invalid_options_are_refused_in_one_line(
    save_checkpoint: SaveCheckpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    tmp_path: Path,
    words: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=BytesIO(b"")))
    assert unfreeze(["predict", str(save_checkpoint()), *words], monkeypatch) == 2
    assert capsys.readouterr() == ("", f"error: {expected}\n")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("no/run", "no checkpoint 'no/run'; want a .ckpt file or the directory of a run that has one"),
        ("resnet19", "'resnet19': no run, no checkpoint, and as a model: model.name: no classifier 'resnet19'"),
        ("timm/resnet19", "'timm/resnet19': no run, no checkpoint, and as a model: model.name: no network 'resnet19'"),
        ("tiny", "the classes of tiny with its published head are not known"),
    ],
)
def test_an_unknown_model_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, model: str, expected: str
) -> None:
    assert unfreeze(["predict", model, "."], monkeypatch) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1


NAMES = ['a, "b".png', "new\nline.png", "caf\udce9.png", "naïve 猫.png", "\r.png", "=1+1.png"]


def test_file_names_are_written_unchanged(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        save_photo(tmp_path / "plain.png").rename(tmp_path / name)
    words = ["predict", str(save_checkpoint(("cat", 'a "fox", red'))), *NAMES, "--top-k", "2"]
    for form in ("csv", "jsonl", "table"):
        assert unfreeze([*words, "--out", f"rows.{form}"], monkeypatch) == 0
    rows = rows_of(tmp_path / "rows.csv")
    assert [path for path, *_ in rows] == [name for name in NAMES for _ in range(2)]
    assert {label for _, _, label, _ in rows} == {"cat", 'a "fox", red'}
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [list(line) for line in lines] == [HEADER] * 12
    assert [[line["path"], str(line["rank"]), line["class"]] for line in lines] == [row[:3] for row in rows]
    assert [np.float32(line["probability"]) for line in lines] == [np.float32(row[3]) for row in rows]
    table = (tmp_path / "rows.table").read_text().splitlines()
    assert len(table) == 1 + 12
    assert table[0].split() == HEADER
    assert "new\\x0aline.png" in table[3]
    assert table[1].startswith('a, "b".png ')


def test_probabilities_are_written_to_the_last_bit(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = save_checkpoint(tuple("abcdefgh"))
    save_photo(tmp_path / "a.png")
    loader = BatchLoader(load_classifier(checkpoint), device=torch.device("cpu"))
    (found,) = predict(loader, chunk_files([str(tmp_path / "a.png")], bands=3, size=64), top_k=99)
    words = ["predict", str(checkpoint), str(tmp_path / "a.png"), "--top-k", "99", "--out", str(tmp_path / "rows.csv")]
    assert unfreeze(words, monkeypatch) == 0
    written = np.array([row[3] for row in rows_of(tmp_path / "rows.csv")]).astype(np.float32)
    assert written.tolist() == [each.probability for each in found.predictions[0].classes]
    assert len(written) == 8


def test_labels_are_those_above_their_thresholds(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    labels = Outputs((TaskClasses("label", ("furry", "tame", "wet")),), multilabel=True)
    for name in ("a", "b"):
        save_photo(tmp_path / f"photos/{name}.png")
    request = ["predict", "net", str(tmp_path / "photos"), "--out", str(tmp_path / "rows.csv")]
    for thresholds, given in (([0.0, 1.1, 0.0], {"furry", "wet"}), ([1.1, 1.1, 1.1], {""})):
        request[1] = str(save_checkpoint(labels, thresholds=thresholds))
        assert unfreeze(request, monkeypatch) == 0
        rows = rows_of(tmp_path / "rows.csv")
        assert {label for _, _, label, _ in rows} == given
        assert len({path for path, *_ in rows}) == 2, "an image without a label has a row too"
    assert [row[1:] for row in rows] == [["0", "", ""]] * 2
    assert unfreeze([*request, "--top-k", "2"], monkeypatch) == 0
    assert [row[1] for row in rows_of(tmp_path / "rows.csv")] == ["1", "2"] * 2


def test_each_task_has_its_own_rows(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tasks = Outputs((TaskClasses("species", ("cat", "dog", "fox")), TaskClasses("sex", ("f", "m"))))
    save_photo(tmp_path / "a.png")
    words = ["predict", str(save_checkpoint(tasks)), str(tmp_path / "a.png"), "--out", str(tmp_path / "rows.csv")]
    assert unfreeze([*words, "--top-k", "3"], monkeypatch) == 0
    rows = rows_of(tmp_path / "rows.csv")
    assert [(row[1], row[2].partition(":")[0]) for row in rows] == [
        *((str(rank), "species") for rank in (1, 2, 3)),
        *((str(rank), "sex") for rank in (1, 2)),
    ]
    assert sum(float(row[3]) for row in rows) == pytest.approx(2)


def test_images_of_other_bands(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint, random = save_checkpoint(in_chans=5), np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        np.save(tmp_path / f"photos/{number}.npy", random.integers(0, 255, (20, 24, 5), dtype=np.uint8))
    np.save(tmp_path / "photos/few.npy", np.zeros((9, 9, 4), dtype=np.uint8))
    words = ["predict", str(checkpoint), str(tmp_path / "photos"), "--out", str(tmp_path / "rows.csv")]
    assert unfreeze(words, monkeypatch) == 1
    assert [Path(row[0]).name for row in rows_of(tmp_path / "rows.csv")] == ["0.npy", "1.npy", "2.npy"]


def test_colour_images_are_grey_for_a_network_of_one_channel(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_photo(tmp_path / "photos/a.png")
    Image.open(tmp_path / "photos/a.png").convert("L").save(tmp_path / "photos/b.png")
    words = ["predict", str(save_checkpoint(in_chans=1)), str(tmp_path / "photos"), "--out", str(tmp_path / "rows.csv")]
    assert unfreeze(words, monkeypatch) == 0
    first, second = rows_of(tmp_path / "rows.csv")
    assert first[2] == second[2]
    assert float(first[3]) == pytest.approx(float(second[3]), rel=0.05)


def test_a_list_on_standard_input(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    paths = [str(save_photo(tmp_path / f"{name}.png")) for name in ("b", "a")]
    for end, words in (("\n", []), ("\0", ["-0"])):
        listed = SimpleNamespace(buffer=BytesIO(end.join(paths).encode()))
        monkeypatch.setattr(sys, "stdin", listed)
        assert unfreeze(["predict", str(save_checkpoint()), "-", "--format", "jsonl", *words], monkeypatch) == 0
        assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == paths


@pytest.mark.parametrize("workers", [0, 2])
def test_read_ahead_is_bounded_by_the_workers(save_checkpoint: SaveCheckpoint, tmp_path: Path, workers: int) -> None:
    path, read = str(save_photo(tmp_path / "a.png")), 0

    def endless() -> Iterator[ImageChunk]:
        nonlocal read
        while True:
            read += 1
            yield from chunk_files([path], bands=3, size=1)

    loader = BatchLoader(load_classifier(save_checkpoint()), device=torch.device("cpu"), batch_size=1, workers=workers)
    batches = predict(loader, endless())
    for done in range(1, 20):
        next(batches)
        assert read <= done + 3 + 2 * workers
    batches.close()


def test_rows_are_written_per_batch_and_a_file_when_complete(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = [str(save_photo(tmp_path / f"{number}.png")) for number in range(3)]
    loader = BatchLoader(load_classifier(save_checkpoint()), device=torch.device("cpu"), batch_size=1, workers=0)
    from unfreeze.inference.writers import write_predictions

    class Flushed(BytesIO):
        seen: list[int] = []  # noqa: RUF012

        def flush(self) -> None:
            self.seen.append(self.getvalue().count(b"\n"))

    stream = Flushed()
    write_predictions(predict(loader, chunk_files(paths, bands=3, size=1)), stream, form="csv", classes=("cat",))
    assert stream.seen[:3] == [2, 3, 4]
    monkeypatch.setattr("unfreeze.inference.predict_files.write_predictions", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        unfreeze(["predict", str(save_checkpoint()), *paths, "--out", str(tmp_path / "rows.csv")], monkeypatch)
    assert not [file.name for file in tmp_path.iterdir() if "rows" in file.name]


def test_a_published_network_predicts_its_own_classes(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    from torchvision import models as tv

    weights = tv.ShuffleNet_V2_X0_5_Weights.DEFAULT
    place = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    place.parent.mkdir(parents=True)
    state = tv.shufflenet_v2_x0_5(weights=None).state_dict()
    state["fc.weight"] *= 0
    state["fc.bias"] = torch.arange(1000).roll(4).float()
    torch.save(state, place)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    words = ["predict", "shufflenet_v2_x0_5", str(save_photo(tmp_path / "a.png")), "--top-k", "2", "--format", "csv"]
    assert unfreeze(words, monkeypatch) == 0
    names = weights.meta["categories"]
    assert [row.split(",")[2] for row in capsys.readouterr().out.splitlines()] == ["class", names[3], names[2]]


def test_a_closed_pipe_ends_it_without_an_error(save_checkpoint: SaveCheckpoint, tmp_path: Path) -> None:
    paths = [str(save_photo(tmp_path / f"{number}.png")) for number in range(40)]
    command = [
        str(Path(sys.executable).with_name("unfreeze")),
        "predict",
        str(save_checkpoint()),
        *paths,
        "--batch-size",
        "1",
    ]
    process = subprocess.Popen([*command, "--workers", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert errors == b""
    assert process.wait() in (0, 1)


def test_repositories_are_trusted_by_a_flag(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    checkpoint = save_checkpoint()
    content = torch.load(checkpoint)
    content["unfreeze"]["classifier"]["model"] |= {"source": "hub", "repo": "nets"}
    torch.save(content, checkpoint)
    assert unfreeze(["predict", str(checkpoint), "."], monkeypatch) == 2
    assert "whose code would run; if you trust it, type --trust-repo" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["", "timm/"])
def test_weights_from_a_file_are_those_of_the_head_too(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    network = torchvision.models.resnet18(num_classes=1000)
    if source:
        network = pytest.importorskip("timm", reason="timm is not installed").create_model("resnet18")
    torch.nn.init.zeros_(network.fc.weight)
    torch.nn.init.constant_(network.fc.bias, 0.0)
    network.fc.bias.data[7] = 9.0
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    save_photo(tmp_path / "photo.png", size=(40, 30))
    words = ["predict", f"{source}resnet18", str(tmp_path / "photo.png"), "--weights", str(tmp_path / "resnet18.pth")]
    assert unfreeze([*words, "--format", "csv"], monkeypatch) == 0
    (row,) = csv.DictReader(capsysbinary.readouterr().out.decode().splitlines())
    assert row["class"].startswith("cock")
    assert float(row["probability"]) == pytest.approx(float(np.exp(9) / (np.exp(9) + 999)), rel=1e-4)


def test_weights_that_can_not_be_used_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "run").mkdir()
    torch.save(torchvision.models.resnet18(num_classes=5).state_dict(), tmp_path / "five.pth")
    five, gone = str(tmp_path / "five.pth"), str(tmp_path / "gone.pth")
    for model, file, expected in (
        ("resnet18", gone, "error: --weights: no file"),
        (str(tmp_path / "run"), five, "error: --weights: only for the name of a network"),
        ("resnet18", five, f"error: --weights: {five} has another head than the published one"),
        ("mobilenet_v2", five, f"error: --weights: {five} does not fit the backbone"),
    ):
        assert unfreeze(["predict", model, "photo.png", "--weights", file], monkeypatch) == 2
        assert capsys.readouterr().err.startswith(expected)
