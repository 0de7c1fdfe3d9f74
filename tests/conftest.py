"""Set before torch, MuJoCo and the Hugging Face libraries are imported: no screen, no network, few threads."""

import os
import sys

if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also what torch takes as its number of threads
os.environ.setdefault("LP_NUM_THREADS", "1")  # of Mesa's software renderer: tests run in several processes
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
