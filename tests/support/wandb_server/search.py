"""How a sweep goes on: which run comes next, which ones stop, when it has ended."""

import time
import warnings
from typing import Any

from tests.support.wandb_server.store import Agent, Run, Store, Sweep, new_id

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # `sweeps` 0.3.0 uses names that pydantic has renamed
    import sweeps as engine
    from sweeps.grid_search import grid_search_next_runs

TOO_MANY = 100_000


def refresh(store: Store) -> None:
    """Bring the states of runs and sweeps up to date: silent runs have crashed, used-up sweeps are finished."""
    limit = time.monotonic() - store.crash_after
    for run in store.runs.values():
        if run.alive and run.heartbeat < limit:
            if run.told_to_stop:
                run.state = "killed"
            else:
                run.state = "preempted" if run.preempting else "crashed"
    for sweep in store.sweeps.values():
        settle(sweep)


def settle(sweep: Sweep) -> None:
    """Work out the sweep's state from what was asked for and from its runs."""
    if sweep.state == "PENDING" and sweep.runs:
        sweep.state = "RUNNING"
    waits = any(run.alive or run.state == "preempted" for run in sweep.runs)
    if sweep.state == "RUNNING" and sweep.runs and not waits and is_used_up(sweep):
        sweep.state = "FINISHED"


def is_used_up(sweep: Sweep) -> bool:
    """Say whether there is no run left to hand out; searches without an end never are."""
    cap = sweep.config.get("run_cap")
    if cap is not None and len(sweep.runs) >= cap:
        return True
    return sweep.config.get("method") == "grid" and propose(sweep) is None


def as_engine_runs(sweep: Sweep, *, rows: bool) -> list[engine.SweepRun]:
    """Return the sweep's runs as the search engine reads them, with all their rows if asked for."""
    return [
        engine.SweepRun(
            name=run.id,
            state=run.state,
            config={**(run.args or {}), **run.raw_config},
            history=run.history if rows else [],
            summary_metrics=run.summary,
        )
        for run in sweep.runs
    ]


def propose(sweep: Sweep) -> dict[str, Any] | None:
    """Return the next config as `{name: {"value": v}}` by name, or nothing if all are used."""
    if sweep.config.get("method") not in ("grid", "random", "bayes"):
        return None
    if sweep.config["method"] == "bayes":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Gaussian process warns when it has not converged
            found = engine.next_run(sweep.config, as_engine_runs(sweep, rows=sweep.config["method"] == "bayes"))
    else:
        found = engine.next_run(sweep.config, as_engine_runs(sweep, rows=sweep.config["method"] == "bayes"))
    return None if found is None else {name: python_value(found.config[name]) for name in sorted(found.config)}


def python_value(value: Any) -> Any:
    """Return the value without numpy's types."""
    if isinstance(value, dict):
        return {name: python_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [python_value(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def violations(config: dict[str, Any]) -> list[str]:
    """Return what the search engine's schema says against a config."""
    return engine.schema_violations_from_proposed_config(config)


def expected_runs(config: dict[str, Any]) -> int | None:
    """Return how many runs the sweep will have, if that is known."""
    number = config.get("run_cap")
    if config.get("method") == "grid":
        points = sum(run is not None for run in grid_search_next_runs([], config, n=TOO_MANY))
        number = points if number is None else min(points, number)
    return number


def heartbeat(store: Store, agent: Agent, alive: set[str]) -> list[dict[str, Any]]:
    """Return the commands for an agent that reports these runs alive."""
    sweep = store.sweeps[agent.sweep]
    gone, agent.alive, agent.heartbeat = agent.alive - alive, alive, time.time()
    own = {run.id: run for run in sweep.runs if run.id in alive | gone}
    for run in own.values():
        if run.id in alive and run.state == "pending":
            run.heartbeat = time.monotonic()  # its program is still starting
        elif run.id in gone and run.alive and run.told_to_stop:
            run.state = "killed"  # its process is gone, and it was told to go
    refresh(store)
    if sweep.state == "CANCELED":
        for run in own.values():
            if run.alive:
                run.state = "killed"  # agents kill at once, the run itself can't say so any more
        return [{"type": "exit"}]
    stops = [run_id for run_id in sorted(alive) if run_id in own and _is_to_die(own[run_id])]
    if stops:
        return [{"type": "stop", "run_id": run_id} for run_id in stops]
    if alive or sweep.state == "PAUSED":
        return []
    if sweep.state == "FINISHED":
        return [{"type": "exit"}]
    return hand_out(store, sweep, agent)


def _is_to_die(run: Run) -> bool:
    return run.told_to_stop and run.exit_code is None


def hand_out(store: Store, sweep: Sweep, agent: Agent) -> list[dict[str, Any]]:
    """Return the command that starts a run: a preempted one again, or the next of the search."""
    program = sweep.config.get("program")
    for run in sweep.runs:
        if run.state == "preempted":
            run.state, run.preempting, run.exit_code, run.heartbeat = "pending", False, None, time.monotonic()
            agent.given.append(run.id)
            return [{"type": "resume", "run_id": run.id, "program": program, "args": run.args or {}}]
    if is_used_up(sweep):
        return []  # others' runs are alive: one of them may be preempted and come back
    args = propose(sweep)
    if args is None:
        return []
    run = Run(new_id(), sweep.project, state="pending", raw_config=dict(args), args=args, sweep=sweep.id)
    store.add_run(run)
    settle(sweep)
    agent.given.append(run.id)
    return [{"type": "run", "run_id": run.id, "program": program, "args": args}]


def stop_early(sweep: Sweep) -> None:
    """Mark the runs that the sweep's `early_terminate` wants stopped."""
    if not sweep.config.get("early_terminate"):
        return
    names = {run.name for run in engine.stop_runs(sweep.config, as_engine_runs(sweep, rows=True))}
    for run in sweep.runs:
        run.should_stop = run.should_stop or run.id in names
