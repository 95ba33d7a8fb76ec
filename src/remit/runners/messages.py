"""What gateway and spawner say to each other: each message is one JSON object and descriptors.

Framing is `wire`'s. All ids match `mounts.IDENTIFIER`. The spawner checks every field again
(`request`), and answers what it cannot do with `refused`; it never believes a path or a number.

From the gateway, as `op`:

    hello      gateway, bwrap, uid_base, max_runs; state (directory or null), max_slots (0),
               runsc {path, platform} (or null)
    provision  lease, argv, env [[name, value]...], mounts [[name, source, writable]...],
               files [path...], collect [path...], limits {wall_s, memory_mb, pids, cpu_percent,
               tmp_mb, open_files}, deadline_ms;
               profile {runner, base {kind, path, digest}, mounts [[...]...], io_mb_per_s},
               egress (bool), handed (bool: `start` will bring credential files)
               descriptors: stdin (a sealed memfd or /dev/null), stdout, stderr (writing ends of
               pipes), one for each file, [trust if egress]; with dialogue (bool) without stdin
               and stdout: the spawner makes them
    park       lease (the slot's id), kind "shell" | "python", prefix (python: the command up to
               its options, `parked.python_form(...).prefix`; shell: []), limits (the class's),
               profile, egress, deadline_ms (its greatest age)
               descriptors: stdout, stderr, [trust if egress]
    claim      slot, lease (the run's id), argv, env, files, collect, limits, deadline_ms;
               descriptors: stdin (a memfd or /dev/null), one for each file
    start      lease; credentials [name...]
               descriptors: one for each credential
    stop       lease, grace_s
    kill       lease, why
    destroy    lease (a run or an unclaimed slot)
    sweep      live [lease...], leases [lease...], roots [cgroup directory...]

From the spawner, as `ev`:

    ready        mode, io (bool: disks can be limited), roots, missing, own_uid (bool),
                 uids "host" | "subuid" | "one",
                 images (bool: base images can be mounted here), image_fault (why not, or null),
                 landlock (of "network" and "scope", those seen to hold)
    piped        lease; descriptors: the writing end of its standard input and the reading end of
                 its standard output. Of a run with dialogue, before anything of it is started
    provisioned  lease; descriptor if egress: the listening socket of 127.0.0.1:3128 inside
    parked       lease; descriptor as for `provisioned`
    claimed      lease, slot: from here on the cell answers to `lease`
    started      lease
    closed       lease: no process of a command that is spoken with has its standard output any more
    ended        lease, slot (or null), began, why, code, signal, wall_us, cpu_us, peak_bytes,
                 oom_kills, pids_refused, throttled, files [[path, found]...], evidence {...}
                 descriptors: one for each file
    destroyed    lease and the fields of an evidence: of what this spawner did not make
    swept        found [evidence with lease...]
    refused      lease, op, fault (for a claim, lease is the run's; its slot is then being ended)

An evidence: processes_left, cgroup_removed, mounts_left, directory_removed, took_us, and
seen_us {processes, cgroup, mounts, directory}: when each was first seen gone, in microseconds
since the end (since the sweep began, for what a sweep found); null for what is not gone.

A base is checked when it is first wanted; `provision` and `park` of it are answered after that.
Images are mounted in the spawner's own mount namespace and leave nothing to sweep.

A claim keeps the slot's `tmp_mb`, mounts, profile and egress; `limits.tmp_mb` has to be equal,
`limits.open_files` at most the slot's. Its control group keeps the slot's name. Imported by both
ends: standard library only.
"""

from __future__ import annotations

PIPED = ("stdin", "stdout")
"""The descriptors of `piped`, in their order."""

EGRESS_PORT = 3128
"""Where the proxy listens on the loopback of a run's own network namespace."""

REMIT_DIR = "/run/remit"
TRUST_FILE = f"{REMIT_DIR}/ca.pem"
CREDENTIALS_DIR = f"{REMIT_DIR}/credentials"
