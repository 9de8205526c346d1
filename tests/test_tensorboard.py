"""A TensorBoard server says of a sweep's runs what their results say."""

import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.composing import composed_values
from tests.launch import train
from tests.test_reports import REQUEST, photos
from unfreeze.config.schema import parse_config
from unfreeze.runs.loggers import hyperparameters

__all__ = ["photos"]

RATES = ("1e-6", "1e-2")


@pytest.fixture(scope="module")
def sweep(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    short = [each for each in REQUEST if not each.startswith("strategy.")]
    short += ["strategy.stages=[{name: head, train: 1, epochs: 2}]", f"strategy.lr.head={','.join(RATES)}"]
    done = train(["-m", *short, f"data.root={photos}", "hydra.sweep.dir=sweep"], folder)
    assert done.code == 0, done.err
    return folder / "sweep"


class Server:
    """A TensorBoard server on loopback."""

    def __init__(self, logdir: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self._port), "--load_fast", "false"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path: str, body: Any = None, **query: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/data/{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait(self, runs: int) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                if len(self.ask("runs")) >= runs:
                    return
            except OSError:
                pass
            assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server has not found the runs"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def server(sweep: Path) -> Iterator[Server]:
    running = Server(sweep)
    try:
        running.wait(len(RATES))
        yield running
    finally:
        running.process.terminate()
        running.process.wait(30)


def results(sweep: Path) -> dict[str, Any]:
    return {
        f"{number}/tensorboard": json.loads((sweep / str(number) / "result.json").read_text())
        for number in range(len(RATES))
    }


def test_the_server_has_the_scalars_of_each_run(server: Server, sweep: Path) -> None:
    tags = server.ask("plugin/scalars/tags")
    for run, result in results(sweep).items():
        assert {"val/acc", "train/loss", "lr/head", "stage/index", "train/images_per_second"} <= set(tags[run])
        points = server.ask("plugin/scalars/scalars", run=run, tag="val/acc")
        assert max(value for _, _, value in points) == pytest.approx(result["val"]["acc"])
        *_, (_, _, final) = server.ask("plugin/scalars/scalars", run=run, tag="final/test_acc")
        assert final == pytest.approx(result["test"]["acc"])


def test_hparams_compare_the_runs_by_their_final_figures(server: Server, sweep: Path) -> None:
    metrics = [{"group": "", "tag": f"final/{split}_acc"} for split in ("val", "test")]
    asked = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [{"metric": metric, "order": "ORDER_UNSPECIFIED"} for metric in metrics],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = server.ask("plugin/hparams/session_groups", asked)["sessionGroups"]
    assert sorted(group["hparams"]["lr_head"] for group in groups) == [1e-6, 1e-2]
    told = {
        round(group["hparams"]["lr_head"], 7): {each["name"]["tag"]: each["value"] for each in group["metricValues"]}
        for group in groups
    }
    for rate, result in zip(RATES, results(sweep).values(), strict=True):
        for split in ("val", "test"):
            assert told[float(rate)][f"final/{split}_acc"] == pytest.approx(result[split]["acc"])


def test_hyperparameters_are_the_main_choices_and_what_was_typed() -> None:
    typed = [
        *(
            "data=digits",
            "model=tiny",
            "strategy.stages=[{name: a, train: 1, epochs: 2}, {name: b, train: all, epochs: 3}]",
        ),
        *("optimizer.weight_decay=0.1", "augment=strong", "hydra.run.dir=/runs/a", "report=false", "seed=7"),
    ]
    told = hyperparameters(parse_config(composed_values(*typed)), typed)
    assert told == {
        "data": "digits",
        "model": "tiny",
        "strategy": "a 2, b 3",
        "lr_head": 0.001,
        "batch_size": 64,
        "seed": 7,
        "optimizer.weight_decay": 0.1,
        "augment": "strong",
    }


def test_curves_are_grouped(server: Server) -> None:
    layout = server.ask("plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == ["training", "stages"]
    titles = {chart["title"] for category in layout["category"] for chart in category["chart"]}
    assert titles >= {"accuracy", "loss", "rates", "stage", "images per second"}
