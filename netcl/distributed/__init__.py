"""Data parallel over MPI: the same script on every device or machine, each with its share of the data."""

from netcl.distributed.metrics import reduce_metric
from netcl.distributed.parallel import DataParallel, all_reduce_gradients, broadcast_object, broadcast_parameters
from netcl.distributed.sampler import DistributedSampler
from netcl.distributed.sharded_state import gather_state, scatter_state
from netcl.distributed.sharding import Shards, clip_grad_norm, gather, shard
from netcl.distributed.world import barrier, init, local_rank, rank, rank_zero_only, world_size

__all__ = [
    "DataParallel", "DistributedSampler", "Shards", "all_reduce_gradients", "barrier", "broadcast_object",
    "broadcast_parameters", "clip_grad_norm", "gather", "gather_state", "init", "local_rank", "rank", "rank_zero_only",
    "reduce_metric", "scatter_state", "shard", "world_size",
]  # fmt: skip
