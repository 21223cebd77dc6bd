"""Reading answers: boxes, statements, markers, and the kinds of answers that questions want."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_tts.answers.equivalence import equivalent, group
from edge_tts.errors import InputError
from edge_tts.reasoning.answer_reading import clean, has_answered, read_answer, vote_key
from edge_tts.reasoning.question_kind import AnswerKind, as_kind, kind_of, options

CAPITAL = "What is the capital of France?"
CLIPS = "How many clips did she sell?"
PRIME = "Is 17 a prime number?"
MAMMAL = "Which of these is a mammal?\nA. Shark\nB. Whale\nC. Trout"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So it is \boxed{72}.", "72"),
        (r"\[ \boxed{\frac{3}{\sqrt{4}}} \]", r"\frac{3}{\sqrt{4}}"),
        (r"\boxed{5} clips at first, then \boxed{72}.", "72"),
        (r"In \boxed{}: \boxed{72}", "72"),
        (r"\boxed{72} and not \boxed{}", "72"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
        (r"\fbox{72}", "72"),
        (r"boxed{72}", "72"),
        (r"\boxed{72 \text{ clips}}", "72 clips"),
        (r"\boxed{\$1{,}234.50}", "$1,234.50"),
        (r"\boxed{50\%}", "50%"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{\text{total} = 3 + 4 = 7}", r"7"),
        (r"\boxed{2x + 1 = 0}", "2x + 1 = 0"),
        (r"\boxed{y > 3}", "y > 3"),
        (r"\boxed{\text{Monday}}", "Monday"),
        ("The answer is 72.", "72"),
        ("The answer is 3. No: the answer is 72 clips.", "72"),
        ("**Answer:** 72", "72"),
        ("Final Answer: **72**", "72"),
        ("### Answer\n72", "72"),
        ("The final answer is:\n\n$$72$$", "72"),
        ("the answer is \\( \\frac{1}{2} \\).", r"\frac{1}{2}"),
        ("Thus the answer is $18 a day.", "$18"),
        ("So the answer is 1,234,567.", "1,234,567"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is 3/4 of it.", "3/4"),
        ("The answer is 5 hours and 30 minutes.", "5 hours and 30 minutes"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("12*8=96\n#### 72", "72"),
        ("####72", "72"),
        ("#### 72 ", "72"),
        ("72", "72"),
        ("**$72**", "$72"),
        (r"The answer is 3, so \boxed{72}", "72"),
        (r"<think>\boxed{3}</think>The answer is 72.", "72"),
    ],
)
def test_what_a_text_answers(text: str, answer: str) -> None:
    assert read_answer(text, CLIPS) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "There are 72 of them.",
        r"It is \boxed{72",
        r"It is \boxed{5}. Wait, \boxed{7",
        r"\boxed{\frac{1}{2}",
        r"\boxed{}",
        r"\boxed{...}",
        r"<think>\boxed{72}</think>",
        r"<think>\boxed{72}",
        r"\boxed{72}</think>",
        "the answer is not known",
        "#### Conclusion",
        "#### Step 2: add 7\nThat is all.",
        r"\boxed{" + "7" * 500 + "}",
    ],
)
def test_what_answers_nothing(text: str) -> None:
    assert read_answer(text, CLIPS) is None


def test_a_text_that_was_cut_answers_nothing() -> None:
    assert read_answer(r"\boxed{72}", CLIPS, is_cut=True) is None
    assert read_answer("#### 7", CLIPS, is_cut=True) is None


@pytest.mark.parametrize("marker", ["#### ", "####"])
def test_an_answer_behind_a_marker(marker: str) -> None:
    assert read_answer(f"2*36=72\n{marker}72", CLIPS) == "72"


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        (r"\boxed{\text{Paris}}", CAPITAL, "Paris"),
        ("The answer is Paris.", CAPITAL, "Paris"),
        ("The capital of France is **Paris**.", CAPITAL, "Paris"),
        ("Paris is the capital of France.", CAPITAL, "Paris"),
        (r"\boxed{\textbf{The capital is Paris}}", CAPITAL, "Paris"),
        ("Final Answer: **Paris**", CAPITAL, "Paris"),
        ("Paris.", CAPITAL, "Paris"),
        ('The answer is "Paris".', CAPITAL, "Paris"),
        ("France is old. It has many towns. I like them.", CAPITAL, None),
        ("The answer is J. K. Rowling.", "Who wrote it?", "J. K. Rowling"),
        (r"\boxed{B}", MAMMAL, "B"),
        (r"\boxed{\text{(B) Whale}}", MAMMAL, "B"),
        (r"\boxed{Whale}", MAMMAL, "B"),
        ("The correct answer is B: a whale breathes air.", MAMMAL, "B"),
        ("The answer is a whale.", MAMMAL, "B"),
        ("The answer is option C.", MAMMAL, "C"),
        ("**B. Whale**", MAMMAL, "B"),
        ("The answer is a dolphin.", MAMMAL, None),
        ("The answer is E.", MAMMAL, None),
        (r"\boxed{15}", "Pick one: (A) 12 (B) 15 (C) 20", "B"),
        (r"\boxed{yes}", PRIME, "Yes"),
        ("Yes, it has no divisors.", PRIME, "Yes"),
        ("17 has no divisors.\n\nSo the answer is **yes**.", PRIME, "Yes"),
        (r"\boxed{\text{False}}", PRIME, "No"),
        ("It has no divisors.", PRIME, None),
        (r"\boxed{17}", PRIME, "17"),
    ],
)
def test_answers_in_words_and_letters(text: str, question: str, answer: str | None) -> None:
    assert read_answer(text, question) == answer


def test_words_that_mean_the_same_vote_together() -> None:
    said = [
        "Paris",
        "paris.",
        "**Paris**",
        "The capital is Paris",
        r"\text{Paris}",
        "the Paris",
        "“Paris”",
        "$\\text{Paris}$",
    ]
    assert {vote_key(clean(raw, "text", CAPITAL), "text") for raw in said} == {"paris"}
    assert {vote_key(clean(raw, "text"), "text") for raw in said} == {"paris"}
    assert len({vote_key(text, "text") for text in ["3.5", "35", "1/2", "12", "-3", "3"]}) == 6
    assert vote_key("東京", "text") == "東京"
    assert set(
        group([clean(raw, "math") for raw in ["72", r"72 \text{ clips}", r"\boxed{72.0}", "x=72", "**72**."]])
    ) == {0}


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (CAPITAL, "text"),
        ("Who wrote Hamlet?", "text"),
        ("What day is it 3 days after a Monday, and 4 before a Monday?", "text"),
        ("Which is larger, 3/4 or 5/7?", "text"),
        ("Translate 'cat' into French.", "text"),
        (CLIPS, "math"),
        ("Tom has 3 apples and eats 2. A. Smith has none. What is left?", "math"),
        ("What is 15% of 80?", "math"),
        ("Can you tell me what 3+4 is?", "math"),
        (r"Simplify $\frac{6}{8}$.", "math"),
        ("Solve x^2 = 4", "math"),
        (PRIME, "yes-no"),
        ("If it rains, is the street wet?", "yes-no"),
        ("The moon is a planet. Answer yes or no.", "yes-no"),
        ("Is it red or blue?", "text"),
        (MAMMAL, "choice"),
        ("Pick one: (A) 12 (B) 15 (C) 20", "choice"),
        ("", "text"),
    ],
)
def test_the_kind_comes_from_the_question(question: str, kind: AnswerKind) -> None:
    assert kind_of(question) == kind


def test_word_problems_want_numbers() -> None:
    lines = (Path(__file__).parents[1] / "data" / "svamp_sample.jsonl").read_text().splitlines()
    assert {kind_of(json.loads(line)["question"]) for line in lines} == {"math"}


def test_options_are_found_in_order() -> None:
    assert options(MAMMAL) == {"A": "Shark", "B": "Whale", "C": "Trout"}
    assert options("a) one b) two\n\nThink first.") == {"A": "one", "B": "two"}
    assert options("Plan A. It is plan B. Nothing else.") == {"A": "It is plan", "B": "Nothing else."}
    assert options("B. first, C. second") == options("She got an A. Why?") == {}


def test_a_kind_by_name() -> None:
    assert as_kind("yes-no") == "yes-no"
    with pytest.raises(InputError, match="'number' does not exist; choose one of math, choice, yes-no, text"):
        as_kind("number")


def test_growing_text_says_when_it_has_answered() -> None:
    text = r"<think>\boxed{1}</think> So \boxed{\frac{1}{2}}."
    begins = next(i for i in range(len(text)) if has_answered(text[:i]))
    assert text[:begins].endswith(r"\boxed{\frac{1}{2}}")
    assert not has_answered(r"put it in \boxed{}")


@pytest.mark.parametrize(
    "formula",
    [
        "72",
        r"\frac{3}{4}",
        r"2\sqrt{3}",
        "(1, 2)",
        r"\{1, 2\}",
        "x^2 + 1",
        "1,234",
        r"50\%",
        "x = 5",
    ],
)
def test_boxes_are_read_as_math_verify_reads_them(formula: str) -> None:
    from math_verify import parse, verify

    text = rf"First \boxed{{9}}, but then we see that the result is $\boxed{{{formula}}}$."
    ours = read_answer(text, CLIPS)
    assert ours is not None
    assert verify(parse(text, parsing_timeout=None), parse(f"${ours}$", parsing_timeout=None), timeout_seconds=None)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 20_000,
        r"\boxed{" * 5_000 + "7" + "}" * 5_000,
        "the answer is " * 20_000,
        "answer: " + "*" * 50_000,
        "$" * 50_000 + " the answer is $" + "x" * 50_000,
        "\\" * 50_000 + "boxed{7}",
        "<think>" * 20_000,
        "{" * 50_000 + " answer = " + "1 " * 50_000,
        "A) " * 20_000,
    ],
)
def test_long_texts_without_sense_are_read_quickly(text: str) -> None:
    begun = time.monotonic()
    for kind in ("math", "choice", "yes-no", "text"):
        read_answer(text, text[:2000], kind)
    kind_of(text)
    assert time.monotonic() - begun < 3


@given(st.text(), st.text(max_size=50), st.sampled_from(["math", "choice", "yes-no", "text"]))
def test_any_text_gives_one_line_or_nothing(text: str, question: str, kind: AnswerKind) -> None:
    answer = read_answer(text, question, kind)
    assert answer is None or (answer == answer.strip() != "" and "\n" not in answer)


@given(
    st.integers(-(10**9), 10**9), st.sampled_from([r"\boxed{%}", "The answer is %.", "#### %", "**Answer:** $%$", "%"])
)
def test_numbers_come_back(number: int, form: str) -> None:
    answer = read_answer(f"Some words.\n\n{form.replace('%', f'{number:,}')}" if form != "%" else str(number), CLIPS)
    assert answer is not None
    assert equivalent(answer, str(number))
