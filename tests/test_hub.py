"""Networks on the Hugging Face hub, against a fake hub on this computer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fake_hub
import pytest
import torch
import yaml
from conftest import assert_one_sentence
from fake_hub import Hub
from PIL import Image
from test_cli import run

from perceptual import Model, Stylizer, Upscaler, checkpoints
from perceptual.checkpoints import hub as hub_room
from perceptual.checkpoints import shipped
from perceptual.config import NetworkConfig
from perceptual.errors import CheckpointError, ConfigError, OutputError
from perceptual.networks import TransformationNetwork

pytest.importorskip("huggingface_hub")
from huggingface_hub import constants

Capture = pytest.CaptureFixture[str]
STYLE, LARGE = "user/tiny", "user/large"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_style: Path) -> Iterator[Hub]:
    """A hub with a style network, in two versions, and a super-resolution network under a name of its own."""
    monkeypatch.chdir(tmp_path)
    with fake_hub.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        hub.commit(STYLE, {"model.safetensors": tiny_style.read_bytes(), "README.md": b"# tiny"}, tag="v1")
        network, card = checkpoints.load(tiny_style)
        checkpoints.save("second.safetensors", network, replace(card, about="second"))
        hub.commit(STYLE, {"model.safetensors": Path("second.safetensors").read_bytes()})
        config = NetworkConfig("c3s1-4 s2-3", norm="none", padding="replicate")
        network = TransformationNetwork(config)
        checkpoints.save("x2.safetensors", network, checkpoints.Card(task="upscale", network=config))
        hub.commit(LARGE, {"x2.safetensors": Path("x2.safetensors").read_bytes(), "pytorch_model.bin": b"code"})
        yield hub


# --- names


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("hf://user/name", ("user/name", None, None)),
        ("hf:/user/name", ("user/name", None, None)),  # as pathlib.Path writes it
        ("hf://user/na.me-2@v1.0", ("user/na.me-2", "v1.0", None)),
        ("hf://user/name/a/b.safetensors", ("user/name", None, "a/b.safetensors")),
        ("hf://user/name@refs/pr/3/b.safetensors", ("user/name", "refs/pr/3", "b.safetensors")),
    ],
)
def test_a_name_has_a_repository_a_revision_and_a_file(name: str, place: tuple[str, str | None, str | None]) -> None:
    assert hub_room.is_hub_name(name)
    assert hub_room.parse_hub_name(name) == place


@pytest.mark.parametrize("name", ["hf://", "hf://user", "hf://user/name/model.bin", "hf://user/name@", "hf://a/b/../c"])
def test_a_name_that_is_none_is_one_sentence(name: str) -> None:
    with pytest.raises(CheckpointError, match="is not a network on the hub: write hf://user/name"):
        checkpoints.find_network(name, task="style")


# --- downloads


def test_a_network_of_the_hub_paints_as_its_file(tiny_style: Path, photograph: Image.Image) -> None:
    from_hub = Stylizer.from_pretrained(STYLE, device="cpu")
    assert from_hub(photograph).tobytes() == Stylizer.load(tiny_style, device="cpu")(photograph).tobytes()
    assert (from_hub.card.about, from_hub.styles) == ("second", ("one", "two"))


def test_a_revision_is_pinned(hub: Hub) -> None:
    first, second = (commit for commit, _ in hub.repos[STYLE])
    abouts = {each: Stylizer.from_pretrained(STYLE, revision=each).card.about for each in ("v1", first, second, "main")}
    assert abouts == {"v1": "tiny", first: "tiny", second: "second", "main": "second"}
    assert Stylizer.load(f"hf://{STYLE}@v1").card.about == "tiny"


def test_the_only_safetensors_file_is_taken_and_a_file_can_be_named(hub: Hub) -> None:
    assert Upscaler.from_pretrained(LARGE).card.task == "upscale"
    hub.commit(LARGE, {"x4.safetensors": b"another"})
    assert Upscaler.from_pretrained(LARGE, file="x2.safetensors").network.scale == 2
    with pytest.raises(CheckpointError, match=r"has several networks: name one, such as hf://user/large/x2\.safete"):
        Upscaler.from_pretrained(LARGE)
    assert not any("pytorch_model" in request for request in hub.requests)


def test_a_second_load_downloads_nothing(hub: Hub) -> None:
    for _ in range(2):
        Stylizer.from_pretrained(STYLE)
    assert sum(request.startswith(f"GET /{STYLE}") for request in hub.requests) == 1


def test_offline_the_cache_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    Stylizer.from_pretrained(STYLE, revision="v1")
    Upscaler.from_pretrained(LARGE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert Stylizer.from_pretrained(STYLE, revision="v1").card.about == "tiny"
    assert Upscaler.from_pretrained(LARGE).network.scale == 2  # its file is not called model.safetensors
    with pytest.raises(CheckpointError, match=r"user/tiny is not in the cache, and HF_HUB_OFFLINE is set"):
        Stylizer.from_pretrained(STYLE)
    assert hub.requests == []


def test_without_a_connection_the_cache_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    Stylizer.from_pretrained(STYLE)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts of huggingface_hub
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert Stylizer.from_pretrained(STYLE).card.about == "second"
    with pytest.raises(CheckpointError, match="is not in the cache, and the hub cannot be reached"):
        Stylizer.from_pretrained("user/other")


@pytest.mark.parametrize(
    ("repo", "words", "sentence"),
    [
        ("user/none", {}, "There is no repository user/none that you can see: check the name, or log in"),
        ("no name", {}, "'no name' is not the name of a repository: write user/name"),
        (STYLE, {"revision": "v9"}, "user/tiny has no revision 'v9'"),
        (STYLE, {"file": "x.safetensors"}, "user/tiny has no file x.safetensors: it has model.safetensors"),
        (STYLE, {"file": "model.bin"}, "'model.bin' is not loaded from the hub: give a .safetensors file"),
        ("user/text", {}, "user/text has no .safetensors file"),
        ("user/foreign", {}, "holds no network that can be used: model.safetensors is not a network of perceptual"),
        ("user/damaged", {}, "holds no network that can be used: model.safetensors is damaged"),
        (LARGE, {}, "is a network for 'upscale', not for style"),
    ],
)
def test_mistakes_get_one_sentence(hub: Hub, repo: str, words: dict[str, str], sentence: str) -> None:
    import safetensors.torch

    hub.commit("user/text", {"README.md": b"text"})
    hub.commit("user/foreign", {"model.safetensors": safetensors.torch.save({"x": torch.zeros(1)})})
    hub.commit("user/damaged", {"model.safetensors": b"damaged"})
    with pytest.raises(CheckpointError) as caught:
        Stylizer.from_pretrained(repo, **words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_that_fails_is_one_sentence(hub: Hub) -> None:
    hub.broken = 418
    with pytest.raises(CheckpointError, match=r"HTTP 418|cannot be reached"):
        Stylizer.from_pretrained(STYLE)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'perceptual\[hub\]'"):
        Stylizer.from_pretrained(STYLE)


def test_networks_and_blends_on_the_hub_are_found_for_export() -> None:
    pytest.importorskip("onnx")
    from perceptual.export.graph import find

    assert isinstance(find(f"hf://{LARGE}/x2.safetensors").model, Upscaler)
    whole, blend = find(f"hf://{STYLE}"), find(f"hf://{STYLE}:0.5")
    assert whole.several
    assert blend.shares is not None


# --- uploads


def test_a_network_comes_back_as_it_was_pushed(
    hub: Hub, tiny_style: Path, photograph: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    model = Stylizer.load(tiny_style, device="cpu")
    url = model.push_to_hub("user/new", private=True, message="first")
    (commit, files), *others = hub.repos["user/new"]
    assert (url, others) == (f"{hub.url}/user/new/commit/{commit}", [])
    assert set(files) == {"README.md", "model.safetensors"}
    assert hub.private == {"user/new"}
    back = Stylizer.from_pretrained("user/new", device="cpu")
    assert back.card == model.card
    assert back(photograph).tobytes() == model(photograph).tobytes()


def test_a_private_upload_to_a_public_repository_is_refused(
    hub: Hub, tiny_style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    model = Stylizer.load(tiny_style, device="cpu")
    model.push_to_hub("user/new", message="first")
    with pytest.raises(OutputError, match="user/new is public: make it private on its page"):
        model.push_to_hub("user/new", private=True)
    assert len(hub.repos["user/new"]) == 1
    hub.private.add("user/new")
    model.push_to_hub("user/new", private=True)
    assert len(hub.repos["user/new"]) == 2


def test_a_saved_folder_loads_like_a_repository(tiny_style: Path) -> None:
    path = Stylizer.load(tiny_style).save_pretrained("folder", repo="user/new")
    assert sorted(each.name for each in Path("folder").iterdir()) == ["README.md", "model.safetensors"]
    assert path == Path("folder/model.safetensors")
    assert Stylizer.from_pretrained("folder").styles == ("one", "two")


def test_a_file_of_gamma_and_beta_is_completed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    network, card = checkpoints.load(shipped.networks("style")["gallery"])
    checkpoints.save("own.safetensors", network, replace(card, base=checkpoints.body_digest(network)))
    checkpoints.push("own.safetensors", "user/own")
    loaded, card = checkpoints.load(checkpoints.download("user/own"))
    assert card.base == ""
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def metadata(text: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_model_card_has_the_metadata_of_the_hub() -> None:
    card = checkpoints.read_card(shipped.networks("style")["gallery"])
    text = checkpoints.model_card(card, "user/gallery")
    assert metadata(text) == {
        "library_name": "perceptual",
        "license": "apache-2.0",
        "pipeline_tag": "image-to-image",
        "tags": ["perceptual", "style-transfer", "pytorch"],
    }
    body = text.split("---\n", 2)[2]
    assert 'Stylizer.from_pretrained("user/gallery")' in body
    assert "perceptual stylize photo.jpg --style hf://user/gallery" in body
    for part in (card.about, card.data, card.licence, card.network.architecture, *card.styles, *card.titles.values()):
        assert part in body
    upscale = checkpoints.model_card(checkpoints.read_card(shipped.networks("upscale")["x4_pixel"]), "user/x4")
    assert "super-resolution" in metadata(upscale)["tags"]
    assert "--network hf://user/x4" in upscale


@pytest.mark.parametrize(
    ("words", "licence"),
    [
        ("MIT", {"license": "mit"}),
        ("CC-BY-4.0; paintings public domain", {"license": "cc-by-4.0"}),
        ("for research: ask me\n---\nx: y", {"license": "other", "license_name": "for-research-ask-me-x-y"}),
        ("", {"license": "other", "license_name": "unknown"}),
    ],
)
def test_the_licence_is_one_that_the_hub_knows_or_other(words: str, licence: dict[str, str], tiny_style: Path) -> None:
    card = replace(checkpoints.read_card(tiny_style), licence=words)
    found = metadata(checkpoints.model_card(card))
    assert {name: value for name, value in found.items() if name.startswith("license")} == licence


@pytest.mark.parametrize(
    ("token", "repo", "sentence"),
    [
        ("", "user/new", "There is no token for the hub: log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_other", "user/new", "The hub does not let you write to user/new"),
        ("hf_test", "no name", "'no name' is not the name of a repository"),
    ],
)
def test_an_upload_that_is_refused_is_one_sentence(
    hub: Hub, tiny_style: Path, monkeypatch: pytest.MonkeyPatch, token: str, repo: str, sentence: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(OutputError) as caught:
        Stylizer.load(tiny_style).push_to_hub(repo)
    assert sentence in str(caught.value)
    assert "user/new" not in hub.repos


def test_offline_with_an_empty_cache_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="user/tiny is not in the cache, and HF_HUB_OFFLINE is set"):
        Stylizer.from_pretrained(STYLE)


def test_offline_nothing_is_pushed(tiny_style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="HF_HUB_OFFLINE is set"):
        checkpoints.push(tiny_style, "user/new")


@pytest.mark.parametrize("repo", ["name", "a/b/c"])
def test_a_name_that_is_no_user_and_name_is_not_pushed(hub: Hub, tiny_style: Path, repo: str) -> None:
    with pytest.raises(OutputError, match="is not the name of a repository: write user/name"):
        checkpoints.push(tiny_style, repo)
    assert not [each for each in hub.requests if "create" in each]


def test_from_pretrained_of_a_file_names_load(tiny_style: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file, not a repository or a folder: load it by `load`"):
        Stylizer.from_pretrained(str(tiny_style))


# --- commands


def test_the_commands_push_and_use_a_network(
    hub: Hub, capsys: Capture, tiny_style: Path, photograph: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    photograph.resize((64, 48)).save("a.png")
    code, out, err = run(capsys, "push", tiny_style, "user/new", "--json")
    assert code == 0, err
    assert json.loads(out)["url"].startswith(f"{hub.url}/user/new/commit/")
    assert hub.repos["user/new"][-1][1]["model.safetensors"] == tiny_style.read_bytes()
    code, out, err = run(capsys, "stylize", "a.png", "--style", "hf://user/new:0.5,hf://user/tiny@v1:0.5", "--json")
    assert code == 0, err
    assert run(capsys, "stylize", "a.png", "--style", "hf://user/new", "-o", "b.png")[0] == 0
    assert run(capsys, "upscale", "a.png", "--network", f"hf://{LARGE}", "-o", "c.png")[0] == 0
    assert run(capsys, "apply", "a.png", "--network", f"hf://{LARGE}/x2.safetensors", "-o", "d.png")[0] == 0
    with Image.open("c.png") as image:
        assert image.size == (128, 96)
    assert "user/new" in run(capsys, "styles", "hf://user/new")[1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["push", "none.safetensors", "user/new"], "There is no file none.safetensors"),
        (["stylize", "a.png", "--style", "hf://user/none"], "There is no repository user/none"),
        (["stylize", "a.png", "--style", f"hf://{LARGE}"], "is a network for 'upscale'"),
    ],
)
def test_mistakes_of_the_commands_get_one_sentence(
    capsys: Capture, photograph: Image.Image, words: list[str], part: str
) -> None:
    photograph.resize((64, 48)).save("a.png")
    code, _, err = run(capsys, *words)
    assert code == 1
    assert_one_sentence("\n".join(line for line in err.splitlines() if line.startswith("perceptual:")), part)


@pytest.mark.slow
def test_the_environment_names_the_hub(hub: Hub, tmp_path: Path) -> None:
    code = "import sys; from perceptual import Stylizer; print(Stylizer.from_pretrained(sys.argv[1]).card.about)"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code, STYLE]
    for more in ({}, {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = subprocess.run(command, capture_output=True, text=True, env={**env, **more})
        assert done.stdout == "second\n", done.stderr


def test_every_model_has_the_methods_of_the_hub() -> None:
    names = ("from_pretrained", "push_to_hub", "save_pretrained")
    assert all(hasattr(kind, name) for kind in (Model, Stylizer, Upscaler) for name in names)
