"""`optimizer report`: a period by default, and what else can be reported, each a command of its own."""

from typing import Final

import typer
from typer.core import TyperGroup

from console.reconciling import reconcile_command
from console.report import report_command
from console.report_errors import errors_command

_PERIOD: Final = "period"


class _PeriodByDefault(TyperGroup):
    """A group that takes a word which names none of its commands for the period's: `optimizer report day`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Puts the command's name before the words that are meant for it."""
        if not args or args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = [_PERIOD, *args]
        return super().parse_args(ctx, args)


reports_app: Final = typer.Typer(
    cls=_PeriodByDefault,
    help="""What the books say, for people and their spreadsheets.

        optimizer report                        the last week, in Markdown
        optimizer report day
        optimizer report month --format csv > month.csv
        optimizer report errors                 what models lack, and in which errors requests ended
        optimizer report reconcile groq.csv     an invoice against the ledger, call by call

    A period is what `optimizer report` takes where nothing else is named.
    """,
)
reports_app.command(_PERIOD)(report_command)
reports_app.command("errors")(errors_command)
reports_app.command("reconcile")(reconcile_command)
