"""The config: strict, all faults at once, and equal for equal runs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import DEFAULT_VIEWS, Config, parse_config, to_dict
from finetune.errors import ConfigError
from finetune.resolve import default_schedule, resolve, run_id, with_absolute_paths


def faults(**values: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse_config(values, "a test")
    return error.value.faults


def config(**values: object) -> Config:
    return parse_config(values, "a test")


def identity(**values: object) -> str:
    return run_id(parse_config(values, "a test"), "pictures", "weights")


def test_all_faults_are_reported_at_once_with_the_nearest_names() -> None:
    """One message names every fault: an unknown field, an unknown strategy, numbers out of range."""
    found = faults(bach_size=3, strategy="partal", lr=-1, epochs=0, seed=True)
    assert [fault.partition(":")[0] for fault in found] == ["bach_size", "strategy", "lr", "epochs", "seed"]
    assert "Did you mean 'batch_size'?" in found[0]
    assert "Did you mean 'partial'?" in found[1]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"backbone": "resnet19"}, "resnet18"),
        ({"lr": "nan"}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"unfreeze": [[1, 0.5]]}, "epoch 0"),
        ({"unfreeze": [[0, 0.5], [3, 0.2]]}, "never fall"),
        ({"unfreeze": [[0, 0], [10, 1]], "epochs": 10}, "below"),
        ({"unfreeze": [[0, 1.5]]}, "[0, 1]"),
        ({"unfreeze": "[[0"}, "unfreeze"),
        ({"unfreeze": []}, "epoch 0"),
        ({"warmup_epochs": 11, "epochs": 10}, "warmup_epochs"),
        ({"strategy": ["head"]}, "strategy"),
        ({"fold": 2}, "Give folds too"),
        ({"folds": 5}, "give fold, from 0 to 4"),
        ({"folds": 5, "fold": 5}, "they are 0 to 4"),
        ({"folds": 1, "fold": 0}, "folds: 1"),
    ],
)
def test_faults_name_the_field_and_the_cure(values: dict[str, object], word: str) -> None:
    """A fault is found by the config alone and says what would be right."""
    assert word in " ".join(faults(**values))


def test_text_is_read_as_the_field_needs_it() -> None:
    """W&B's agent and the shell hand over text, and YAML reads 1e-3 as text."""
    config = parse_config({"lr": "1e-3", "epochs": "8", "unfreeze": "[[0, 0], [3, 1]]"}, "a test")
    assert (config.lr, config.epochs, config.unfreeze) == (0.001, 8, [(0, 0.0), (3, 1.0)])


@given(
    strategy=st.sampled_from(["scratch", "head", "partial", "gradual", "full"]),
    lr=st.floats(1e-6, 1),
    epochs=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_round_trip_and_resolve_is_idempotent(strategy: str, lr: float, epochs: int, seed: int) -> None:
    """A config written down reads back as itself; resolving twice is resolving once; the schedule fits the run."""
    config = parse_config(
        {"strategy": strategy, "lr": lr, "epochs": epochs, "seed": seed, "warmup_epochs": 0}, "a test"
    )
    resolved = resolve(config)
    assert parse_config(to_dict(resolved), "a test") == resolved
    assert resolve(resolved) == resolved
    assert resolved.unfreeze is not None
    assert resolved.unfreeze[0][0] == 0
    assert resolved.unfreeze[-1][0] < epochs


def test_gradual_trains_everything_for_at_least_half_of_the_run() -> None:
    """0, 1/3, 2/3, 1 in equal steps over the first half."""
    assert default_schedule("gradual", 12) == [(0, 0.0), (2, 1 / 3), (4, 2 / 3), (6, 1.0)]
    assert all(default_schedule("gradual", epochs)[-1][0] <= epochs / 2 + 0.5 for epochs in range(1, 60))


def test_points_that_train_the_same_thing_are_one_run() -> None:
    """What a strategy ignores does not make a new run; what it uses does."""
    assert identity(strategy="head") == identity(strategy="head", unfreeze=[[0, 0.5]], backbone_lr=1e-5)
    assert identity(strategy="full") == identity(strategy="partial", unfreeze=[[0, 1]])
    assert identity(strategy="scratch") == identity(strategy="full", weights="none", backbone_lr=0.5)
    assert identity(strategy="partial") != identity(strategy="partial", unfreeze=[[0, 0.5]])
    assert identity(strategy="head") != identity(strategy="head", seed=1)


def test_a_path_does_not_enter_the_hash_but_what_it_points_to_does() -> None:
    """A run has the same name on every machine, and another one on other data."""
    assert identity(data="here", weights="a.pth") == identity(data="there", weights="b.pth")
    assert run_id(config(), "pictures", "weights") != run_id(config(), "other images", "weights")
    assert run_id(config(), "pictures", "weights") != run_id(config(), "pictures", "other weights")


def test_reserved_names_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called demo does not take the demo's place; any other existing folder becomes an absolute path."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "none", "photos"):
        (tmp_path / name).mkdir()
    named = with_absolute_paths(parse_config({"data": "demo", "weights": "none"}, "a test"))
    assert (named.data, named.weights) == ("demo", "none")
    assert with_absolute_paths(parse_config({"data": "photos"}, "a test")).data == str(tmp_path / "photos")


def test_every_field_has_a_sentence() -> None:
    """The description is the flag's help and the documentation."""
    assert all(field.description for field in Config.model_fields.values())


def test_lpft_is_the_head_alone_and_then_everything() -> None:
    """Under whatever name it was asked for; in one epoch there is no time for the head alone."""
    lpft = resolve(config(strategy="lpft", epochs=8))
    assert (lpft.strategy, lpft.unfreeze) == ("lpft", [(0, 0.0), (2, 1.0)])
    same = resolve(config(strategy="gradual", epochs=8, unfreeze=[[0, 0], [2, 1]]))
    assert same == lpft
    assert resolve(config(strategy="lpft", epochs=8, unfreeze=[[0, 0], [5, 1]])).unfreeze == [(0, 0.0), (5, 1.0)]
    assert resolve(config(strategy="lpft", epochs=1)).strategy == "full"


def test_views_are_of_runs_that_freeze_something() -> None:
    """Two configs that would train the same resolve to the same."""
    assert resolve(config(strategy="partial")).views == DEFAULT_VIEWS
    assert resolve(config(strategy="gradual", views=0)).views == 0
    assert resolve(config(strategy="head", views=7)).views == 7
    assert resolve(config(strategy="head", views=7, augment="none")).views == 1
    assert resolve(config(strategy="full", views=7)) == resolve(config(strategy="full"))
    assert resolve(resolve(config(strategy="full", views=7))) == resolve(config(strategy="full"))


def test_start_px_is_of_runs_that_train_everything() -> None:
    """Elsewhere it is cleared, and more than image_px is a fault."""
    assert resolve(config(strategy="full", image_px=160, start_px=96)).start_px == 96
    assert resolve(config(strategy="gradual", image_px=160, start_px=96)).start_px == 96
    assert resolve(config(strategy="partial", image_px=160, start_px=96)).start_px is None
    assert resolve(config(strategy="full", image_px=160, start_px=160)).start_px is None
    with pytest.raises(ConfigError, match="start_px: 200 is more than image_px, 160"):
        config(strategy="full", image_px=160, start_px=200)


def test_cache_changes_no_name() -> None:
    """It is how a run is computed, not what."""
    names = {run_id(config(strategy="head", cache=cache), "data", "weights") for cache in ("auto", "on", "off")}
    assert len(names) == 1
    assert run_id(config(strategy="head", views=3), "data", "weights") not in names
