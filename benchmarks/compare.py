"""This project beside its peers, on the same images, network, weights, resolution, batch, epochs and augmentation.

    make bench BENCH=compare ARGS="--root photos --weights mobilenet_v2.pth"
    make bench BENCH=compare ARGS="--only finetune"

Without --root the images are noise, without --weights all weights are random: then the figures say only what things
take. docs/benchmarks.md says how it is measured, and what is extrapolated.
"""

import argparse
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from contest import (
    IMAGES,
    LOOP,
    OURS,
    PEERS,
    SETTINGS,
    Bench,
    Case,
    add_options,
    extended,
    faster,
    parse_with_peers,
    rates,
    share,
)
from race import Pace
from results import spread, table

PROBE_EPOCHS = 10
GRADUAL_EPOCHS = (3, 3, 4)
FULL = {
    "probe": (Case("mobilenet_v2", 224, 32, part=600), Case("resnet18", 224, 32, part=1200)),
    "last-block": (
        Case("mobilenet_v2", 96, 64, part=1000),
        Case("mobilenet_v2", 224, 16, part=300),
        Case("resnet18", 224, 16, part=300),
    ),
    "gradual": (
        Case("mobilenet_v2", 96, 32, part=600),
        Case("mobilenet_v2", 224, 8, part=200),
        Case("resnet18", 224, 8, part=200),
    ),
    "finetune": (
        Case("mobilenet_v2", 96, 32, part=1000),
        Case("mobilenet_v2", 224, 8, part=500),
        Case("resnet18", 96, 32, part=1000),
        Case("resnet18", 224, 8, part=500),
    ),
}
LONG, SHORT, QUICK_PACE = Pace(3, 1, 7), Pace(5, 1, 4), Pace(2, 1, 4)
"""Turns beside whole runs, which take long; of steps alone, the shorter the better they compare; of a glance."""
PACES = {"probe": LONG, "last-block": SHORT, "gradual": LONG, "finetune": SHORT}
QUICK = {section: (Case("mobilenet_v2", 96, 64, part=1000),) for section in ("probe", "last-block", "finetune")}
QUICK_PEERS = (LOOP, "timm")


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
        loop = [PROBE_EPOCHS * IMAGES / rate for rate in rates(replies[LOOP])]
        rows.append([f"{case}: {LOOP}", spread(loop, 0), "", "1"])
        for name in [run.name for run in ours if run.name in replies]:
            seconds = extended(replies[name], case)
            building = extended(replies[name], case, "building_seconds")
            rows.append([f"{case}: {name}", spread(seconds), spread(building), faster(loop, seconds)])
    what = f"Linear probe, {PROBE_EPOCHS} epochs of {IMAGES:,} images, no augmentation"
    bench.publish(
        "probe",
        [
            f"{what}. Plain loop: training steps only, extrapolated to all epochs. {OURS}: whole runs with validation "
            f"and checkpoints on {_parts(cases)} images, extrapolated to {IMAGES:,}, except for the benchmark of "
            "faster copies, which runs once.",
            "",
            *table([what, "s", "of which features", "speed-up"], rows),
        ],
    )


def last_block(bench: Bench, cases: Sequence[Case]) -> None:
    """The head and the last block: an epoch from the cache, the same without it, and one of full fine-tuning."""
    arguments = ("--task", "last_block", "--augment", "none")
    uncached = (*SETTINGS["no cache"], "trainer.precision=32")
    rows = []
    for case in cases:
        replies = bench.race(
            [
                bench.paced("cached", case, *arguments, ours=SETTINGS["cache alone"], images=case.part),
                bench.paced("uncached", case, *arguments, ours=uncached, images=case.part),
                bench.paced("everything", case, "--augment", "none", ours=uncached, images=case.part),
                bench.paced(LOOP, case, *arguments, images=case.part),
            ]
        )
        if len(replies) < 4:
            continue
        epochs = {name: [0.9 * IMAGES / rate for rate in rates(told)] for name, told in replies.items()}
        cached, built = epochs["cached"], replies["cached"][-1]
        building = f"{built['building_seconds'] * IMAGES / built['built_images']:.1f}"
        rows.append(
            [
                str(case),
                *[spread(cached), building, spread(epochs["uncached"]), spread(epochs["everything"])],
                *[spread(epochs[LOOP]), share(cached, epochs["uncached"]), share(cached, epochs["everything"])],
            ]
        )
    header = ["head and last block", "cached, s per epoch", "features, s, once", "uncached", "all layers", LOOP]
    bench.publish(
        "last block",
        [
            f"Seconds for an epoch of {IMAGES:,} images (a tenth of them for validation), fp32: training steps only, "
            f"interleaved, extrapolated. Features: for all {IMAGES:,} images, extrapolated from {_parts(cases)}.",
            "",
            *table([*header, "cached / uncached", "cached / all layers"], rows),
        ],
    )


def gradual(bench: Bench, cases: Sequence[Case]) -> None:
    """The schedule of three stages: the peers' stages in slices, extended, beside whole runs of this project."""
    peers = ("Lightning BackboneFinetuning", "finetuning-scheduler")
    rows = []
    for case in cases:
        root = bench.root(case.part, test=100)
        settings = SETTINGS["stored views"]
        ours = bench.whole(f"{OURS}, stored views", case, root, "--task", "gradual", ours=settings)
        stages = range(len(GRADUAL_EPOCHS))
        slices = {
            (peer, stage): bench.paced(peer, case, "--task", "gradual", "--stage", str(stage))
            for peer in peers
            for stage in stages
        }
        for (_, stage), entrant in slices.items():
            entrant.name += f", stage {stage}"
        replies = bench.race([*slices.values(), ours])
        totals = {
            peer: [
                sum(epochs * IMAGES / rate for epochs, rate in zip(GRADUAL_EPOCHS, turn, strict=True))
                for turn in zip(*(rates(replies[slices[peer, stage].name]) for stage in stages), strict=True)
            ]
            for peer in peers
            if all(slices[peer, stage].name in replies for stage in stages)
        }
        if ours.name not in replies:
            continue
        seconds = extended(replies[ours.name], case)
        rows += [[f"{case}: {name}", spread(total, 0), share(seconds, total)] for name, total in totals.items()]
        rows.append([f"{case}: {ours.name}", spread(seconds, 0), "1"])
    what = f"{' + '.join(map(str, GRADUAL_EPOCHS))} epochs of {IMAGES:,} images, light augmentation"
    bench.publish(
        "gradual",
        [
            f"{what}. Peers: fp32, training steps of each stage only, extrapolated. {OURS}: trainer.precision=auto, "
            f"whole runs with validation, checkpoints and computing features on {_parts(cases)} images, of which it "
            "trains on nine tenths, extrapolated.",
            "",
            *table([what, "s", f"time of {OURS} / time of the peer"], rows),
        ],
    )


def finetune(bench: Bench, cases: Sequence[Case], peers: Sequence[str]) -> None:
    """Full fine-tuning: images per second of everybody."""
    columns: dict[str, list[list[float]]] = {name: [] for name in (*peers, OURS)}
    for case in cases:
        contestants = [bench.paced(name, case, images=case.part) for name in peers]
        ours = bench.paced(OURS, case, ours=SETTINGS["all allowed"], images=case.part)
        replies = bench.race([*contestants, ours])
        for name, values in columns.items():
            values.append(rates(replies.get(name, [])))
    rows = [[name, *[spread(value) if value else "failed" for value in values]] for name, values in columns.items()]
    best = [
        max((name for name in peers if columns[name][i]), key=lambda name: statistics.median(columns[name][i]))
        for i in range(len(cases))
    ]
    ratios = [f"{faster(columns[OURS][i], columns[name][i])}, {name}" for i, name in enumerate(best)]
    bench.publish(
        "finetune",
        [
            f"Full fine-tuning with light augmentation, interleaved training steps. Peers in fp32, {OURS} with "
            f"{' '.join(SETTINGS['all allowed'])}.",
            "",
            *table(["images/s", *map(str, cases)], [*rows, [f"speed-up of {OURS} over the fastest peer", *ratios]]),
        ],
    )


def _parts(cases: Sequence[Case]) -> str:
    return " to ".join(f"{part:,}" for part in sorted({case.part for case in cases}))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=FULL, default=tuple(FULL))
    parser.add_argument("--quick", action="store_true", help="one network at 96 px, few peers, nothing written")
    parser.add_argument("--part", type=int, help="images that are trained on, for all cases alike")
    return parse_with_peers(parser)


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # contestants are ended on the way out
    if options.quick:
        options.out = None
    peers = QUICK_PEERS if options.quick else tuple(PEERS)
    measures: dict[str, Callable[[Bench, Sequence[Case]], None]] = {
        "probe": probe,
        "last-block": last_block,
        "gradual": gradual,
        "finetune": partial(finetune, peers=peers),
    }
    with tempfile.TemporaryDirectory() as name:
        for section, cases in (QUICK if options.quick else FULL).items():
            if section in options.only:
                pace = QUICK_PACE if options.quick else PACES[section]
                bench = Bench(options, Path(name) / section, pace)
                chosen = [case if options.part is None else replace(case, part=options.part) for case in cases]
                measures[section](bench, chosen)


if __name__ == "__main__":
    main()
