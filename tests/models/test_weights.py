"""Weights from names, files, and a local server in place of torchvision's."""

import pickle
import socket
import threading
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import ShuffleNet_V2_X0_5_Weights

from unfreeze.assets import TINY_WEIGHTS
from unfreeze.errors import UnfreezeError
from unfreeze.models.architecture import find_architecture
from unfreeze.models.classifier import build_classifier
from unfreeze.models.weight_names import find_weights
from unfreeze.models.weights import load_backbone, read_file

SHUFFLENET = find_architecture("shufflenet_v2_x0_5")
MEMBER = ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1


@pytest.fixture(scope="module")
def stock() -> Mapping[str, Tensor]:
    """Weights of a ShuffleNet with its 1,000 classes, as torchvision would publish them."""
    torch.manual_seed(1)
    return SHUFFLENET.build().state_dict()


def read(path: Path) -> dict[str, Tensor]:
    return read_file(path, wanted=SHUFFLENET.skeleton().state_dict())


def find(model: str, given: str) -> str | Path:
    architecture = find_architecture(model)
    return find_weights(given, names=architecture.weight_names, title=architecture.name)


def download() -> nn.Module:
    return SHUFFLENET.pretrained(MEMBER.name)[0]


def first_kernel(network: nn.Module) -> Tensor:
    return network.get_parameter("conv1.0.weight").detach()


class TestNames:
    def test_default_is_the_best_of_torchvision(self) -> None:
        assert find("resnet50", "DEFAULT") == "IMAGENET1K_V2"

    def test_an_enum_name_is_that_member(self) -> None:
        assert find("resnet50", "IMAGENET1K_V1") == "IMAGENET1K_V1"

    def test_null_is_always_right(self) -> None:
        SHUFFLENET.check_weights(None)

    def test_tiny_brings_its_own(self) -> None:
        network, report = find_architecture("tiny").pretrained("DEFAULT")
        assert torch.equal(first_kernel(network), load_file(TINY_WEIGHTS)["conv1.0.weight"].float())
        assert report.old_head == report.unexpected == ()

    def test_a_file_is_its_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "mine.pth"
        file.touch()
        monkeypatch.setenv("HOME", str(tmp_path))
        assert find("tiny", str(file)) == file
        assert find("tiny", "~/mine.pth") == file

    @pytest.mark.parametrize(
        ("model", "given", "message"),
        [
            ("resnet50", "IMAGENET1K_V3", ["resnet50 has no 'IMAGENET1K_V3'", "IMAGENET1K_V2", "DEFAULT", "a file"]),
            ("resnet50", "default", ["resnet50 has no 'default'", "DEFAULT"]),
            ("tiny", "IMAGENET1K_V1", ["tiny has no 'IMAGENET1K_V1'", "want DEFAULT, a file, or null"]),
            ("resnet50", "weights/none.pth", ["no file 'weights/none.pth'", ".safetensors"]),
            ("resnet50", "none.safetensors", ["no file 'none.safetensors'"]),
            ("resnet50", "some/folder", ["no file 'some/folder'"]),
        ],
    )
    def test_what_is_neither_name_nor_file_is_refused(self, model: str, given: str, message: list[str]) -> None:
        with pytest.raises(UnfreezeError) as refusal:
            find_architecture(model).check_weights(given)
        assert str(refusal.value).startswith("model.weights: ")
        assert all(part in str(refusal.value) for part in message)

    @pytest.mark.parametrize(
        ("given", "near"),
        [("resnet5", "resnet50"), ("ResNet18", "resnet18"), ("mobilenetv2", "mobilenet_v2"), ("vit_b16", "vit_b_16")],
    )
    def test_an_unknown_model_is_refused_with_the_nearest_names(self, given: str, near: str) -> None:
        with pytest.raises(UnfreezeError, match=f"no classifier '{given}' in torchvision; near: .*{near}"):
            find_architecture(given)


class TestFiles:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_a_file_gives_back_what_was_saved(self, stock: Mapping[str, Tensor], tmp_path: Path, suffix: str) -> None:
        file = tmp_path / f"weights{suffix}"
        save_file(dict(stock), file) if suffix == ".safetensors" else torch.save(stock, file)
        state = read(file)
        assert state.keys() == stock.keys()
        assert all(torch.equal(state[key], stock[key]) for key in stock)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_floating_point_becomes_float32_and_counters_stay(
        self, stock: Mapping[str, Tensor], tmp_path: Path, dtype: torch.dtype
    ) -> None:
        other = {key: value.to(dtype) if value.is_floating_point() else value for key, value in stock.items()}
        torch.save(other, tmp_path / "other.pth")
        state = read(tmp_path / "other.pth")
        assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
        key = "conv1.0.weight"
        assert torch.equal(state[key], stock[key].to(dtype).float())

    @pytest.mark.parametrize(
        "prefix",
        [
            *("module.", "_orig_mod.", "network.", "model.", "network._orig_mod.", "model.module."),
            *("backbone.", "encoder.net.", "module.model.network."),
        ],
    )
    @pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "model_state_dict"])
    def test_what_wraps_a_network_is_taken_off(
        self, stock: Mapping[str, Tensor], tmp_path: Path, prefix: str, wrap: str
    ) -> None:
        prefixed = OrderedDict((f"{prefix}{key}", value) for key, value in stock.items())
        content: Any = prefixed if wrap == "plain" else {wrap: prefixed, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
        torch.save(content, tmp_path / "run.ckpt")
        assert read(tmp_path / "run.ckpt").keys() == stock.keys()

    def test_the_network_inside_is_read_and_not_what_stands_beside_it(self, tmp_path: Path) -> None:
        mixed = {"enc.a.weight": torch.zeros(2), "enc.b.weight": torch.zeros(2), "a.weight": torch.ones(2)}
        torch.save(mixed, tmp_path / "mixed.pth")
        state = read_file(tmp_path / "mixed.pth", wanted=["a.weight", "b.weight"])
        assert not state["a.weight"].any()

    def test_of_a_checkpoint_of_timms_script_the_average_is_read(
        self, stock: Mapping[str, Tensor], tmp_path: Path
    ) -> None:
        raw = {key: torch.zeros_like(value) for key, value in stock.items()}
        content = {"state_dict": raw, "state_dict_ema": dict(stock), "args": Namespace(lr=0.1, model="resnet18")}
        torch.save(content, tmp_path / "last.pth.tar")
        assert torch.equal(read(tmp_path / "last.pth.tar")["fc.weight"], stock["fc.weight"])

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("page.pth", b"<!DOCTYPE html><html>404</html>", "it is a web page"),
            ("empty.pth", b"", "it is an empty file"),
            ("pointer.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "it is a pointer of Git LFS"),
            ("short.pth", b"PK\x03\x04", "it is incomplete: its end is missing"),
            ("junk.pth", b"hello", "it is not a file of torch.save, or incomplete"),
            ("junk.ckpt", b"\x80\x02}q\x00.", ""),
            ("page.safetensors", b"\n<html>404</html>", "it is a web page"),
            ("empty.safetensors", b"", "it is an empty file"),
        ],
    )
    def test_what_is_no_weights_file_is_refused_in_a_line(
        self, tmp_path: Path, name: str, content: bytes, message: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnfreezeError, match=rf"can't be read as weights \({message}") as refusal:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert "weights_only" not in str(refusal.value), "which would let it run"

    @pytest.mark.parametrize(
        "content", [[torch.ones(1)], {"epoch": 3}, {"state_dict": {}}, torch.ones(3), {0: torch.ones(1)}]
    )
    def test_what_holds_no_state_dict_is_refused(self, tmp_path: Path, content: Any) -> None:
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(UnfreezeError, match="not a state_dict"):
            read(tmp_path / "odd.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float, suffix: str) -> None:
    state = {"conv1.0.weight": torch.ones(4), "fc.bias": torch.tensor([0.0, value])}
    file = tmp_path / f"diverged{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    message = (
        r"diverged\.\w+ has NaN or infinite values in 1 of 2 entries, such as fc\.bias; want weights of a training"
    )
    with pytest.raises(UnfreezeError, match=message):
        read(file)


class Malicious:
    """Unpickled the ordinary way, it makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.trace,)


class TestMalice:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(self, tmp_path: Path, zipped: bool) -> None:
        trace, file = tmp_path / "owned", tmp_path / "evil.pth"
        torch.save({"conv1.0.weight": Malicious(trace)}, file, _use_new_zipfile_serialization=zipped)
        with pytest.raises(UnfreezeError, match="which runs no code when loaded"):
            read(file)
        assert not trace.exists()

    def test_a_bare_pickle_is_refused_and_nothing_runs(self, tmp_path: Path) -> None:
        trace, file = tmp_path / "owned", tmp_path / "evil.pth"
        file.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
        with pytest.raises(UnfreezeError, match="can't be read as weights"):
            read(file)
        assert not trace.exists()

    def test_a_file_planted_where_downloads_are_kept_runs_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trace = tmp_path / "owned"
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        planted = tmp_path / "hub" / "checkpoints" / Path(MEMBER.url).name
        planted.parent.mkdir(parents=True)
        torch.save({"conv1.0.weight": Malicious(trace)}, planted)
        with pytest.raises(UnfreezeError, match=r"delete .* and try again"):
            download()
        assert not trace.exists()


class TestLoading:
    def test_the_backbone_is_loaded_and_the_old_head_left(self, stock: Mapping[str, Tensor]) -> None:
        network = SHUFFLENET.build()
        old_head = network.get_parameter("fc.weight").detach().clone()
        report = load_backbone(network, stock, heads=["fc"], source="here")
        assert report.matched == len(stock) - 2
        assert report.old_head == ("fc.weight", "fc.bias")
        assert report.unexpected == ()
        assert torch.equal(first_kernel(network), stock["conv1.0.weight"])
        assert torch.equal(network.get_buffer("conv1.1.running_mean"), stock["conv1.1.running_mean"])
        assert torch.equal(network.get_parameter("fc.weight"), old_head)

    def test_what_has_no_place_is_reported(self, stock: Mapping[str, Tensor]) -> None:
        state = {**stock, "ema.decay": torch.ones(1), "AuxLogits.fc.weight": torch.ones(1)}
        report = load_backbone(SHUFFLENET.build(), state, heads=["fc"], source="here")
        assert report.unexpected == ("ema.decay",)

    def test_a_file_without_a_head_or_counters_will_do(self, stock: Mapping[str, Tensor]) -> None:
        state = {key: value for key, value in stock.items() if not key.endswith(("num_batches_tracked", "fc.bias"))}
        report = load_backbone(SHUFFLENET.build(), state, heads=["fc"], source="here")
        assert report.matched == len([key for key in state if not key.startswith("fc.")])

    def test_other_shapes_are_refused_with_the_first_keys_and_both_shapes(self) -> None:
        wider = find_architecture("shufflenet_v2_x1_0").build().state_dict()
        network = SHUFFLENET.build()
        before = first_kernel(network).clone()
        with pytest.raises(UnfreezeError) as refusal:
            load_backbone(network, wider, heads=["fc"], source="wide.pth")
        message = str(refusal.value)
        assert message.startswith("model.weights: wide.pth does not fit the backbone (")
        assert "stage2.0.branch1.2.weight is (58, 24, 1, 1), want (24, 24, 1, 1)" in message
        assert "Type the model.name that it was saved from" in message
        assert torch.equal(first_kernel(network), before)

    def test_missing_keys_are_refused_by_name(self, stock: Mapping[str, Tensor]) -> None:
        state = {key: value for key, value in stock.items() if not key.startswith("conv1.")}
        with pytest.raises(UnfreezeError, match=r"5 of \d+ entries are missing\): conv1.0.weight is missing; conv1.1"):
            load_backbone(SHUFFLENET.build(), state, heads=["fc"], source="part.pth")

    def test_weights_of_another_family_are_refused(self, tmp_path: Path) -> None:
        torch.save(find_architecture("squeezenet1_1").build().state_dict(), tmp_path / "squeeze.pth")
        with pytest.raises(UnfreezeError, match=r"squeeze.pth does not fit the backbone"):
            build_classifier("shufflenet_v2_x0_5", classes=("a", "b"), weights=str(tmp_path / "squeeze.pth"))

    @pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
    def test_auxiliary_heads_of_published_weights_are_nothing_to_tell(self, name: str) -> None:
        from torchvision import models

        published = models.get_model(name, weights=None, init_weights=False).state_dict()
        assert any(key.startswith(("aux1.", "AuxLogits.")) for key in published)
        network = find_architecture(name).build()
        assert load_backbone(network, published, heads=["fc"], source="here").unexpected == ()


class Recorder(SimpleHTTPRequestHandler):
    """A quiet server of one folder that remembers what was asked for."""

    asked: list[str]

    def __init__(self, *args: Any, asked: list[str], **kwargs: Any) -> None:
        self.asked = asked
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


class Host:
    """A stand-in for download.pytorch.org on the loopback interface."""

    def __init__(self, folder: Path, port: int, asked: list[str]) -> None:
        self.folder, self.port, self.asked = folder, port, asked

    def publish(self, state: Mapping[str, Tensor], *, corrupted: bool = False) -> str:
        """Put weights up under the name that their hash gives, as torchvision does."""
        temporary = self.folder / "new.pth"
        torch.save(OrderedDict(state), temporary)
        content = temporary.read_bytes()
        name = f"shufflenet-{sha256(content).hexdigest()[:8]}.pth"
        (self.folder / name).write_bytes(content[:-9] + b"corrupted" if corrupted else content)
        return f"http://127.0.0.1:{self.port}/{name}"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A running server, and an empty folder where torch.hub keeps its downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "www"
    folder.mkdir()
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Recorder, directory=str(folder), asked=asked))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Host(folder, server.server_port, asked)
    server.shutdown()
    thread.join()
    server.server_close()


def kept(tmp_path: Path) -> list[str]:
    return [file.name for file in (tmp_path / "torch home" / "hub" / "checkpoints").iterdir()]


@pytest.mark.filterwarnings("error")
class TestDownload:
    def test_weights_are_fetched_once_and_loaded(
        self, host: Host, stock: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MEMBER.value, "url", host.publish(stock))
        for _ in range(2):
            classifier = build_classifier("shufflenet_v2_x0_5", classes=("cat", "dog"), weights="DEFAULT")
            assert torch.equal(first_kernel(classifier.network), stock["conv1.0.weight"])
        assert classifier.report is not None
        assert classifier.report.old_head == ("fc.weight", "fc.bias")
        assert [f"/{name}" for name in kept(tmp_path)] == host.asked == ["/" + Path(MEMBER.url).name]

    def test_a_file_with_another_hash_is_refused_and_not_kept(
        self, host: Host, stock: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MEMBER.value, "url", host.publish(stock, corrupted=True))
        with pytest.raises(UnfreezeError, match="invalid hash value") as refusal:
            download()
        assert MEMBER.url in str(refusal.value)
        assert "try again" in str(refusal.value)
        assert kept(tmp_path) == []

    def test_a_broken_file_among_the_downloads_is_refused_by_its_path(
        self, host: Host, stock: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MEMBER.value, "url", host.publish(stock))
        broken = tmp_path / "torch home" / "hub" / "checkpoints" / Path(MEMBER.url).name
        broken.parent.mkdir(parents=True)
        for content in (b"<html>proxy error</html>", b"", (host.folder / broken.name).read_bytes()[:5000]):
            broken.write_bytes(content)
            with pytest.raises(UnfreezeError) as refusal:
                download()
            assert f"delete {broken}" in str(refusal.value)

    def test_a_file_that_is_not_there_is_said_to_be_missing(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(MEMBER.value, "url", f"http://127.0.0.1:{host.port}/gone-12345678.pth")
        with pytest.raises(
            UnfreezeError, match=r"could not be downloaded from http://127.0.0.1:.*gone.*File not found"
        ):
            download()

    def test_offline_one_line_says_where_from_where_to_and_what_to_type(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            monkeypatch.setattr(MEMBER.value, "url", f"http://127.0.0.1:{closed.getsockname()[1]}/net-12345678.pth")
            with pytest.raises(UnfreezeError) as refusal:
                build_classifier("shufflenet_v2_x0_5", classes=("cat", "dog"), weights="IMAGENET1K_V1")
        message = str(refusal.value)
        assert message.startswith("model.weights: ")
        assert f"could not be downloaded from {MEMBER.url} (" in message
        assert f"Put the file at {tmp_path / 'hub' / 'checkpoints' / 'net-12345678.pth'}" in message
        assert "model.weights=path/to/file.pth" in message
        assert "model.weights=null" in message
        assert "\n" not in message

    def test_what_was_put_where_the_message_said_is_used_offline(
        self, stock: Mapping[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        place = tmp_path / "hub" / "checkpoints" / Path(MEMBER.url).name
        place.parent.mkdir(parents=True)
        torch.save(stock, place)
        assert torch.equal(first_kernel(download()), stock["conv1.0.weight"])
