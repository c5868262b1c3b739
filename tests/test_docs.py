"""The documentation says what the code does, where that can be compared."""

import re
from pathlib import Path

import pytest

from topology.events import EventType
from topology.fleet import Account, AccountDefaults, Model, Provider
from topology.limits import Limit
from topology.loading import load_fleet
from topology.sections import (
    AlertsSection,
    BudgetsSection,
    CacheSection,
    FleetSection,
    LearningSection,
    PrioritiesSection,
    RecorderSection,
    Webhook,
)

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [body for tag, body in _FENCE.findall(text_of(page)) if tag == language]


def without_blocks(page: Path) -> str:
    return _FENCE.sub("", text_of(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(without_blocks(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> list[tuple[Path, str]]:
    return [
        (page, target)
        for page in PAGES
        for target in _LINK.findall(without_blocks(page))
        if not target.startswith(("http://", "https://", "mailto:"))
    ]


def toml_blocks() -> list[tuple[Path, str]]:
    return [(page, body) for page in PAGES for body in blocks(page, "toml")]


def called(value: object) -> str | None:
    return value.name if isinstance(value, Path) else None


def test_the_catalogue_of_events_names_exactly_those_there_are() -> None:
    described = re.findall(
        r"^### `(optimizer\.[a-z_.]+)`$", text_of(ROOT / "docs" / "events.md"), re.MULTILINE
    )

    assert sorted(described) == sorted(EventType)


@pytest.mark.parametrize(("page", "target"), links(), ids=called)
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page

    assert found.exists(), f"{page.name}: {target}"
    if anchor:
        assert anchor in anchors(found), f"{page.name}: {target}"


def test_the_readmes_example_compiles() -> None:
    [example] = blocks(ROOT / "README.md", "python")

    compile(example, "README.md", "exec")


@pytest.mark.parametrize(("page", "body"), toml_blocks(), ids=called)
def test_an_example_of_the_configuration_loads(page: Path, body: str, tmp_path: Path) -> None:
    environ = dict.fromkeys(re.findall(r"env:(\w+)", body), "a-key")
    key_file = tmp_path / "key"
    key_file.write_text("a-key\n", "utf-8")
    path = tmp_path / "fleet.toml"
    path.write_text(re.sub(r"file:[^\"]+", f"file:{key_file}", body), "utf-8")

    fleet = load_fleet(path, environ)

    assert fleet.providers, page.name


def test_every_section_of_the_configuration_has_its_keys_described() -> None:
    described = set(re.findall(r"`(\w+)`", text_of(ROOT / "docs" / "configuration.md")))

    assert keys_of_the_configuration() <= described


def keys_of_the_configuration() -> set[str]:
    return {
        name
        for section in (
            FleetSection,
            CacheSection,
            LearningSection,
            BudgetsSection,
            PrioritiesSection,
            RecorderSection,
            AlertsSection,
            Webhook,
            Provider,
            AccountDefaults,
            Account,
            Model,
            Limit,
        )
        for name in section.model_fields
    } - {"limits"}


def test_each_crash_test_that_the_protocol_names_exists_and_each_that_exists_is_named() -> None:
    page = text_of(ROOT / "docs" / "protocol.md").partition("## What happens when something dies")[2]
    named = set(re.findall(r"`(test_\w+)`", page.partition("\n## ")[0]))
    texts = [text_of(file) for file in (ROOT / "tests" / "crash").glob("test_*.py")]
    assert named == set(re.findall(r"^async def (test_\w+)", "\n".join(texts), re.MULTILINE))
