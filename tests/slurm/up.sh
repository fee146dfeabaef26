#!/usr/bin/env bash
# A real SLURM of two nodes, n1 and n2, on this one machine: munged, slurmctld and two slurmd, as root.
#   tests/slurm/up.sh FOLDER       # all state, logs and sockets go there; then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm/down.sh FOLDER
# It needs Debian's packages slurm-wlm and munge. Where nothing knows the names n1 and n2, /etc/hosts gets a line, which
# down.sh takes out again: torch looks up the node of rank 0.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mkdir -p "$1" && cd "$1" && pwd)
host=$(hostname -s)
user=$(id -un)
for program in munged slurmctld slurmd; do
  PATH=$PATH:/usr/sbin command -v $program >/dev/null || { echo "no $program: apt-get install slurm-wlm munge" >&2; exit 1; }
done
export PATH=$PATH:/usr/sbin
getent hosts n1 n2 >/dev/null || echo "127.0.0.1 n1 n2 # facelm's tests/slurm/up.sh" >>/etc/hosts

# The nodes have more CPUs and GPUs than the machine, so that the scripts of docs/running.md fit.
cat >"$dir/slurm.conf" <<CONF
ClusterName=two
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17010
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
SlurmdTimeout=10
MpiDefault=none
JobRequeue=1
KillWait=20
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17011 CPUs=64 RealMemory=100000 Gres=gpu:8
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17012 CPUs=64 RealMemory=100000 Gres=gpu:8
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
PartitionName=preemptible Nodes=n1,n2 MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
CONF
touch "$dir"/gpu{0..7}
echo "NodeName=n[1-2] Name=gpu File=$dir/gpu[0-7]" >"$dir/gres.conf"

[ -s "$dir/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munged.log" --seed-file="$dir/munged.seed" 2>>"$dir/munged.log"
export SLURM_CONF=$dir/slurm.conf
slurmctld
sleep 1
slurmd -N n1
slurmd -N n2
for _ in $(seq 20); do
  [ "$(sinfo -h -p gpu -N -t idle -o %N | wc -l)" = 2 ] && exit 0
  sleep 0.5
done
sinfo -N -l >&2
"$here/down.sh" "$dir"
exit 1
