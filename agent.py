"""Runs a sweep: `python agent.py sweeps/strategies.yaml --agents 2`, or one on a W&B server by its id. See `--help`."""

import argparse
import sys
from collections.abc import Iterable, Sequence

from finetune.config import Config
from finetune.errors import EXIT_FAILED, UserError
from finetune.sweep import choose, devices, display
from finetune.sweep.agents import local_agent, wandb_agents, wandb_preparation, wandb_trial
from finetune.sweep.agents.training_api import REAL, AgentOptions, TrainingApi
from finetune.sweep.command import parse
from finetune.sweep.forecast import report
from finetune.sweep.plan import check_sweep_file, make_plan
from finetune.sweep.sweep_file import SweepFile
from finetune.system.output import command
from finetune.system.signals import handle_signals
from finetune.tracking.sweep_server import WandbSweep


@command
def main(argv: Sequence[str] | None = None, training: TrainingApi = REAL) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if wandb_trial.is_trial():  # started by W&B's agent, which passes a run's config as flags
        return wandb_trial.run_trial(list(words), training)
    args = parse(words)
    with handle_signals():
        sweep = choose.choose_sweep(args.sweep, args.settings, args.name)
        if sweep is None:
            return 0
        if isinstance(sweep, WandbSweep):
            return _run_online(sweep, args, training)
        return _run_local(sweep, args, training)


def _run_online(sweep: WandbSweep, args: argparse.Namespace, training: TrainingApi) -> int:
    if args.race:
        raise UserError("--race is for sweeps that run here: W&B's server hands out all runs of a sweep")
    if args.check:
        raise UserError(f"{args.sweep} is on the W&B server already: --check is for sweep files")
    if args.plan:
        wandb_agents.show_plan(sweep)
        return 0
    if args.fetch:
        wandb_preparation.fetch_sweep(sweep, training)
        return 0
    run = wandb_agents.retry_failed if args.retry_failed else wandb_agents.run_online
    return run(sweep, training, _options(args))


def _run_local(sweep: SweepFile, args: argparse.Namespace, training: TrainingApi) -> int:
    if args.check:
        print(check_sweep_file(sweep))
        return 0

    def fetch_inputs(configs: Iterable[Config]) -> None:
        training.fetch_inputs(configs, not args.plan)

    plan = make_plan(sweep, args.count, training.fingerprint_inputs, args.race, fetch_inputs)
    if args.fetch:
        print(f"{sweep.source}: all data and weights of its runs are on this machine")
        return 0
    if not args.plan:
        return local_agent.run_sweep(plan, training, _options(args))
    display.show_plan(plan)
    forecast = local_agent.forecast_runs(plan, training, _options(args))
    if forecast is not None:
        report.show(forecast)
    return EXIT_FAILED if forecast is not None and forecast.lacking_bytes else 0


def _options(args: argparse.Namespace) -> AgentOptions:
    return AgentOptions(args.agents or devices.default_agents(), args.count, args.retry_failed, args.max_failures)


if __name__ == "__main__":
    sys.exit(main())
