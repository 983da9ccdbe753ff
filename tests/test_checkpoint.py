"""Checkpoints of other programs in, bundles out and in again."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from wsi_ihc.errors import GeneratorError, OutputError, WsiIhcError
from wsi_ihc.generators import (
    Architecture,
    Bundle,
    GeneratorCard,
    build_network,
    import_checkpoint,
    initialise,
    list_generators,
    load_bundle,
    load_generator,
    read_pix2pix_checkpoint,
    save_bundle,
    weights_sha256,
)

SMALL = Architecture(kind="resnet", blocks=2, base_channels=2)


def state_of(architecture: Architecture) -> dict[str, Tensor]:
    return dict(initialise(build_network(architecture)).state_dict())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSI_IHC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_resnet_is_read_from_its_keys(tmp_path: Path, norm: Any, dropout: bool, upsampling: Any) -> None:
    architecture = Architecture(
        kind="resnet", blocks=3, base_channels=2, norm=norm, dropout=dropout, upsampling=upsampling
    )
    state = state_of(architecture)
    torch.save(state, tmp_path / "latest_net_G.pth")
    found, weights = read_pix2pix_checkpoint(tmp_path / "latest_net_G.pth")
    assert found == architecture
    assert weights_sha256(weights) == weights_sha256(state)


@pytest.mark.parametrize("downs", [2, 5, 8])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_unet_is_read_from_its_keys(tmp_path: Path, norm: Any, downs: int) -> None:
    architecture = Architecture(kind="unet", downs=downs, base_channels=2, norm=norm)
    torch.save(state_of(architecture), tmp_path / "net.pth")
    assert read_pix2pix_checkpoint(tmp_path / "net.pth")[0] == architecture


def _parallel(state: dict[str, Tensor]) -> dict[str, Any]:
    return {f"module.{key}": value for key, value in state.items()}


def _wrapped(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"epoch": 200, "state_dict": state, "optimizer": {"lr": 2e-4}}


def _with_discriminator(state: dict[str, Tensor]) -> dict[str, Any]:
    discriminator = {"netD.model.0.weight": torch.zeros(64, 6, 4, 4)}
    return {"state_dict": {f"netG.module.{key}": value for key, value in state.items()} | discriminator}


def _without_counters(state: dict[str, Tensor]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def _half(state: dict[str, Tensor]) -> dict[str, Any]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


@pytest.mark.parametrize("wrap", [_parallel, _wrapped, _with_discriminator, _without_counters, _half])
def test_wrapped_checkpoints(tmp_path: Path, wrap: Any) -> None:
    state = state_of(SMALL)
    torch.save(wrap(state), tmp_path / "net.pth")
    found, weights = read_pix2pix_checkpoint(tmp_path / "net.pth")
    assert found == SMALL
    torch.testing.assert_close(weights, state, atol=1e-3, rtol=1e-3)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


def test_running_statistics_of_an_old_instancenorm_are_dropped(tmp_path: Path) -> None:
    architecture = SMALL.model_copy(update={"norm": "instance"})
    state = state_of(architecture)
    old = state | {"model.2.running_mean": torch.zeros(2), "model.2.running_var": torch.ones(2)}
    torch.save(old, tmp_path / "net.pth")
    found, weights = read_pix2pix_checkpoint(tmp_path / "net.pth")
    assert found == architecture
    assert set(weights) == set(state)


class _Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch should-never-exist",)


def _pickle_with_code(path: Path) -> None:
    torch.save({"model.1.weight": torch.zeros(1), "payload": _Malicious()}, path)


def _plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Malicious()))


def _truncated(path: Path) -> None:
    torch.save(state_of(SMALL), path)
    path.write_bytes(path.read_bytes()[:-3000])


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html>Sign in</html>")


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")


def _attention_unet(path: Path) -> None:
    torch.save({"Conv1.conv.0.weight": torch.zeros(64, 3, 3, 3), "Att5.psi.0.weight": torch.zeros(1, 8, 1, 1)}, path)


def _diverged(path: Path) -> None:
    state = state_of(SMALL)
    state["model.4.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, path)


def _incomplete(path: Path) -> None:
    state = state_of(SMALL)
    del state["model.7.weight"]
    torch.save(state, path)


def _misshapen(path: Path) -> None:
    torch.save(state_of(SMALL) | {"model.4.weight": torch.zeros(4, 2, 5, 5)}, path)


def _surplus(path: Path) -> None:
    torch.save(state_of(SMALL) | {"model.4.weight_u": torch.zeros(4)}, path)


def _discriminator(path: Path) -> None:
    torch.save({"model.0.weight": torch.zeros(64, 6, 4, 4), "model.0.bias": torch.zeros(64)}, path)


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (_pickle_with_code, r"wants to run \w+.system: refused"),
        (_plain_pickle, "not a checkpoint"),
        (_truncated, "truncated|damaged"),
        (_html, "an HTML page"),
        (_pointer, "a git-LFS pointer"),
        (Path.touch, "an empty file"),
        (lambda path: None, "No such file"),
        (Path.mkdir, "directory|cannot be read"),
        (lambda path: path.write_bytes(os.urandom(5000)), "not a checkpoint"),
        (lambda path: torch.save([1, 2], path), "holds no tensors"),
        (_attention_unet, "2 tensors of an attention U-Net.*Conv1.conv.0.weight"),
        (_discriminator, "unknown layout.*model.0.weight"),
        (_diverged, "model.4.weight holds NaN"),
        (_incomplete, "resnet_2blocks, but model.7.weight is missing"),
        (_misshapen, r"model.4.weight is \(4, 2, 5, 5\) instead of \(4, 2, 3, 3\)"),
        (_surplus, "has model.4.weight_u besides"),
    ],
)
def test_what_is_no_generator_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, seen: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where code hidden in a pickle would leave its mark
    path = tmp_path / "net.pth"
    make(path)
    with pytest.raises(GeneratorError, match=seen) as caught:
        read_pix2pix_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert not (tmp_path / "should-never-exist").exists()


def card(**changes: Any) -> GeneratorCard:
    return GeneratorCard(name="small", architecture=SMALL, mpp=0.46, stain="HER2 IHC", **changes)


def test_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    state = state_of(SMALL)
    saved = save_bundle(tmp_path / "small.safetensors", card(licence="CC0-1.0"), state)
    loaded = load_bundle(tmp_path / "small.safetensors")
    assert loaded.card == saved.card
    assert loaded.card.licence == "CC0-1.0"
    assert loaded.card.sha256 == weights_sha256(state)
    x = torch.rand(1, 3, 8, 8)
    network = build_network(SMALL)
    network.load_state_dict(state)
    assert torch.equal(loaded.build()(x), network.eval()(x))
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    state = state_of(SMALL)
    digests = set()
    for name in ("a", "b"):
        save_bundle(tmp_path / name, card(), state)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_half_precision_weights_keep_their_digest(tmp_path: Path) -> None:
    state = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state_of(SMALL).items()}
    save_bundle(tmp_path / "half.safetensors", card(), state)
    assert next(load_bundle(tmp_path / "half.safetensors").build().parameters()).dtype == torch.float32


def test_existing_bundle_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_bundle(path, card(), state_of(SMALL))
    with pytest.raises(OutputError, match="exists already"):
        save_bundle(path, card(), {})
    save_bundle(path, card(description="new"), state_of(SMALL), overwrite=True)
    assert load_bundle(path).card.description == "new"


def test_altered_weights_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_bundle(path, card(), state_of(SMALL))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(GeneratorError, match="SHA-256"):
        load_bundle(path)


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda path: save_file({"a": torch.zeros(1)}, path), "weights without a card"),
        (lambda path: save_file({"a": torch.zeros(1)}, path, {"wsi_ihc_card": "{}"}), "card's name"),
        (lambda path: path.write_bytes(b"nonsense"), "not a bundle"),
        (lambda path: None, "no such bundle"),
    ],
)
def test_files_that_are_no_bundle(tmp_path: Path, make: Any, seen: str) -> None:
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(GeneratorError, match=seen):
        load_bundle(path)


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(GeneratorError, match="do not fit"):
        Bundle(card(), state_of(Architecture(kind="resnet", blocks=2, base_channels=4))).build()


def test_import_installs_under_a_name(tmp_path: Path, home: Path) -> None:
    torch.save(state_of(SMALL), tmp_path / "net.pth")
    path, made = import_checkpoint(tmp_path / "net.pth", "mine", mpp=0.46, stain="HER2 IHC")
    assert path == home / "bundles" / "mine.safetensors"
    assert load_generator("mine").card == made
    assert made.sources[0].startswith("net.pth (sha256 ")
    (home / "bundles" / "broken.safetensors").write_bytes(b"?")
    cards, notices = list_generators()
    assert {"recolour", "identity", "mine"} <= {card.name for card in cards}
    assert len(notices) == 1
    assert "broken" in notices[0]


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("absent", "known are recolour, identity"),
        ("net.pth", "weights import"),
        ("./none.safetensors", "no such bundle"),
    ],
)
def test_unknown_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, seen: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(state_of(SMALL), "net.pth")
    with pytest.raises(GeneratorError, match=seen):
        load_generator(name)


def test_weights_commands(tmp_path: Path) -> None:
    from wsi_ihc.cli.weights import weights

    torch.save(state_of(SMALL), tmp_path / "net.pth")
    run = CliRunner()
    refused = run.invoke(weights, ["import", str(tmp_path / "net.pth"), "-o", "mine"])
    assert refused.exit_code == 2
    assert "--mpp, --stain" in refused.output
    facts = ["--mpp", "0.46", "--stain", "HER2 IHC", "--licence", "non-commercial"]
    done = run.invoke(weights, ["import", str(tmp_path / "net.pth"), "-o", "mine", *facts], catch_exceptions=False)
    assert "use it with --generator mine" in done.output
    renamed = ["import", str(tmp_path / "net.pth"), "-o", "other", "--name", "elsewhere", *facts]
    assert "use it with --generator other\n" in run.invoke(weights, renamed).output
    assert load_generator("other").card.name == "elsewhere"
    beside = str(tmp_path / "folder" / "net")
    done = run.invoke(weights, ["import", str(tmp_path / "net.pth"), "-o", beside, *facts], catch_exceptions=False)
    assert f"use it with --generator {beside}.safetensors\n" in done.output
    assert "mine" in run.invoke(weights, ["list"]).output
    assert '"mpp": 0.46' in run.invoke(weights, ["list", "--json"]).output
    assert "(checked)" in run.invoke(weights, ["show", "mine"]).output
    again = run.invoke(weights, ["import", str(tmp_path / "net.pth"), "-o", "mine", *facts])
    assert isinstance(again.exception, WsiIhcError)


def test_what_ships_says_what_stands_behind_it() -> None:
    from wsi_ihc.cli.weights import weights

    cards = {card.name: card for card in list_generators()[0]}
    assert cards["her2-demo"].evidence == "demonstration"
    assert cards["recolour"].evidence == "nothing learnt"
    assert all(card.measured for card in cards.values() if card.evidence == "real tissue")
    listed = CliRunner().invoke(weights, ["list"]).output.splitlines()
    (default,) = [line for line in listed if "(default)" in line]
    assert "her2-demo" in default
    assert "demonstration" in default


def test_the_last_line_of_convert_names_a_demonstration_and_no_other() -> None:
    from wsi_ihc.cli.convert import standing

    shown = card().model_copy(update={"evidence": "demonstration"})
    assert standing(shown) == "small is a demonstration, learnt from drawings: no evidence of HER2."
    assert "measured on real tissue" in standing(shown.model_copy(update={"evidence": "real tissue"}))
    assert standing(card()) == ""


def test_safetensors_without_a_card_can_be_imported(tmp_path: Path) -> None:
    save_file(state_of(SMALL), tmp_path / "net.safetensors")
    assert read_pix2pix_checkpoint(tmp_path / "net.safetensors")[0] == SMALL
    path, _ = import_checkpoint(tmp_path / "net.safetensors", str(tmp_path / "out"), mpp=0.5, stain="HER2 IHC")
    assert path == tmp_path / "out.safetensors"
    assert set(load_file(path)) == set(state_of(SMALL))
