"""What a doctor's check came to, and how it looks as a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import typer

from console.watching import one_line


class Verdict(StrEnum):
    """How bad it is: `warn` works for now or could not be checked, `fail` does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


_COLOURS: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: What was looked at; short, and the same from run to run.
        found: What was seen; never a secret.
        remedy: What to do; None where all is well.
    """

    check: str
    verdict: Verdict
    found: str
    remedy: str | None = None

    @property
    def text(self) -> str:
        """What was found and what to do, as one line that cannot steer a terminal."""
        return one_line(f"{self.found}; {self.remedy}" if self.remedy else self.found)


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, remedy: str | None = None) -> Finding:
    """It works for now, or it could not be checked."""
    return Finding(check, Verdict.WARN, found, remedy)


def fail(check: str, found: str, remedy: str | None = None) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, found, remedy)


def print_findings(findings: Sequence[Finding]) -> None:
    """A line for each, in colour on a terminal."""
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        verdict = typer.style(f"{finding.verdict:<4}", fg=_COLOURS[finding.verdict])
        typer.echo(f"{verdict}  {one_line(finding.check):<{width}}  {finding.text}")
