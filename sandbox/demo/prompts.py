"""What the demo's agents say. Invented; as long as such prompts are, more or less."""

from random import Random
from typing import Final

CHECKLIST: Final = (
    "Which lines of this diff could fail at run time, and how?",
    "Which lines of this diff open a way in for an attacker?",
    "Which behaviour that this diff changes has no test?",
)
TOPICS: Final = ("outages of AI providers", "prices of language models", "security notices for Python")
BOILERPLATE: Final = "the notice on confidentiality that every document ends with"
SPREAD: Final = "Name one animal. Nothing else."

_METRICS: Final = ("queue depth", "error rate", "p95 latency", "disk use", "memory", "failed logins")
_SUBJECTS: Final = ("leases", "token buckets", "quorum queues", "vector clocks", "backpressure", "caching")
_ASPECTS: Final = ("under load", "after a crash", "across regions", "with clock skew", "at low cost")
_DESK: Final = (
    *("How do I reset my password?", "Where is my invoice?", "How do I add a colleague?"),
    *("Can I change my plan?", "Why was I charged twice?", "How do I export my records?"),
)


def dashboard(number: int, version: int) -> str:
    """A recurring question about one of the dashboards; another version shows other values."""
    random = Random(f"dashboard {number} {version}")
    values = ", ".join(f"{metric} {random.randrange(100)}" for metric in _METRICS)
    return f"Dashboard {number} shows: {values}. Is anything out of its usual range? Answer OK or name it."


def diff(random: Random, number: int) -> str:
    """A diff of some 25 lines."""
    lines = [
        f"{random.choice('+- ')}    total_{random.randrange(40)} = share(total_{random.randrange(40)})"
        for _ in range(25)
    ]
    return "\n".join([f"diff --git a/part_{number}.py b/part_{number}.py", *lines])


def research(random: Random, number: int) -> str:
    """A question that nobody has asked before."""
    subject, other = random.sample(_SUBJECTS, 2)
    return f"Question {number}: how do {subject} and {other} compare {random.choice(_ASPECTS)}? Cite sources."


def plan(owner: str, version: int) -> str:
    """A list of tasks to put in order."""
    random = Random(f"plan {owner} {version}")
    tasks = "; ".join(f"task {random.randrange(1000)} takes {random.randrange(1, 9)} h" for _ in range(12))
    return f"Order these tasks of {owner} so that the longest chain ends first: {tasks}."


def news(topic: str) -> str:
    """What a watcher asks."""
    return f"What is new about {topic}? Three lines, newest first."


def grading(number: int) -> str:
    """An answer with the rubric to grade it by."""
    random = Random(f"answer {number}")
    words = " ".join(random.choice(_SUBJECTS) for _ in range(30))
    return f"Rubric: correct 0-4, complete 0-3, clear 0-3. Give three numbers. Answer {number}: {words}."


def summary(page: str) -> str:
    """A page to sum up."""
    random = Random(page)
    words = " ".join(random.choice(_SUBJECTS) for _ in range(120))
    return f"Sum up {page} in two sentences: {words}."


def desk(number: int) -> str:
    """A question of a person; the low numbers are asked most."""
    plain = _DESK[number % len(_DESK)]
    return plain if number < len(_DESK) else f"{plain} I have tried it {number // len(_DESK)} times already."


def incident(number: int) -> str:
    """What all ask when something breaks."""
    return f"Incident {4700 + number}: orders fail with 'no route to payments'. What is the likeliest cause?"
