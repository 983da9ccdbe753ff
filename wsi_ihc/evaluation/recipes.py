"""The recipes: their measures, how to read them, and what is wrong with published numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Recipe = Literal["bci", "modern", "bench"]
Better = Literal["higher", "lower", "zero", "one"]

TEXTURE_WARNING = (
    "Distances in the built-in texture space rank runs against each other on the same images; they are no FID and no "
    "KID and cannot be compared with published figures. Give an Inception file with --features for those."
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: its key in files, how a report prints it, and which way is good."""

    key: str
    recipe: Recipe
    title: str
    better: Better
    digits: int
    meaning: str
    reference: str | None = None  # column of the value that the real image itself reaches
    per_image: bool = True

    def merit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values turned so that higher is better."""
        match self.better:
            case "higher":
                return values
            case "lower":
                return -values
            case "zero":
                return -np.abs(values)
            case "one":
                return -np.abs(np.log(values))


# fmt: off
MEASURES = (
    Measure("psnr", "bci", "PSNR, dB", "higher", 2,
            "Mean pixel error, 8 bit, range 255; rewards blur."),
    Measure("ssim", "bci", "SSIM", "higher", 3,
            "Local structure, 7 x 7 uniform window, mean over channels; rewards blur."),
    Measure("ms_ssim", "modern", "MS-SSIM", "higher", 3,
            "SSIM over five octaves; forgives shifts a little."),
    Measure("dab_error", "modern", "DAB error, OD", "lower", 3,
            "Difference of the top-decile DAB density, real and generated, without sign."),
    Measure("iod_difference", "modern", "DAB bias, OD", "zero", 3,
            "Integrated DAB density per pixel, generated minus real: over- or understaining."),
    Measure("histogram_divergence", "modern", "DAB histogram KL, nats", "lower", 3,
            "Kullback-Leibler divergence of the DAB histogram, real to generated."),
    Measure("brown_dice", "modern", "Brown Dice", "higher", 3,
            "Overlap of the brown areas; images where neither has any do not count."),
    Measure("haematoxylin_ssim", "modern", "Nuclei SSIM", "higher", 3,
            "Haematoxylin of the generated IHC against that of its H&E input: did the nuclei stay?",
            reference="haematoxylin_ssim_real"),
    Measure("dab_r", "modern", "DAB Pearson r", "higher", 3,
            "Correlation over images of the top-decile DAB density, real with generated.",
            per_image=False),
    Measure("dab_r_within", "modern", "DAB r within scores", "higher", 3,
            "The same with each score's mean removed: what is known beyond the score.", per_image=False),
    Measure("order_violations", "modern", "Order violations", "lower", 3,
            "Share of image pairs of two scores where the lower is stained more strongly; 0.5 is chance.",
            per_image=False),
    Measure("brown_dice_pooled", "modern", "Brown Dice, pooled", "higher", 3,
            "Dice of the brown areas of all images together.", per_image=False),
    Measure("histogram_divergence_pooled", "modern", "DAB histogram KL, pooled", "lower", 4,
            "Divergence of the histogram of all images together.", per_image=False),
    Measure("spread_ratio", "modern", "Spread ratio", "one", 3,
            "Variance over generated images by that over real ones; far below 1 is mode collapse.",
            per_image=False),
    Measure("fid", "modern", "FID", "lower", 2,
            "Fréchet distance in the space of the given feature network.", per_image=False),
    Measure("kid_x1000", "modern", "KID x 1000", "lower", 3,
            "Kernel distance in that space, unbiased.", per_image=False),
    Measure("features_frechet", "modern", "Fréchet distance (not FID)", "lower", 3,
            "Fréchet distance in the space of the feature network that the report names.", per_image=False),
    Measure("features_kernel_x1000", "modern", "Kernel distance x 1000 (not KID)", "lower", 3,
            "Kernel distance in that space, unbiased.", per_image=False),
    Measure("texture_frechet", "modern", "Texture Fréchet (not FID)", "lower", 3,
            "Fréchet distance in the built-in texture space.", per_image=False),
    Measure("texture_kernel_x1000", "modern", "Texture kernel x 1000 (not KID)", "lower", 3,
            "Kernel distance in the built-in texture space.", per_image=False),
    Measure("bench_psnr", "bench", "PSNR of centre, dB", "higher", 2,
            "As in the benchmark: the centre of 256 px at native resolution."),
    Measure("bench_ssim", "bench", "SSIM of centre, 11 px", "higher", 3,
            "The same, 11 x 11 uniform window, mean over channels."),
    Measure("bench_dab_mae", "bench", "DAB-OD MAE of centre", "lower", 4,
            "Difference of the mean DAB density of the crop (rgb2hed of scikit-image), without sign."),
    Measure("bench_lpips", "bench", "LPIPS of centre", "lower", 3,
            "Perceptual distance by the network of --lpips."),
    Measure("bench_dab_r", "bench", "DAB r of centre", "higher", 3,
            "Correlation over images of the mean DAB density of the crop.", per_image=False),
)
# fmt: on

BCI_NOTES = (
    "Images are compared at full resolution; the published test script scores a 256 px centre crop of a 320 px "
    "downscale.",
    "A generator runs in eval mode on the whole image: BatchNorm uses running statistics and dropout is off. The "
    "published script without --eval normalises by the test image itself and keeps dropout, so its numbers change from "
    "run to run.",
    "Generated values are rounded to 8 bits; the published code truncates, which darkens by half a grey value.",
    "PSNR has range 255; SSIM has a 7 x 7 uniform window and sample covariance, mean over channels. Both are means of "
    "per-image values. Older code passes scikit-image's removed multichannel argument, which fails today.",
    "BCI's sections are consecutive, 10 to 50 px apart: PSNR and SSIM then reward blur, and averaging flips alone "
    "gains half a decibel. Its HER2 score is that of the slide, not of the patch.",
)

MODERN_NOTES = (
    "DAB is separated by colour deconvolution with fixed vectors (haematoxylin .650 .704 .286, DAB .268 .570 .776), "
    "the same for both images: a stain of another hue leaks between channels.",
    "Dice and pixel measures suffer from misaligned sections; densities, histograms, correlation and distances do not.",
    "The nuclei SSIM compares with the H&E input, which is aligned by construction; the figure beside it is that of "
    "the real section, which a faithful generator can exceed.",
    "Fréchet distances grow as images get fewer: compare them only at the same number of images. Kernel distances are "
    "unbiased and may fall below zero by chance.",
    "Intervals are 95 % percentile bootstraps over images, for distances a delete-half jackknife. Patches of one slide "
    "are not independent, so true intervals are wider.",
)

BENCH_NOTES = (
    "The recipe bench follows the public virtual-staining benchmark (2026): the centre of 256 x 256 px of each image, "
    "not scaled, PSNR, SSIM with an 11 x 11 uniform window, LPIPS with AlexNet, and the mean DAB density.",
    "Three details are not stated there and are chosen here: the SSIM window stays inside the crop, the covariance is "
    "that of the window's own pixels, and DAB is scikit-image's rgb2hed, which has the scale of the published means.",
)

_BY_KEY = {measure.key: measure for measure in MEASURES}


def measure_named(key: str) -> Measure:
    """The measure with this key."""
    return _BY_KEY[key]


def chosen_recipes(name: str) -> tuple[Recipe, ...]:
    """The recipes behind a name; ``all`` is bci and modern. The benchmark's recipe is computed only when asked for."""
    match name:
        case "bci":
            return ("bci",)
        case "modern":
            return ("modern",)
        case "bench":
            return ("bench",)
        case "all":
            return ("bci", "modern")
        case _:
            raise ValueError(f"recipe {name!r}; expected bci, modern, bench or all")
