"""Measures against the libraries that define them, or against figures worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.color import separate_stains
from skimage.color.colorconv import hdx_from_rgb
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from wsi_ihc.errors import SettingsError
from wsi_ihc.evaluation.recipes import MEASURES, measure_named
from wsi_ihc.evaluation.summary import order_violations, pearson, pearson_within, spread_statistic
from wsi_ihc.measures import distribution, fidelity, stain
from wsi_ihc.measures.benchmark import box_ssim, centre_crop, mean_dab
from wsi_ihc.measures.bootstrap import mean_estimate, paired_difference, set_estimate
from wsi_ihc.measures.density import density_table, density_tables, optical_density
from wsi_ihc.measures.distribution import (
    TEXTURE,
    TextureNetwork,
    feature_space,
    frechet_distance,
    kernel_distance,
    kernel_estimate,
)


def _tissue(seed: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """Smooth random colours over the whole range, of which windows are neither flat nor white noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(7, 150), st.integers(7, 40), st.floats(0, 1))
def test_psnr_and_ssim_are_those_of_scikit_image(seed: int, height: int, width: int, mix: float) -> None:
    real = _tissue(seed, height, width)
    made = cv2.addWeighted(real, mix, _tissue(seed + 1, height, width), 1 - mix, 0)
    assert fidelity.ssim(real, made) == pytest.approx(structural_similarity(real, made, channel_axis=2), abs=1e-12)
    if np.any(real != made):
        assert fidelity.psnr(real, made) == pytest.approx(peak_signal_noise_ratio(real, made), abs=1e-9)


def test_psnr_and_ssim_at_the_ends() -> None:
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert fidelity.psnr(black, white) == pytest.approx(0)
    assert math.isinf(fidelity.psnr(white, white))
    assert fidelity.ssim(white, white) == pytest.approx(1, abs=1e-12)


def test_ssim_of_planes_is_that_of_scikit_image() -> None:
    a, b = (_tissue(seed)[..., 0].astype(np.float32) / 200 for seed in (1, 2))
    assert fidelity.ssim_plane(a, b, 1.3) == pytest.approx(structural_similarity(a, b, data_range=1.3), abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(176, 176), (181, 203)])
def test_ms_ssim_is_that_of_torchmetrics(height: int, width: int) -> None:
    real = _tissue(1, height, width)
    made = cv2.addWeighted(real, 0.7, _tissue(2, height, width), 0.3, 0)
    tensors = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in (made, real))
    expected = float(multiscale_structural_similarity_index_measure(*tensors, data_range=1.0))
    assert fidelity.ms_ssim(real, made) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(fidelity.ms_ssim(real[:160], made[:160]))


def test_unmixing_agrees_with_scikit_image() -> None:
    image = np.maximum(_tissue(3), 1)
    theirs = separate_stains(image, hdx_from_rgb) * 6  # its unit is -log(1e-6), ours a decade; it clips at 0
    for plane, expected in zip(stain.unmix(image, "h-dab"), (theirs[..., 0], theirs[..., 1]), strict=True):
        np.testing.assert_allclose(np.maximum(plane, 0), expected, atol=0.005)


def _painted(haematoxylin: float, dab: float) -> NDArray[np.uint8]:
    density = haematoxylin * np.array([0.650, 0.704, 0.286]) + dab * np.array([0.268, 0.570, 0.776])
    return np.broadcast_to(np.round(255 * 10**-density).astype(np.uint8), (16, 16, 3)).copy()


@given(st.floats(0, 0.8), st.floats(0, 0.8))
def test_unmixing_gives_back_what_was_painted(haematoxylin: float, dab: float) -> None:
    planes = stain.unmix(_painted(haematoxylin, dab), "h-dab")
    assert planes[0].mean() == pytest.approx(haematoxylin, abs=0.03)
    assert planes[1].mean() == pytest.approx(dab, abs=0.03)


def test_dab_measures_by_hand() -> None:
    density = np.zeros((10, 10), np.float32)
    density[0] = 0.5
    assert stain.top_decile(density) == pytest.approx(0.5)
    assert stain.integrated_density(density - 1 * (density == 0)) == pytest.approx(0.05)
    assert stain.brown_areas(density, np.roll(density, 5, axis=1)) == (10, 10, 10)
    assert stain.dice(10, 10, 5) == pytest.approx(0.5)
    assert math.isnan(stain.dice(0, 0, 0))
    histogram = stain.density_histogram(np.array([[-1.0, 0.0, 1.0, 9.0]], np.float32))
    assert (histogram[0], histogram[128], histogram[255], histogram.sum()) == (2, 1, 1, 4)


def test_histogram_divergence_is_zero_for_equals_and_finite_for_strangers() -> None:
    a, b = np.zeros(256, np.int64), np.zeros(256, np.int64)
    a[0], b[255] = 1000, 1000
    assert stain.histogram_divergence(a, a) == 0
    assert 1 < stain.histogram_divergence(a, b) < 20


def test_haematoxylin_ssim_sees_nuclei_that_stay_and_that_move() -> None:
    nuclei = np.zeros((64, 64), np.float32)
    nuclei[8:16, 8:16] = nuclei[40:48, 30:38] = 0.6
    assert stain.haematoxylin_ssim(nuclei, nuclei) == pytest.approx(1)
    assert stain.haematoxylin_ssim(nuclei, np.roll(nuclei, 20, 1)) < 0.9


def test_order_violations_against_all_pairs() -> None:
    generator = np.random.default_rng(0)
    strength = generator.integers(0, 6, 40).astype(np.float64)
    ranks = generator.integers(-1, 4, 40)
    outcomes = [
        1.0 if strength[i] > strength[j] else 0.5 if strength[i] == strength[j] else 0.0
        for i in range(40)
        for j in range(40)
        if 0 <= ranks[i] < ranks[j]
    ]
    assert order_violations(strength, ranks) == pytest.approx(np.mean(outcomes))
    assert order_violations(ranks.astype(float), ranks) == 0
    assert math.isnan(order_violations(strength, np.zeros(40, np.int64)))


def test_correlation_within_scores_ignores_the_score() -> None:
    ranks = np.repeat([0, 1, 2], 20)
    noise = np.random.default_rng(0).normal(size=(2, 60))
    x, y = ranks + 0.1 * noise[0], ranks + 0.1 * noise[1]
    assert pearson(x, y) > 0.95
    assert abs(pearson_within(x, y, ranks)) < 0.3
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert math.isnan(pearson(x, np.ones(60)))


def test_spread_ratio_equals_its_definition_on_any_draw() -> None:
    generator = np.random.default_rng(0)
    real, made = generator.random((2, 9, 4, 4, 3)).astype(np.float32)
    draw = generator.integers(0, 9, 9)
    expected = made[draw].var(axis=0, ddof=1).sum() / real[draw].var(axis=0, ddof=1).sum()
    assert spread_statistic(real, made)(draw) == pytest.approx(float(expected), rel=1e-5)
    collapsed = np.repeat(made[:1], 9, axis=0)
    assert spread_statistic(real, collapsed)(np.arange(9)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_shifted_gaussians() -> None:
    features = np.random.default_rng(0).normal(size=(500, 4))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + 3) == pytest.approx(4 * 9, rel=1e-6)


def test_kernel_distance_is_the_unbiased_cubic_mmd() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 12, 5))
    kernel = lambda a, b: (a @ b.T / 5 + 1) ** 3  # noqa: E731
    off = ~np.eye(12, dtype=bool)
    expected = kernel(x, x)[off].mean() + kernel(y, y)[off].mean() - 2 * kernel(x, y).mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(x, y) == pytest.approx(kernel_distance(x, y, seed=5), rel=1e-9)


def test_kernel_interval_narrows_with_more_images() -> None:
    features = np.random.default_rng(0).normal(size=(2, 200, 3))
    assert kernel_estimate(*features, 0).value == pytest.approx(kernel_distance(*features))
    few, many = kernel_estimate(*features[:, :20], 0), kernel_estimate(*features, 0)
    assert few.high - few.low > many.high - many.low
    assert many.low < 0 < many.high


def test_texture_space_is_the_same_everywhere_and_says_what_it_is_not() -> None:
    space = feature_space(TEXTURE)
    features = space.features([_tissue(0), _tissue(0, 48, 80)])
    assert features.shape == (2, TextureNetwork.num_features)
    assert "NOT Inception" in space.name
    assert not space.is_inception
    assert features[0, :3] == pytest.approx([0.04240, 0.25165, 0.44259], abs=1e-4)


class _Pooled(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))


class _Inception(torch.nn.Module):
    """Answers probabilities unless asked for features, as the file that many use for FID."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        pooled = images.float().mean((2, 3))
        return pooled if return_features else pooled[:, :1]


class _FloatOnly(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(images, torch.ones(2, 3, 1, 1)).mean((2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_feature_files_are_loaded_whatever_their_manners(tmp_path: Path) -> None:
    image = np.full((16, 16, 3), (51, 102, 204), np.uint8)
    for index, (network, expected) in enumerate(
        [(_Pooled(), [51, 102, 204]), (_Inception(), [51, 102, 204]), (_FloatOnly(), [1.4, 1.4])]
    ):
        path = tmp_path / f"{index}.pt"
        torch.jit.script(network).save(path)
        assert feature_space(str(path)).features([image])[0] == pytest.approx(expected)
    exported = torch.export.export(_Pooled(), (torch.zeros((1, 3, 16, 16), dtype=torch.uint8),))
    torch.export.save(exported, tmp_path / "network.pt2")
    assert feature_space(str(tmp_path / "network.pt2")).features([image])[0] == pytest.approx([51, 102, 204])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrong_feature_files_get_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no network")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "state.pt")
    for name, message in (
        ("absent.pt", "no such feature network"),
        ("text.pt", "not a TorchScript"),
        ("state.pt", "not a"),
    ):
        with pytest.raises(SettingsError, match=message) as error:
            feature_space(str(tmp_path / name))
        assert "\n" not in str(error.value)
    torch.jit.script(torch.nn.Identity()).save(tmp_path / "image.pt")
    with pytest.raises(SettingsError, match="expected finite features"):
        feature_space(str(tmp_path / "image.pt")).features([_tissue(0)])


def test_bootstrap_is_seeded_and_covers_the_mean() -> None:
    values = np.random.default_rng(0).normal(10, 2, 200)
    a, b = mean_estimate(values, 3), mean_estimate(values, 3)
    assert a == b
    assert a.low < values.mean() < a.high
    assert a.high - a.low == pytest.approx(2 * 1.96 * 2 / np.sqrt(200), rel=0.25)
    assert mean_estimate(np.array([1.0, np.nan]), 0).n == 1
    assert math.isinf(mean_estimate(np.array([1.0, np.inf]), 0).value)
    assert math.isnan(mean_estimate(np.array([np.nan]), 0).value)


def test_set_bootstrap_of_a_mean_agrees_with_the_mean_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=100)
    by_set, by_mean = set_estimate(lambda i: float(values[i].mean()), 100, 0), mean_estimate(values, 0)
    assert (by_set.low, by_set.high) == pytest.approx((by_mean.low, by_mean.high), abs=0.05)


def test_paired_difference_counts_wins_by_merit() -> None:
    a, b = np.array([1.0, 2.0, 3.0, np.nan, 5.0]), np.array([2.0, 2.0, 1.0, 1.0, 4.0])
    higher = paired_difference(a, b, measure_named("ssim").merit, 0)
    assert (higher.wins, higher.losses, higher.ties) == (2, 1, 1)
    assert higher.difference.value == pytest.approx(0.5)
    lower = paired_difference(a, b, measure_named("dab_error").merit, 0)
    assert (lower.wins, lower.losses) == (1, 2)
    zero = paired_difference(np.array([-3.0, 0.1]), np.array([2.0, 1.0]), measure_named("iod_difference").merit, 0)
    assert (zero.wins, zero.losses, zero.p) == (1, 1, 1.0)


def test_every_measure_has_its_own_key_and_words() -> None:
    keys = [measure.key for measure in MEASURES]
    assert len(set(keys)) == len(keys)
    assert all(measure.meaning.endswith((".", "?")) for measure in MEASURES)


class TestBenchmark:
    """The public benchmark's protocol, against scikit-image and against figures worked out by hand."""

    def test_the_centre_is_taken(self) -> None:
        image = np.zeros((300, 259, 3), np.uint8)
        image[22:278, 1:257] = 9
        assert (centre_crop(image) == 9).all()
        assert centre_crop(image).shape == (256, 256, 3)

    def test_ssim_is_that_of_scikit_image_with_a_window_of_11(self) -> None:
        noise = np.random.default_rng(1)
        real = noise.integers(0, 256, (40, 50, 3), np.uint8)
        made = np.clip(real + noise.normal(0, 25, real.shape), 0, 255).astype(np.uint8)
        reference = structural_similarity(real, made, win_size=11, use_sample_covariance=False, channel_axis=2)
        assert box_ssim(real, made) == pytest.approx(reference, abs=1e-12)

    def test_flat_images_have_the_luminance_term_alone(self) -> None:
        real, made = (np.full((16, 16, 3), level, np.uint8) for level in (100, 150))
        c1 = (0.01 * 255) ** 2
        assert box_ssim(real, made) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))

    def test_white_has_no_dab_and_brown_has_some(self) -> None:
        brown = np.full((4, 4, 3), (120, 60, 25), np.uint8)
        assert mean_dab(np.full((4, 4, 3), 255, np.uint8)) == pytest.approx(0, abs=1e-6)
        # By hand: densities ln(255 / level) / ln(1e6), times the DAB column of the inverse of the HED matrix.
        density = np.log(255 / np.array([120, 60, 25])) / np.log(1e6)
        inverse = np.linalg.inv([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
        assert mean_dab(brown) == pytest.approx(float(density @ inverse[:, 2]), rel=1e-6)


@pytest.mark.parametrize(("white", "base", "added"), [(255.0, math.e, 1.0), (255.0, 10.0, 0.0), (238.5, math.e, 1.0)])
def test_density_of_every_grey_level(white: float, base: float, added: float) -> None:
    table = density_table(white, base=base, added=added)
    for level in (1, 17, 128, 255):
        assert table[level] == pytest.approx(math.log((white + added) / (level + added), base), abs=1e-6)
    assert np.isfinite(table).all()
    assert (np.diff(table) <= 0).all()


def test_glass_of_any_colour_has_no_density() -> None:
    glass = np.array([240, 231, 222], np.uint8)
    density = optical_density(np.tile(glass, (2, 3, 1)), density_tables(glass.astype(np.float64)))
    assert density.shape == (2, 3, 3)
    assert np.abs(density).max() < 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_only_the_inception_network_gives_a_fid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "inception-2015-12-05.pt"
    torch.jit.script(_Pooled()).save(path)  # type: ignore[no-untyped-call]
    other = feature_space(str(path))
    assert not other.is_inception
    assert other.distances == ("features_frechet", "features_kernel_x1000")
    assert "not the Inception network" in other.name
    monkeypatch.setattr(distribution, "INCEPTION_SHA256", distribution.file_sha256(path))
    assert feature_space(str(path)).distances == ("fid", "kid_x1000")
    assert all(measure_named(key) for space in (other, feature_space(TEXTURE)) for key in space.distances)
