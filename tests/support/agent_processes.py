"""Helpers of the tests of agents: start one, wait for what it does, look for what it left behind."""

import os
import signal
import sys
import traceback
import uuid
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

import agent
from finetune.config import Config
from finetune.errors import DataError
from finetune.rundir import files
from finetune.sweep import search
from finetune.sweep.agents.training_api import TrainingApi
from finetune.system.environment import cache_folder
from tests.support import fake_run
from tests.support.processes import end_with_parent, marked, wait_until

SWEEP = {"method": "grid", "parameters": {"strategy": {"value": "head"}, "data": {"value": "demo"}}}


def identify(config: Config) -> tuple[str, str]:
    """Take any name for data but `nowhere`."""
    if config.data.endswith("nowhere"):
        raise DataError(f"{config.data}: no such folder")
    return f"fingerprint of {config.data}", f"hash of {config.weights}"


# The processes of runs need little more than what is preloaded here.
CODE = TrainingApi("tests.support.fake_run:run", ["finetune.sweep.agents.run_process"], identify, lambda _: None)
search.grid_points({"method": "grid", "parameters": {"seed": {"value": 0}}})  # imports the engine, once for all agents


def write_sweep(folder: Path, seeds: int = 4, epochs: int = 2, **parameters: object) -> None:
    """Write `seeds.yaml`, a grid over seeds."""
    swept = {"seed": {"values": list(range(seeds))}, "epochs": {"value": epochs}, **parameters}
    spec = {**SWEEP, "parameters": {**SWEEP["parameters"], **swept}}  # type: ignore[dict-item]
    (folder / "seeds.yaml").write_text(yaml.safe_dump(spec))


def write_hyperband(folder: Path, min_iter: int, **parameters: object) -> None:
    """Write seeds.yaml, a sweep of two good rates and then a bad one, whose run Hyperband stops below the median."""
    given = {"data": "demo", "strategy": "head", **parameters}
    spec = {
        "method": "grid",
        "metric": {"name": "best/val_accuracy", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": min_iter, "eta": 2},
        "parameters": {
            "lr": {"values": [3.0e-3, 3.1e-3, 1.0e-2]},
            **{name: {"value": value} for name, value in given.items()},
        },
    }
    (folder / "seeds.yaml").write_text(yaml.safe_dump(spec))


@dataclass
class Agent:
    """A running agent, its exit code, and what it has printed."""

    pid: int
    output: Path
    code: int | None = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """Whether it has ended; from then on `code` is set."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def wait(self, seconds: float = 240) -> tuple[int | None, str]:
        """Return exit code and output when it has ended."""
        wait_until(self.has_ended, seconds)
        return self.code, self.output.read_text()


@dataclass
class Place:
    """A folder to run agents in, what they call, and a mark by which their processes are found."""

    folder: Path
    code: TrainingApi = CODE
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *arguments: str, **environment: object) -> Agent:
        """Start an agent in a fork of this process: what it needs has been imported, so that it starts at once."""
        output = self.folder / f"output-{uuid.uuid4().hex[:8]}.txt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Python 3.12 on, for threads of numpy's that do not mind
            pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = self._main(arguments, environment, output)
            except SystemExit as error:  # argparse's
                code = int(error.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        return Agent(pid, output)

    def _main(self, arguments: tuple[str, ...], environment: dict[str, object], output: Path) -> int:
        """Be an agent, as if started by a command line in this folder."""
        end_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pytest has a handler
        os.setsid()
        os.chdir(self.folder)
        os.environ.update(
            {f"FAKE_{name.upper()}": str(value) for name, value in environment.items()}, AGENT_MARK=self.mark
        )
        file = os.open(output, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        sys.modules["__main__"] = fake_run  # what the processes of runs import as their main module
        return agent.main(arguments, self.code)

    def run(self, *arguments: str, **environment: object) -> tuple[int | None, str]:
        """Run an agent to its end; return exit code and output."""
        return self.start(*arguments, **environment).wait()

    def runs(self) -> list[Path]:
        """Return the run directories of the sweep in `seeds.yaml`."""
        return files.find_runs(self.folder / "runs/seeds") if (self.folder / "runs/seeds").exists() else []

    def written(self) -> list[str]:
        """Return the names of what lies in the folder, agents' output and the tests' cache folder left out."""
        names = [path.name for path in self.folder.iterdir() if path != cache_folder()]
        return sorted(name for name in names if not name.startswith("output-"))

    def states(self) -> list[str]:
        """Return the states of all runs, sorted."""
        return sorted(files.status(run)[0] for run in self.runs())

    def epochs(self) -> list[int]:
        """Return the numbers of all epochs that the runs have finished, run by run."""
        return [row["epoch"] for run in self.runs() for row in files.read_history(run)[0]]

    def starts(self) -> list[int]:
        """Return how often each run has been started."""
        return [len((run / "starts.txt").read_text().splitlines()) for run in self.runs()]

    def processes(self) -> list[psutil.Process]:
        """Return the live processes that agents here have started, the agents included."""
        return marked(self.mark)

    def assert_empty(self) -> None:
        """Fail if a process is still there after some seconds."""
        wait_until(lambda: not self.processes(), seconds=10)
