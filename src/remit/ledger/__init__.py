"""The durable store: intents, approvals, outcomes and the log, in one transaction domain.

`sqlite` composes the rest. `merkle`, `checkpoint`, `receipt` and `entry` are the log's formats;
`verify` and `story` check a log offline and need neither the store nor SQLAlchemy.
"""
