"""The loop: it learns, it resumes exactly, it stops with a clear line, and its generator comes out as a bundle."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from wsi_ihc.cli import _run
from wsi_ihc.errors import GeneratorError, OutputError, SettingsError, TrainingError
from wsi_ihc.generators import load_bundle
from wsi_ihc.training.config import TrainingSettings
from wsi_ihc.training.distributed import World
from wsi_ihc.training.export import export_run
from wsi_ihc.training.loading import load_training_settings
from wsi_ihc.training.monitoring import CollapseWatch, accuracy, spread_ratio
from wsi_ihc.training.objective import Term, objective_of
from wsi_ihc.training.randomness import seed_of
from wsi_ihc.training.run_folder import RunFolder, read_run
from wsi_ihc.training.schedule import learning_rate_factor
from wsi_ihc.training.sources import find_sources
from wsi_ihc.training.state import TrainingState
from wsi_ihc.training.trainer import StepReport, Trainer
from wsi_ihc.training.validation import measures_of

CPU = World(torch.device("cpu"))
SMOKE = Path(__file__).parents[1] / "configs" / "smoke.yaml"

TINY: dict[str, Any] = {
    "name": "tiny",
    "mpp": 0.5,
    # Dropout, so that resuming has random numbers to get wrong.
    "network": {"kind": "resnet", "blocks": 1, "base_channels": 4, "dropout": True},
    "discriminator": {"base_channels": 4},
    "data": {
        "sources": {"phantom": {"layout": "phantom", "count": 12, "size_px": 64}},
        "crop_px": 32,
        "batch_size": 2,
        "validation_px": 64,
        "validation_pairs": 1,
        "workers": 2,
    },
    "augmentation": {"stain": 0.2},
    "losses": {"octave_weights": [25.0], "variance_weight": 10.0},
    "schedule": {"unit": "steps", "constant": 4, "decay": 4},
    "compute": {"device": "cpu", "precision": "float32"},
    "run": {"log_every": 1, "share_every": 2, "checkpoint_every": 3, "validate_every": 4, "strips": 1},
}


def tiny(**sections: dict[str, Any]) -> TrainingSettings:
    merged = {
        key: {**value, **sections.get(key, {})} if isinstance(value, dict) else value for key, value in TINY.items()
    }
    return TrainingSettings.model_validate(merged | {k: v for k, v in sections.items() if k not in TINY})


def trainer(folder: Path, settings: TrainingSettings, *, resume: bool = False) -> Trainer:
    run = RunFolder(folder)
    run.begin(settings, "digest", resume=resume)
    made = Trainer(settings, find_sources(settings), run, CPU)
    if resume:
        made.resume()
    return made


def logged(folder: Path) -> list[dict[str, float]]:
    """Logged lines without what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def same(one: Any, other: Any) -> bool:
    """Equality of nested states, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def test_an_interrupted_run_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", tiny())
    assert [report.step for report in whole.take_steps()] == list(range(1, 9))

    # Killed after step 5: step 4 and 5 were logged and are lost, the checkpoint is of step 3.
    interrupted = trainer(tmp_path / "parts", tiny())
    for report in interrupted.take_steps():
        if report.step == 5:
            break
    del interrupted
    resumed = trainer(tmp_path / "parts", tiny(), resume=True)
    assert resumed.state.step == 3
    assert [report.step for report in resumed.take_steps()] == [4, 5, 6, 7, 8]

    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True) for name in ("parts", "whole")]
    assert same(*ends)
    one, other = (load_bundle(tmp_path / name / "tiny.safetensors") for name in ("parts", "whole"))
    assert one.card == other.card
    assert same(dict(one.state), dict(other.state))


def test_the_log_has_values_shares_and_what_tells_of_collapse(tmp_path: Path) -> None:
    settings = tiny()
    for _ in trainer(tmp_path / "run", settings).take_steps():
        pass
    first, last = logged(tmp_path / "run")[0], logged(tmp_path / "run")[-1]
    terms = {"adversarial", "l1", "pyramid", "variance"}
    assert {f"loss/{term}" for term in terms} <= first.keys()
    assert sum(first[f"share/{term}"] for term in terms) == pytest.approx(1, abs=1e-4)
    assert first["spread_ratio"] > 0
    assert 0 <= first["discriminator_accuracy"] <= 1
    assert last["validation/l1"] > 0
    assert (tmp_path / "run" / "samples" / "0000008.jpg").stat().st_size > 1000
    assert list((tmp_path / "run" / "tensorboard").iterdir())


@pytest.mark.parametrize("best_by", ["last", "dab_error"])
def test_the_last_average_is_exported_unless_a_measure_chooses(tmp_path: Path, best_by: str) -> None:
    made = trainer(tmp_path / "run", tiny(run={"best_by": best_by, "validate_every": 2}))
    seen = {report.step: report.validation for report in made.take_steps() if report.validation}
    state = load_bundle(tmp_path / "run" / "tiny.safetensors").state
    if best_by == "last":
        assert same(dict(state), dict(made.state.average.state_dict()))
        assert not made.state.best
    else:
        best = min(seen, key=lambda step: seen[step]["dab_error"])
        assert made.state.best["step"] == best
        assert any(f"{best} steps" in s for s in load_bundle(tmp_path / "run" / "tiny.safetensors").card.sources)


def test_stain_measures_of_validation() -> None:
    real = torch.full((1, 3, 20, 20), 0.9)
    real[..., :4, :] = torch.tensor([0.2, -0.3, -0.6])[:, None, None]
    assert measures_of(real, real)["dab_error"] == 0
    pale = measures_of(torch.full_like(real, 0.9), real)
    assert pale["dab_error"] > 0.3
    assert -pale["dab_error"] < pale["dab_bias"] < 0


def test_it_learns(tmp_path: Path) -> None:
    """Four fields without brown, L1 alone: it must fall far in fifty steps."""
    settings = tiny(
        data={"sources": {"phantom": {"layout": "phantom", "count": 4, "size_px": 64, "scores": ["0"]}}},
        network={"dropout": False},
        losses={"adversarial_weight": 0, "variance_weight": 0, "l1_weight": 10},
        optimiser={"learning_rate": 5e-3},
        schedule={"constant": 40, "decay": 10},
        run={"log_every": 10, "checkpoint_every": 100, "validate_every": 100},
    )
    reports = [report for report in trainer(tmp_path / "run", settings).take_steps() if report.measures]
    assert reports[-1].measures["loss/l1"] < 0.6 * reports[0].measures["loss/l1"]


def test_a_batch_in_parts_trains_as_the_whole_one(tmp_path: Path) -> None:
    """Without norm layers and dropout, two parts of two pairs are one batch of four."""
    plain: dict[str, Any] = {"network": {"norm": "none", "dropout": False}, "discriminator": {"norm": "none"}}
    plain |= {"schedule": {"constant": 3, "decay": 0}, "losses": {"variance_weight": 10.0, "variance_pool_px": 8}}
    for name, data in (("parts", {"batch_size": 2, "accumulate": 2}), ("whole", {"batch_size": 4})):
        for _ in trainer(tmp_path / name, tiny(data=data, **plain)).take_steps():
            pass
    for here, there in zip(logged(tmp_path / "parts"), logged(tmp_path / "whole"), strict=True):
        assert here.keys() == there.keys()
        assert here == pytest.approx(there, rel=1e-3, abs=1e-4)


def test_a_loss_from_outside_is_trained_logged_and_on_the_card(tmp_path: Path) -> None:
    settings = tiny(schedule={"constant": 2, "decay": 0})
    term = Term("darkness", 2.0, lambda step: (step.generated - step.real).clamp_min(0).mean(), "2 darkness")
    terms = (*objective_of(settings.losses), term)
    run = RunFolder(tmp_path / "run")
    run.begin(settings, "digest", resume=False, terms=terms)
    for _ in Trainer(settings, find_sources(settings), run, CPU, terms).take_steps():
        pass
    first = logged(tmp_path / "run")[0]
    assert first["loss/darkness"] > 0
    assert first["share/darkness"] > 0
    assert any(source.endswith(" + 2 darkness") for source in load_bundle(run.bundle("tiny")).card.sources)
    with pytest.raises(SettingsError, match=r"was started with the losses .* darkness"):
        run.begin(settings, "digest", resume=True)


@pytest.mark.parametrize("seed", [2**24, 2**70])
def test_seeds_of_any_size(tmp_path: Path, seed: int) -> None:
    settings = tiny(run={"seed": seed}, schedule={"constant": 1, "decay": 0})
    assert [report.step for report in trainer(tmp_path / "run", settings).take_steps()] == [1]


def test_every_place_of_a_run_has_its_own_seed() -> None:
    seeds = [seed_of(seed, place, part) for seed in (0, 1, 2**24, 2**70) for place in range(3) for part in range(2)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_in_finite_numbers(tmp_path: Path, precision: str) -> None:
    settings = tiny(compute={"precision": precision}, schedule={"constant": 3, "decay": 0}, data={"accumulate": 2})
    for _ in trainer(tmp_path / "run", settings).take_steps():
        pass
    for line in logged(tmp_path / "run"):
        assert all(torch.isfinite(torch.tensor(v)) for k, v in line.items() if not k.startswith("gradient_norm")), line


def test_divergence_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    made = trainer(tmp_path / "run", tiny())
    steps = made.take_steps()
    for report in steps:
        if report.step == 4:
            with torch.no_grad():
                next(made.state.generator.parameters()).fill_(float("nan"))
            break
    with pytest.raises(TrainingError, match=r"step 5: loss/.* is no longer a number; .*last\.pt"):
        list(steps)
    kept = TrainingState(tiny(), torch.device("cpu"), scale_gradients=False)
    kept.load(tmp_path / "run" / "checkpoints" / "last.pt", torch.device("cpu"))
    assert kept.step == 3
    assert kept.is_finite()


def test_the_average_follows_the_generator_running_statistics_included() -> None:
    state = TrainingState(tiny(), torch.device("cpu"), scale_gradients=False)
    with torch.no_grad():
        for value in state.generator.state_dict().values():
            value.add_(1)
    before = {name: value.clone() for name, value in state.average.state_dict().items()}
    state.step = 10**6
    state.update_average(0.9)
    for name, value in state.average.state_dict().items():
        expected = before[name] + (0.1 if value.is_floating_point() else 1)
        torch.testing.assert_close(value, expected)


def test_another_run_is_not_overwritten_and_other_settings_do_not_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(tiny(), "digest", resume=False)
    with pytest.raises(OutputError, match="holds another run"):
        folder.begin(tiny(), "digest", resume=False)
    folder.begin(tiny(compute={"precision": "bfloat16"}, data={"workers": 1}), "digest", resume=True)
    with pytest.raises(SettingsError, match=r"losses\.l1_weight: the run .* 25\.0, not 7\.0"):
        folder.begin(tiny(losses={"l1_weight": 7.0}), "digest", resume=True)
    with pytest.raises(SettingsError, match="data set has changed"):
        folder.begin(tiny(), "other", resume=True)
    (folder.path / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"no readable run\.json"):
        folder.begin(tiny(), "digest", resume=True)
    (folder.path / "run.json").write_text('{"settings": {"speed": 1}, "data_digest": "digest"}')
    with pytest.raises(OutputError, match=r"another version; its run\.json has unknown setting 'speed'"):
        read_run(folder.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear reader")
    with pytest.raises(OutputError, match="not empty"):
        RunFolder(tmp_path / "full").begin(tiny(), "digest", resume=False)


def test_a_run_from_before_a_setting_was_added_resumes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(tiny(), "digest", resume=False)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["settings"]["network"]["skips"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    folder.begin(tiny(), "digest", resume=True)
    with pytest.raises(SettingsError, match=r"network\.skips"):
        folder.begin(tiny(network={"skips": True}), "digest", resume=True)


def test_the_learning_rate_is_constant_and_then_falls_to_almost_nothing() -> None:
    factors = [learning_rate_factor(step, 10, 6) for step in range(10)]
    assert factors[:6] == [1.0] * 6
    assert factors[6:] == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_collapse_is_measured_and_warned_of_once() -> None:
    real, logits = torch.rand(4, 3, 8, 8), torch.zeros(4, 1, 2, 2)
    same_picture = torch.rand(1, 3, 8, 8).expand(4, -1, -1, -1)
    measures = {
        "spread_ratio": float(spread_ratio(real, same_picture)),
        "discriminator_accuracy": float(accuracy(logits + 3, logits - 3, undecided=0)),
    }
    assert measures == {"spread_ratio": pytest.approx(0, abs=1e-6), "discriminator_accuracy": 1.0}
    assert float(accuracy(logits + 0.6, logits + 0.6, undecided=0.5)) == 0.5
    collapse = CollapseWatch()
    said = [warning for _ in range(20) for warning in collapse.warnings(measures)]
    assert [warning.split()[0] for warning in said] == ["mode", "the"]
    assert not CollapseWatch().warnings({"spread_ratio": 0.9, "discriminator_accuracy": 0.7})


@pytest.mark.parametrize("half", [False, True])
def test_a_run_becomes_a_bundle_with_its_card(tmp_path: Path, half: bool) -> None:
    with pytest.raises(OutputError, match="no run"):
        export_run(tmp_path, tmp_path / "x.safetensors")
    made = trainer(tmp_path / "run", tiny(card={"licence": "CC0", "training_data": "phantoms"}))
    for _ in made.take_steps():
        pass
    path = tmp_path / "mine.safetensors"
    export_run(tmp_path / "run", path, name="mine", last=True, half=half)
    with pytest.raises(GeneratorError, match=r"card: name: .* got 'my model'"):
        export_run(tmp_path / "run", tmp_path / "my model.safetensors", name="my model")
    bundle = load_bundle(path)
    assert (bundle.card.name, bundle.card.mpp, bundle.card.licence) == ("mine", 0.5, "CC0")
    assert bundle.card.training_data.startswith("phantoms (digest digest")
    assert "1 bce + 25 L1 + pyramid (25) + 10 variance" in " ".join(bundle.card.sources)
    x = torch.zeros(1, 3, 64, 64)
    expected = made.state.average(x)
    torch.testing.assert_close(bundle.build()(x), expected, atol=2e-2 if half else 1e-6, rtol=0)


# The command line


def test_a_training_starts_from_a_bundle(tmp_path: Path) -> None:
    """Its network and resolution are the bundle's, and before the first step it stains as the bundle does."""
    for report in trainer(tmp_path / "first", tiny()).take_steps():
        assert report.step
    bundle = export_run(tmp_path / "first", tmp_path / "a #1.safetensors", last=True)
    (tmp_path / "more.yaml").write_text(
        "data: {sources: {phantom: {layout: phantom, count: 12, size_px: 64}}, crop_px: 32, validation_px: 64}\n"
        "schedule: {unit: steps, constant: 1, decay: 0}\ndiscriminator: {base_channels: 4}\n"
        "losses: {octave_weights: [25.0]}\ncompute: {device: cpu}\n"
    )
    code, said = run_cli(
        str(tmp_path / "more.yaml"), "-o", str(tmp_path / "run"), "--start", str(tmp_path / "a #1.safetensors")
    )
    assert code == 0, said
    settings, record = read_run(tmp_path / "run")
    assert (settings.network, settings.mpp) == (tiny().network, 0.5)
    assert record["start_sha256"] == bundle.card.sha256
    card = export_run(tmp_path / "run", tmp_path / "more.safetensors").card
    assert any(bundle.card.sha256 in source for source in card.sources)
    assert not any(str(tmp_path) in source for source in card.sources), "no folder of the user's"
    state = TrainingState(settings, torch.device("cpu"), scale_gradients=False)
    assert same(dict(state.average.state_dict()), dict(bundle.state))
    with pytest.raises(SettingsError, match="blocks: 9, but it is 1 in"):
        load_training_settings(None, assignments=(f"start={json.dumps(settings.start)}", "network.kind=resnet"))


def run_cli(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(_command(), list(arguments))
    return result.exit_code, result.output


def _command() -> Any:
    from wsi_ihc.cli.train import train

    return train


def test_dry_run_tells_and_writes_nothing(tmp_path: Path) -> None:
    code, output = run_cli(str(SMOKE), "-o", str(tmp_path / "run"), "--dry-run", "--set", "data.batch_size=2")
    assert code == 0
    assert "batch_size: 2" in output
    assert "200 steps" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "nowhere"], 8, "nowhere: no such folder"),
        (["--set", "data.batch_size=1"], 2, "two or more"),
        (["--device", "cuda:7"], 7, "CUDA devices found"),
        (["--set", "data.crop=3"], 2, "unknown setting 'data.crop'"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    config = str(SMOKE)
    if arguments[0] == "--data":
        config = str(SMOKE.parent / "bci_variance.yaml")
    assert _run(["train", config, "-o", str(tmp_path / "run"), "-q", *arguments]) == code
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert words in errors[0]


def test_ctrl_c_is_one_line_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "a run"
    arguments = _train(run, "schedule.constant=22", "schedule.decay=0")[3:]
    take_steps = Trainer.take_steps

    def interrupted(self: Trainer) -> Iterator[StepReport]:
        for report in take_steps(self):
            yield report
            if report.step == 21:
                raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "take_steps", interrupted)
    assert _run([*arguments, "--quiet"]) == 130
    monkeypatch.setattr(Trainer, "take_steps", take_steps)
    (line,) = capsys.readouterr().err.strip().splitlines()
    told, command = line.split(", with: ")
    assert told == "wsi-ihc: interrupted after step 21; continue from step 20, the last checkpoint"
    assert shlex.split(command) == ["wsi-ihc", *arguments, "--resume"]
    assert _run(shlex.split(command)[1:]) == 0
    said = capsys.readouterr().err
    assert "continuing after step 20" in said
    assert "22 steps taken" in said


def _train(folder: Path, *arguments: str, ranks: int = 1) -> list[str]:
    small = ["name=tiny", "network.base_channels=4", "network.blocks=1", "discriminator.base_channels=4"]
    small += ["data.crop_px=32", "data.sources.phantom.size_px=64", "data.validation_px=64", "data.batch_size=2"]
    small += ["run.checkpoint_every=20", "run.log_every=1", "run.validate_every=50", "compute.device=cpu"]
    small += ["schedule.constant=100", "schedule.decay=20", "compute.precision=float32"]
    sets = [part for assignment in (*small, *arguments) for part in ("--set", assignment)]
    start = [sys.executable, "-m", "wsi_ihc"]
    if ranks > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        start += ["-m", "wsi_ihc"]
    return [*start, "train", str(SMOKE), "-o", str(folder), *sets]


_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_kill_and_resume_give_the_losses_of_the_undisturbed_run(tmp_path: Path) -> None:
    subprocess.run(_train(tmp_path / "whole"), env=_ENVIRONMENT, check=True, capture_output=True)
    process = subprocess.Popen(_train(tmp_path / "killed"), env=_ENVIRONMENT, stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 50) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 50 <= len(log.read_text().splitlines()) < 120
    resume = [*_train(tmp_path / "killed"), "--resume"]
    subprocess.run(resume, env=_ENVIRONMENT, check=True, capture_output=True)
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are each process's own, the joined batch is the same batch."""
    plain = ["network.norm=none", "discriminator.norm=none", "schedule.constant=4", "schedule.decay=0"]
    two = _train(tmp_path / "two", *plain, "data.batch_size=2", ranks=2)
    one = _train(tmp_path / "one", *plain, "data.batch_size=4")
    for command in (two, one):
        done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
    for here, there in zip(logged(tmp_path / "two"), logged(tmp_path / "one"), strict=True):
        for name in ("loss/l1", "loss/pyramid", "loss/variance", "loss/discriminator", "gradient_norm/generator"):
            assert here[name] == pytest.approx(there[name], rel=2e-3), name
