"""A process per device, which meet in a collective, as handlers for engine=MPI and engine=DeepSpeed do."""

import os

import torch
import torch.distributed as dist

from djl_python import Input, Output

initialized = False


def initialize(properties):
    global initialized
    degree = properties["tensor_parallel_degree"]
    assert type(degree) is int
    assert int(os.environ["WORLD_SIZE"]) == degree
    dist.init_process_group("gloo")
    initialized = True


def handle(inputs: Input) -> Output:
    if not initialized:
        initialize(inputs.get_properties())
    if inputs.is_empty():
        return None
    local_rank = int(os.getenv("LOCAL_RANK", "0"))
    value = torch.tensor([float(inputs.get_as_json()["value"]) * (local_rank + 1)])
    dist.all_reduce(value)
    return Output().add_as_json({"sum": value.item()})
