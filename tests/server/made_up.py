"""Searches that are made up for the tests of the page: what the server would send of them."""

from __future__ import annotations

import json
from typing import Any

from browser import Browser

from edge_tts.search import wording

CALL = "(path, options) => fetch(path, {...options, headers: {'Content-Type': 'application/json'}})"
PRETENDING = """
window.sent = [];
window.fetch = (send => async (path, options) => {
  if (path.startsWith("/v1/chat")) {
    const body = JSON.parse(options.body);
    window.sent.push(structuredClone(body));
    for (const name of ["format", "kind", "explain"]) delete body.edge[name];
    options = {...options, body: JSON.stringify(body)};
  }
  const answer = await send(path, options);
  if (path !== "/v1/models") return answer;
  const found = await answer.json(), formats = ["auto", "text", "program"];
  Object.assign(found.data[0].edge, {chats: true, formats, kinds: ["math"]});
  return new Response(JSON.stringify(found));
})(window.fetch)
"""
"""Makes the page take the built-in model for one that chats, and keeps what it sends."""


def result(answer: str | None = "28", confidence: float = 0.2, **fields: Any) -> dict[str, Any]:
    """What ends a search, as the server sends it."""
    usage = {"seconds": 1, "policy_tokens": 1, "verifier_tokens": 1, "policy_flops": 1, "verifier_flops": 1}
    sure = {"words": wording.sureness(confidence), "level": wording.level(confidence)}
    found = {"answer": answer, "finished": answer is not None, "support": 1, "scores": [], "format": "equations"}
    found |= {"confidence": confidence, "stop_reason": "complete", "strategy": "auto", "reason": "", "seed": 0}
    found |= {"difficulty": None, "prompt_tokens": 9}
    return {**found, **sure, "stopped": "all samples were drawn", "usage": {**usage, "peak_memory_mb": 1}, **fields}


def step(candidate: int, *steps: str, answer: str | None = None, **fields: Any) -> dict[str, Any]:
    finished = {"finished": answer is not None, "answer": answer}
    return {"type": "step", "candidate": candidate, "text": steps[-1], "steps": steps, **finished, **fields}


def shown(browser: Browser, events: list[dict[str, Any]], end: dict[str, Any] | None = None, text: str = "") -> None:
    """Show a search of these events; without ``end`` it is stopped after them."""
    asked = {"question": "How many?", "title": "a model 1.0", "messages": [{"role": "user", "content": "How many?"}]}
    asked |= {"deadline_s": 1, "generations": 64, "edge": {"events": True}}
    ends = f"turn.end({json.dumps(end)}, {json.dumps(text)});" if end else ""
    browser.run(
        f"import('/page/turn.js').then(({{Turn}}) => {{ const turn = new Turn({json.dumps(asked)}, {CALL});"
        f"document.getElementById('turns').append(turn.element);"
        f"for (const event of {json.dumps(events)}) turn.take(event); {ends} turn.close(null); }})"
    )
