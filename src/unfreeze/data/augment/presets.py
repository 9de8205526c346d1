"""Settings of the augmentation, and presets by name."""

from dataclasses import dataclass, replace
from typing import Any, Literal

AugmentName = Literal["none", "light", "standard", "strong"]
OpsName = Literal["none", "randaugment", "trivial"]


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation of training images.

    Args:
        crop: "centre" as in evaluation, "shifted" for a random crop at full scale, or "resized" for a random box.
        min_area: Smallest share of the area of a resized box, in (0, 1].
        degrees: Largest rotation of a resized box in either direction.
        jitter: Largest deviation of the factors of brightness, contrast and saturation from one, in [0, 1].
        ops: "randaugment" (Cubuk et al. 2020), "trivial" (Müller and Hutter 2021), or "none".
        erase: Probability of random erasing (Zhong et al. 2020).
        mixup: Parameter of the Beta distribution of mixup (Zhang et al. 2018); 0 for none.
        cutmix: Parameter of the Beta distribution of CutMix (Yun et al. 2019); 0 for none.
        mix: Probability that an image is mixed, if `mixup` or `cutmix` is not 0.
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
        """Return whether images differ between epochs, apart from mixing."""
        return self.crop != "centre" or self.jitter > 0 or self.ops != "none" or self.erase > 0

    @property
    def is_mixing(self) -> bool:
        """Return whether images and targets are mixed."""
        return self.mix > 0 and (self.mixup > 0 or self.cutmix > 0)

    def count_views(self, views: int | None) -> int:
        """Return the number of versions of each training image in a stage; 0 if each epoch draws new ones.

        Args:
            views: Number of augmented views that replace the draws of each epoch; None for new draws.
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
    """Return a preset with changed values; None leaves a value unchanged."""
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})
