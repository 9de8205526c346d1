"""Scripts that use an exported file, for its model card."""

from unfreeze.data.sources.bands import RGB
from unfreeze.inference.export.graph import GREY, INPUT, Signature
from unfreeze.inference.export.stock import Stock
from unfreeze.inference.export.torch_file import METADATA
from unfreeze.models.classifier import Classifier


def snippet(to: str, name: str, classifier: Classifier, signature: Signature, stock: Stock | None) -> str:
    """Return a script that opens a file and prints its predictions for `photo.jpg` in the working directory.

    Args:
        to: The format.
        name: Name of the file.
        classifier: The exported classifier.
        signature: Inputs and outputs of the file.
        stock: Stock network that loads a file of weights; None if there is none.
    """
    if to == "safetensors":
        lines = _with_weights(name, classifier, signature, stock)
    else:
        running = _with_onnx(name) if to == "onnx" else _with_torch(name, signature)
        lines = _whole(running, classifier, signature)
    return "\n".join(lines) + "\n"


_READ = (
    "image = ImageOps.exif_transpose(Image.open('photo.jpg'))",
    "if image.mode.startswith('I'):  # 16 bits",
    "    image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))",
    "if image.has_transparency_data:",
    "    image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image.convert('RGBA'))",
    "image = image.convert('RGB')",
)
"""Lines that read a photo like `data.sources.decoding.as_seen`."""

Running = tuple[list[str], list[str], list[str]]
"""Lines that import packages, open a file, and run it."""


def _with_onnx(name: str) -> Running:
    opened = [
        f"session = onnxruntime.InferenceSession({name!r})",
        'classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])',
    ]
    return ["import onnxruntime"], opened, [f"outputs = session.run(None, {{{INPUT!r}: images}})"]


def _with_torch(name: str, signature: Signature) -> Running:
    opened = [
        f"about = {{{METADATA!r}: ''}}",
        f"network = torch.export.load({name!r}, extra_files=about).module()",
        f"classes = json.loads(about[{METADATA!r}])['classes']",
    ]
    call = "network(torch.from_numpy(images))"
    outputs = call if len(signature.outputs) > 1 else f"[{call}]"
    return ["import torch"], opened, ["with torch.no_grad():", f"    outputs = [each.numpy() for each in {outputs}]"]


def _with_weights(name: str, classifier: Classifier, signature: Signature, stock: Stock | None) -> list[str]:
    """Return lines that load weights into the stock network, with or without its head."""
    load = "from safetensors.torch import load_file"
    if stock is None:
        return [
            load,
            "",
            f"state = load_file({name!r})",
            "print(*state, sep='\\n')  # entries of the network's state_dict",
        ]
    if not stock.takes_head:
        heads = tuple(f"{head}." for head in classifier.heads)
        return [
            f"import {stock.library}",
            load,
            "",
            f"network = {stock.call}",
            f"saved = load_file({name!r})",
            "state = network.state_dict()  # has the versions of its modules, which the file does not",
            f"state.update({{key: value for key, value in saved.items() if not key.startswith({heads!r})}})",
            "network.load_state_dict(state)  # the stock head keeps random weights",
        ]
    opened = [
        f"network = {stock.call}.eval()",
        "state = network.state_dict()  # has the versions of its modules, which the file does not",
        f"state.update(load_file({name!r}))",
        "network.load_state_dict(state)",
        f"with safe_open({name!r}, 'pt') as file:",
        "    classes = json.loads(file.metadata()['classes'])",
    ]
    ran = ["with torch.no_grad():", "    outputs = [network(torch.from_numpy(images)).numpy()]"]
    running = (["import torch", f"import {stock.library}", "from safetensors import safe_open", load], opened, ran)
    return _whole(running, classifier, signature)


def _whole(running: Running, classifier: Classifier, signature: Signature) -> list[str]:
    imports, opened, ran = running
    pillow = ["from PIL import Image, ImageOps"] if _is_photo(signature) else []
    return [
        "import json",
        "",
        "import numpy as np",
        *imports,
        *pillow,
        "",
        *opened,
        "",
        *_images(classifier, signature),
        "",
        *ran,
        *_print_lines(classifier, signature),
    ]


def _is_photo(signature: Signature) -> bool:
    return signature.shape[0] in (1, RGB)


def _images(classifier: Classifier, signature: Signature) -> list[str]:
    """Return lines that convert a photo to `images`, with the preprocessing that the file does not contain."""
    channels, height, width = signature.shape
    prep = classifier.preprocessing
    if not _is_photo(signature):
        lines = [f"images = np.zeros((1, {channels}, {height}, {width}), dtype=np.uint8)  # your images, of this size"]
    else:
        lines = [*_READ, *_sized(classifier, signature), "images = np.array(image).transpose(2, 0, 1)[None]"]
        if channels == 1:
            lines.append(f"images = np.floor(np.tensordot({list(GREY)}, images, (0, 1)))[:, None]  # grey")
    if not signature.inside:
        lines += [
            f"mean = np.array({list(prep.mean)}).reshape(-1, 1, 1)",
            f"std = np.array({list(prep.std)}).reshape(-1, 1, 1)",
            "images = ((images / 255 - mean) / std).astype(np.float32)",
        ]
    return lines


def _sized(classifier: Classifier, signature: Signature) -> list[str]:
    _, height, width = signature.shape
    prep = classifier.preprocessing
    side, how = prep.resize_px, f"Image.Resampling.{prep.interpolation.upper()}"
    if signature.inside and classifier.native_px is not None:
        return [f"image = image.resize(({width}, {height}), {how})  # the size of the training images"]
    if prep.squash:
        lines = [f"image = image.resize(({side}, {side}), {how})"]
    else:
        lines = [
            "short = min(image.size)",
            f"image = image.resize([{side} * length // short for length in image.size], {how})",
        ]
    if not (prep.squash and side == width):
        # Margins are rounded as in training: to the crop of the network, and from it to the input of the file.
        inner = f"round((length - {prep.crop_px}) / 2)"
        beyond = round((width - prep.crop_px) / 2)
        margin = f"{inner} - {beyond}" if beyond else inner
        lines += [
            f"left, top = [{margin} for length in image.size]",
            f"image = image.crop((left, top, left + {width}, top + {height}))",
        ]
    return lines


def _print_lines(classifier: Classifier, signature: Signature) -> list[str]:
    """Return lines that print the predictions."""
    if len(signature.outputs) > 1:
        return [
            "for (task, names), output in zip(classes.items(), outputs):",
            "    print(task, names[output[0].argmax()])",
        ]
    probabilities = "outputs[0][0]"
    if classifier.outputs.multilabel:
        if not signature.inside:
            probabilities = f"1 / (1 + np.exp(-{probabilities}))"
        return [f"for name, probability in zip(classes, {probabilities}):", "    print(name, probability)"]
    if signature.inside:
        return [f"probabilities = {probabilities}", "print(classes[probabilities.argmax()], probabilities.max())"]
    return [
        f"powers = np.exp({probabilities} - {probabilities}.max())",
        "probabilities = powers / powers.sum()",
        "print(classes[probabilities.argmax()], probabilities.max())",
    ]
