"""This project beside its peers, on the same images, network, weights, resolution, batch, epochs and augmentation.

    make bench BENCH=compare ARGS="--root photos --weights mobilenet_v2.pth"
    make bench BENCH=compare ARGS="--only finetune"

Without --root the images are noise (digits where accuracy counts), without --weights all weights are random: then the
figures say only what things take. docs/benchmarks.md says how it is measured, and what is extrapolated.
"""

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from photos import link_part, write_digits, write_noise
from race import Paced, Reply, Whole, race
from results import RESULTS, publish, spread, table

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
    "no cache": ("cache.enabled=false",),
    "defaults": (),
    "stored views": ("cache.views=2",),
}
IMAGES = 5000
EPOCHS = {"probe": 10, "last block": 5, "reach": 4}
GRADUAL_EPOCHS = (3, 3, 4)
BUDGETS = (1, 2, 3, 4)
"""Epochs that this project is given to reach the loop's accuracy, fewest first."""


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


FULL = {
    "probe": (Case("mobilenet_v2", 224, 64, part=1000), Case("resnet18", 224, 64, part=1000)),
    "last-block": (
        Case("mobilenet_v2", 96, 64, part=2000),
        Case("mobilenet_v2", 224, 16, part=500),
        Case("resnet18", 224, 16, part=500),
    ),
    "gradual": (
        Case("mobilenet_v2", 96, 64, part=1000),
        Case("mobilenet_v2", 224, 16, part=300),
        Case("resnet18", 224, 16, part=300),
    ),
    "finetune": (
        Case("mobilenet_v2", 96, 64),
        Case("mobilenet_v2", 224, 16),
        Case("resnet18", 96, 64),
        Case("resnet18", 224, 16),
    ),
}
QUICK = {section: (Case("mobilenet_v2", 96, 64, part=500),) for section in ("probe", "last-block", "finetune")}
REACH = ACCURACY = Case("mobilenet_v2", 96, 64)
SEEDS = (0, 1, 2)
QUICK_PEERS = (LOOP, "timm", "Hugging Face Trainer")


class Bench:
    """Makes contestants, and collects what they say of their versions.

    Args:
        options: What was typed.
        folder: For the images.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.versions: dict[str, str] = {}
        self.left_out: set[str] = set()
        self._folder = folder
        self._roots: dict[object, Path] = {}

    def root(self, images: int = IMAGES, *, test: int | None = 0, count_accuracy: bool = False) -> Path:
        """Return train/ and test/ of class folders with so many images, the same for all contestants."""
        key = images, test, count_accuracy
        if key not in self._roots:
            place = self._folder / f"images{len(self._roots)}"
            if self.options.root is not None:
                link_part(self.options.root, place, train=images, test=test)
            elif count_accuracy:
                write_digits(place)
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
        return Paced(name, command, case.batch_size, timed_steps=self.options.steps)

    def whole(self, name: str, case: Case, root: Path, *arguments: str, ours: Sequence[str] | None = None) -> Whole:
        """Return a contestant that trains from the start to the end; this project where settings of it are given."""
        return Whole(name, [*self._command(name, case, ours), "--root", str(root), *arguments])

    def race(self, entrants: Sequence[Paced | Whole]) -> dict[str, list[Reply]]:
        """Let contestants take turns; note their versions."""
        replies = race(entrants, rounds=self.options.rounds)
        for reply in (reply for told in replies.values() for reply in told):
            self.versions |= reply.get("versions", {})
            self.left_out |= set(reply.get("left_out", ()))
        return replies

    def publish(self, section: str, lines: Sequence[str]) -> None:
        """Print a section and keep it."""
        if self.left_out:
            lines = [*lines, "", f"Not in this version, and left out: {', '.join(sorted(self.left_out))}."]
        publish(section, lines, versions=self.versions, file=self.options.out)
        self.versions, self.left_out = {}, set()

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


def probe(bench: Bench, cases: Sequence[Case]) -> None:
    """The linear probe: the loop's steps, extended to all epochs, beside whole runs of this project."""
    arguments = ("--task", "probe", "--augment", "none")
    rows = []
    for case in cases:
        root = bench.root(case.part, test=100)
        ours = [
            bench.whole(f"{OURS}, {setting}", case, root, *arguments, ours=SETTINGS[setting])
            for setting in ("cache alone", "all allowed")
        ]
        replies = bench.race([bench.paced(LOOP, case, *arguments), *ours])
        if LOOP not in replies:
            continue
        loop = [EPOCHS["probe"] * IMAGES / rate for rate in rates(replies[LOOP])]
        rows.append([f"{case}: {LOOP}", spread(loop, 0), "", "1"])
        for name in [run.name for run in ours if run.name in replies]:
            seconds = [reply["train_seconds"] * IMAGES / case.part for reply in replies[name]]
            building = [reply["building_seconds"] * IMAGES / case.part for reply in replies[name]]
            rows.append([f"{case}: {name}", spread(seconds), spread(building), faster(loop, seconds)])
    what = f"Linear probe, {EPOCHS['probe']} epochs of {IMAGES:,} images, no augmentation"
    bench.publish(
        "probe",
        [
            f"{what}. The loop: training steps alone, extended to all epochs. {OURS}: whole fits, validation and "
            f"checkpoints included, on {_parts(cases)} images, multiplied up to {IMAGES:,}.",
            "",
            *table([what, "s", "of it computing features", "times as fast"], rows),
        ],
    )


def last_block(bench: Bench, cases: Sequence[Case]) -> None:
    """The head and the last block: an epoch from the cache, the same without it, and one of full fine-tuning."""
    arguments = ("--task", "last_block", "--augment", "none")
    rows = []
    for case in cases:
        root = bench.root(case.part, test=100)
        replies = bench.race(
            [
                bench.whole("cached", case, root, *arguments, ours=SETTINGS["cache alone"]),
                bench.paced("uncached", case, *arguments, ours=(*SETTINGS["no cache"], "trainer.precision=32")),
                bench.paced("everything", case, "--augment", "none", ours=("trainer.precision=32",)),
                bench.paced(LOOP, case, *arguments),
            ]
        )
        if len(replies) < 4:
            continue
        epochs = {name: [0.9 * IMAGES / rate for rate in rates(replies[name])] for name in list(replies)[1:]}
        cached = [reply["epoch_seconds"] * IMAGES / case.part for reply in replies["cached"]]
        building = [reply["building_seconds"] * IMAGES / case.part for reply in replies["cached"]]
        rows.append(
            [
                str(case),
                *[spread(cached), spread(building), spread(epochs["uncached"]), spread(epochs["everything"])],
                *[spread(epochs[LOOP]), share(cached, epochs["uncached"]), share(cached, epochs["everything"])],
            ]
        )
    header = ["head and last block", "cached, s an epoch", "building, s, once", "uncached", "everything", LOOP]
    bench.publish(
        "last block",
        [
            f"Seconds for an epoch of {IMAGES:,} images (a tenth of them to validate on), fp32. Cached: whole fits of "
            f"{EPOCHS['last block']} epochs on {_parts(cases)} images, validation included, multiplied up; the others: "
            "training steps alone, extended.",
            "",
            *table([*header, "of uncached", "of everything"], rows),
        ],
    )


def gradual(bench: Bench, cases: Sequence[Case]) -> None:
    """The schedule of three stages: the peers' stages in slices, extended, beside whole runs of this project."""
    peers = ("Lightning BackboneFinetuning", "finetuning-scheduler")
    rows = []
    for case in cases:
        ours = [
            bench.whole(f"{OURS}, {setting}", case, bench.root(case.part, test=100), "--task", "gradual", ours=settings)
            for setting, settings in (("stored views", SETTINGS["stored views"]), ("no cache", SETTINGS["no cache"]))
        ]
        stages = range(len(GRADUAL_EPOCHS))
        slices = {
            (peer, stage): bench.paced(peer, case, "--task", "gradual", "--stage", str(stage))
            for peer in peers
            for stage in stages
        }
        for (_, stage), entrant in slices.items():
            entrant.name += f", stage {stage}"
        replies = bench.race([*slices.values(), *ours])
        totals = {
            peer: [
                sum(epochs * IMAGES / rate for epochs, rate in zip(GRADUAL_EPOCHS, turn, strict=True))
                for turn in zip(*(rates(replies[slices[peer, stage].name]) for stage in stages), strict=True)
            ]
            for peer in peers
            if all(slices[peer, stage].name in replies for stage in stages)
        }
        for entrant in ours:
            if entrant.name in replies:
                seconds = [reply["train_seconds"] * IMAGES / case.part for reply in replies[entrant.name]]
                totals[entrant.name] = seconds
        if not totals:
            continue
        first = next(iter(totals.values()))
        rows += [[f"{case}: {name}", spread(total, 0), share(total, first)] for name, total in totals.items()]
    what = f"{' + '.join(map(str, GRADUAL_EPOCHS))} epochs of {IMAGES:,} images, light augmentation"
    bench.publish(
        "gradual",
        [
            f"{what}. Peers: steps of each stage alone, extended. {OURS}: whole fits, validation, checkpoints and "
            f"building included, on {_parts(cases)} images, multiplied up.",
            "",
            *table([what, "s", "of the first"], rows),
        ],
    )


def finetune(bench: Bench, cases: Sequence[Case], peers: Sequence[str]) -> None:
    """Full fine-tuning: images per second of everybody."""
    columns: dict[str, list[list[float]]] = {name: [] for name in (*peers, OURS)}
    for case in cases:
        contestants = [bench.paced(name, case) for name in peers]
        replies = bench.race([*contestants, bench.paced(OURS, case, ours=SETTINGS["all allowed"])])
        for name, values in columns.items():
            values.append(rates(replies.get(name, [])))
    rows = [[name, *[spread(value) if value else "failed" for value in values]] for name, values in columns.items()]
    best = [
        max((name for name in peers if columns[name][i]), key=lambda name: statistics.median(columns[name][i]))
        for i in range(len(cases))
    ]
    ratios = [f"{faster(columns[OURS][i], columns[name][i])} of {name}" for i, name in enumerate(best)]
    bench.publish(
        "finetune",
        [
            f"Full fine-tuning with light augmentation, training steps in turns. Peers in fp32, {OURS} with "
            f"{' '.join(SETTINGS['all allowed'])}.",
            "",
            *table(["images/s", *map(str, cases)], [*rows, [f"{OURS} beside the fastest peer", *ratios]]),
        ],
    )


def reach(bench: Bench) -> None:
    """Time to the loop's final accuracy: this project's shortest run that gets there, by the same test images."""
    case, rows = REACH, []
    root = bench.root(test=None, count_accuracy=True)
    bench.options.rounds = 1
    loop = bench.race([bench.whole(LOOP, case, root, "--epochs", str(EPOCHS["reach"]))])[LOOP][0]
    rows.append(
        [f"{LOOP}, {EPOCHS['reach']} epochs", f"{loop['train_seconds']:.0f}", f"{loop['test_accuracy']:.3f}", "1"]
    )
    for epochs in BUDGETS:
        name = f"{OURS}, {epochs} epoch{'s'[: epochs > 1]}"
        ours = bench.race([bench.whole(name, case, root, "--epochs", str(epochs), ours=SETTINGS["all allowed"])])
        reply = ours[name][0]
        part = f"{reply['train_seconds'] / loop['train_seconds']:.2f}"
        rows.append([name, f"{reply['train_seconds']:.0f}", f"{reply['test_accuracy']:.3f}", part])
        if reply["test_accuracy"] >= loop["test_accuracy"]:
            break
    bench.publish(
        "reach",
        [
            f"{case}, everything trained: seconds of training until the accuracy on the test images is that of the "
            f"loop. Whole runs, each with a schedule of its own length; {OURS} trains on nine tenths of the images, "
            "and its seconds include validation and checkpoints. One seed; `make bench-accuracy` has three.",
            "",
            *table(["whole runs", "s", "test accuracy", "of the loop's time"], rows),
        ],
    )


def accuracy(bench: Bench) -> None:
    """Whole runs of every task with their accuracy on all test images, several seeds."""
    case, rows = ACCURACY, []
    root = bench.root(test=None, count_accuracy=True)
    bench.options.rounds = 1
    tasks = {
        ("probe", "none"): ((LOOP,), ("cache alone", "all allowed")),
        ("last_block", "none"): ((LOOP,), ("cache alone", "no cache")),
        ("gradual", "light"): (("Lightning BackboneFinetuning", "finetuning-scheduler"), ("stored views", "no cache")),
        ("finetune", "light"): (tuple(PEERS), ("all allowed",)),
    }
    for (task, augment), (peers, settings) in tasks.items():
        contestants: list[tuple[str, Sequence[str] | None]] = [(peer, None) for peer in peers]
        contestants += [(f"{OURS}, {setting}", SETTINGS[setting]) for setting in settings]
        replies: dict[str, list[Reply]] = {name: [] for name, _ in contestants}
        for seed in SEEDS:
            arguments = ("--task", task, "--augment", augment, "--seed", str(seed))
            runs = [bench.whole(name, case, root, *arguments, ours=ours) for name, ours in contestants]
            for name, told in bench.race(runs).items():
                replies[name] += told
        for name, told in replies.items():
            right = [reply["test_accuracy"] for reply in told]
            if right:
                seconds = [reply["train_seconds"] for reply in told]
                rows.append([f"{task}: {name}", f"{statistics.mean(right):.3f}", spread(right, 3), spread(seconds, 0)])
    bench.publish(
        "accuracy",
        [
            f"{case}: whole runs, seeds {', '.join(map(str, SEEDS))}, tested on all test images.",
            "",
            *table(["task", "test accuracy, mean", "median (least–most)", "s of training"], rows),
        ],
    )


def faster(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Return how many times one is the other, turn by turn; the median and the range."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)], 2)


def share(part: Sequence[float], whole: Sequence[float]) -> str:
    """Return what share one is of the other, turn by turn; the median and the range."""
    return spread([a / b for a, b in zip(part, whole, strict=True)], 2)


def _parts(cases: Sequence[Case]) -> str:
    return " to ".join(f"{part:,}" for part in sorted({case.part for case in cases}))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="train/ and test/ of class folders")
    parser.add_argument("--weights", type=Path, help="a state_dict of torchvision's mobilenet_v2")
    parser.add_argument("--only", nargs="+", choices=[*FULL, "reach", "accuracy"], default=(*FULL, "reach"))
    parser.add_argument("--quick", action="store_true", help="one network at 96 px, few peers, nothing written")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--steps", type=int, default=7, help="timed steps in a turn")
    parser.add_argument("--part", type=int, help="images of this project's whole runs, for all cases alike")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where sections are kept")
    parser.add_argument("--peers-python", type=Path, default=HERE.parent / ".venv-peers" / "bin" / "python")
    options = parser.parse_args()
    if not options.peers_python.exists():
        parser.error(f"--peers-python: no {options.peers_python}; type make peers")
    if "accuracy" in options.only and not (options.root and options.weights):
        parser.error("--only accuracy: needs --root and --weights: noise and random weights have no accuracy")
    return options


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # contestants are ended on the way out
    if options.quick:
        options.out, options.rounds = None, 2
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, Path(name))
        cases = {
            section: [case if options.part is None else replace(case, part=options.part) for case in chosen]
            for section, chosen in (QUICK if options.quick else FULL).items()
            if section in options.only
        }
        if "probe" in cases:
            probe(bench, cases["probe"])
        if "last-block" in cases:
            last_block(bench, cases["last-block"])
        if "gradual" in cases:
            gradual(bench, cases["gradual"])
        if "finetune" in cases:
            finetune(bench, cases["finetune"], QUICK_PEERS if options.quick else tuple(PEERS))
        if options.quick:
            return
        if "reach" in options.only:
            reach(bench)
        if "accuracy" in options.only:
            accuracy(bench)


if __name__ == "__main__":
    main()
