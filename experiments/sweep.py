"""A sweep on the cluster that this script is submitted to; takes the options of `kbopt sweep`.

    ray submit ray_cluster.yaml experiments/sweep.py --tasks matmul --algorithms PS,PS_epsNet_Summarizer \
        --seeds 5 --max-evals 50 --backend modal --gpu L40S

Submitting it again attaches to the sweep that is running.
"""

import sys

from kbopt.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["sweep", "--address", "auto"]
    main()
