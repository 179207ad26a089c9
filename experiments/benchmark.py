"""The multi-seed benchmark: algorithms at equal budgets; takes the options of `kbopt bench`.

python experiments/benchmark.py                                      # README's table, on this machine
ray submit ray_cluster.yaml experiments/benchmark.py --tasks matmul --seeds 5 --address auto \
        --proposer llm --model openai/gpt-5 --backend modal --gpu L40S
"""

import sys

from kbopt.cli import main

README_TABLE = [
    "--tasks=quick/gelu,quick/softmax,quick/layernorm",
    "--algorithms=PS,PS_Summarizer,PS_epsNet,PS_epsNet_Summarizer",
    "--seeds=3",
    "--max-evals=12",
    "--name=readme",
]

if __name__ == "__main__":
    sys.argv[1:] = ["bench", *(sys.argv[1:] or README_TABLE)]
    main()
