"""Looks for devices and compilers, in a process of its own."""

from __future__ import annotations

import os
from dataclasses import asdict

import torch

from kbopt.evaluation.transport import cuda_api
from kbopt.evaluation.transport.channel import Channel
from kbopt.leanbuild import toolchain


def survey(channel: Channel) -> None:
    """Say which CUDA devices torch finds, unless only the CPU is asked for, and which compilers there are.

    Of the wanted one its PCI address, and its name for CUDA_VISIBLE_DEVICES where it is a whole GPU.
    """
    wanted = channel.receive()["device"]
    count = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    index = int(wanted.partition(":")[2] or 0)
    arch = bus = uuid = ""
    if index < count:
        arch = "{}.{}".format(*torch.cuda.get_device_capability(index))
        if not os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
            bus = cuda_api.pci_address(cuda_api.runtime(), index)
            uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    names = [torch.cuda.get_device_name(number) for number in range(count)]
    compilers = asdict(toolchain.detect(arch=arch))
    channel.send({"cuda": names, "bus": bus, "uuid": uuid, "toolchain": compilers})
