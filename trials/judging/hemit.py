"""How true is virtual pan-cytokeratin? Generators against the 400 test pairs of HEMIT, with intervals by region.

    python scripts/hemit_ihc.py HEMIT/ pairs/
    python -m trials.judging.hemit pairs/ panck recolour he --pictures pictures/

Each generator, or the H&E itself (``he``), is compared with the truth as ``scripts/hemit_ihc.py`` cleaned and painted
it, with the fields of it that no rule doubts, and with the truth without any rule. As a map of epithelium its score is
the DAB density averaged over 2 um (of the H&E itself the density of all light); the cut for Dice is chosen on the
pairs that validate. Nothing else is fitted.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsi_ihc.evaluation.generated import find_bundle, stain_whole, whole_image_stainer
from wsi_ihc.evaluation.summary import pearson, spread_statistic
from wsi_ihc.generators import load_generator
from wsi_ihc.measures.bootstrap import Estimate, set_estimate
from wsi_ihc.measures.stain import brown_areas, dice, haematoxylin_ssim, integrated_density, unmix
from wsi_ihc.pairs.folders import Pair, find_pairs, read_pair
from wsi_ihc.pairs.images import read_image

Image = NDArray[np.uint8]

BINS, MOST = 512, 1.5
"""Bins of a score between 0 and this density, from which the curves are computed."""
SMOOTH_PX = 4
"""2 um at 0.5 um/px."""
HE_ITSELF = "he"
"""The name that stands for the H&E itself."""


@dataclass(frozen=True, slots=True)
class Painter:
    """What makes the picture that is judged."""

    name: str
    paint: Callable[[Image], Image]

    @classmethod
    def of(cls, name: str) -> Painter:
        """The generator of this name, bundle or run; ``he`` gives back the H&E."""
        if name == HE_ITSELF:
            return cls(name, lambda he: he)
        stainer, _ = whole_image_stainer(load_generator(find_bundle(name)), device="cpu", precision="float32")
        return cls(name, lambda he: stain_whole(stainer, stainer.align_px, he))


@dataclass(frozen=True, slots=True)
class Judged:
    """What one picture says about one pair."""

    region: str
    dab: tuple[float, float]
    """Mean DAB density, real and generated."""
    brown: tuple[int, int, int]
    """Brown pixels, real, generated and both."""
    nuclei: float
    reduced: tuple[NDArray[np.float32], NDArray[np.float32]]
    """Real and generated at 32 px."""
    scores: NDArray[np.int64]
    """``(2, BINS)``: pixels outside and inside epithelium by their score."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="folder that scripts/hemit_ihc.py made")
    parser.add_argument("generators", nargs="+", help="names, bundles or folders of runs; he is the H&E itself")
    parser.add_argument("--every", type=int, default=1, help="judge every so many pairs only")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--markdown", type=Path, help="write the tables of docs/results here")
    parser.add_argument("--pictures", type=Path, help="folder for generated images of the test pairs")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    doubtful = _doubtful(arguments.pairs / "fields.csv")
    results = {}
    for name in arguments.generators:
        painter = Painter.of(name)
        test = judge_pairs(arguments.pairs, "test", painter, arguments.every, arguments.pictures)
        threshold = best_threshold(pooled(j for j, _ in judge_pairs(arguments.pairs, "val", painter, arguments.every)))
        cleaned = [j for j, _ in test]
        trusted = [
            j
            for (j, _), pair in zip(test, _pairs(arguments.pairs, "test", arguments.every), strict=True)
            if pair.name not in doubtful
        ]
        groups = {"cleaned": cleaned, "cleaned, undoubted": trusted, "uncleaned": [raw for _, raw in test if raw]}
        results[name] = {group: figures(judged, threshold) for group, judged in groups.items()}
        for group, measured in results[name].items():
            print(f"\n{name}, {group} ({len(groups[group])} pairs)")
            for key, estimate in measured.items():
                print(f"  {key:22} {estimate.value:7.3f}  ({estimate.low:.3f} to {estimate.high:.3f})", flush=True)
    if arguments.markdown:
        arguments.markdown.write_text(table(results))
    if arguments.json:
        plain = {n: {g: {k: asdict(e) for k, e in f.items()} for g, f in r.items()} for n, r in results.items()}
        arguments.json.write_text(json.dumps(plain, indent=1))


def table(results: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> str:
    """One Markdown table for each truth: a row for each measure, a column for each generator."""
    parts = []
    for group in next(iter(results.values())):
        names = [Path(name).stem for name in results]
        parts += [f"**{group}**\n", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for key in next(iter(results.values()))[group]:
            cells = [_cell(measured[group][key]) for measured in results.values()]
            parts.append(f"| {key} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _cell(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def figures(judged: Sequence[Judged], threshold: int) -> dict[str, Estimate]:
    """Every measure with its interval; regions are drawn, not fields."""
    by_region: Mapping[str, list[int]] = defaultdict(list)
    for index, one in enumerate(judged):
        by_region[one.region].append(index)
    members = [np.array(indices) for indices in by_region.values()]
    dab = np.array([one.dab for one in judged])
    brown = np.array([one.brown for one in judged])
    nuclei = np.array([one.nuclei for one in judged])
    spread = spread_statistic(*(np.stack([one.reduced[side] for one in judged]) for side in (0, 1)))
    scores = np.stack([one.scores for one in judged])
    statistics: dict[str, Callable[[NDArray[np.intp]], float]] = {
        "DAB r by tile": lambda i: pearson(dab[i, 0], dab[i, 1]),
        "DAB bias": lambda i: float((dab[i, 1] - dab[i, 0]).mean()),
        "DAB error by tile": lambda i: float(np.abs(dab[i, 1] - dab[i, 0]).mean()),
        "brown Dice, pooled": lambda i: dice(*brown[i].sum(axis=0)),
        "nuclei SSIM": lambda i: float(nuclei[i].mean()),
        "spread ratio": spread,
        "epithelium AUROC": lambda i: auroc(scores[i].sum(axis=0)),
        "epithelium Dice": lambda i: dice_at(scores[i].sum(axis=0), threshold),
    }

    def over_regions(statistic: Callable[[NDArray[np.intp]], float]) -> Callable[[NDArray[np.intp]], float]:
        return lambda regions: statistic(np.concatenate([members[region] for region in regions]))

    return {key: set_estimate(over_regions(s), len(members), seed=0) for key, s in statistics.items()}


def judge(pair: Pair, real: Image, he: Image, made: Image, epithelium: NDArray[np.bool_], *, painted: bool) -> Judged:
    """One generated picture against its truth; ``painted`` is False for the H&E itself."""
    _, real_dab = unmix(real, "h-dab")
    haematoxylin, dab = unmix(made, "h-dab")
    he_haematoxylin, _ = unmix(he, "h-e")
    score = dab if painted else -np.log10((made.astype(np.float32) + 1) / 256).mean(axis=2)
    smooth = cv2.GaussianBlur(score, (0, 0), SMOOTH_PX)
    bins = np.clip(smooth * (BINS / MOST), 0, BINS - 1).astype(np.int64)
    scores = np.stack([np.bincount(bins[epithelium == inside], minlength=BINS) for inside in (False, True)])
    reduced = [cv2.resize(i, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32) for i in (real, made)]
    return Judged(
        region=pair.name.rpartition("_")[0],
        dab=(integrated_density(real_dab), integrated_density(dab)),
        brown=brown_areas(real_dab, dab),
        nuclei=haematoxylin_ssim(he_haematoxylin, haematoxylin),
        reduced=(reduced[0], reduced[1]),
        scores=scores,
    )


def auroc(scores: NDArray[np.int64]) -> float:
    """Area under the receiver operating characteristic of ``(2, bins)`` counts; ties count half."""
    outside, inside = scores.astype(np.float64)
    below = np.concatenate([[0.0], np.cumsum(outside)[:-1]])
    total = outside.sum() * inside.sum()
    return float((inside * (below + outside / 2)).sum() / total) if total else float("nan")


def dice_at(scores: NDArray[np.int64], threshold: int) -> float:
    """Dice of what scores ``threshold`` (a bin) or more with epithelium."""
    outside, inside = scores[:, threshold:].sum(axis=1)
    return dice(float(scores[1].sum()), float(outside + inside), float(inside))


def best_threshold(scores: NDArray[np.int64]) -> int:
    """The bin from which Dice is highest."""
    return max(range(BINS), key=lambda threshold: dice_at(scores, threshold))


def pooled(judged: Iterable[Judged]) -> NDArray[np.int64]:
    """The counts of all pairs together."""
    return np.sum([one.scores for one in judged], axis=0)


def judge_pairs(
    root: Path, split: str, painter: Painter, every: int, pictures: Path | None = None
) -> list[tuple[Judged, Judged | None]]:
    """Every pair against the cleaned truth and, in the test split, against the uncleaned one."""
    judged = []
    for pair in _pairs(root, split, every):
        he, real = read_pair(pair)
        made, painted = painter.paint(he), painter.name != HE_ITSELF
        epithelium = read_image(root / "epithelium" / split / f"{pair.name}.png")[..., 0] > 0
        uncleaned = root / "uncleaned" / f"{pair.name}.png"
        raw = judge(pair, read_image(uncleaned), he, made, epithelium, painted=painted) if split == "test" else None
        judged.append((judge(pair, real, he, made, epithelium, painted=painted), raw))
        if pictures and painted:
            folder = pictures / Path(painter.name).stem
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{pair.name}.png"), made[..., ::-1])
    return judged


def _pairs(root: Path, split: str, every: int) -> list[Pair]:
    return find_pairs(root, split)[::every]


def _doubtful(table: Path) -> frozenset[str]:
    with table.open(newline="") as file:
        return frozenset(row["field"] for row in csv.DictReader(file) if row["verdict"] not in ("good", "flat"))


if __name__ == "__main__":
    main()
