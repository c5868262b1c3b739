"""What the providers' invoices say of each call."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("calls", sa.Column("billed_usd", sa.Double))
    op.add_column("calls", sa.Column("invoice", sa.Text))
