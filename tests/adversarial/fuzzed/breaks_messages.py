"""Breaks what its process sends to the judge, in ways that follow from NUMBER, which `fuzz.py` sets."""

import json
import random
import struct
import sys

import torch

from kbopt.core import codec

NUMBER = 0
RNG = random.Random(NUMBER)
HONEST = RNG.randrange(50)
"""Messages before the first broken one, so that every stage of judging meets one."""
OFTEN = RNG.choice((0.1, 0.5, 1.0))
KEYS = "id content type ns outputs seen kernels unusable base misfits takes_weights overwrites reason".split()
WRONG = [
    None,
    True,
    False,
    -1,
    0,
    1,
    7,
    2**31,
    2**32,
    2**53,
    2**63,
    2**64,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "x",
    "x" * 70000,
    "\ud800",
    "\x1b[2J\x00",
    "float64",
    "complex64",
    "float8_e4m3fn",
    "no_dtype",
    "meta",
    "cuda:7",
    [],
    {},
    [[]] * 50,
    {"tensor": 0},
    {"tensor": -1},
    {"": None},
]


def places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def broken(message):
    message = json.loads(codec.packed(message))
    for _ in range(RNG.choice((1, 1, 1, 2, 6))):
        holder, key = RNG.choice(list(places(message)) or [(message, "id")])
        old = holder.get(key) if isinstance(holder, dict) else holder[key]
        match RNG.randrange(7):
            case 0 if isinstance(holder, dict):
                holder.pop(key, None)
            case 1 if isinstance(old, int):
                holder[key] = old + RNG.choice((-1, 1, 3, 64, 4096, 2**40, -(2**40)))
            case 2 if isinstance(old, list):
                holder[key] = old + old if RNG.random() < 0.5 else old[:-1]
            case 3:
                holder[key] = nested(RNG.choice((3, 100, 900)))
            case 4:
                inner = message.get("content")
                into = RNG.choice((message, inner if isinstance(inner, dict) else message))
                into[RNG.choice(KEYS)] = RNG.choice(WRONG)
            case _:
                holder[key] = RNG.choice(WRONG)
    return message


def install(channel):
    kind = type(channel)
    honest, sent = kind.send, [0]

    def send(self, message, fds=()):
        sent[0] += 1
        if sent[0] <= HONEST or RNG.random() > OFTEN:
            return honest(self, message, fds)
        match RNG.randrange(12):
            case 0:
                honest(self, message, fds)
                return honest(self, broken(message))
            case 1:
                raw = RNG.randbytes(RNG.choice((1, 3, 4, 8, 300)))
                self._sock.sendall(raw)
            case 2:
                self._sock.sendall(struct.pack(">I", RNG.choice((0, 1, 2**31, 2**32 - 1))))
            case 3:
                return honest(self, message, [0, 1, 2][: RNG.randrange(4)])
            case 4:
                return honest(self, {})
            case 5 if RNG.random() < 0.2:
                return self._sock.close()
        return honest(self, broken(message), fds)

    kind.send = send


def channel_of_the_judge():
    frame = sys._getframe()
    while frame is not None:
        if "channel" in frame.f_locals:
            return frame.f_locals["channel"]
        frame = frame.f_back
    raise RuntimeError("no channel in any frame")


install(channel_of_the_judge())


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x)
