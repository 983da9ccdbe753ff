"""Writes docs/results/comparison.md from the results of the trials; no figure is typed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from trials.losses.results import (
    SETTINGS,
    Setting,
    difference,
    over_seeds,
    system_trials,
    training_means,
    trial_reports,
)
from trials.losses.trials import (
    BASELINES,
    SHIFT_PX,
    SYSTEMS,
    VARIANTS,
    Scale,
    System,
    Trial,
    batch_sweep,
    losses_of,
    report_folder,
    weight_sweep,
)
from wsi_ihc.evaluation.recipes import Measure, measure_named
from wsi_ihc.evaluation.report import Report, read_report
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.training.objective import describe, objective_of

BEGIN, END = "<!-- results: written by trials.losses --report -->", "<!-- end of results -->"

MEASURES = (
    "psnr", "ssim", "texture_frechet", "texture_kernel_x1000", "dab_r", "dab_r_within", "dab_error",
    "histogram_divergence", "iod_difference", "order_violations", "brown_dice", "haematoxylin_ssim", "spread_ratio",
)  # fmt: skip
SCORE_MEASURES = (
    "psnr",
    "ssim",
    "texture_kernel_x1000",
    "dab_r",
    "histogram_divergence",
    "iod_difference",
    "spread_ratio",
)
SWEEP_MEASURES = (
    "psnr",
    "ssim",
    "texture_kernel_x1000",
    "dab_r",
    "dab_r_within",
    "histogram_divergence",
    "spread_ratio",
)
BASELINE_TITLES = {
    "recolour": "recolour",
    "identity": "the H&E itself",
    "mean": "mean image",
    "truth": "the true stain",
}
RIVALS: tuple[tuple[System, System], ...] = (("variance", "pyramid"), ("variance", "pix2pix"), ("pyramid", "pix2pix"))


def write_report(scale: Scale, results: Path, seeds: int, target: Path, real: Path) -> None:
    """Replace the part of ``target`` between the two marks; a new file gets nothing but that part."""
    text = "\n".join([BEGIN, "", *_lines(scale, results, seeds), *_real_lines(real), END])
    before, after = "", "\n"
    if target.is_file():
        before, _, rest = target.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
    target.write_text(before + text + after, encoding="utf-8")


def _lines(scale: Scale, results: Path, seeds: int) -> Iterator[str]:
    yield from _set_up(scale, results, seeds)
    for setting in SETTINGS:
        own = {
            s: trial_reports(system_trials(s, setting.variant, scale, seeds), results, setting.reference)
            for s in SYSTEMS
        }
        if not all(own.values()):
            yield f"{setting.title}: not finished."
            continue
        yield from (f"### {setting.title}", "")
        yield from _overall(setting, own, results)
        yield from _differences(own)
        yield from _scores(own)
    yield from _sweeps(scale, results)
    yield from _trainings(scale, results, seeds)


def _set_up(scale: Scale, results: Path, seeds: int) -> Iterator[str]:
    done = {s: len(trial_reports(system_trials(s, v, scale, seeds), results, v)) for s in SYSTEMS for v in VARIANTS}
    yield (
        f"{scale.train_fields} training and {scale.test_fields} test fields of {scale.field_px} px, scores in turn. "
        f"Generator: resnet, {scale.blocks} blocks, {scale.channels} channels; discriminator: 70x70 PatchGAN, "
        f"{scale.discriminator_channels} channels. {scale.steps} steps of {scale.batch} crops of {scale.crop_px} px; "
        f"Adam {scale.learning_rate:g} and {scale.discriminator_learning_rate:g}, falling over the second half; judged "
        f"is the moving average ({scale.ema_decay:g}) after the last step. Misaligned: the IHC is moved by "
        f"{SHIFT_PX[0]} to {SHIFT_PX[1]} px in any direction. Seeds finished: {min(done.values())} of {seeds}."
    )
    yield ""
    yield from (f"- **{system}**: {describe(objective_of(losses_of(system)))}" for system in SYSTEMS)
    yield ""


def _overall(setting: Setting, own: dict[System, list[Report]], results: Path) -> Iterator[str]:
    baselines = _baselines(setting, results)
    yield _row(["", *SYSTEMS, *(BASELINE_TITLES[name] for name in baselines)])
    yield _row(["---"] * (1 + len(SYSTEMS) + len(baselines)))
    for measure in map(measure_named, MEASURES):
        cells = [_cell(reports, measure) for reports in (*own.values(), *([report] for report in baselines.values()))]
        yield _row([f"{measure.title} {_ARROWS[measure.better]}", *cells])
    yield ""


_ARROWS = {"higher": "↑", "lower": "↓", "zero": "→0", "one": "→1"}


def _baselines(setting: Setting, results: Path) -> dict[str, Report]:
    folders = {
        name: report_folder(results / "baselines" / f"{setting.variant}-{name}", setting.reference)
        for name in BASELINES
        if name != "truth" or setting.reference == "misaligned"
    }
    return {name: read_report(folder) for name, folder in folders.items() if (folder / "report.json").is_file()}


def _cell(reports: Sequence[Report], measure: Measure, group: str = "all") -> str:
    found = over_seeds(reports, measure, group)
    if found is None or math.isnan(found.value):
        return "–"
    text = _number(found.value, measure)
    if not math.isnan(found.deviation):
        text += f" ±{_number(found.deviation, measure)}"
    if not (math.isnan(found.low) or math.isnan(found.high)):
        text += f" [{_number(found.low, measure)}, {_number(found.high, measure)}]"
    return text


def _number(value: float, measure: Measure, *, sign: bool = False) -> str:
    text = f"{value:{'+' if sign else ''}.{measure.digits}f}"
    return text.replace("-", "−")


def _differences(own: dict[System, list[Report]]) -> Iterator[str]:
    titles = [f"{first} over {second}" for first, second in RIVALS]
    yield _row(["gain", *titles])
    yield _row(["---"] * (1 + len(titles)))
    verdicts: dict[str, dict[int, list[str]]] = {title: {1: [], -1: [], 0: []} for title in titles}
    for measure in map(measure_named, MEASURES):
        cells = []
        for title, (first, second) in zip(titles, RIVALS, strict=True):
            found = difference(measure, own[first], own[second])
            if found is None:
                cells.append("–")
                continue
            verdicts[title][found.verdict].append(measure.title)
            text = _number(found.value, measure, sign=True)
            spans = [f"[{_number(low, measure, sign=True)}, {_number(high, measure, sign=True)}]" if bounds else "–"
                     for bounds in (found.images, found.seeds) for low, high in [bounds or (0, 0)]]  # fmt: skip
            cells.append(f"{f'**{text}**' if found.verdict else text} {spans[0]} {spans[1]}")
        yield _row([measure.title, *cells])
    yield ""
    for title, verdict in verdicts.items():
        better, worse = (", ".join(verdict[side]) or "nothing" for side in (1, -1))
        yield f"- {title}: better in {better}; worse in {worse}; undecided in {len(verdict[0])} of {len(MEASURES)}."
    yield ""


def _scores(own: dict[System, list[Report]]) -> Iterator[str]:
    measures = [measure_named(key) for key in SCORE_MEASURES]
    yield from ("<details><summary>By HER2 score</summary>", "")
    yield _row(["score", "", *(f"{measure.title} {_ARROWS[measure.better]}" for measure in measures)])
    yield _row(["---"] * (2 + len(measures)))
    for score in HER2_SCORES:
        for system, reports in own.items():
            yield _row([score, system, *(_cell(reports, measure, score) for measure in measures)])
    yield from ("", "</details>", "")


def _sweeps(scale: Scale, results: Path) -> Iterator[str]:
    measures = [measure_named(key) for key in SWEEP_MEASURES]
    yield from ("### The weight of the penalty, and the batch", "", "![Curves](comparison_sweeps.png)", "")
    yield "Misaligned pairs, the first seed, judged against the true stain; intervals are over images only."
    yield ""
    yield _row(["weight", "batch", "share of the pull", *(f"{m.title} {_ARROWS[m.better]}" for m in measures)])
    yield _row(["---"] * (3 + len(measures)))
    for trial in dict.fromkeys([*weight_sweep(scale), *batch_sweep(scale)]):
        reports = trial_reports([trial], results, "aligned")
        if not reports:
            continue
        share = training_means([trial], results).get("share/variance", 0.0)
        cells = [_cell(reports, measure) for measure in measures]
        yield _row([f"{trial.variance_weight:g}", str(trial.batch), f"{share:.0%}", *cells])
    yield ""


def _trainings(scale: Scale, results: Path, seeds: int) -> Iterator[str]:
    """What the trainings said of themselves."""
    keys = ("share/adversarial", "share/l1", "share/pyramid", "share/variance", "spread_ratio",
            "discriminator_accuracy", "time/steps_per_s", "time/waiting_share")  # fmt: skip
    titles = ("adversarial", "L1", "octaves", "variance", "spread ratio in a batch", "patches told apart", "steps/s",
              "waits for data")  # fmt: skip
    yield from ("### The trainings", "")
    yield "Means over the second half and over seeds; the first four are shares of the gradient at the generated image."
    yield ""
    yield _row(["pairs", "system", *titles])
    yield _row(["---"] * (2 + len(titles)))
    for variant in VARIANTS:
        for system in SYSTEMS:
            trials: list[Trial] = system_trials(system, variant, scale, seeds)
            means = training_means(trials, results)
            cells = [_training_cell(key, means.get(key)) for key in keys]
            yield _row([variant, system, *cells])
    yield ""


def _training_cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0%}" if key.startswith("share/") or key.endswith(("accuracy", "share")) else f"{value:.2g}"


def _real_lines(file: Path) -> Iterator[str]:
    if not file.is_file():
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    yield from ("### Real pixels", "", found["set_up"], "")
    yield _row(["", "L1 on held-out pairs, grey scores of 255"])
    yield _row(["---"] * 2)
    for name, (value, low, high) in found["l1"].items():
        yield _row([name, f"{value:.1f} [{low:.1f}, {high:.1f}]"])
    yield from ("", found["wins"], "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
