"""Raw numbers of a record of two seeds, as `results.json` holds them; what the second seed claims does not hold."""

from arcforge.pipeline.workspace import STAGES


def interval(value, width=0.1):
    return {"value": value, "low": value - width, "high": value + width}


def cells(checkpoint, attention):
    return [
        {
            "checkpoint": checkpoint,
            "attention": attention,
            "length": length,
            "total": 80,
            "chance": 0.1,
            **interval(0.5),
        }
        for length in (256, 2048)
    ]


def comparison(held, **values):
    seconds = {"wall_seconds": 100.0, "cpu_seconds": 150.0}
    return {"target": "the claim", "held": held, "says": ["It came out so."], **seconds, **values}


def comparisons(held):
    arms = [
        {
            "arm": name, "mtp_steps": 1, "tokens": 1_200_000, "cpu_seconds": 300.0, "bits_per_byte": 1.65,
            "per_position": [0.6, 0.4, 0.3], **interval(2.25),
        }
        for name in ("three_steps", "one_step", "one_step_equal_cpu")
    ]  # fmt: skip
    pair = {
        "capability": "recall",
        "taught": True,
        "tasks": 2048,
        "before": 0.9,
        "after": 0.88,
        **interval(-0.02, 0.01),
    }
    return {
        "attention": comparison(
            held,
            window=128,
            tokens=303_104,
            rows=cells("trained", "dsa") + cells("trained", "windows_first"),
            differences=[{"better": "dsa", "worse": "windows_first", "length": 2048, **interval(0.3)}],
            patterns=[["SFS", 0.75]],
        ),
        "multi_token": comparison(held, rows=arms, differences=[{"equal": "tokens", **interval(0.2)}]),
        "teachers": comparison(None, rows=[{"teacher": "sft", **pair}], lost=[{"teacher": "sft", **pair}]),
    }


def seed(held):
    gain = {"first": "sft", "second": "agentic_rl", "capability": "agentic", "tasks": 512, "before": 0.1, "after": 0.5}
    results = {
        "cells": [
            {"checkpoint": stage, "capability": name, **interval(0.4)}
            for stage in ("sft", "distill")
            for name in ("agentic", "reasoning", "reasoning/math")
        ],
        "lm": [{"checkpoint": "pretrain", "bits_per_byte": 1.65, "order2_bits_per_byte": 2.82}],
        "retrieval": cells("sparse", "dense"),
        "mtp": [{"checkpoint": "pretrain", "acceptance_length": 2.25, "per_position": [0.6, 0.4, 0.3]}],
    }
    stages = [{"stage": name, "wall_seconds": 60.0, "cpu_seconds": 90.0, "metrics": {}} for name in STAGES]
    return {
        "stages": stages, "results": results, "gains": [{**gain, **interval(0.4, 0.05)}], "comparisons": comparisons(held),
    }  # fmt: skip


def raw():
    machine = {"cores": 2, "cpu": "A CPU", "system": "Linux", "python": "3.12", "torch": "2.11", "arcforge": "0.1"}
    seeds = {"0": seed(True), "1": seed(False)}
    return {"command": "arcforge run recipes/laptop-record.toml", "machine": machine, "seeds": seeds}
