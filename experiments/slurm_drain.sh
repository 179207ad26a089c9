#!/bin/bash
# Judges what searches ask for in a spool, for as long as this Slurm job lasts:
#   sbatch experiments/slurm_drain.sh DIR [options of `python -m kbopt.evaluation drain`]
# Submit it any number of times, at once or after one another; nothing is requeued. Account, partition and the
# time are options of sbatch. PYTHON is the Python that has torch, where it is not python3.
#SBATCH --job-name=kbopt-drain
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=01:00:00
#SBATCH --no-requeue
#SBATCH --signal=B:TERM@60
set -eu
if [ $# -eq 0 ]; then
    echo "usage: sbatch $0 DIR [OPTION...]" >&2
    exit 2
fi
spool=$1
shift
# What is begun is finished within the last five minutes, or left to the next job by the SIGTERM above.
minutes=55
if [ -n "${SLURM_JOB_END_TIME:-}" ]; then
    minutes=$(((SLURM_JOB_END_TIME - $(date +%s)) / 60 - 5))
fi
if [ "$minutes" -lt 1 ]; then
    minutes=1
fi
state="${TMPDIR:-/tmp}/kbopt-drain-${SLURM_JOB_ID:-$$}"
trap 'rm -rf "$state"' EXIT
"${PYTHON:-python3}" -m kbopt.evaluation drain "$spool" --minutes "$minutes" --state-dir "$state" "$@" &
drain=$!
trap 'kill -TERM "$drain"' TERM INT
code=0
wait "$drain" || code=$?
wait "$drain" || code=$?
exit "$code"
