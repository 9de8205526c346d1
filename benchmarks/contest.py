"""Contestants of a case: this project and its peers, on the same images, network, weights, resolution and batch."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from photos import link_part, write_noise
from race import Pace, Paced, Reply, Whole, race
from results import RESULTS, publish, spread

HERE = Path(__file__).parent
PEERS = {
    "plain loop": "plain_loop",
    "Lightning BackboneFinetuning": "lightning_backbone_finetuning",
    "finetuning-scheduler": "finetuning_scheduler_schedule",
    "fastai": "fastai_learner",
    "timm": "timm_loop",
    "Hugging Face Trainer": "huggingface_trainer",
}
OURS = "unfreeze"
LOOP = "plain loop"
SETTINGS: dict[str, tuple[str, ...]] = {
    "cache alone": ("cache.exact=true", "trainer.precision=32"),
    "all allowed": ("cache.exact=false", "trainer.precision=auto"),
    "all allowed, averaged": (
        *("cache.exact=false", "trainer.precision=auto", "optimizer.schedule=constant"),
        *("callbacks=ema", "callbacks.average.decay=0.98"),
    ),
    "head first": (
        *("cache.exact=false", "trainer.precision=auto", "strategy.lr.decay=1.0", "strategy.lr.floor=1.0"),
        *("callbacks=ema", "callbacks.average.decay=0.98"),
    ),
    "no cache": ("cache.enabled=false",),
    "stored views": ("cache.views=2",),
}
IMAGES = 5000


@dataclass(frozen=True)
class Case:
    """A network at a size.

    Args:
        model: torchvision's name of it.
        image_size: px.
        batch_size: Images per step.
        part: Images that a whole run of this project is timed on; what it takes is extended to `IMAGES`.
    """

    model: str
    image_size: int
    batch_size: int
    part: int = IMAGES

    def __str__(self) -> str:
        name = {"mobilenet_v2": "MobileNetV2", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}[self.model]
        return f"{name}, {self.image_size} px, batch {self.batch_size}"


class Bench:
    """Makes contestants, and collects what they say of their versions.

    Args:
        options: What was typed.
        folder: For the images.
        pace: How contestants take turns.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, pace: Pace) -> None:
        self.options = options
        self.pace = pace
        self.versions: dict[str, str] = {}
        self._folder = folder
        self._roots: dict[object, Path] = {}

    def root(self, images: int = IMAGES, *, test: int | None = 0) -> Path:
        """Return train/ and test/ of class folders with so many images, the same for all contestants."""
        key = images, test
        if key not in self._roots:
            place = self._folder / f"images{len(self._roots)}"
            if self.options.root is not None:
                link_part(self.options.root, place, train=images, test=test)
            else:
                write_noise(place, train=images, test=100)
            self._roots[key] = place
        return self._roots[key]

    def paced(
        self, name: str, case: Case, *arguments: str, ours: Sequence[str] | None = None, images: int = IMAGES
    ) -> Paced:
        """Return a contestant that trains in slices; this project where settings of it are given."""
        root = self.root(images, test=100)
        command = [*self._command(name, case, ours), "--root", str(root), "--paced", *arguments]
        steps = (images if ours is None else int(0.9 * images)) // case.batch_size
        if steps <= self.pace.steps:
            raise SystemExit(
                f"{case}: {images} images are {steps} steps an epoch, and a turn of {self.pace.steps} must lie within "
                "one; give it more images (--part)"
            )
        return Paced(name, command, case.batch_size, self.pace)

    def whole(self, name: str, case: Case, root: Path, *arguments: str, ours: Sequence[str] | None = None) -> Whole:
        """Return a contestant that trains from the start to the end; this project where settings of it are given."""
        return Whole(name, [*self._command(name, case, ours), "--root", str(root), *arguments])

    def race(self, entrants: Sequence[Paced | Whole]) -> dict[str, list[Reply]]:
        """Let contestants take turns; note their versions."""
        return self._noted(race(entrants, rounds=self.pace.rounds))

    def once(self, run: Whole) -> list[Reply]:
        """Let a contestant run once; return what it said, nothing where it failed."""
        return self._noted(race([run], rounds=1)).get(run.name, [])

    def _noted(self, replies: dict[str, list[Reply]]) -> dict[str, list[Reply]]:
        for reply in (reply for told in replies.values() for reply in told):
            self.note_versions(reply)
        return replies

    def note_versions(self, reply: Reply) -> None:
        """Note what a contestant says of its versions."""
        self.versions |= reply.get("versions", {})

    def publish(self, section: str, lines: Sequence[str]) -> None:
        """Print a section and keep it."""
        publish(section, lines, versions=self.versions, file=self.options.out)
        self.versions = {}

    def _command(self, name: str, case: Case, ours: Sequence[str] | None) -> list[str]:
        python, script = (
            (self.options.peers_python, PEERS.get(name)) if ours is None else (sys.executable, "this_project")
        )
        weights = self.options.weights if case.model == "mobilenet_v2" else None
        return [
            *[str(python), str(HERE / "peers" / f"{script}.py"), "--model", case.model],
            *["--image-size", str(case.image_size), "--batch-size", str(case.batch_size)],
            *(["--weights", str(weights)] if weights else []),
            *[part for setting in ours or () for part in ("--set", setting)],
        ]


def rates(replies: list[Reply]) -> list[float]:
    """Return images per second, one per turn."""
    return [reply["images_per_second"] for reply in replies]


def extended(replies: Sequence[Reply], case: Case, name: str = "train_seconds") -> list[float]:
    """Return what whole runs of a case would take on all images; trials of faster copies happen once."""
    factor = IMAGES / case.part
    return [factor * (reply[name] - reply["trial_seconds"]) + reply["trial_seconds"] for reply in replies]


def faster(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Return how many times one is the other, turn by turn; the median and the range."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)], 2)


def share(part: Sequence[float], whole: Sequence[float]) -> str:
    """Return what share one is of the other, turn by turn; the median and the range."""
    return spread([a / b for a, b in zip(part, whole, strict=True)], 2)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what all comparisons are told: images, weights, where results go."""
    parser.add_argument("--root", type=Path, help="train/ and test/ of class folders")
    parser.add_argument("--weights", type=Path, help="a state_dict of torchvision's mobilenet_v2")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where sections are kept")


def parse_with_peers(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse what was typed, where the peers' environment is among it; end with a hint where they are not installed."""
    parser.add_argument("--peers-python", type=Path, default=HERE.parent / ".venv-peers" / "bin" / "python")
    options = parser.parse_args()
    if not options.peers_python.exists():
        parser.error(f"--peers-python: no {options.peers_python}; type make peers")
    return options
