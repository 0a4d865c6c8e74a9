"""The processes that train together: this one alone, or those that torchrun started, on one machine or several."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric

from edgecnn.train.options import TrainOptions


def launch(device: torch.device, options: TrainOptions) -> Fabric:
    """Joins the processes that torchrun started (`torchrun --nproc-per-node 2 -m edgecnn finetune …`), if it did."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    alone = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(
        accelerator=device.type,
        devices=here if together else alone,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")) if together else 1,
        strategy="ddp" if together else "auto",
        precision="bf16-mixed" if options.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def sum_gradients(fabric: Fabric, optimizer: torch.optim.Optimizer) -> None:
    """Adds up the gradients of all processes, in one exchange."""
    if fabric.world_size == 1:
        return
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.requires_grad and parameter.grad is not None
    ]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    total = fabric.all_reduce(flat, reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    start = 0
    for gradient in gradients:
        gradient.copy_(total[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
