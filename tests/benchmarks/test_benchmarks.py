"""The benchmark: the plain loop does what its docstring says, and tables, ratios and the roofline are right."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import rcParams
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import baselines, figure, meters, ours, plain, roofline, runner, synthetic_images, table
from benchmarks.meters import LapTimer
from finetune.config import Config, parse_config
from finetune.models.classifier import Classifier
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.resolve import resolve
from tests import ROOT

BACKBONE = "resnet18"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a few drawn images, split."""
    return synthetic_images.draw_folder(tmp_path_factory.mktemp("drawn"), {"train": 8, "val": 4, "test": 4})


def make_config(pictures: Path, strategy: str, **fields: Any) -> Config:
    """Return a config of a tiny run on the CPU."""
    values = {"backbone": BACKBONE, "weights": "none", "image_px": 32, "batch_size": 4, "epochs": 1, "device": "cpu"}
    return parse_config({**values, "data": str(pictures), "strategy": strategy, **fields}, "the test")


def train_and_compare(config: Config) -> tuple[dict[str, Any], Classifier, dict[str, bool]]:
    """Train with the plain loop; return the result, the network, and which of its tensors are unchanged."""
    networks: list[tuple[Classifier, dict[str, torch.Tensor]]] = []

    def build(config: Config, classes: int, image_px: int) -> Classifier:
        network = plain.build(config, classes, image_px)
        networks.append((network, {name: value.clone() for name, value in network.state_dict().items()}))
        return network

    result = plain.train(config, build)
    network, before = networks[0]
    return result, network, {name: torch.equal(value, before[name]) for name, value in network.state_dict().items()}


def test_images_are_drawn(pictures: Path) -> None:
    """As many as asked for, in every class, of SIZE, and all different."""
    paths = sorted(pictures.glob("train/*/*.jpg"))
    assert len(paths) == 8
    assert {path.parent.name for path in paths} == set(synthetic_images.CLASSES)
    assert len({path.read_bytes() for path in paths}) == 8
    with Image.open(paths[0]) as image:
        assert image.size == synthetic_images.SIZE


def test_plain_loop_freezes_the_first_blocks_only(pictures: Path) -> None:
    """Under partial, weights of the first blocks stay, all others change; statistics of frozen batch-norms drift."""
    config = make_config(pictures, "partial", lr=0.1)
    result, network, same = train_and_compare(config)
    frozen = UnfreezeSchedule.of(resolve(config), len(network.blocks)).cut(0)
    assert 0 < frozen < len(network.blocks)
    weights = {name for name, _ in network.named_parameters()}
    for name, is_same in same.items():
        inside = name.startswith("blocks.") and int(name.split(".")[1]) < frozen
        assert is_same == (inside and name in weights), name
    assert result["pictures"] == {"train": 8, "val": 4, "test": 4}
    assert result["peak_rss_bytes"] > 1e6


def test_plain_loop_unfreezes_as_the_schedule_says(pictures: Path) -> None:
    """Gradual begins with the head alone and ends with everything; only epochs with a frozen part have a prefix."""
    seen = []

    def freeze(network: Classifier, cut: int, optimizer: torch.optim.Optimizer, config: Config) -> None:
        plain.freeze(network, cut, optimizer, config)
        seen.append([all(p.requires_grad for p in block.parameters()) for block in network.blocks])

    schedule = [[0, 0.0], [1, 0.5], [2, 1.0]]
    config = make_config(pictures, "gradual", epochs=3, unfreeze=schedule)
    result = plain.train(config, freeze=freeze)
    count = len(seen[0])
    assert seen == [[False] * count, [False] * (count // 2) + [True] * (count - count // 2), [True] * count]
    assert [row["seconds/prefix"] > 0 for row in result["epochs"]] == [True, True, False]


def test_plain_loop_notes_each_epoch(pictures: Path) -> None:
    """Loading, the frozen part and the rest add up to the training time."""
    result = plain.train(make_config(pictures, "head", epochs=2))
    assert [row["epoch"] for row in result["epochs"]] == [1, 2]
    for row in result["epochs"]:
        inner = [row[f"seconds/{part}"] for part in ("loader", "prefix", "suffix")]
        assert sum(inner) == pytest.approx(row["seconds/train"])
        assert min(*inner, row["seconds/val"]) > 0


def test_plain_loop_is_tested_at_its_best_epoch(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Val accuracy chooses the epoch, and the lower loss among equals; the network of that epoch is tested."""
    scores = iter([(1.0, 0.5), (0.9, 0.75), (0.8, 0.75), (0.7, 0.5), (0.6, 1.0)])
    heads = []

    def evaluate(network: Classifier, *_: Any) -> tuple[float, float]:
        heads.append(network.head[1].weight.detach().clone())
        return next(scores)

    monkeypatch.setattr(plain, "evaluate", evaluate)
    result = plain.train(make_config(pictures, "head", epochs=4))
    assert (result["best/epoch"], result["best/val_accuracy"], result["test/accuracy"]) == (3, 0.75, 1.0)
    assert torch.equal(heads[4], heads[2])
    assert not torch.equal(heads[4], heads[3])


def test_the_lap_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lap takes the time since the one before it, laps of a part add up, and each epoch begins anew."""
    times = iter([0.0, 1.0, 3.0, 7.0, 10.0, 11.0])
    monkeypatch.setattr("benchmarks.meters.time.perf_counter", lambda: next(times))
    timer = LapTimer(torch.device("cpu"))
    for part in ("loader", "suffix", "loader"):
        timer.lap(part)
    timer.end_epoch(loss=0.5)
    timer.lap("val")
    timer._now = lambda: 0.0  # type: ignore[method-assign]
    timer.end_epoch()
    first = {"epoch": 1, "loss": 0.5, "seconds/loader": 5.0, "seconds/suffix": 2.0}
    assert timer.epochs == [first, {"epoch": 2, "seconds/val": 1.0}]


def test_the_machine_is_described() -> None:
    """With versions and the commit, and without a name of it."""
    machine = meters.describe_machine(threads=2)
    assert {"python", "torch", "pillow"} <= machine["versions"].keys()
    assert machine["threads"] == 2
    assert platform.node() not in json.dumps(machine)


def test_our_runs_are_measured(pictures: Path) -> None:
    """Every epoch has views of its own; writing checkpoints is left out; the further run fills no cache."""
    result = ours.train(make_config(pictures, "partial"), "fp32", again=True)
    assert [result["config"][name] for name in ("views", "cache", "precision")] == [1, "on", "fp32"]
    (first,), (second,) = result["epochs"], result["further"]
    assert {"seconds/cache", "seconds/loader", "seconds/suffix", "seconds/val"} <= first.keys()
    assert "seconds/save" not in first
    assert second["seconds/cache"] < first["seconds/cache"]
    assert result["peak_rss_bytes"] > 1e6


def test_parts_add_up() -> None:
    """The plain loop's training time is not counted beside its parts; a peer's, which has no parts, is."""
    row = {"epoch": 1, "seconds/train": 3.0, "seconds/loader": 1.0, "seconds/prefix": 0.5, "seconds/suffix": 1.5}
    assert table.total_seconds([{**row, "seconds/val": 2.0, "val/accuracy": 0.5}]) == 5.0
    assert table.total_seconds([{"seconds/train": 3.0, "seconds/val": 2.0}]) == 5.0


def make_run(contender: str, number: int, seconds: float, strategy: str = "head", **more: Any) -> dict[str, Any]:
    """Return a measured run of one epoch."""
    epochs = [{"epoch": 1, "seconds/suffix": seconds, "seconds/val": 0.0, "val/accuracy": 0.5}]
    about = {"round": number, "strategy": strategy, "contender": contender, "peak_rss_bytes": 2e9}
    return {**about, "epochs": epochs, **more}


def test_ratios_are_within_a_round() -> None:
    """Each round's ratio is to its own plain loop; rounds where either is missing or failed do not count."""
    runs = [make_run("plain", 0, 10), make_run("ours", 0, 5), make_run("ours", 1, 8), make_run("plain", 1, 40)]
    runs += [make_run("plain", 2, 10), make_run("plain", 0, 100, "full")]
    runs += [{"round": 3, "strategy": "head", "contender": "plain", "error": "killed"}, make_run("ours", 3, 1)]
    assert table.ratios(runs, "head", "ours") == [2.0, 5.0]
    assert table.ratios(runs, "head", "ours", "further") == []


def test_the_floor_counts_training_and_val() -> None:
    """Frozen blocks cost a forward pass, the others three, val images one; epoch by epoch."""
    flops = [10, 20, 30]
    assert roofline.training_flops(flops, cut=2) == 10 + 20 + 90
    expected = 4 * (10 + 20 + 90) + 2 * 60 + 4 * 180 + 2 * 60
    assert roofline.floor_seconds(flops, [2, 0], train=4, val=2, peak=10.0) == pytest.approx(expected / 10)


def test_the_work_of_a_config(pictures: Path) -> None:
    """The cuts follow the schedule: nothing trains, then half, then everything."""
    schedule = [[0, 0.0], [1, 0.5], [2, 1.0]]
    flops, cuts = roofline.work(make_config(pictures, "gradual", epochs=3, unfreeze=schedule))
    assert cuts[0] == len(flops)
    assert cuts[2] == 0
    assert 0 < cuts[1] < len(flops)


def make_results(**more: Any) -> dict[str, Any]:
    """Return results of a head run of 64 images, in two rounds."""
    plan = {"contenders": ["plain", "timm", "ours"], "strategies": ["head"], "rounds": 2, "pictures": 64}
    plan |= {
        "batch_size": 16,
        "backbone": BACKBONE,
        "weights": "none",
        "image_px": 224,
        "loader_px": [224, 384],
        "threads": 1,
    }
    machine = {"cpu": "a CPU", "cores": 2, "memory_gb": 8, "versions": {"torch": "2"}, "git_commit": "abc"}
    further = [{"epoch": 1, "seconds/suffix": 1.0, "val/accuracy": 0.5}]
    runs = [make_run("plain", 0, 16), make_run("ours", 0, 8, further=further)]
    runs += [make_run("plain", 1, 16), make_run("ours", 1, 4, further=further)]
    # 64 training and 16 val images of 100 FLOPs each: 8,000 FLOPs, 4 seconds at 2,000 FLOP/s.
    return {
        "machine": machine,
        "plan": plan,
        "floor": {"peaks": {"fp32": 2e3, "bf16": 4e3}, "work": {"head": [[60, 40], [2]]}, "device": "cpu"},
        "skipped": {"timm": "not installed"},
        "runs": runs,
        "loader": [
            {"round": 0, "px": 224, "loader": "plain", "first": 3.0, "seconds": [2.0, 2.0]},
            {"round": 0, "px": 224, "loader": "on", "first": 2.0, "seconds": [0.25, 0.25]},
            {"round": 1, "px": 224, "loader": "on", "error": "killed"},
            {"round": 0, "px": 384, "loader": "on", "first": 2.0, "seconds": [0.25, 0.25]},
        ],
        **more,
    }


def cells(line: str) -> list[str]:
    """Return the cells of a Markdown table's line."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_contenders() -> None:
    """It has images/s, ratios with their range, memory and the distance to the floor, and names skipped contenders."""
    lines = table.speed_table(make_results())
    assert cells(lines[2]) == ["head", "plain loop", "4.0", "1", "", "2.00 GB", "4.0"]
    row = ["head", "finetune, fp32", "10.7", "3.00 (2.00–4.00)", "16.0 (16.0–16.0)", "2.00 GB", "1.5"]
    assert cells(lines[3]) == row
    assert any("timm" in line and "not installed" in line for line in lines)
    assert not any("timm" in line for line in lines[:4])


def test_the_bf16_row_has_the_floor_of_bf16() -> None:
    """Its distance to the floor is by the peak of its own arithmetic."""
    results = make_results(runs=[make_run("plain", 0, 16), make_run("ours-bf16", 0, 16)])
    results["plan"]["contenders"] = ["plain", "ours-bf16"]
    lines = table.speed_table(results)
    assert [cells(line)[-1] for line in lines[2:4]] == ["4.0", "8.0"]


def test_failures_are_reported() -> None:
    """A contender that failed has a row that says so, and its error below the table."""
    failed = {"round": 0, "strategy": "head", "contender": "ours", "error": "out of memory"}
    lines = table.speed_table(make_results(runs=[make_run("plain", 0, 16), failed]))
    assert cells(lines[3])[:3] == ["head", "finetune, fp32", "failed"]
    assert any("out of memory" in line for line in lines)


def test_the_table_of_loaders() -> None:
    """Ratios to ImageFolder of the same round and side; where there is none to compare with, no row."""
    lines = table.loader_table(make_results())
    assert [cells(line) for line in lines[2:]] == [
        ["224", "ImageFolder, PIL", "1", "1"],
        ["224", "finetune, cached", "1.50", "8.00"],
    ]


def test_everything_is_printed() -> None:
    """The command prints introduction and tables."""
    text = "\n".join(command.describe(make_results()))
    assert "64 images an epoch" in text
    assert "ImageFolder" in text
    assert "0.002" not in text  # peaks in TFLOP/s, not a wrong unit
    assert "2e-09 TFLOP/s in fp32" in text


def settings() -> dict[str, Any]:
    """Return matplotlib's settings, without the backend, which is looked for when it is first needed."""
    return {name: value for name, value in rcParams.copy().items() if name != "backend"}


def test_where_the_time_goes(tmp_path: Path) -> None:
    """Parts are means over epochs; a figure is drawn from results that have both, and only from those."""
    epochs = [{"seconds/loader": 1.0, "seconds/suffix": 2.0}, {"seconds/loader": 3.0, "seconds/suffix": 4.0}]
    run = {**make_run("plain", 0, 1), "epochs": epochs}
    shown = figure.epoch_parts([run], "head", "plain", "epochs")
    assert shown is not None
    assert (shown["loader"], shown["suffix"], shown["val"]) == (2.0, 3.0, 0.0)
    assert figure.epoch_parts([run], "full", "plain", "epochs") is None
    before = settings()
    assert figure.draw_figure(make_results(), tmp_path / "figure.png")
    assert settings() == before  # other figures of this process are not drawn in its style
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert not figure.draw_figure(make_results(runs=[run]), tmp_path / "none.png")


def test_a_peer_that_is_not_installed_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others go on without it, and bf16 is measured only where it is not emulated."""
    monkeypatch.setattr(runner, "is_installed", lambda name: name != "fastai")
    plan = runner.BenchmarkPlan(
        ("plain", "fastai", "ours-bf16"), ("head",), 1, 8, False, 4, BACKBONE, 32, (32,), "cpu", 1
    )
    assert runner.find_skipped(plan, {"fp32": 1.0, "bf16": 0.5}) == {"fastai": "not installed"}
    assert runner.find_skipped(plan, {"fp32": 1.0, "bf16": 0.2}).keys() == {"fastai", "ours-bf16"}


def test_faulty_flags_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """All at once, with the nearest name; nothing is measured."""
    assert command.main(["--only", "plane,ours", "--strategies", "haed", "--rounds", "0", "--pictures", "0"]) == 2
    message = capsys.readouterr().err
    for text in ("Did you mean 'plain'?", "Did you mean 'head'?", "--rounds", "--pictures"):
        assert text in message


def test_flags_become_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the number of images, whose flag has another name than other fields."""
    plans: list[runner.BenchmarkPlan] = []

    def measure(plan: runner.BenchmarkPlan, out: Path) -> dict[str, Any]:  # noqa: ARG001
        plans.append(plan)
        return make_results()

    monkeypatch.setattr(command, "measure", measure)
    out = str(tmp_path / "bench.json")
    assert command.main(["--pictures", "128", "--strategies", "head", "--loader-px", "32,48", "--out", out]) == 1
    assert command.main(["--full", "--out", out]) == 1  # the results have a failed measurement
    assert [(plan.pictures, plan.full, plan.loader_px) for plan in plans] == [
        (128, False, (32, 48)),
        (None, True, (224, 384)),
    ]
    assert [plan.strategies for plan in plans] == [("head",), command.STRATEGIES]


def test_every_contender_is_described() -> None:
    """Each has a module in benchmarks/ and a note."""
    for contender in baselines.CONTENDERS.values():
        assert (ROOT / f"{contender.module.replace('.', '/')}.py").is_file()
        assert contender.note
    assert baselines.is_installed("plain")
    assert baselines.is_installed("ours")


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The smallest one, without peers: numbers, tables and figure come of it."""
    flags = ["--only", "plain,ours", "--strategies", "head", "--rounds", "1", "--pictures", "8", "--batch-size", "4"]
    flags += ["--backbone", BACKBONE, "--image-px", "32", "--loader-px", "32,48", "--device", "cpu", "--threads", "1"]
    out = tmp_path / "bench.json"
    assert command.main([*flags, "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    assert [run["contender"] for run in results["runs"]] == ["plain", "ours"]
    assert {row["loader"] for row in results["loader"]} == set(runner.LOADERS)
    assert out.with_suffix(".png").exists()
    assert "finetune, fp32" in capsys.readouterr().out
