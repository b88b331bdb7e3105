"""mergekit's side of merge_speed.py, under a Python that has mergekit: times one merge for each line of JSON."""

import json
import sys
import time

import torch
from mergekit.merge_methods.api import merge_state_dicts
from safetensors.torch import load_file


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    clock = getattr(time, sys.argv[2])
    models = {path: load_file(path) for path in sys.argv[3:]}
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        chosen = {path: models[path] for path in job["models"]}
        start = clock()
        with torch.inference_mode():
            merge_state_dicts(chosen, job["method"], parameters=job["parameters"], base=job["base"])
        print(clock() - start, flush=True)


if __name__ == "__main__":
    main()
