"""What `trainer.precision=auto` comes to: typed, saved, handed on to ranks, known of the machine, or probed once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.composing import composed
from tests.launch import train
from tests.training.conftest import make_classifier
from unfreeze.config.schema import Config
from unfreeze.errors import UnfreezeError
from unfreeze.models.outputs import Outputs
from unfreeze.runs.build import precision as compute
from unfreeze.runs.build.data import resolve, trainer_arguments
from unfreeze.runs.fit import check_values
from unfreeze.training.precision import speed_probe
from unfreeze.training.precision.precision import BASELINE, CANDIDATES, Verdict
from unfreeze.training.precision.speed_probe import Speeds

CPU = torch.device("cpu")
BF16 = Verdict(precision="bf16-mixed", channels_last=False, speed={"fp32 channels_last": 1.0}, machine="elsewhere")


def config_of(cache: Path, *typed: str) -> Config:
    overrides = ["data=digits", "model=tiny", "model.weights=null", f"cache.dir={cache}", *typed]
    return check_values(composed(*overrides), overrides)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what probes are asked for; they find bf16 to be twice as fast."""
    asked: list[dict[str, Any]] = []

    def probe(classifier: object, **options: Any) -> Speeds:
        asked.append(options)
        return Speeds({BASELINE: 1.0, CANDIDATES[1]: 2.0}, options["batch_size"])

    monkeypatch.setattr(speed_probe, "probe_speed", probe)
    for name in ("LOCAL_RANK", "SLURM_NTASKS", "UNFREEZE_COMPUTE"):
        monkeypatch.delenv(name, raising=False)
    return asked


def settle(config: Config, *, batch_size: int = 64, device: torch.device = CPU) -> Verdict:
    return compute.settle_compute(
        config,
        plan=resolve(config, Outputs.of(list("0123456789"))),
        classifier=make_classifier(10),
        batch_size=batch_size,
        device=device,
    )


def test_auto_is_probed_once_for_the_largest_stage_and_known_to_later_runs(
    probes: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = config_of(tmp_path, "strategy=gradual")
    verdict = settle(config)
    assert (verdict.precision, verdict.channels_last, verdict.batch_size) == ("bf16-mixed", True, 64)
    assert verdict.torch == torch.__version__
    assert settle(config) == verdict
    assert len(probes) == 1
    assert len(probes[0]["live"]) == 3
    settle(config, batch_size=32)
    settle(config_of(tmp_path, "strategy=finetune"))
    assert len(probes) == 3


@pytest.mark.parametrize(
    ("typed", "precision"),
    [("32", "32-true"), ("32-true", "32-true"), ("16-mixed", "16-mixed"), ("bf16-mixed", "bf16-mixed")],
)
def test_what_was_typed_holds_and_is_not_probed(
    typed: str, precision: str, probes: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = config_of(tmp_path, f"trainer.precision={typed}")
    verdict = settle(config)
    assert verdict == Verdict(precision=precision)
    assert trainer_arguments(compute.with_verdict(config, verdict))["precision"] == precision
    assert not probes


def test_a_resumed_run_takes_the_verdict_that_was_saved(probes: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "compute.json").write_text(json.dumps(BF16.to_dict()))
    assert settle(config_of(tmp_path, f"resume={tmp_path}")) == BF16
    assert not probes
    typed = settle(config_of(tmp_path, f"resume={tmp_path}", "trainer.precision=32"))
    assert (typed.precision, typed.channels_last) == ("32-true", False)


@pytest.mark.parametrize("content", ["", "[]", '{"precision": "bf16-mixed"}'])
def test_a_saved_verdict_that_is_damaged_is_probed_anew(
    content: str, probes: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "compute.json").write_text(content)
    settle(config_of(tmp_path, f"resume={tmp_path}"))
    assert len(probes) == 1


def test_ranks_take_the_first_process_s_verdict(
    probes: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_COMPUTE", "")
    compute.bequeath(BF16)
    assert settle(config_of(tmp_path)) != BF16  # the first process is no rank of an earlier run
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert settle(config_of(tmp_path, "trainer=ddp")) == BF16
    assert len(probes) == 1


@pytest.mark.parametrize(
    ("typed", "environment"),
    [([], {"LOCAL_RANK": "0"}), ([], {"SLURM_NTASKS": "4"}), (["trainer.num_nodes=2"], {})],
    ids=["torchrun", "Slurm", "several nodes"],
)
def test_ranks_that_can_not_hear_from_each_other_do_not_probe(
    typed: list[str],
    environment: dict[str, str],
    probes: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    verdict = settle(config_of(tmp_path, *typed))
    assert (verdict.precision, verdict.channels_last) == ("32-true", True)
    assert "type trainer.precision=bf16-mixed" in str(verdict)
    assert not probes


def test_what_is_neither_a_cpu_nor_cuda_is_not_probed(probes: list[dict[str, Any]], tmp_path: Path) -> None:
    assert settle(config_of(tmp_path), device=torch.device("mps")).precision == "32-true"
    assert not probes


def test_lightning_is_never_asked_for_auto(tmp_path: Path) -> None:
    arguments = trainer_arguments(config_of(tmp_path))
    assert arguments["precision"] == "32-true"
    assert not {"compile", "tf32"} & arguments.keys()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("trainer.precision=64", "trainer.precision: got 64, want one of auto, 32, 32-true, 16-mixed, bf16-mixed"),
        ("trainer.compile=1", "trainer.compile: got 1, want true or false"),
        ("trainer.compile=null", "trainer.compile: got None, want true or false"),
        ("trainer.tf32=high", "trainer.tf32: got 'high', want true, null or false"),
    ],
)
def test_other_values_are_refused(typed: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError) as refused:
        config_of(tmp_path, typed)
    assert str(refused.value) == told


def test_a_run_saves_its_verdict_and_a_resumed_one_is_held_to_it(tmp_path: Path) -> None:
    """In the other precision from the file: the run, killed before its first checkpoint, was asked for `auto`."""
    request = ["data=digits", "data.fraction=0.05", "data.image_size=32", "model=tiny", "model.weights=null"]
    request += ["strategy=feature_extraction", "trainer.max_epochs=2", "trainer.accelerator=cpu", "cache.dir=cache"]
    kill = ["+callbacks.kill._target_=tests.killing.KillAt", "+callbacks.kill.step=1"]
    train([*request, *kill, "hydra.run.dir=run"], tmp_path)
    file = tmp_path / "run" / "compute.json"
    saved = Verdict.from_dict(json.loads(file.read_text()))
    probes = json.loads((tmp_path / "cache" / "probes.json").read_text())["verdicts"]
    assert [Verdict.from_dict(verdict) for verdict in probes.values()] == [saved]
    (tmp_path / "cache" / "probes.json").unlink()
    other = "32-true" if saved.precision == "bf16-mixed" else "bf16-mixed"
    file.write_text(json.dumps({**saved.to_dict(), "precision": other}))
    resumed = train(["resume=run", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    assert f"1 x cpu · {other} · " in resumed.out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["compute"]["precision"] == other
    assert not (tmp_path / "cache" / "probes.json").exists()
