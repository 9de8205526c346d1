"""The model card beside an export: Markdown with the front matter that model hubs read."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from unfreeze.inference.export.markdown import plain, table
from unfreeze.inference.export.metadata import weights_name
from unfreeze.inference.export.provenance import Provenance
from unfreeze.models.classifier import Classifier

_METRICS = {
    "acc": ("accuracy", "accuracy"),
    "acc_exact": ("accuracy", "all labels right"),
    "acc_balanced": ("accuracy", "balanced accuracy"),
    "acc_top5": ("accuracy", "top-5 accuracy"),
    "precision_macro": ("precision", "macro precision"),
    "recall_macro": ("recall", "macro recall"),
    "f1_macro": ("f1", "macro F1"),
    "ap_macro": ("mean_average_precision", "macro average precision"),
}
"""Type on hubs and name of each test metric."""

_MAX_CLASSES = 500
_UNSTATED = {"license": "other", "license_name": "not-stated"}
_SECTION = re.compile(r"^<!-- file: (.+?) -->\n(.*?)^<!-- end of file -->\n", re.MULTILINE | re.DOTALL)
_OURS = "<!-- written by unfreeze export -->"


@dataclass(frozen=True, eq=False)
class Card:
    """A model card.

    Args:
        classifier: The model.
        provenance: The run that it comes from.
        license: Its licence; None if not stated.
        library: Name of the library that opens the file, as on hubs.
        sections: Markdown on the use of each file beside the card, by file name.
    """

    classifier: Classifier
    provenance: Provenance
    license: str | None
    library: str
    sections: Mapping[str, str]

    def __str__(self) -> str:
        """Return the text of the card."""
        front = yaml.safe_dump(self.front_matter(), sort_keys=False, allow_unicode=True, width=1000)
        body = [
            f"# {plain(self.title)}",
            "",
            *self._introduction(),
            *self._test_metrics(),
            *self._data(),
            *self._training(),
            *self._files(),
            *self._limits(),
            _OURS,
        ]
        return f"---\n{front}---\n\n" + "\n".join(body) + "\n"

    @property
    def title(self) -> str:
        """Name of the model."""
        data = self.provenance.data
        return f"{self.classifier.architecture} on {data}" if data else self.classifier.architecture

    def front_matter(self) -> dict[str, Any]:
        """Return the front matter, with the keys of huggingface.co/docs/hub/model-cards."""
        spec, data = self.classifier.spec, self.provenance.data
        slug = _slug(data) if data else ""
        results = self._results()
        front: dict[str, Any] = {
            **({"license": self.license} if self.license else _UNSTATED),
            "library_name": self.library,
            "pipeline_tag": "image-classification",
            "tags": ["image-classification", "transfer-learning", "unfreeze", spec.source, _slug(spec.name)],
        }
        if slug:
            front["datasets"] = [slug]
        if self.classifier.weights and spec.source != "hub" and spec.name != "tiny":
            front["base_model"] = f"{spec.source}/{spec.name}"
        if results:
            front["metrics"] = list(dict.fromkeys(metric["type"] for metric in results))
            name = "-".join(filter(None, [_slug(spec.name), slug]))
            dataset = {"name": " ".join((data or "images").split()), "type": slug or "images", "split": "test"}
            result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": results}
            front["model-index"] = [{"name": name, "results": [result]}]
        return front

    def _results(self) -> list[dict[str, Any]]:
        test = self.provenance.test or {}
        return [
            {"type": kind, "value": round(float(test[key]), 6), "name": name}
            for key, (kind, name) in _METRICS.items()
            if test.get(key) is not None
        ]

    def _introduction(self) -> list[str]:
        classifier = self.classifier
        kind = "several labels" if classifier.outputs.multilabel else "one class"
        initial = weights_name(classifier)
        start = f"the weights {plain(initial)}" if initial else "random weights"
        lines = [
            f"An image classifier ({classifier.outputs}) with {kind} per image: {plain(classifier.architecture)} of "
            f"{classifier.spec.source}, initialised with {start}, with a {classifier.head.name} head, fine-tuned in "
            "stages by unfreeze.",
            "",
        ]
        for task in classifier.outputs.tasks:
            shown = ", ".join(map(plain, task.classes[:_MAX_CLASSES]))
            rest = len(task.classes) - _MAX_CLASSES
            more = f" and {rest:,} more, which the file names" if rest > 0 else ""
            what = "Labels" if classifier.outputs.multilabel else "Classes"
            of_task = f" of {plain(task.name)}" if len(classifier.outputs.tasks) > 1 else ""
            lines += [f"{what}{of_task}, in the order of the outputs: {shown}{more}.", ""]
        return lines

    def _test_metrics(self) -> list[str]:
        test = self.provenance.test
        if not test:
            untested = (
                "It was not tested: its accuracy on unseen images is unknown."
                if self.provenance.is_best
                else "These weights were not tested: the metrics of the run are those of its best checkpoint."
            )
            return ["## Metrics", "", untested, ""]
        known = [(name, test[key]) for key, (_, name) in _METRICS.items() if test.get(key) is not None]
        known += [("expected calibration error", test["ece"])] if test.get("ece") is not None else []
        rows = [(name, f"{value:.4f}") for name, value in known]
        lines = [
            "## Metrics",
            "",
            f"On {test.get('n', 0):,} test images, evaluated once, after the weights were selected on validation:",
            "",
            *table(("metric", "value"), rows),
            "",
        ]
        for title, each in _per_class(test):
            shown = list(each.items())[:_MAX_CLASSES]
            cells = [
                (plain(name), *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['support']:,}")
                for name, row in shown
            ]
            lines += [*table((plain(title), "precision", "recall", "F1", "images"), cells), ""]
        return lines

    def _data(self) -> list[str]:
        known = self.provenance
        if not known.splits:
            return ["## Data", "", "The checkpoint was outside a run: its training data is unknown.", ""]
        rows = [(name, f"{split.get('count', 0):,}") for name, split in known.splits.items()]
        named = f"{plain(known.data)}. " if known.data else ""
        return [
            "## Data",
            "",
            f"{named}Fingerprint of images, labels and class names: `{known.fingerprint}`.",
            "",
            *table(("split", "images"), rows),
            "",
        ]

    def _training(self) -> list[str]:
        known = self.provenance
        if not (known.stages or known.settings):
            return []
        lines = ["## Training", ""]
        if known.stages:
            rows = [
                (
                    plain(str(stage["name"])),
                    f"{stage.get('trainable', 0):,} of {stage.get('total', 0):,}",
                    str(stage.get("epochs", "")),
                    f"{stage.get('seconds', 0):.0f}",
                    "" if stage.get("val_acc") is None else f"{stage['val_acc']:.3f}",
                )
                for stage in known.stages
            ]
            lines += [*table(("stage", "parameters trained", "epochs", "seconds", "validation accuracy"), rows), ""]
        settings = "; ".join(f"{name}: {plain(value)}" for name, value in known.settings.items())
        seed = known.result.get("seed")
        return [*lines, *([f"{settings}{'' if seed is None else f'; seed: {seed}'}.", ""] if settings else [])]

    def _files(self) -> list[str]:
        lines = ["## Use", ""]
        for name, section in self.sections.items():
            lines += [f"<!-- file: {name} -->", section.rstrip("\n"), "<!-- end of file -->", ""]
        return lines

    def _limits(self) -> list[str]:
        classifier, test = self.classifier, self.provenance.test
        prep = classifier.preprocessing
        lines = ["## Limits", ""]
        if not classifier.outputs.multilabel:
            lines.append("- Every image gets one of these classes, even if it shows none of them.")
        lines.append(
            f"- Its input is a square of {prep.crop_px} px from the centre, after an antialiased {prep.interpolation} "
            f"resize of {'both sides' if prep.squash else 'the shorter side'} to {prep.resize_px} px; another resize "
            "costs accuracy."
        )
        if test:
            lines.append("- The metrics hold only for images like those of the test split.")
            weak = [(title, *_weakest(each)) for title, each in _per_class(test) if each]
            lines += [f"- Weakest {title}: {plain(name)}, with an F1 of {f1:.3f}." for title, name, f1 in weak]
        if not self.license:
            lines.append("- No licence is stated: `unfreeze export --license` sets one.")
        return [*lines, ""]


def sections_of(text: str) -> dict[str, str]:
    """Return the sections of an earlier card by file name."""
    return dict(_SECTION.findall(text))


def is_own(text: str) -> bool:
    """Return whether a text is a card that unfreeze wrote, which may be replaced."""
    return _OURS in text


def _per_class(test: Mapping[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    if "tasks" in test:
        return [(f"class of {task}", own["per_class"]) for task, own in test["tasks"].items()]
    return [(kind, test[key]) for kind, key in (("class", "per_class"), ("label", "per_label")) if key in test]


def _weakest(per_class: Mapping[str, Any]) -> tuple[str, float]:
    name = min(per_class, key=lambda each: per_class[each]["f1"])
    return name, per_class[name]["f1"]


def _slug(text: str) -> str:
    """Return a name as hubs accept it: letters, digits, dots, hyphens and underscores."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")[:96]
