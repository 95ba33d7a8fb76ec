"""What a probe job looks at from inside of a run: one shell script, which ends in two small bombs.

Only what every base has to have is used: a POSIX shell, `unshare`, `sleep` and `dd`. Each wall that
was seen to stand is said by its name, each other finding as `name=value`; what is not said does
not hold.
"""

from __future__ import annotations

TMP_MB = 4
MEMORY_MB = 32
PIDS = 4

_SAY = r"""
state_dir=$1; base=$2; kernel=$3; egress=$4
say() { echo "$1"; }
"""
"""What is given: a directory that must not be seen, the kind of base, the host's kernel, and 1 if
the run has a way out."""

_NETWORK = r"""
for each in tcp tcp6 udp udp6; do
  [ -e /proc/net/$each ] && while read -r _ local _ state _; do
    case $each$state in tcp*0A | udp*07) echo "listens=$local" ;; esac
  done </proc/net/$each
done
others=0; routes=-1
while read -r name _; do case $name in lo:*) ;; *:*) others=1 ;; esac; done </proc/net/dev
[ -e /proc/net/route ] && while read -r _; do routes=$((routes + 1)); done </proc/net/route
[ $others = 0 ] && [ $routes -le 0 ] && say network_none
"""

_FILES = r"""
written=0
for each in / /usr /etc /run /mnt /proc $devices; do
  [ -d $each ] && ( : >$each/remit-probe ) 2>/dev/null && written=1
done
[ $written = 0 ] && say read_only_base
[ ! -e "$state_dir" ] && [ ! -e $forbidden ] && [ ! -e /dev/kmsg ] &&
  { [ $base != host ] || { [ ! -e /root ] && [ ! -e /home ] && [ ! -e /etc/shadow ]; }; } &&
  say host_files_hidden
others=0
for each in /proc/$$/fd/*; do
  case ${each##*/} in 0 | 1 | 2) ;; *) [ -e "$each" ] && others=1 ;; esac
done
[ $others = 0 ] && say no_descriptors
"""

SANDBOX = (
    _SAY
    + _NETWORK
    + "devices=/dev; forbidden=/sys/kernel"
    + _FILES
    + r"""
read -r inside _ count </proc/self/uid_map
[ "$inside" = 1000 ] && [ "$count" = 1 ] && say user_namespace
processes=0
for each in /proc/[0-9]*; do processes=$((processes + 1)); done
[ $$ -lt 10 ] && [ $processes -lt 8 ] && say pid_namespace
shared=0
for each in shm sem msg; do
  [ -e /proc/sysvipc/$each ] && { read -r _ && read -r _ && shared=1; } </proc/sysvipc/$each
done
read -r name </proc/sys/kernel/hostname
[ $shared = 0 ] && [ "$name" = job ] && say ipc_and_uts_namespaces
environment=
while read -r line || [ -n "$line" ]; do environment=$environment$line; done </proc/1/environ
[ -z "$environment" ] && say no_environment_leak
command -v unshare >/dev/null && { unshare -U true 2>/dev/null || say no_nested_userns; }
others=0
for each in /dev/* /dev/.[!.]*; do
  case ${each##*/} in
    null | zero | full | random | urandom | fd | stdin | stdout | stderr | shm | '.[!.]*') ;;
    *) others=1 ;;
  esac
done
[ $others = 0 ] && say devices_reduced
found=0
while read -r name value; do
  case "$name $value" in
    "CapInh: 0000000000000000" | "CapPrm: 0000000000000000" | "CapEff: 0000000000000000" | \
    "CapBnd: 0000000000000000" | "CapAmb: 0000000000000000" | "NoNewPrivs: 1")
      found=$((found + 1)) ;;
    "Seccomp: 2") say filtered_calls ;;
  esac
done </proc/self/status
[ $found = 6 ] && say no_privileges
sized=0
while read -r _ point kind options _; do
  case "$point $kind $options," in
    "/tmp tmpfs "*",size=4096k,"* | "/job tmpfs "*",size=4096k,"*) sized=$((sized + 1)) ;;
  esac
done </proc/mounts
[ $sized = 2 ] && say sized_tmpfs
"""
)

GVISOR = (
    _SAY
    + _NETWORK
    + "devices=; forbidden=/gv"
    + _FILES
    + r"""
read -r version </proc/version
case $version in *"$kernel"*) ;; *Linux*) say own_kernel ;; esac
processes=0
for each in /proc/[0-9]*; do processes=$((processes + 1)); done
[ $processes -lt 4 ] && say pid_namespace
found=0
while read -r name value; do
  case "$name $value" in
    "CapInh: 0000000000000000" | "CapPrm: 0000000000000000" | "CapEff: 0000000000000000" | \
    "CapBnd: 0000000000000000") found=$((found + 1)) ;;
  esac
done </proc/self/status
[ $found = 4 ] && say no_privileges
sized=0
df -P /tmp /job | { while read -r _ blocks _; do
  [ "$blocks" = 4096 ] && sized=$((sized + 1))
done; [ $sized = 2 ]; } && say sized_tmpfs
[ "$egress" = 1 ] && command -v bash >/dev/null &&
  bash -c ': </dev/tcp/127.0.0.1/3128' 2>/dev/null && say way_out
"""
)

BOMBS = r"""
( for each in 1 2 3 4 5 6; do sleep 0.1 & done ) 2>/dev/null
exec dd if=/dev/zero of=/dev/null bs=64M count=1
"""
"""More processes than may be, then more memory; harmless where neither is limited."""

GVISOR_BOMB = r"""
( for each in 0 1 2 3 4 5 6 7 8 9 a b c d e f 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f; do
  sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 &
done ) 2>/dev/null
"""
"""More processes than a run and gVisor's own may be together; they end with the first."""

GVISOR_MEMORY_BOMB = "exec dd if=/dev/zero of=/dev/null bs=256M count=1"

SLOW_DISK_MB_PER_S = 1
SLOW_DISK_S = 0.1
SLOW_DISK = r"""
for each in 1 2 3 4; do
  dd if="$(command -v dd)" of=/dev/null bs=64k count=1 iflag=direct || exit 1
done
"""
"""A quarter of a second at a MiB a second, some milliseconds where nothing holds it back."""
