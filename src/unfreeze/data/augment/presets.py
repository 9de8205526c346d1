"""Augmentation by name, and the values that a name stands for."""

from dataclasses import dataclass, replace
from typing import Any, Literal

AugmentName = Literal["none", "light", "standard", "strong"]
OpsName = Literal["none", "randaugment", "trivial"]


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for each training image.

    Args:
        crop: The "centre" as in evaluation, a "shifted" crop at full scale, or a "resized" box.
        min_area: Smallest share of the area that a resized box has, in (0, 1].
        degrees: Largest rotation of a resized box to either side.
        jitter: By how much factors of brightness, contrast and saturation leave one, in [0, 1].
        ops: "randaugment" (Cubuk et al. 2020), "trivial" (Müller and Hutter 2021), or "none".
        erase: Probability that a box is greyed (Zhong et al. 2020).
        mixup: Parameter of the Beta distribution (Zhang et al. 2018); 0 for none.
        cutmix: Parameter of the Beta distribution (Yun et al. 2019); 0 for none.
        mix: Probability that an image is mixed at all, where `mixup` or `cutmix` is not 0.
    """

    crop: Literal["centre", "shifted", "resized"] = "centre"
    min_area: float = 1.0
    degrees: float = 0.0
    jitter: float = 0.0
    ops: OpsName = "none"
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix: float = 1.0

    @property
    def is_random(self) -> bool:
        """Whether an image is not the same in each epoch, mixing left aside."""
        return self.crop != "centre" or self.jitter > 0 or self.ops != "none" or self.erase > 0

    @property
    def is_mixing(self) -> bool:
        """Whether targets are mixed too."""
        return self.mix > 0 and (self.mixup > 0 or self.cutmix > 0)

    def count_views(self, views: int | None) -> int:
        """Return how many versions of each training image a stage is fed: 0 where it draws new ones in each epoch.

        Args:
            views: How many augmented views of each image stand for a new one in each epoch; None for none.
        """
        if self.is_mixing:
            return 0
        return (views or 0) if self.is_random else 1


PRESETS: dict[AugmentName, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(crop="shifted"),
    "standard": Augmentation(crop="resized", min_area=0.35, degrees=10, jitter=0.2),
    "strong": Augmentation(
        crop="resized", min_area=0.15, degrees=15, ops="randaugment", erase=0.25, mixup=0.2, cutmix=1.0, mix=0.5
    ),
}


def augmentation(name: AugmentName, **changes: Any) -> Augmentation:
    """Return a preset with some of its values changed; None leaves one as it is."""
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})
