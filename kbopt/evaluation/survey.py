"""The process that looks for devices and compilers."""

from __future__ import annotations

import os

import torch

from kbopt.evaluation.messages import Survey, Surveyed
from kbopt.evaluation.transport import cuda_api
from kbopt.evaluation.transport.channel import Channel
from kbopt.leanbuild import toolchain


def survey(channel: Channel) -> None:
    """Answer a `Survey` with the devices and compilers of this machine."""
    job: Survey = channel.receive(Survey)
    wanted = job.device
    count = torch.cuda.device_count() if wanted != "cpu" and torch.cuda.is_available() else 0
    index = int(wanted.partition(":")[2] or 0)
    arch = bus = uuid = ""
    if index < count:
        arch = "{}.{}".format(*torch.cuda.get_device_capability(index))
        if not os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
            bus = cuda_api.pci_address(cuda_api.runtime(), index)
            uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    seen = Surveyed(
        cuda=tuple(torch.cuda.get_device_name(number) for number in range(count)),
        bus=bus,
        uuid=uuid,
        toolchain=toolchain.detect(arch=arch),
    )
    channel.send(seen)
