"""Model cards: what hubs read of them, and that no name of a class breaks them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from unfreeze.inference.export.card import Card, is_own, sections_of
from unfreeze.inference.export.export import _card_beside
from unfreeze.inference.export.markdown import plain, table
from unfreeze.inference.export.provenance import Provenance
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.outputs import Outputs, TaskClasses

AWKWARD = (
    'say "cheese" \'s',
    "<script>alert(1)</script> & more",
    "🦔👩‍🔬",
    "قطة سوداء",
    "two\nlines | pipe",
    "x" * 200,
    "back\\slash `code` [link](http://x) *b* _i_",
    "---",
    "<!-- end of file -->",
    "turned \u202e round",
    "lone \udcff",
)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    made = build_classifier("tiny", classes=AWKWARD, weights=None, image_size=32)
    return replace(made, weights="/home/somebody/net.pth")


def figures(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {
        name: {"precision": 0.5, "recall": 0.25, "f1": 0.1 + 0.01 * at, "support": 4} for at, name in enumerate(names)
    }


def provenance(**more: Any) -> Provenance:
    test = {"acc": 0.75, "acc_top5": None, "f1_macro": 0.7, "ece": 0.02, "n": 44, "per_class": figures(AWKWARD)}
    stage = {"name": "he|ad", "trainable": 10, "total": 100, "epochs": 3, "seconds": 12.3, "val_acc": 0.8}
    return Provenance(
        data='my: "photos"\n---\nlicense: stolen',
        splits={"train": {"count": 1234}, "test": {"count": 44}},
        fingerprint="abc",
        result={"test": test, "stages": [stage], "seed": 3, **more},
        settings={"strategy": "gradual"},
    )


def test_hubs_can_read_the_front_matter(classifier: Classifier) -> None:
    text = str(Card(classifier, provenance(), "apache-2.0", "onnx", {"net.onnx": "### net\n"}))
    text = text.encode("utf-8", "backslashreplace").decode()
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.license == "apache-2.0"
    assert data.library_name == "onnx"
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["my-photos-license-stolen"]
    assert data.metrics == ["accuracy", "f1"]
    assert "unfreeze" in data.tags
    assert [(each.metric_type, each.metric_value) for each in data.eval_results] == [("accuracy", 0.75), ("f1", 0.7)]
    assert data.eval_results[0].dataset_split == "test"
    assert yaml.safe_load(text.split("---\n")[1])["model-index"][0]["name"] == "tiny-my-photos-license-stolen"


def test_unknown_facts_are_stated_as_unknown(classifier: Classifier) -> None:
    text = str(Card(classifier, Provenance(), None, "pytorch", {}))
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other"
    assert front["license_name"] == "not-stated"
    assert front.keys().isdisjoint({"model-index", "metrics", "datasets", "base_model"})
    assert "It was not tested" in text
    assert "its training data is unknown" in text
    assert "--license" in text
    other = str(Card(classifier, Provenance(is_best=False), None, "pytorch", {}))
    assert "These weights were not tested: the metrics of the run are those of its best checkpoint." in other


def test_the_base_is_named_where_there_was_one(classifier: Classifier) -> None:
    known = build_classifier("resnet18", classes="ab", weights=None, image_size=32)
    assert "base_model" not in Card(known, Provenance(), None, "onnx", {}).front_matter()
    known = replace(known, weights="IMAGENET1K_V1")
    assert Card(known, Provenance(), None, "onnx", {}).front_matter()["base_model"] == "torchvision/resnet18"
    assert "initialised with the weights net.pth" in str(Card(classifier, Provenance(), None, "onnx", {}))
    assert "somebody" not in str(Card(classifier, Provenance(), None, "onnx", {}))


def test_no_class_breaks_a_table_or_brings_markup(classifier: Classifier) -> None:
    card = Card(classifier, provenance(), None, "onnx", {})
    text = str(card).encode("utf-8", "backslashreplace").decode()
    body = text.split("\n---\n", 1)[1]
    assert "<script>" not in body
    assert "\u202e" not in body
    lines = body.splitlines()
    head = lines.index("| class | precision | recall | F1 | images |")
    rows = lines[head + 2 : head + 2 + len(AWKWARD)]
    for name, row in zip(AWKWARD, rows, strict=True):
        assert row.replace("\\|", "").count("|") == 6, name
        assert row.startswith("| ") and row.endswith(" | 4 |")
    assert "x" * 200 in body
    assert "🦔👩‍🔬" in body
    assert "\u2068قطة سوداء\u2069" in body
    assert "Weakest class: say" in body
    assert "| he\\|ad | 10 of 100 | 3 | 12 | 0.800 |" in body


def test_labels_and_tasks_have_tables_of_their_own() -> None:
    labels = Outputs((TaskClasses("label", ("red", "wet")),), multilabel=True)
    made = build_classifier("tiny", classes=labels, weights=None, image_size=32)
    test = {"acc": 0.9, "acc_exact": 0.8, "ap_macro": None, "n": 5, "per_label": figures(("red", "wet"))}
    text = str(Card(made, Provenance(result={"test": test}), None, "onnx", {}))
    assert "| label | precision | recall | F1 | images |" in text
    assert "| all labels right | 0.8000 |" in text
    assert "Every image gets one of these classes" not in text
    tasks = Outputs((TaskClasses("tone", ("a", "b")), TaskClasses("hue", ("c", "d"))))
    made = build_classifier("tiny", classes=tasks, weights=None, image_size=32)
    test = {
        "acc": 0.9,
        "n": 5,
        "tasks": {"tone": {"per_class": figures(("a", "b"))}, "hue": {"per_class": figures("cd")}},
    }
    text = str(Card(made, Provenance(result={"test": test}), None, "onnx", {}))
    assert "| class of tone |" in text
    assert "Weakest class of hue: c, with an F1 of 0.100." in text
    assert "Classes of hue, in the order of the outputs: c, d." in text


def test_sections_of_earlier_exports_are_kept(classifier: Classifier) -> None:
    sections = {"a.onnx": "### a\n\n```python\nprint('<!-- x -->')\n```\n", "b.pt2": "### b\n"}
    text = str(Card(classifier, provenance(), None, "onnx", sections))
    assert sections_of(text) == sections
    assert is_own(text)


def test_a_foreign_readme_is_not_replaced(tmp_path: Path, classifier: Classifier) -> None:
    file = tmp_path / "net.onnx"
    assert _card_beside(file).name == "README.md"
    (tmp_path / "README.md").write_text("# My project\n")
    assert _card_beside(file).name == "net.onnx.README.md"
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert _card_beside(file).name == "net.onnx.README.md"
    (tmp_path / "README.md").write_text(
        str(Card(classifier, Provenance(), None, "onnx", {})), errors="backslashreplace"
    )
    assert _card_beside(file).name == "README.md"


def test_plain_text_stays_as_it_is() -> None:
    assert plain("golden retriever (3 years)") == "golden retriever \\(3 years\\)"
    assert table(("a", "b"), [("1", "2")]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
