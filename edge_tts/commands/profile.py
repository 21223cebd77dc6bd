"""``edge-reason profile``: list, show, detect and calibrate device profiles."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_tts.core import Policy, Verifier
    from edge_tts.packs.pack import Pack
    from edge_tts.profiles.loader import Calibration, Profile
    from edge_tts.runtimes.config import EngineConfig, PolicyShape, VerifierShape

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_CONTEXTS = (256, 512)


@click.group()
def command() -> None:
    """List, show, detect and calibrate profiles: what a device allows and how fast it is, with sources."""


@command.command("list")
@_AS_JSON
def list_profiles(as_json: bool) -> None:
    """List the built-in profiles and your own."""
    from edge_tts.profiles.loader import load, names

    profiles = [load(name) for name in names()]
    if as_json:
        _print_json([_summary(profile) for profile in profiles])
        return
    for profile in profiles:
        calibrated = f" [calibrated {profile.calibration.date}]" if profile.calibration else ""
        limits = f"{profile.memory_mb:6.0f} MB {profile.deadline_s:4g} s"
        click.echo(f"{profile.name:16} {limits}  {profile.description}{calibrated}")


@command.command()
@click.argument("name")
@_AS_JSON
def show(name: str, as_json: bool) -> None:
    """Show the profile NAME, a name or a .toml file, with the source of each figure."""
    from edge_tts.profiles.loader import load

    _print_profile(load(name), as_json)


@command.command()
@_AS_JSON
def detect(as_json: bool) -> None:
    """Show which profile fits this machine, and why."""
    from edge_tts.profiles.loader import detect as detect_profile

    profile, reason = detect_profile()
    if as_json:
        _print_json({**_summary(profile), "reason": reason})
        return
    click.echo(f"{profile.name}: {reason}")


@command.command()
@click.argument("name", required=False)
@click.option("--model", default=None, help="Model to measure with, as for `solve`; the one that `solve` would use.")
@click.option("--pack", default=None, help="Name or folder of a pack to measure with.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=3.0, show_default=True, help="Time for each measurement."
)
@_AS_JSON
def calibrate(name: str | None, model: str | None, pack: str | None, seconds: float, as_json: bool) -> None:
    """Measure this machine's speeds and store them in your own copy of the profile NAME (detected if left out)."""
    from rich.console import Console

    from edge_tts.files.folders import profiles_folder
    from edge_tts.packs.pack import prepare_pack
    from edge_tts.packs.planned import find
    from edge_tts.profiles.loader import detect as detect_profile
    from edge_tts.profiles.loader import load, save

    profile = load(name) if name else detect_profile()[0]
    console = Console(stderr=True)
    with console.status("preparing the model") as status:

        def progress(_: float, label: str) -> None:
            status.update(label)

        def measuring(label: str) -> None:
            status.update(label)
            if not console.is_terminal:  # where a status is not drawn
                console.print(label, highlight=False, soft_wrap=True)

        found = prepare_pack(find(pack, model, profile.memory_mb, progress)[0], progress)
        measured = _measure(profile, found, seconds, measuring)
    profile = replace(profile, calibration=measured)
    path = profiles_folder() / f"{profile.name}.toml"
    save(profile, path)
    console.print(f"stored in {path}", highlight=False, soft_wrap=True)
    _print_profile(profile, as_json)


def _measure(profile: Profile, pack: Pack, seconds: float, progress: Any) -> Calibration:
    from contextlib import closing, nullcontext

    from edge_tts.planning.calibration import calibrate as measure
    from edge_tts.runtimes.llama import LlamaPolicy

    def policy(config: EngineConfig) -> Policy:
        return LlamaPolicy(pack.policy_path, config, pack.policy.parameters)

    verifier = _open_verifier(pack, profile.threads)
    configs = _configs(profile, pack.policy, pack.verifier)
    with closing(verifier) if verifier else nullcontext():
        return measure(policy, verifier, configs, pack.title, profile.speeds, seconds, progress)


def _open_verifier(pack: Pack, threads: int | None) -> Verifier | None:
    from edge_tts.runtimes.config import VerifierConfig
    from edge_tts.runtimes.onnx_verifier import OnnxVerifier

    if pack.verifier_path is None or pack.tokenizer_path is None:
        return None
    config = VerifierConfig()
    return OnnxVerifier(
        pack.verifier_path,
        pack.tokenizer_path,
        threads=threads,
        cache_mb=config.cache_mb,
        pass_tokens=config.pass_tokens,
    )


def _configs(profile: Profile, policy: PolicyShape, verifier: VerifierShape | None) -> list[EngineConfig]:
    """The widths and contexts to measure: all that fit the profile's memory cap."""
    from edge_tts.errors import ResourceError
    from edge_tts.planning.calibration import WIDTHS
    from edge_tts.planning.memory import memory_plan
    from edge_tts.runtimes.config import EngineConfig

    layers = None if profile.gpu else 0
    wanted = [
        EngineConfig(width, context, threads=profile.threads, gpu_layers=layers)
        for context in _CONTEXTS
        for width in WIDTHS
    ]
    fitting = [config for config in wanted if memory_plan(policy, verifier, config).total <= profile.memory_mb]
    if not fitting:
        needed = memory_plan(policy, verifier, wanted[0]).total
        raise ResourceError(
            f"the profile {profile.name} allows {profile.memory_mb:.0f} MB, but the smallest measurement needs "
            f"{needed:.0f} MB; raise memory_mb in a profile of your own, or use a smaller model"
        )
    return fitting


def _summary(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "description": profile.description,
        "memory_mb": profile.memory_mb,
        "deadline_s": profile.deadline_s,
        "watts": profile.watts,
        "calibrated": profile.calibration.date if profile.calibration else None,
    }


def _print_profile(profile: Profile, as_json: bool) -> None:
    if as_json:
        _print_json({**asdict(profile), "sources": dict(profile.sources)})
        return
    speeds = profile.speeds
    click.echo(f"{profile.name}: {profile.description}")
    rows = {
        "memory_mb": f"{profile.memory_mb:g}",
        "deadline_s": f"{profile.deadline_s:g}",
        "watts": f"{profile.watts:g}",
        "threads": "one per physical core" if profile.threads is None else str(profile.threads),
        "gpu": "yes" if profile.gpu else "no",
        "speeds.decode": ", ".join(f"{p.tokens_per_s:.0f} ({p.width} wide, {p.context} tokens)" for p in speeds.decode),
        "speeds.prefill": f"{speeds.prefill:.0f}",
        "speeds.verifier": f"{speeds.verifier:.0f}",
    }
    known = profile.calibration
    measured = {"speeds.decode", "speeds.prefill"} if known else set()
    if speeds.verifier != profile.stated.verifier:  # a model without a verifier leaves what the profile states
        measured.add("speeds.verifier")
    for key, value in rows.items():
        source = profile.sources.get(key)
        if known and key in measured:
            source = f"measured on {known.date} with {known.pack} on {known.machine}"
        click.echo(f"  {key:16} {value}" + (f"\n  {'':16} {source}" if source else ""))


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=1))
