"""What `trainer.precision=auto` comes to in a run: typed, saved with the run, known of this machine, or probed."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfreeze.runs.build.data import cache_folder
from unfreeze.config.schema import Config
from unfreeze.system.ranks import is_launched_externally, is_rank
from unfreeze.training.precision.precision import AUTO, FLOAT32, Verdict, choose

if TYPE_CHECKING:
    import torch

    from unfreeze.models.classifier import Classifier
    from unfreeze.training.plan.plan import Plan

log = logging.getLogger("unfreeze.runs.build.precision")

COMPUTE_FILE = "compute.json"
_INHERITED = "UNFREEZE_COMPUTE"
"""Holds the first process's verdict for the ranks that Lightning starts from it."""


def settle_compute(
    config: Config,
    *,
    plan: "Plan",
    classifier: "Classifier",
    batch_size: int,
    device: "torch.device",
) -> Verdict:
    """Return how a run computes; all ranks of a run get the same.

    Args:
        config: Checked values.
        plan: Its largest stage is what a probe measures.
        classifier: With its weights, which a probe leaves alone.
        batch_size: Images per step and device.
        device: Where this process trains.
    """
    saved = inherited_verdict() or (read_verdict(Path(config.resume)) if config.resume else None)
    asked = str(config.trainer.get("precision") or FLOAT32)
    if asked != AUTO:
        precision = FLOAT32 if asked == "32" else asked
        return Verdict(precision=precision, channels_last=saved is None or saved.channels_last)
    if saved is not None:
        return saved
    if _ranks_start_apart(config):
        return Verdict(note="no probe, since each rank is started by itself; type trainer.precision=bf16-mixed")
    if device.type not in ("cpu", "cuda"):
        return Verdict(note=f"no probe on {device.type}")
    return _measured(config, plan, classifier, batch_size, device)


def with_verdict(config: Config, verdict: Verdict) -> Config:
    """Return a configuration that asks for what was settled."""
    return config.model_copy(update={"trainer": {**config.trainer, "precision": verdict.precision}})


def allow_tf32(config: Config, device: "torch.device") -> None:
    """Let an NVIDIA GPU round the factors of float32 products to TF32, or not, as `trainer.tf32` has it.

    Args:
        config: With the precision that was settled; null is yes for matrix products where that is mixed. Convolutions
            are rounded by PyTorch itself unless `trainer.tf32` is false.
        device: Where this process trains; nothing is changed for others than CUDA devices.
    """
    if device.type != "cuda":
        return
    import torch

    asked = config.trainer.get("tf32")
    products = "mixed" in str(config.trainer.get("precision")) if asked is None else asked
    torch.set_float32_matmul_precision("high" if products else "highest")
    torch.backends.cudnn.allow_tf32 = asked is not False


def read_verdict(run_dir: Path) -> Verdict | None:
    """Return the verdict that was saved with a run; None where there is none."""
    try:
        return Verdict.from_dict(json.loads((run_dir / COMPUTE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def inherited_verdict() -> Verdict | None:
    """Return the verdict of the process that has started this one as a rank; None where none has."""
    try:
        return Verdict.from_dict(json.loads(os.environ[_INHERITED])) if is_rank() else None
    except (KeyError, ValueError):
        return None


def bequeath(verdict: Verdict) -> None:
    """Let the ranks that Lightning starts from this process compute as it does."""
    os.environ[_INHERITED] = json.dumps(verdict.to_dict())


def _ranks_start_apart(config: Config) -> bool:
    """Return whether ranks start without a first process to hear from: torchrun, Slurm, several nodes."""
    return is_rank() or is_launched_externally() or config.trainer.get("num_nodes", 1) not in (1, None)


def _unmeasured(device: "torch.device") -> str:
    from unfreeze.training.precision.speed_probe import has_bfloat16

    return "no step ended within the probe" if has_bfloat16(device) else "this device has no bf16"


def _measured(
    config: Config, plan: "Plan", classifier: "Classifier", batch_size: int, device: "torch.device"
) -> Verdict:
    """Return what a probe says, this run's or an earlier one's."""
    import torch

    from unfreeze.training.precision.probe_file import ProbeFile, describe_machine, probe_key
    from unfreeze.training.precision.speed_probe import probe_speed

    live = plan.stages[max(range(len(plan.stages)), key=lambda stage: (plan.trainable(stage), stage))].groups
    facts: dict[str, Any] = {"machine": describe_machine(device), "threads": torch.get_num_threads()}
    file = ProbeFile(cache_folder(config.cache) / "probes.json")
    key = probe_key(
        **facts,
        architecture=classifier.architecture,
        live=live,
        image_px=classifier.preprocessing.crop_px,
        batch_size=batch_size,
    )
    known = file.find(key)
    if known is not None:
        return known
    speeds = probe_speed(classifier, live=live, frozen_norm=plan.frozen_norm, batch_size=batch_size, device=device)
    ratios = {candidate.name: round(ratio, 3) for candidate, ratio in speeds.ratios.items()}
    chosen = choose(ratios)
    verdict = Verdict(
        precision=chosen.precision,
        channels_last=chosen.channels_last,
        speed=ratios,
        note=None if any(name.startswith("bf16") for name in ratios) else _unmeasured(device),
        batch_size=speeds.batch_size,
        torch=torch.__version__,
        **facts,
    )
    if ratios:  # what was not measured now may be measured next time
        file.keep(key, verdict)
    return verdict
