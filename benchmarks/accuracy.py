"""Whole runs of this project and its peers with their accuracy on all test images, several seeds; hours.

make bench-accuracy ROOT=photos WEIGHTS=mobilenet_v2.pth
make bench-accuracy ROOT=photos WEIGHTS=mobilenet_v2.pth ARGS="--only gradual --keep runs.json"
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from contest import LOOP, OURS, PEERS, SETTINGS, Bench, Case, add_options, parse_with_peers, share
from race import Pace, Reply, Whole
from results import spread, table
from unfreeze.system.files import replacing

CASE = Case("mobilenet_v2", 96, 64)
TASKS = {
    # its augmentation, the peers, settings of this project
    "probe": ("none", (LOOP,), ("cache alone", "all allowed")),
    "last_block": ("none", (LOOP,), ("cache alone", "no cache")),
    "gradual": ("light", ("Lightning BackboneFinetuning", "finetuning-scheduler"), ("stored views", "no cache")),
    "finetune": ("light", tuple(PEERS), ("all allowed", "all allowed, averaged", "head first")),
}

REACH = "reach"
HEAD_EPOCHS = 5
BUDGETS = (1, 2, 3, 4)
"""Epochs of everything that this project is given to reach the loop's accuracy, after those of the head; fewest first.

It trains as `strategy=finetune` does, the head first, on features that are computed once; then the backbone, as fast
as the head, and an average of 50 steps.
"""


def measure(bench: Bench, task: str, seeds: Sequence[int]) -> None:
    """Publish a task's accuracies; all contestants take turns, seed by seed."""
    augment, peers, settings = TASKS[task]
    contestants: list[tuple[str, Sequence[str] | None]] = [
        (peer, None) for peer in peers if peer in bench.options.peers
    ]
    contestants += [(f"{OURS}, {setting}", SETTINGS[setting]) for setting in settings]
    replies: dict[str, list[Reply]] = {name: [] for name, _ in contestants}
    root = bench.root(test=None)
    for seed in seeds:
        for name, ours in contestants:
            arguments = head_first(4, seed) if ours == SETTINGS["head first"] else asked(task, augment, seed)
            replies[name] += kept_or_run(bench, bench.whole(name, CASE, root, *arguments, ours=ours), root)
    rows = []
    for name, told in replies.items():
        if told:
            right = [reply["test_accuracy"] for reply in told]
            rows.append([name, f"{statistics.mean(right):.4f}", spread(right, 4)])
    bench.publish(
        f"accuracy, {task}",
        [
            f"{CASE}: whole runs, augment={augment}, seeds {', '.join(map(str, seeds))}, tested on all test images. "
            f"{OURS} trains on nine tenths of the training images.",
            "",
            *table([task, "test accuracy, mean", "median (min–max)"], rows),
        ],
    )


def reach(bench: Bench, seeds: Sequence[int]) -> None:
    """Time to the loop's final accuracy: this project's shortest runs that get there, by the same test images."""
    root = bench.root(test=None)

    def runs(name: str, typed: Iterable[Sequence[str]], ours: Sequence[str] | None = None) -> list[Reply]:
        return [
            reply
            for each in typed
            for reply in kept_or_run(bench, bench.whole(name, CASE, root, *each, ours=ours), root)
        ]

    loop = runs(LOOP, (asked("finetune", "light", seed) for seed in seeds))
    if len(loop) < len(seeds):
        return
    goal, took = (([reply[name] for reply in loop]) for name in ("test_accuracy", "train_seconds"))
    rows = [[LOOP, f"{statistics.mean(goal):.4f}", spread(goal, 4), spread(took, 0), "1"]]
    reached = 0.0
    for epochs in (epochs for epochs in bench.options.epochs if reached < statistics.mean(goal)):
        name = f"{OURS}, {HEAD_EPOCHS} epochs of the head + {epochs} of all layers"
        told = runs(name, (head_first(epochs, seed) for seed in seeds), SETTINGS["head first"])
        if not told:
            break
        right, seconds = (([reply[figure] for reply in told]) for figure in ("test_accuracy", "train_seconds"))
        reached = statistics.mean(right)
        rows.append([name, f"{reached:.4f}", spread(right, 4), spread(seconds, 0), share(seconds, took)])
    bench.publish(
        REACH,
        [
            f"{CASE}, full fine-tuning: seconds of training to reach the plain loop's accuracy on all test images, "
            f"mean of seeds {', '.join(map(str, seeds))}. Whole runs, each with a schedule for its number of epochs. "
            f"{OURS} trains the head first, then all layers at the head's learning rate, averages its weights, and "
            "trains on nine tenths of the images; its time includes features, validation and checkpoints.",
            "",
            *table(["whole runs", "test accuracy, mean", "median (min–max)", "s", "time / plain loop"], rows),
        ],
    )


def asked(task: str, augment: str, seed: int) -> list[str]:
    """Return what a contestant is asked for a task."""
    return ["--task", task, "--augment", augment, "--seed", str(seed)]


def head_first(epochs: int, seed: int) -> list[str]:
    """Return what this project is asked for so many epochs of everything after those of the head."""
    return [*asked("head_first", "light", seed), "--epochs", str(HEAD_EPOCHS), str(epochs)]


def kept_or_run(bench: Bench, run: Whole, root: Path) -> list[Reply]:
    """Return what a whole run has told; runs that have ended well are kept in a file, by all that was asked of them."""
    file = bench.options.keep
    kept = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.exists() else {}
    asked = " ".join(run.command[1:]).replace(str(root), str(bench.options.root))
    if asked in kept:
        bench.note_versions(kept[asked])
        return [kept[asked]]
    replies = bench.once(run)
    if file is not None and replies:
        with replacing(file) as temporary:
            temporary.write_text(json.dumps({**kept, asked: replies[0]}, indent=1), encoding="utf-8")
    return replies


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=[*TASKS, REACH], default=(*TASKS, REACH))
    parser.add_argument("--peers", nargs="+", choices=[*PEERS], default=[*PEERS], help="that take part in a task")
    parser.add_argument("--keep", type=Path, help="a file for what runs that have ended told, to go on from")
    parser.add_argument(
        "--epochs", nargs="+", type=int, default=BUDGETS, help=f"of everything, for {REACH}; the fewest first"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    options = parse_with_peers(parser)
    if not (options.root and options.weights):
        parser.error("needs --root and --weights: noise and random weights have no accuracy")
    return options


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # contestants are ended on the way out
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, Path(name), Pace(rounds=1))
        for task in options.only:
            if task == REACH:
                reach(bench, options.seeds)
            else:
                measure(bench, task, options.seeds)


if __name__ == "__main__":
    main()
