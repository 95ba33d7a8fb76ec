"""OPA as what evaluates policy: a server of others, or one that Remit runs.

client ── asks rules, judges revision and version, keeps the deadline ── breaker
  │ answer ── from an HTTP answer to a value or a fault
  └ transport ── pool, one retry ── connection ── HTTP/1.1 on a socket
                     address ── where, and how it is known to be the right server
supervisor ── client + child (the process) + workspace (what it is given) ── launch (its exec)
probing ── the probes over REST
"""
