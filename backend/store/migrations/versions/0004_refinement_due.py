"""Whether an adaptive search has yet to decide if it needs more runs"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("sweeps") as batch_op:
        batch_op.add_column(sa.Column("refinement_due", sa.Boolean(), nullable=False, server_default=sa.false()))
    sweeps = sa.table(
        "sweeps", *(sa.column(name) for name in ("intent", "state", "refinement_due")), sa.column("spec", sa.JSON)
    )
    # Until now the transaction that ended the last run decided, if the sweep was to run on.
    undecided = sa.or_(sweeps.c.intent != "run", sweeps.c.state.not_in(("finished", "failed")))
    adaptive = sweeps.c.spec["search"]["kind"].as_string() == "adaptive"
    op.execute(sa.update(sweeps).where(adaptive, undecided).values(refinement_due=True))


def downgrade() -> None:
    with op.batch_alter_table("sweeps") as batch_op:
        batch_op.drop_column("refinement_due")
