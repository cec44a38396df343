"""first schema"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('idempotency_keys',
    sa.Column('key', sa.String(), nullable=False),
    sa.Column('body_hash', sa.String(), nullable=False),
    sa.Column('resource_id', sa.String(), nullable=False),
    sa.Column('created', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('key')
    )
    op.create_table('sweeps',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('intent', sa.String(), nullable=False),
    sa.Column('workload', sa.String(), nullable=False),
    sa.Column('spec', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
    sa.Column('notes', sa.Text(), nullable=False),
    sa.Column('tags', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('created', sa.Double(), nullable=False),
    sa.Column('started', sa.Double(), nullable=True),
    sa.Column('finished', sa.Double(), nullable=True),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('sweeps', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_sweeps_created'), ['created'], unique=False)
        batch_op.create_index(batch_op.f('ix_sweeps_state'), ['state'], unique=False)
        batch_op.create_index(batch_op.f('ix_sweeps_workload'), ['workload'], unique=False)

    op.create_table('views',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('address', sa.Text(), nullable=False),
    sa.Column('created', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('workers',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('host', sa.String(), nullable=False),
    sa.Column('pid', sa.Integer(), nullable=False),
    sa.Column('device', sa.String(), nullable=False),
    sa.Column('queue', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('job_id', sa.String(), nullable=True),
    sa.Column('started', sa.Double(), nullable=False),
    sa.Column('heartbeat', sa.Double(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('jobs',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('key', sa.String(), nullable=False),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('queue', sa.String(), nullable=False),
    sa.Column('sweep_id', sa.String(), nullable=True),
    sa.Column('spec', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('max_attempts', sa.Integer(), nullable=False),
    sa.Column('owner', sa.String(), nullable=True),
    sa.Column('lease_until', sa.Double(), nullable=True),
    sa.Column('cancel', sa.Boolean(), nullable=False),
    sa.Column('pause', sa.Boolean(), nullable=False),
    sa.Column('progress', sa.Double(), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('checkpoint', sa.String(), nullable=True),
    sa.Column('checkpoint_step', sa.Integer(), nullable=False),
    sa.Column('result', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('log_tail', sa.Text(), nullable=False),
    sa.Column('created', sa.Double(), nullable=False),
    sa.Column('started', sa.Double(), nullable=True),
    sa.Column('finished', sa.Double(), nullable=True),
    sa.Column('rung', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['sweep_id'], ['sweeps.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('key')
    )
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_jobs_sweep_id'), ['sweep_id'], unique=False)
        batch_op.create_index('jobs_state', ['state'], unique=False)

    op.create_index(
        'jobs_claim',
        'jobs',
        ['queue', sa.text('priority DESC'), 'created'],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )

    op.create_table('runs',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('sweep_id', sa.String(), nullable=False),
    sa.Column('position', sa.Integer(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('diverged', sa.Boolean(), nullable=False),
    sa.Column('workload', sa.String(), nullable=False),
    sa.Column('method', sa.String(), nullable=False),
    sa.Column('rank', sa.Integer(), nullable=True),
    sa.Column('alpha', sa.Double(), nullable=True),
    sa.Column('scale', sa.Double(), nullable=True),
    sa.Column('lr', sa.Double(), nullable=False),
    sa.Column('seed', sa.Integer(), nullable=False),
    sa.Column('steps', sa.Integer(), nullable=False),
    sa.Column('configuration', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
    sa.Column('step', sa.Integer(), nullable=False),
    sa.Column('final_loss', sa.Double(), nullable=True),
    sa.Column('best_loss', sa.Double(), nullable=True),
    sa.Column('best_step', sa.Integer(), nullable=True),
    sa.Column('forgetting', sa.Double(), nullable=True),
    sa.Column('summary', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
    sa.Column('adapter', sa.String(), nullable=True),
    sa.Column('job_id', sa.String(), nullable=True),
    sa.Column('created', sa.Double(), nullable=False),
    sa.Column('started', sa.Double(), nullable=True),
    sa.Column('finished', sa.Double(), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.ForeignKeyConstraint(['sweep_id'], ['sweeps.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_runs_job_id'), ['job_id'], unique=False)
        batch_op.create_index('runs_created', ['created', 'id'], unique=False)
        batch_op.create_index('runs_sweep_position', ['sweep_id', 'position'], unique=True)
        batch_op.create_index('runs_sweep_state', ['sweep_id', 'state'], unique=False)

    op.create_table('metric_chunks',
    sa.Column('run_id', sa.String(), nullable=False),
    sa.Column('metric', sa.String(), nullable=False),
    sa.Column('chunk', sa.Integer(), nullable=False),
    sa.Column('start_step', sa.Integer(), nullable=False),
    sa.Column('stride', sa.Integer(), nullable=False),
    sa.Column('n', sa.Integer(), nullable=False),
    sa.Column('time', sa.Double(), nullable=False),
    sa.Column('token', sa.Integer(), nullable=False),
    sa.Column('data', sa.LargeBinary(), nullable=False),
    sa.Column('steps', sa.LargeBinary(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('run_id', 'metric', 'chunk')
    )
    op.create_table('probes',
    sa.Column('id', sa.String(), nullable=False),
    sa.Column('sweep_id', sa.String(), nullable=True),
    sa.Column('run_id', sa.String(), nullable=True),
    sa.Column('step', sa.Integer(), nullable=True),
    sa.Column('kind', sa.String(), nullable=False),
    sa.Column('space', sa.String(), nullable=False),
    sa.Column('state', sa.String(), nullable=False),
    sa.Column('spec', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=False),
    sa.Column('result', sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), 'postgresql'), nullable=True),
    sa.Column('error', sa.Text(), nullable=True),
    sa.Column('created', sa.Double(), nullable=False),
    sa.Column('started', sa.Double(), nullable=True),
    sa.Column('finished', sa.Double(), nullable=True),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], ondelete='CASCADE'),
    sa.ForeignKeyConstraint(['sweep_id'], ['sweeps.id'], ondelete='CASCADE'),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('probes', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_probes_run_id'), ['run_id'], unique=False)
        batch_op.create_index(batch_op.f('ix_probes_state'), ['state'], unique=False)
        batch_op.create_index(batch_op.f('ix_probes_sweep_id'), ['sweep_id'], unique=False)



def downgrade() -> None:
    with op.batch_alter_table('probes', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_probes_sweep_id'))
        batch_op.drop_index(batch_op.f('ix_probes_state'))
        batch_op.drop_index(batch_op.f('ix_probes_run_id'))

    op.drop_table('probes')
    op.drop_table('metric_chunks')
    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.drop_index('runs_sweep_state')
        batch_op.drop_index('runs_sweep_position')
        batch_op.drop_index('runs_created')
        batch_op.drop_index(batch_op.f('ix_runs_job_id'))

    op.drop_table('runs')
    with op.batch_alter_table('jobs', schema=None) as batch_op:
        batch_op.drop_index('jobs_state')
        batch_op.drop_index(batch_op.f('ix_jobs_sweep_id'))

    op.drop_table('jobs')
    op.drop_table('workers')
    op.drop_table('views')
    with op.batch_alter_table('sweeps', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_sweeps_workload'))
        batch_op.drop_index(batch_op.f('ix_sweeps_state'))
        batch_op.drop_index(batch_op.f('ix_sweeps_created'))

    op.drop_table('sweeps')
    op.drop_table('idempotency_keys')
