from __future__ import annotations

import pytest
from searching import context, drain, finished, last_step

from edge_tts.errors import InputError
from edge_tts.runtimes.scripted import ScriptedPolicy, ScriptedVerifier
from edge_tts.search.strategy import KINDS, Strategy


@pytest.mark.parametrize(
    ("text", "strategy", "canonical"),
    [
        ("greedy", Strategy("greedy"), "greedy"),
        ("majority", Strategy("majority", 16), "majority:n=16"),
        (" Adaptive : N = 8 ", Strategy("adaptive", 8), "adaptive:n=8"),
        ("best-of-n:n=4", Strategy("best-of-n", 4), "best-of-n:n=4"),
        ("weighted:n=64", Strategy("weighted", 64), "weighted:n=64"),
        ("beam:m=2", Strategy("beam", 16, 2), "beam:n=16,m=2"),
        ("beam:n=2", Strategy("beam", 2, 2), "beam:n=2,m=2"),
        ("lookahead:n=8,k=3", Strategy("lookahead", 8, 4, 3), "lookahead:n=8,m=4,k=3"),
        ("dvts:n=16,m=4", Strategy("dvts", 16, 4), "dvts:n=16,m=4"),
        ("revise:n=6", Strategy("revise", 6, sequential=2), "revise:n=6,s=2"),
        ("revise:n=16,s=16", Strategy("revise", 16, sequential=16), "revise:n=16,s=16"),
    ],
)
def test_parse_and_str(text: str, strategy: Strategy, canonical: str) -> None:
    assert Strategy.parse(text) == strategy
    assert str(strategy) == canonical
    assert Strategy.parse(canonical) == strategy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "choose one of greedy, majority"),
        ("mcts", "unknown strategy 'mcts'; choose one of greedy"),
        ("greedy:n=2", "takes no settings"),
        ("majority:m=2", "takes n"),
        ("majority:n=2,n=3", "each once"),
        ("beam:n", "whole number"),
        ("beam:n=four", "n='four'"),
        ("beam:n=-4", "n='-4'"),
        ("beam:n=²", "whole number"),
        ("beam:n=0", "from 1 to 1024"),
        ("majority:n=99999", "from 1 to 1024"),
        ("majority:n=99999999999999", "whole number"),
        ("beam:n=4,m=8", "m from 1 to 4"),
        ("lookahead:k=0", "k from 1"),
        ("revise:n=8,s=3", "divides n"),
    ],
)
def test_bad_strategies(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Strategy.parse(text)
    assert message in str(error.value)


def test_bad_kind_without_parsing() -> None:
    with pytest.raises(InputError, match="choose one of"):
        Strategy("mcts")  # type: ignore[arg-type]


def test_generations_and_need_for_a_verifier() -> None:
    assert Strategy.parse("lookahead:n=8,k=3").generations == 32
    assert Strategy.parse("beam:n=8").generations == 8
    assert [kind for kind in KINDS if not Strategy.parse(kind).needs_verifier] == [
        "greedy",
        "majority",
        "adaptive",
        "revise",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_run_dispatches_every_kind(kind: str) -> None:
    strategy = Strategy.parse(kind if kind == "greedy" else f"{kind}:n=4")
    policy = ScriptedPolicy(lambda text, seed: "#### 2" if "=" in text else "1+1=2\n#### 2")
    search = context(policy, ScriptedVerifier(last_step({"#### 2": 0.8})))
    events, outcome = drain(search.run(strategy.proposer()))
    assert outcome.best is not None
    assert (outcome.best.answer, outcome.support) == ("2", 1.0)
    assert outcome.stop_reason in ("complete", "decided")
    assert search.ledger.generations == strategy.generations
    assert events


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_uses_earlier_samples(kind: str) -> None:
    strategy = Strategy.parse(kind if kind == "greedy" else f"{kind}:n=4")
    search = context(ScriptedPolicy(lambda text, seed: "lost"), ScriptedVerifier(last_step({})))
    _, outcome = drain(search.run(strategy.proposer(), [finished("2")]))
    assert outcome.best is not None
    assert outcome.best.answer == "2"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if Strategy.parse(kind).needs_verifier])
def test_a_missing_verifier_is_an_input_error(kind: str) -> None:
    with pytest.raises(InputError, match="majority"):
        drain(context(ScriptedPolicy(lambda text, seed: "")).run(Strategy.parse(kind).proposer()))
