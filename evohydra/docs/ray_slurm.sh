#!/bin/bash
# A Ray over the nodes of a Slurm job, and a search over it: sbatch evohydra/docs/ray_slurm.sh model=a+b budget=200
#SBATCH --job-name=evohydra
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
set -euo pipefail

port=${RAY_PORT:-6379}
cpus=${SLURM_CPUS_PER_TASK:-1}
nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')
export RAY_USAGE_STATS_ENABLED=0
# Others on the network could run code on these nodes without a token; this one is the job's own.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(python -c 'import secrets; print(secrets.token_hex(32))')}

steps=()
trap 'kill "${steps[@]}" 2>/dev/null || true; wait' EXIT
srun --nodes=1 --ntasks=1 --overlap -w "$head" \
    ray start --head --node-ip-address="$ip" --port="$port" --num-cpus="$cpus" --include-dashboard=false --block &
steps+=($!)
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap -w "$node" ray start --address="$ip:$port" --num-cpus="$cpus" --block &
    steps+=($!)
done

until ray status --address="$ip:$port" >/dev/null 2>&1; do  # Slurm's time limit ends it where no head comes
    kill -0 "${steps[0]}" || { echo "Ray's head has ended, see above" >&2; exit 1; }
    sleep 2
done
# On the first node, where this script runs. Workers are added while the other nodes join.
python -m evohydra executor=ray executor.address="$ip:$port" device="${EVOHYDRA_DEVICE:-cuda}" "$@"
